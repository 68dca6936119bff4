"""Which way between workers? The cluster's own publications over each: throughput, latency, and what a stall and a restart lose.

A publication is what a worker sends when a student's view changes: its origin, a number, and the encoded view; one channel an exam.
The subscriber is a process of its own, so that it can stand still. Lost is what the server had confirmed and the
subscriber never got; what could not be confirmed is published again until it is, so that a repetition may come of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from compare.bench.buses import LINKS, Bus, BusMissing, Link, server_of
from compare.run.result import Environment, LatencySummary, environment_here, summarise
from compare.run.workload import QUESTIONS, SCHOOL
from core import decide, new_exam, new_participant
from core import messages as m
from core.events import StatusReported
from core.participant import ExamKey, ParticipantKey
from core.snapshot import view

SCHEMA = "proctorwire.bus/1"
NAMES = tuple(LINKS)
SECONDS_EACH = 13.0
_WINDOW = 64
_STALL_SECONDS = 2.0
_RETRY_SECONDS = 0.05
_ARRIVAL_SECONDS = 3.0


class Load(Struct, frozen=True):
    """How much. The stall's rate is higher, so that a buffer can run over."""

    exams: int = 20
    burst: int = 4_000
    rate: float = 400.0
    stall_rate: float = 1_500.0
    seconds: float = 2.0


class Loss(Struct, frozen=True, forbid_unknown_fields=True):
    """What came of publications under a fault."""

    published: int
    lost: int
    duplicates: int


class BusFigures(Struct, frozen=True, forbid_unknown_fields=True):
    """One way, measured on this machine."""

    name: str
    title: str
    note: str
    throughput: float  # publications a second, from the first's sending to the last's arrival
    latency_ms: LatencySummary  # from the sending to the subscriber, at the given rate
    stalled: Loss
    restart: Loss | None  # None: the server is not ours


class BusTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All ways of one call; `missing` has a line for each that could not be tried."""

    schema: str = SCHEMA
    environment: Environment
    load: Load
    payload_bytes: int
    buses: tuple[BusFigures, ...]
    missing: tuple[str, ...] = ()


def publication(exam: str, number: int) -> bytes:
    """A view as a worker publishes it, made by the core from a report."""
    exam_key = ExamKey(SCHOOL, exam)
    now = 1_800_000_000.0 + number
    student_id = f"student-{number % 500:05}"
    report = m.Report(
        exam,
        f"attempt-{number}",
        student_id,
        "active",
        question_answered=number % QUESTIONS,
        question_total=QUESTIONS,
        question_number_current=number % QUESTIONS + 1,
        student_name=f"Student {number % 500}",
        seq=1,
        tab_id=f"tab-{number}",
    )
    happened = StatusReported(received_at=now, connection="c", connected_at=now, report=report)
    fresh = new_participant(ParticipantKey(SCHOOL, exam, student_id), "ec2")
    record = decide(fresh, happened, new_exam(exam_key, "ec2", now), now).participant
    return m.encode_value(view(record))


class Publisher:
    """Sends publications with a number and the time in front, and knows which were confirmed."""

    def __init__(self, link: Link, channels: Sequence[str]) -> None:
        self._link = link
        self._channels = channels
        self._views = [publication(channels[n % len(channels)], n) for n in range(200)]
        self._number = 0
        self.confirmed: set[int] = set()

    @property
    def payload_bytes(self) -> int:
        """Of an average publication."""
        return round(sum(map(len, self._views)) / len(self._views))

    def next(self) -> int:
        """A number for one more."""
        self._number += 1
        return self._number

    async def send(self, number: int, until: float = 0.0) -> None:
        """Publish; until then again and again if it was not confirmed."""
        channel = self._channels[number % len(self._channels)]
        while True:
            payload = b"w0 %d %.6f\n%s\n" % (number, time.time(), self._views[number % len(self._views)])
            try:
                await asyncio.wait_for(self._link.publish(channel, payload), 3.0)
            except Exception:
                if time.monotonic() > until:
                    return
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                self.confirmed.add(number)
                return

    async def burst(self, count: int) -> None:
        """As fast as the server confirms, some at a time."""

        async def some(numbers: Sequence[int]) -> None:
            for number in numbers:
                await self.send(number)

        numbers = [self.next() for _ in range(count)]
        await asyncio.gather(*(some(numbers[place::_WINDOW]) for place in range(_WINDOW)))

    async def paced(self, rate: float, seconds: float, patience: float = 0.0) -> None:
        """So many a second, whatever becomes of those before."""
        begun = time.monotonic()
        sending: set[asyncio.Task[None]] = set()
        for place in range(round(rate * seconds)):
            ahead = begun + place / rate - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            task = asyncio.create_task(self.send(self.next(), begun + seconds + patience))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)


class Subscriber:
    """The subscriber's process. `arrived` has the times of every arrival by number."""

    def __init__(self) -> None:
        self.arrived: dict[int, list[tuple[float, float]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, name: str, address: str, channels: Sequence[str]) -> None:
        """Return when it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "compare.bench.bus", name, address, *channels),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None  # asked for above
        try:
            async with asyncio.timeout(20):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if line.strip() != b"ready":
            raise BusMissing(f"{name} is left out: its subscriber did not start")
        self._reading = asyncio.create_task(self._read(self._process.stdout))

    async def _read(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            number, sent, got = json.loads(line)
            self.arrived.setdefault(number, []).append((sent, got))

    async def has(self, numbers: set[int]) -> None:
        """Wait until these are there, or nothing has come for a while."""
        known, last = -1, time.monotonic()
        while numbers - self.arrived.keys():
            if len(self.arrived) != known:
                known, last = len(self.arrived), time.monotonic()
            elif time.monotonic() - last > _ARRIVAL_SECONDS:
                return
            await asyncio.sleep(0.02)

    def pause(self) -> None:
        """Stand still."""
        assert self._process is not None  # started before
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Run again."""
        assert self._process is not None  # started before
        os.kill(self._process.pid, signal.SIGCONT)

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)


async def measure_bus(name: str, load: Load, folder: Path, kafka: str = "") -> tuple[BusFigures, int]:
    """All of one way; and the bytes of a publication. Raises BusMissing."""
    channels = [f"exam-{os.getpid()}-{number}" for number in range(load.exams)]
    server, subscriber = server_of(name, folder, kafka), Subscriber()
    link: Link | None = None
    try:
        address = await server.start()
        link = LINKS[name](address)
        await link.open(channels)
        await subscriber.start(name, address, channels)
        publisher = Publisher(link, channels)
        await _warm(publisher, subscriber)
        begun = time.time()
        first = len(publisher.confirmed)
        await publisher.burst(load.burst)
        await subscriber.has(publisher.confirmed)
        arrivals = [times[0][1] for number, times in subscriber.arrived.items() if number > first]
        throughput = len(arrivals) / (max(arrivals, default=begun + 1) - begun)
        before = set(publisher.confirmed)
        await publisher.paced(load.rate, load.seconds)
        await subscriber.has(publisher.confirmed - before)
        latencies = [(times[0][1] - times[0][0]) * 1000 for n, times in subscriber.arrived.items() if n not in before]
        stalled = await _stalled(publisher, subscriber, load)
        restart = await _restarted(server, publisher, subscriber, load) if server.can_restart() else None
    finally:
        await subscriber.stop()
        if link is not None:
            await link.close()
        await server.stop()
    figures = BusFigures(name, server.title, server.note, throughput, summarise(latencies), stalled, restart)
    return figures, publisher.payload_bytes


async def _warm(publisher: Publisher, subscriber: Subscriber) -> None:
    """A few that don't count: connections are opened, topics found."""
    await publisher.paced(50.0, 0.4, patience=2.0)
    await subscriber.has(publisher.confirmed)


async def _stalled(publisher: Publisher, subscriber: Subscriber, load: Load) -> Loss:
    before = set(publisher.confirmed)
    subscriber.pause()
    try:
        await publisher.paced(load.stall_rate, _STALL_SECONDS)
    finally:
        subscriber.go_on()
    return await _loss(publisher, subscriber, before)


async def _restarted(server: Bus, publisher: Publisher, subscriber: Subscriber, load: Load) -> Loss:
    before = set(publisher.confirmed)
    publishing = asyncio.create_task(publisher.paced(load.rate, load.seconds + 1.0, patience=5.0))
    await asyncio.sleep(0.5)
    await server.restart()
    await publishing
    return await _loss(publisher, subscriber, before)


async def _loss(publisher: Publisher, subscriber: Subscriber, before: set[int]) -> Loss:
    ours = publisher.confirmed - before
    await subscriber.has(ours)
    times = Counter({number: len(subscriber.arrived.get(number, ())) for number in ours})
    return Loss(
        len(ours), sum(count == 0 for count in times.values()), sum(max(0, count - 1) for count in times.values())
    )


async def measure_all(
    names: Sequence[str], load: Load, kafka: str, begins: Callable[[str], None], ended: Callable[[], None]
) -> BusTable:
    """Every way, one after the other; what is missing is a line."""
    figures: list[BusFigures] = []
    missing: list[str] = []
    payload = 0
    for name in names:
        begins(name)
        with tempfile.TemporaryDirectory(prefix="pw-bus-") as folder:
            try:
                found, payload = await measure_bus(name, load, Path(folder) / "server", kafka)
                figures.append(found)
            except BusMissing as exc:
                missing.append(str(exc))
        ended()
    return BusTable(
        environment=environment_here(),
        load=load,
        payload_bytes=payload,
        buses=tuple(figures),
        missing=tuple(missing),
    )


async def _subscribe(name: str, address: str, channels: Sequence[str]) -> None:
    """The body of the subscriber's process: a line for each arrival."""
    link = LINKS[name](address)
    await link.open(channels)
    out = sys.stdout

    def ready() -> None:
        out.write("ready\n")
        out.flush()

    def seen(payload: bytes) -> None:
        got = time.time()
        _, number, sent = payload[: payload.index(b"\n")].split()
        out.write(f"[{int(number)},{float(sent):.6f},{got:.6f}]\n")

    async def flush() -> None:
        while True:
            await asyncio.sleep(0.05)
            out.flush()

    flushing = asyncio.create_task(flush())
    try:
        first = iter((ready,))
        await link.consume(channels, lambda: next(first, lambda: None)(), seen)
    finally:
        flushing.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_subscribe(sys.argv[1], sys.argv[2], sys.argv[3:]))
