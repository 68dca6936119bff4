"""A replica takes over that had not got the last moments: the Redis that everybody comes back to is the one of a second ago.

Redis replicates after it has answered, so a failover loses what the replica had not received, and whatever was acknowledged for
it. Workers have it in memory and write it back. Only a worker that dies in the same second takes it along: that is two faults.
"""

from __future__ import annotations

import copy
from typing import Any

import sim_cluster
from sim_checks import Journal
from sim_clients import Client, Student
from sim_runs import Seen, run_cluster
from sim_world import Process, World

from adapters.ec2_cluster.broker import Returned
from adapters.ec2_cluster.redis_client import RedisError

_REPLICATED = ("records", "owners", "deadlines", "exams", "locks")
_AWAY_SECONDS = (0.05, 0.6)
"""How long a worker takes until it has found the new primary: each one another time."""


class Broker(sim_cluster.Broker):
    """A way to Redis that ends with the primary: what was under way fails, and so does all until there is a new connection."""

    is_away = False
    is_anew = True
    connections = 1

    async def _step(self) -> bool:
        if self.is_away:
            raise RedisError("not connected")
        connection = self.connections
        is_lost = await super()._step()
        if self.is_away or self.connections != connection:
            raise RedisError("the connection was lost")
        return is_lost

    def lose(self, seconds: float) -> None:
        """For so long; then the worker hears that it is connected again."""
        self.is_away = True
        self.node.loop.call_later(seconds, self._come_back)
        self.node.worker.subscriber.go_down(seconds)

    def _come_back(self) -> None:
        self.is_away = False
        self.connections += 1
        self._on_connected(Returned(lambda _: True, frozenset(("second",)), self.is_anew))


class Failover(sim_cluster.Cluster):
    """A cluster whose Redis fails over once, 0.3 or 1 s of writes behind."""

    broker = Broker

    def __init__(self, world: World, redis: type[sim_cluster.Redis], *, faults: bool) -> None:
        super().__init__(world, redis, faults=faults)
        self.failed_over_at = 0.0
        self.died_at: list[float] = []
        self.students: set[Student] = set()
        world.after(world.random.uniform(8, 36), self._replicate, world.random.choice((0.3, 1.0)))

    def _start_node(self) -> None:
        super()._start_node()
        self.nodes[-1].worker._was_connected = True

    def crash(self, process: Process) -> None:
        super().crash(process)
        self.died_at.append(self.world.now)

    def connect(self, client: Client) -> None:
        super().connect(client)
        if isinstance(client, Student):
            self.students.add(client)

    def _change_worker(self, student: Student) -> None:
        """A page comes back on another line, and the end of the former one is heard of late: its worker goes on deciding."""
        line = student.connection
        if student.here and line is not None:
            student.connection = None
            self.world.after(0.02, student._connect)
            self.world.after(self.world.random.uniform(0.1, 25), line._gone, None)

    def _replicate(self, behind: float) -> None:
        for student in sorted(self.students, key=lambda student: student.key):
            self.world.after(self.world.random.uniform(0, behind), self._change_worker, student)
        kept: dict[str, Any] = {name: copy.copy(getattr(self.redis, name)) for name in _REPLICATED}
        inboxes = {key: list(waiting) for key, waiting in self.redis.inboxes.items()}
        self.world.after(behind, self._fail_over, kept, inboxes, dict(self.redis.journal.lines))

    def _fail_over(self, kept: dict[str, Any], inboxes: dict, lines: dict) -> None:
        self.failed_over_at = self.world.now
        for name, value in kept.items():
            setattr(self.redis, name, value)
        self.redis.inboxes.clear()
        self.redis.inboxes.update(inboxes)
        self.redis.journal = Journal()
        self.redis.journal.lines = lines
        for node in self.nodes:
            node.worker.broker.lose(self.world.random.uniform(*_AWAY_SECONDS))


class _OldServer(Broker):
    is_anew = False


class Hasty(Failover):
    """The same with workers that do as after any loss of a connection: what is decided meanwhile is saved at once."""

    broker = _OldServer


class Forgetful(Failover):
    """The same with workers that write nothing back."""

    def _fail_over(self, kept: dict[str, Any], inboxes: dict, lines: dict) -> None:
        for node in self.nodes:
            node.worker.broker._on_connected = lambda _: None
        super()._fail_over(kept, inboxes, lines)


def run_failover(seed: int, *, cluster: type[Failover] = Failover) -> Seen:
    """A run without any other fault; raises `Violation`.

    What is acknowledged between the failover and the return of the workers is not compared with Redis: it is a repetition of what
    was acknowledged before, and the worker that has it is about to write it back.
    In the lost moments pages change workers, so that claims are among what is lost: of two workers that think that they own a
    participant, the former one must not journal anything.
    """
    check, sim_cluster.check_ack = sim_cluster.check_ack, lambda *args, **named: None
    real, sim_cluster.Cluster = sim_cluster.Cluster, cluster  # type: ignore[misc]
    try:
        return run_cluster(3 * seed)
    finally:
        sim_cluster.check_ack, sim_cluster.Cluster = check, real  # type: ignore[misc]
