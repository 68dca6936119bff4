"""The cluster in a simulated world: real workers, shells and hubs over a Redis of atomic steps, behind a load balancer.

A worker process dies as a whole, with its memory and its sockets, and another one takes its place; it may hold still for longer
than its lease runs; Redis may not answer, with or without having done what it was asked; a subscriber may miss publications. What
stands in for Redis does in each step what the script of that name does.
"""

from __future__ import annotations

import asyncio
import json
import types
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sim_checks import Journal, check_ack
from sim_clients import Client, Student
from sim_world import Loop, Process, World

from adapters.ec2_cluster import worker as worker_module
from adapters.ec2_cluster.broker import Appended, Claimed, Returned, Save, Waiting
from adapters.ec2_cluster.config import ClusterSettings
from adapters.ec2_cluster.keys import all_partitions, exam_keys, partition_keys
from adapters.ec2_cluster.redis_client import RedisError
from adapters.ec2_cluster.worker import Worker
from core import exam as exam_record
from core.events import DeadlineReached, ParticipantEvent
from core.exam import Exam
from core.incidents import SilenceCounts
from core.journal import Entry
from core.participant import ExamKey, Participant, ParticipantKey

LEASE_SECONDS = 3.0
SETTINGS = ClusterSettings(token_secrets={"": "s" * 32}, redis_url="redis://nowhere")


class Redis:
    """The state of the server. Its methods take no time: each is one atomic step."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.records: dict[ParticipantKey, Participant] = {}
        self.owners: dict[ParticipantKey, tuple[str, int]] = {}
        self.deadlines: dict[ParticipantKey, float] = {}
        self.inboxes: defaultdict[ParticipantKey, list[Waiting]] = defaultdict(list)
        self.exams: dict[ExamKey, Exam] = {}
        self.counts: dict[str, tuple[float, SilenceCounts]] = {}
        self.locks: dict[str, float] = {}
        self.subscribers: list[Subscriber] = []
        self.journal = Journal()
        self.refused = 0

    def publish(self, channel: bytes, payload: bytes) -> None:
        for subscriber in self.subscribers:
            subscriber.deliver(channel, payload)

    def lock(self, name: str, seconds: float) -> bool:
        """`SET name NX PX`."""
        if self.locks.get(name, 0.0) > self.world.now:
            return False
        self.locks[name] = self.world.now + seconds
        return True

    def store(self, process: Process, save: Save) -> None:
        """What one participant's save changes, in one step."""
        key = save.record.key
        self.records[key] = save.record
        self.set_deadline(key, save.record.check_at)
        self.journal.add(save.entries)

    def set_deadline(self, key: ParticipantKey, at: float | None) -> None:
        if at is None:
            self.deadlines.pop(key, None)
        else:
            self.deadlines[key] = at


class Broker:
    """One worker's way to Redis: `RedisBroker` without the wire."""

    node_of = None

    def __init__(self, node: Node, on_connected: Callable[[Returned], None]) -> None:
        self.node = node
        self.redis = node.cluster.redis
        self.world = node.cluster.world
        self.name = node.process.name
        self.client = types.SimpleNamespace(is_connected=True)
        self._on_connected = on_connected
        self._published = 0

    async def _step(self) -> bool:
        """Until Redis has the command. Whether the answer will be lost; raises if the command is."""
        world = self.world
        await world.aio(self.node.process)
        dice = world.random.random()
        share = self.node.cluster.error_share
        if dice < share:
            self.node.loop.call_later(0.1, self._on_connected, Returned(lambda _: True, frozenset(("first",)), False))
            if dice < share / 2:
                raise RedisError("not connected")
            return True
        if dice > 1 - self.node.cluster.stall_share:
            process = self.node.process
            process.stalls_at = world.now
            process.stalled_until = world.now + world.random.uniform(0.5, 4.5)
        return False

    @staticmethod
    def _answer(is_lost: bool) -> None:
        if is_lost:
            raise RedisError("the answer was lost")

    async def claim(self, key: ParticipantKey, worker: str) -> Claimed:
        is_lost = await self._step()
        previous, epoch = self.redis.owners.get(key, (None, 0))
        self.redis.owners[key] = (worker, epoch + 1)
        waiting = tuple(self.redis.inboxes[key])
        claimed = Claimed(self.redis.records.get(key), epoch + 1, previous, self.redis.exams.get(key.exam), waiting)
        self._answer(is_lost)
        return claimed

    async def save(self, worker: str, saves: dict[ExamKey, list[Save]]) -> dict[ExamKey, list[bool]]:
        published = {exam: self._number() for exam, batch in saves.items() if any(s.view or s.frames for s in batch)}
        is_lost = await self._step()
        results = {exam: [self._save(worker, save) for save in batch] for exam, batch in saves.items()}
        for exam, batch in saves.items():
            accepted = [save for save, saved in zip(batch, results[exam], strict=True) if saved]
            views = [save.view for save in accepted if save.view]
            frames = [frame for save in accepted for frame in save.frames]
            if views or frames:
                self._publish(exam, published[exam], b",".join(views), frames)
        self._answer(is_lost)
        return results

    def _save(self, worker: str, save: Save) -> bool:
        redis, key = self.redis, save.record.key
        owner, epoch = redis.owners.get(key, (worker, save.epoch))
        if owner != worker if epoch == save.epoch else epoch > save.epoch:
            redis.refused += 1
            return False
        redis.owners[key] = (worker, save.epoch)
        redis.store(self.node.process, save)
        if save.inbox_decided is not None:
            redis.inboxes[key] = [w for w in redis.inboxes[key] if w.number > save.inbox_decided]
        return True

    def _number(self) -> int:
        self._published += 1
        return self._published

    def _publish(self, exam: ExamKey, number: int, views: bytes, frames: Sequence[bytes]) -> None:
        payload = b"\n".join((f"{self.name} {number}".encode(), views, *frames))
        self.redis.publish(exam_keys(exam).channel, payload)

    async def append(
        self, key: ParticipantKey, added: Sequence[ParticipantEvent], *, must_exist: bool = False
    ) -> Appended:
        is_lost = await self._step()
        if must_exist and key not in self.redis.records:
            return Appended(None, False)
        inbox = self.redis.inboxes[key]
        for event in added:
            number = max(int(self.world.now * 1e6), inbox[-1].number + 1 if inbox else 0)
            inbox.append(Waiting(number, event))
        owner = self.redis.owners.get(key, (None, 0))[0]
        if owner is not None:
            self._to_worker(owner, key.exam, b"n" + exam_keys(key.exam).member(key.student_id).encode())
        self._answer(is_lost)
        return Appended(owner, True)

    async def inbox(self, key: ParticipantKey) -> list[Waiting]:
        self._answer(await self._step())
        return list(self.redis.inboxes[key])

    async def load_exam(self, key: ExamKey) -> Exam | None:
        self._answer(await self._step())
        return self.redis.exams.get(key)

    async def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry]) -> bool:
        is_lost = await self._step()
        stored = self.redis.exams.get(after.key)
        saved = (stored and stored.version) == (before and before.version)
        if saved:
            self.redis.exams[after.key] = after
            self.redis.journal.add(entries)
            self.redis.publish(partition_keys(exam_keys(after.key).tag).control, exam_record.encode(after))
        self._answer(is_lost)
        return saved

    async def keep(self, key: ExamKey, seconds: int | None) -> None:
        await self._step()

    async def participants(self, key: ExamKey) -> list[Participant]:
        self._answer(await self._step())
        return list(self.redis.records.values())

    async def student_ids(self, key: ExamKey) -> list[str]:
        self._answer(await self._step())
        return [key.student_id for key in self.redis.records]

    async def is_alive(self, worker: str) -> bool:
        if worker == self.name:
            return True
        self._answer(await self._step())
        return self.node.cluster.lease_runs(worker)

    async def overdue(self, now: float) -> list[tuple[ParticipantKey, str | None]]:
        self._answer(await self._step())
        redis = self.redis
        keys = {key for key, at in redis.deadlines.items() if at <= now} | {
            key for key, i in redis.inboxes.items() if i
        }
        return [(key, redis.owners.get(key, (None, 0))[0]) for key in sorted(keys)]

    async def publish(self, key: ExamKey, frames: Sequence[bytes]) -> None:
        number = self._number()
        is_lost = await self._step()
        self._publish(key, number, b"", frames)
        self._answer(is_lost)

    async def to_worker(self, worker: str, key: ExamKey, message: bytes) -> None:
        await self._step()
        self._to_worker(worker, key, message)

    def _to_worker(self, worker: str, key: ExamKey, message: bytes) -> None:
        self.redis.publish(partition_keys(exam_keys(key).tag).worker(worker), message)

    async def rejournal(self, entries: dict[ExamKey, list[Entry]]) -> None:
        await self._step()
        self.redis.journal.add(entry for found in entries.values() for entry in found)

    async def revocations(self) -> dict[bytes, bytes]:
        await self._step()
        return {}

    async def restore_revocations(self, known: Sequence[tuple[bytes, float]]) -> None:
        await self._step()

    async def memory_seconds(self) -> float:
        await self._step()
        return 3600.0

    async def others_lack(self, lives: frozenset[str]) -> bool:
        self._answer(await self._step())
        alive = [node for name, node in self.node.cluster.all.items() if self.node.cluster.lease_runs(name)]
        return any(not lives.issubset(node.worker._written_back) for node in alive)

    async def journal_behind(self) -> float | None:
        await self._step()
        return None

    async def move(self) -> None:
        await self._step()

    async def shown(self, key: ExamKey) -> list:
        return []

    async def is_shown(self, key: ParticipantKey) -> bool:
        return False

    async def forward(self, key: ParticipantKey, event: ParticipantEvent) -> None:
        raise AssertionError("nobody's home is elsewhere")

    async def count_silences(self, key: ExamKey, counts: SilenceCounts) -> SilenceCounts | None:
        await self._step()
        now = self.world.now
        self.redis.counts[self.name] = (now, counts)
        if not self.redis.lock("sweep", 9):
            return None
        return sum((c for at, c in self.redis.counts.values() if now - at <= 15), SilenceCounts())

    async def take_look(self, seconds: float) -> bool:
        await self._step()
        return self.redis.lock("look", seconds)

    async def renew_lease(self) -> None:
        """A worker's lease runs while it does: see `Cluster.lease_runs`."""

    def subscriber(self, on_message: Callable[[bytes, bytes], None], on_gap: Callable[[], None]) -> Subscriber:
        return Subscriber(self.node, on_message, on_gap)


class Subscriber:
    """One worker's subscriptions: publications arrive in order, or a gap is told."""

    is_healthy = True

    def __init__(self, node: Node, on_message: Callable[[bytes, bytes], None], on_gap: Callable[[], None]) -> None:
        self.node = node
        self.channels: set[bytes] = set()
        self.is_down = False
        self.arrives_at = 0.0
        self._on_message = on_message
        self._on_gap = on_gap
        node.cluster.redis.subscribers.append(self)

    async def subscribe(self, *channels: bytes) -> None:
        await self.node.cluster.world.aio(self.node.process)
        self.channels.update(channels)

    async def unsubscribe(self, *channels: bytes) -> None:
        self.channels.difference_update(channels)

    def deliver(self, channel: bytes, payload: bytes) -> None:
        if channel in self.channels and not self.is_down:
            world = self.node.cluster.world
            self.arrives_at = max(self.arrives_at, world.now + world.latency())
            self.node.loop.call_at(self.arrives_at, self._on_message, channel, payload)

    def go_down(self, seconds: float) -> None:
        """Its connection breaks; when it is back, what was published meanwhile is lost."""
        self.is_down = True
        self.node.loop.call_later(seconds, self._come_back)

    def _come_back(self) -> None:
        self.is_down = False
        self._on_gap()


class Socket:
    """A connection: what the worker holds, and the client's end of it."""

    is_slow = False
    buffered_bytes = 0

    def __init__(self, node: Node, client: Client, number: int) -> None:
        self.node = node
        self.client = client
        self.id = str(number)
        self.principal = worker_module._Client(client.principal)
        self.connected_at = 0.0
        self.is_open = True
        self.end = ClientEnd(self)
        self.sends_at = 0.0

    def send(self, payload: bytes) -> None:
        if not self.is_open:
            return
        world = self.node.cluster.world
        read = json.loads(payload)
        if read["action"] == "ack" and isinstance(self.client, Student):
            check_ack(
                self.client, self.node.cluster.redis.records.get(self.client.key), read["data"], world_now=world.now
            )
        self.sends_at = max(self.sends_at, world.now + world.latency())
        world.at(self.sends_at, self._deliver, read["action"], read["data"])
        if world.chance(0.02):
            world.after(100 * world.random.random(), self._deliver, read["action"], read["data"])

    def _deliver(self, action: str, data: dict) -> None:
        if self.is_open:
            self.client.heard(self.end, action, data)

    def close(self, code: int, reason: str) -> None:
        """The worker hangs up."""
        self.gone(code, by_us=True)

    def gone(self, code: int, *, by_us: bool) -> None:
        if not self.is_open:
            return
        self.is_open = False
        world = self.node.cluster.world
        world.after(world.latency(), self.client.lost, self.end)
        self.node.loop.call_soon(self.node.worker.closed, self, code, "", by_us)


class ClientEnd:
    """The client's end of a connection."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.arrived_at = 0.0

    def send(self, text: str) -> None:
        world = self.socket.node.cluster.world
        self.arrived_at = max(self.arrived_at, world.now + world.latency())
        self.socket.node.loop.call_at(self.arrived_at, self._arrive, text.encode())

    def _arrive(self, payload: bytes) -> None:
        if self.socket.is_open:
            self.socket.node.worker.received(self.socket, payload)

    def close(self, code: int | None) -> None:
        """The client hangs up, or its line breaks (None), of which the server may hear late."""
        world = self.socket.node.cluster.world
        late = 25 * world.random.random() if code is None and world.chance(0.4) else 0.0
        world.at(max(self.arrived_at, world.now + late), self._gone, code)

    def _gone(self, code: int | None) -> None:
        self.socket.gone(1006 if code is None else code, by_us=False)


class Node:
    """A worker process."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.process = Process(name)
        self.loop = Loop(cluster.world, self.process)
        self.sockets: list[Socket] = []
        asyncio._set_running_loop(self.loop)
        try:
            self.worker = cluster.build(self)
        finally:
            asyncio._set_running_loop(cluster.loop)
        partitions = all_partitions()
        self.worker.subscriber.channels.update(partition.worker(name) for partition in partitions)
        self.worker.subscriber.channels.update(partition.control for partition in partitions)
        dice = cluster.world.random
        self._every(worker_module._LOOK_PERIOD_SECONDS, dice.random(), Worker._look)
        self._every(worker_module._SWEEP_PERIOD_SECONDS, dice.random(), Worker._sweep)
        self.loop.call_later(0.1, self._check_deadlines)

    def _every(self, seconds: float, first: float, duty: Callable[[Worker], Coroutine[Any, None, None]]) -> None:
        def again() -> None:
            self.worker._spawn(self.worker._quietly(duty(self.worker)))
            self.loop.call_later(seconds, again)

        self.loop.call_later(first, again)

    def _check_deadlines(self) -> None:
        """As the worker does, but not ten times a second; and now and then a timer comes early, or again."""
        shell, world = self.worker.shell, self.cluster.world
        shell.check_due()
        if shell._timers and world.chance(self.cluster.stray_share):
            at, key = world.random.choice(shell._timers)
            if world.chance(0.5):
                shell._timers.remove((at, key))
                shell._timers.sort()
            if key in shell._owned:
                shell.handle(key, DeadlineReached(received_at=world.now, at=at))
        self.loop.call_later(0.5, self._check_deadlines)


class Cluster:
    """Workers behind a load balancer, and a supervisor that starts another one when one dies."""

    broker: type[Broker] | None = None

    def __init__(self, world: World, redis: type[Redis], *, faults: bool) -> None:
        self.world = world
        self.redis = redis(world)
        self.error_share = 0.01 if faults else 0.0
        self.stall_share = 0.01 if faults else 0.0
        self.stray_share = 0.05
        self.nodes: list[Node] = []
        self.all: dict[str, Node] = {}
        self.loop = Loop(world, Process("between"))
        self.sockets = 0
        world.crash = self.crash
        for _ in range(2):
            self._start_node()
        if faults:
            world.after(15 * world.random.random(), self._lose_publications)

    def build(self, node: Node) -> Worker:
        """A worker whose Redis, subscriber and clock are those of this world."""
        names = ("RedisBroker", "ServiceClock")
        real = [getattr(worker_module, name) for name in names]
        worker_module.RedisBroker = lambda url, name, clock, on_connected, on_lost: (self.broker or Broker)(
            node, on_connected
        )
        worker_module.ServiceClock = lambda: _Clock(self.world)
        try:
            return Worker(node.process.name, SETTINGS)
        finally:
            for name, value in zip(names, real, strict=True):
                setattr(worker_module, name, value)

    def _start_node(self) -> None:
        node = Node(self, f"w{len(self.all)}")
        self.nodes.append(node)
        self.all[node.process.name] = node

    def crash(self, process: Process) -> None:
        """A worker dies, with its sockets."""
        self.world.kill(process)
        node = self.all[process.name]
        self.nodes.remove(node)
        self.redis.subscribers.remove(node.worker.subscriber)
        for socket in node.sockets:
            if socket.is_open:
                socket.is_open = False
                self.world.after(2 * self.world.random.random(), socket.client.lost, socket.end)
        self.world.after(0.5 + self.world.random.random(), self._start_node)

    def lease_runs(self, worker: str) -> bool:
        process, now = self.all[worker].process, self.world.now
        if process.died_at is not None:
            return now < process.died_at + LEASE_SECONDS
        return process.stalled_until <= now or now < process.stalls_at + LEASE_SECONDS

    def _lose_publications(self) -> None:
        if self.error_share:
            self.world.after(15 * self.world.random.random(), self._lose_publications)
            if self.nodes:
                node = self.world.random.choice(self.nodes)
                node.worker.subscriber.go_down(2 * self.world.random.random())

    def heal(self) -> None:
        """No more faults."""
        self.error_share = self.stall_share = 0.0

    def connect(self, client: Client) -> None:
        self.world.after(self.world.latency(), self._connected, client)

    def _connected(self, client: Client) -> None:
        nodes = [node for node in self.nodes if node.process.stalled_until <= self.world.now]
        if not nodes:
            self.world.after(0.5, client.refused)
            return
        self.sockets += 1
        socket = Socket(self.world.random.choice(nodes), client, self.sockets)
        socket.node.sockets.append(socket)
        socket.node.worker.opened(socket)
        client.opened(socket.end)

    def run(self, until: float) -> None:
        asyncio._set_running_loop(self.loop)
        try:
            self.world.run(until)
        finally:
            asyncio._set_running_loop(None)

    def close(self) -> None:
        for node in self.all.values():
            node.loop.close()


class _Clock:
    def __init__(self, world: World) -> None:
        self.now = world.clock
