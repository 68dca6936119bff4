"""What `proctorwire bench` measures, one after the other, and which figures it holds them against.

Servers are compared in pairs, made in turns, and a median is taken over the pairs: a machine is slower in one minute than in the
next, and both sides of a pair have the same minute. A figure that fails on a machine with other work says little; how much other
work there was is part of the report.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from adapters.ec2_cluster.local import LocalCluster
from compare.bench.cluster import (
    HELD_P95_MS,
    Figures,
    Load,
    Shape,
    Steps,
    Storm,
    busy_seconds,
    cluster_on,
    measure_bare,
    measure_cluster,
    measure_memory,
    measure_steps,
    measure_storm,
    pinned,
    raise_file_limit,
    throughput,
    with_tls,
)

_SERVERS, _LOAD = 0, 1  # which core for whom
_TOO_BUSY = 0.10  # cores

PARTS = ("cpu", "rate", "growth", "memory", "school")
Say = Callable[[str], None]


class Plan(Struct, frozen=True):
    """How much is measured. `many` students stand for a large school, `base` is the load of the paper's kind."""

    base: Shape = Shape(10_000)
    rates: tuple[int, ...] = (8_000, 10_000, 12_000, 14_000)
    many: int = 10_000
    steady_rate: int = 2_000
    spread: int = 4  # workers of one instance, or instances of one worker
    warm_seconds: float = 10.0
    seconds: float = 10.0
    storm_seconds: float = 30.0
    pairs: int = 3
    parts: tuple[str, ...] = PARTS


QUICK = Plan(many=3_000, rates=(8_000, 12_000), warm_seconds=3.0, seconds=4.0, storm_seconds=9.0, pairs=1)


class Line(Struct, frozen=True):
    """One figure beside what is asked of it. `holds` is None where nothing is asked."""

    what: str
    value: float
    unit: str
    asked: str = ""
    holds: bool | None = None


class Split(Struct, frozen=True):
    """Where a report's processor time goes, in microseconds; the parts add up to workers and Redis.

    `sockets` is receiving the frame and sending the ack, as the bare server does them; `rest` is the shell, saving and showing,
    and what it costs that in a busy server the processor's caches hold something else.
    """

    sockets: float
    decode: float
    decide: float
    encode: float
    redis: float
    rest: float


class Report(Struct, frozen=True):
    """All figures of a run."""

    lines: list[Line]
    split: Split | None
    runs: list[Figures]
    steps: Steps
    other_work: float
    """Cores that worked for somebody else while this run measured."""

    @property
    def is_too_busy(self) -> bool:
        """Whether the machine had so much other work that a failure says little."""
        return self.other_work > _TOO_BUSY


class _Run:
    """The measurements of a plan, in order."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self.plan = plan
        self.say = say
        self.lines: list[Line] = []
        self.runs: list[Figures] = []

    def ask(self, what: str, value: float, unit: str, *, least: float | None = None, most: float | None = None) -> None:
        """Note a figure, and whether it is within what is asked."""
        asked, holds = "", None
        if least is not None:
            asked, holds = f">= {least:,g}", value >= least
        elif most is not None:
            asked, holds = f"<= {most:,g}", value <= most
        line = Line(what, round(value, 3), unit, asked, holds)
        self.lines.append(line)
        self.say(text_of(line))

    async def measure(self, shape: Shape, core: int | None = _SERVERS) -> Figures:
        """A cluster of its own under one load."""
        async with _loaded(shape, core) as (cluster, load):
            found = await measure_cluster(shape, cluster, load, self.plan.warm_seconds, self.plan.seconds)
        self.runs.append(found)
        return found

    async def beside_bare(self) -> tuple[Figures, float]:
        """Processor time a report, beside that of the bare server; the figures in the middle, and the bare server's."""
        plan, pairs = self.plan, []
        for _ in range(plan.pairs):
            found = await self.measure(plan.base)
            pairs.append((found, await measure_bare(plan.base, _SERVERS, plan.warm_seconds / 2, plan.seconds)))
        middle = sorted(pairs, key=lambda pair: pair[0].total_us)[len(pairs) // 2][0]
        bare = statistics.median(bare for _, bare in pairs)
        ratio = statistics.median(found.total_us / bare for found, bare in pairs)
        self.ask(f"CPU a report, workers and Redis, at {plan.base.rate:,}/s", middle.total_us, "us", most=45)
        self.ask("  the workers' part", middle.workers_us, "us")
        self.ask("  Redis's part", middle.redis_us, "us")
        self.ask("  journal and supervisor, besides", middle.others_us, "us")
        self.ask("  a bare picows server that decodes and acks", bare, "us")
        self.ask("  times the bare server", ratio, "", most=1.6)
        return middle, bare

    async def most_held(self) -> None:
        """The highest rate that is held."""
        held: Figures | None = None
        async with _loaded(self.plan.base, _SERVERS) as (cluster, load):
            for number, rate in enumerate(self.plan.rates):
                warm = self.plan.warm_seconds if number == 0 else 2.0
                found = await measure_cluster(
                    replace(self.plan.base, rate=rate), cluster, load, warm, self.plan.seconds
                )
                self.runs.append(found)
                if not found.is_held:
                    break
                held = found
        shown = held or found
        rate = 0 if held is None else held.shape.rate
        self.ask(f"reports a second held, delivery p95 <= {HELD_P95_MS:.0f} ms", rate, "/s", least=12_000)
        self.ask("  delivery p95 at that rate", shown.delivery_p95, "ms", most=HELD_P95_MS)
        self.ask("  the load generator's core", shown.load_core * 100, "%", most=85)

    async def growth(self) -> None:
        """Whether a report costs more where there are more students, or more instances."""
        plan, slow = self.plan, replace(self.plan.base, rate=self.plan.steady_rate)
        at = f"at {slow.rate:,}/s"
        many = replace(slow, students=plan.many)
        await self._growth(f"CPU a report, {slow.students:,} -> {many.students:,} students {at}", slow, many)
        one, several = replace(slow, workers=plan.spread), replace(slow, instances=plan.spread, workers=1)
        await self._growth(f"CPU a report, 1 x {plan.spread} -> {plan.spread} x 1 workers {at}", one, several)

    async def _growth(self, what: str, small: Shape, large: Shape) -> None:
        ratios = []
        for _ in range(self.plan.pairs):
            before, after = await self.measure(small), await self.measure(large)
            ratios.append(after.total_us / before.total_us)
        self.ask(what, (statistics.median(ratios) - 1) * 100, "%", most=10)

    async def memory(self) -> None:
        """What a connected, idle student takes."""
        base, many = self.plan.base, self.plan.many
        for students in (base.students, many):
            used = await measure_memory(replace(base, students=students), _SERVERS)
            self.ask(f"memory an idle student, {students:,} connected", used / 1024, "KiB", most=12)
        with with_tls() as possible:
            if possible:
                used = await measure_memory(base, _SERVERS)
                self.ask(f"  with TLS on the instance, {base.students:,} connected", used / 1024, "KiB")

    async def large_school(self) -> None:
        """Many students at the paper's interval on all cores, then all of them connecting at once."""
        plan = self.plan
        shape = Shape(plan.many // 5, plan.many, max(plan.many // 50, 1), 1, plan.base.workers)
        found = await self.measure(shape, None)
        self.ask(f"{plan.many:,} students every 5 s: delivery p95", found.delivery_p95, "ms", most=HELD_P95_MS)
        self.ask("  reports never shown", found.undelivered, "", most=0)
        storm = await measure_storm(shape, None, plan.storm_seconds)
        self._storm(storm)

    def _storm(self, storm: Storm) -> None:
        within = f"{storm.students:,} connecting within {storm.seconds:g} s"
        self.ask(f"{within}: handshake p99", storm.handshake_p99, "ms", most=1_000)
        self.ask("  again after a cut: handshake p99", storm.handshake_p99_after_cut, "ms", most=1_000)
        worst = max(storm.shown_worst, storm.shown_worst_after_cut)
        self.ask("  longest until a proctor sees a report", worst / 1000, "s", most=2)
        self.ask("  reports never shown", storm.missing, "", most=0)


async def run(plan: Plan, say: Say) -> Report:
    """Measure everything that the plan asks for; each figure is said as it is known."""
    with _load_on_its_core():
        return await _all(_Run(plan, say))


async def run_rates(plan: Plan, say: Say) -> list[Figures]:
    """Only the load of the plan, at one of its rates after the other, whatever is asked of it elsewhere."""
    with _load_on_its_core():
        return await throughput(plan.rates, plan.base, plan.warm_seconds, plan.seconds, say)


@contextmanager
def _load_on_its_core() -> Iterator[None]:
    raise_file_limit()
    with pinned(_LOAD % (os.cpu_count() or 1)):
        yield


async def _all(run: _Run) -> Report:
    steps, split = measure_steps(), None
    started, busy, own = time.perf_counter(), busy_seconds(), _own_seconds()
    for part in run.plan.parts:
        match part:
            case "cpu":
                split = _split(*await run.beside_bare(), steps)
            case "rate":
                await run.most_held()
            case "growth":
                await run.growth()
            case "memory":
                await run.memory()
            case _:
                await run.large_school()
    other_work = (busy_seconds() - busy - (_own_seconds() - own)) / (time.perf_counter() - started)
    return Report(run.lines, split, run.runs, steps, max(other_work, 0.0))


def _own_seconds() -> float:
    """Processor time of this process and of all that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@asynccontextmanager
async def _loaded(shape: Shape, core: int | None) -> AsyncIterator[tuple[LocalCluster, Load]]:
    """A cluster with all students and proctors connected."""
    async with cluster_on(core, shape) as cluster:
        load = Load()
        try:
            await load.connect(shape, cluster.urls)
            yield cluster, load
        finally:
            load.close()


def _split(middle: Figures, bare: float, steps: Steps) -> Split:
    sockets = max(bare - steps.decode - steps.encode_ack, 0.0)
    encode = steps.encode + steps.encode_ack
    rest = middle.workers_us - sockets - steps.decode - steps.decide - encode
    return Split(sockets, steps.decode, steps.decide, encode, middle.redis_us, rest)


def text_of(line: Line) -> str:
    """A figure as one line of text."""
    mark = {True: "ok    ", False: "FAILED", None: "      "}[line.holds]
    return f"{mark}  {line.what:<62} {_number(line.value):>9} {line.unit:<4} {line.asked}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def text_of_split(split: Split) -> str:
    """Where the time of a report goes, as one line."""
    parts = [
        ("receive and ack", split.sockets),
        ("decode", split.decode),
        ("decide", split.decide),
        ("encode", split.encode),
        ("Redis", split.redis),
        ("save, show, and cold caches", split.rest),
    ]
    return "of a report's CPU: " + " + ".join(f"{name} {value:.1f}" for name, value in parts) + " us"
