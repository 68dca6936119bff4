"""What a scenario is made of: what a fault can reach, and what it came to."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import redis
from msgspec import Struct, field

from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.local import LocalCluster
from compare.faults.injection import Proxy
from compare.faults.processes import children, is_running, until
from compare.run.crowd import Crowd

HEAL_SECONDS = 2.0
"""How long after the healing a proctor may still be shown something old."""

INVARIANTS = ("views", "journal", "offline", "leaks", "memory")


class Verdict(Struct):
    """What a scenario came to. `broken` has, for each invariant that did not hold, what was seen, the first few in words."""

    scenario: str
    what: str
    seed: int
    recovery: float = 0.0
    """Seconds from the healing until every proctor was shown everything made before it."""
    worst: float = 0.0
    """Seconds that the slowest report needed to every proctor, counted from the healing if it was made before."""
    broken: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every invariant did."""
        return not self.broken

    def breaks(self, invariant: str, what: str) -> None:
        """Write down what contradicts an invariant."""
        self.broken.setdefault(invariant, []).append(what)


class Rig:
    """What a fault can reach: the processes, Redis, the way to it, the clients. `rng` decides whom it hits."""

    def __init__(self, cluster: LocalCluster, server: EmbeddedRedis, crowd: Crowd, rng: random.Random) -> None:
        self.cluster = cluster
        self.server = server
        self.crowd = crowd
        self.rng = rng
        self.proxy: Proxy | None = None
        self.healed_at: float | None = None
        self.verdict_notes: list[tuple[str, str]] = []
        self._admin = redis.Redis.from_url(server.url)

    # --- for faults ---

    def healed(self) -> None:
        """The fault is over from this moment; without this, from the moment that the fault's function returns."""
        self.healed_at = self.crowd.clock()

    def a_worker(self) -> int:
        """One of the workers."""
        return self.rng.choice(sorted(self.cluster.pids()["worker"]))

    def workers_of(self, instance: int) -> list[int]:
        """All processes below a supervisor."""
        return children(self.cluster.ready[instance].supervisor_pid)

    def redis(self) -> redis.Redis:
        """A client past any proxy."""
        return self._admin

    def broke(self, invariant: str, what: str) -> None:
        """The fault itself saw an invariant broken."""
        self.verdict_notes.append((invariant, what))

    def order_in_every_exam(self) -> None:
        """The first proctor of each exam warns one of its students."""
        for quiz_id in self.crowd.recording.schedule.quiz_ids:
            there = [s.plan.student_id for s in self.crowd.recording.students if s.plan.quiz_id == quiz_id]
            self.crowd.order(quiz_id, self.rng.choice(there))

    async def gone(self, pid: int, seconds: float = 20.0) -> None:
        """Wait until a process has ended."""
        await until(lambda: not is_running(pid), f"the end of process {pid}", seconds)

    async def whole(self, workers: int = 4) -> None:
        """Wait until all workers run (again)."""
        await until(lambda: len(self.cluster.pids()["worker"]) >= workers, "all workers", 30.0)

    def close(self) -> None:
        """Give up the connection to Redis."""
        self._admin.close()


Fault: TypeAlias = Callable[[Rig], Awaitable[None]]


class Scenario(Struct, frozen=True):
    """One fault. `quick`: part of the half that CI runs."""

    name: str
    what: str
    fault: Fault
    quick: bool = False
    proxied: bool = False
    table: bool = False
    clock_offset: float = 0.0
    interval: float = 1.0
    lost_instances: int = 0
    empties_redis: bool = False
