"""How fast the cluster is on one core: throughput, delivery time, processor time a report, beside a bare socket server.

All server processes and Redis are pinned to one core, the load generator to another, in one run, so that the ratio between the
cluster and the bare server holds on a noisy machine. The load is the paper's: students who report Figure 4, shuffled over exams and
workers, one proctor an exam; here every report changes something that the proctor sees, every tenth changes the label, and every
one is acknowledged. The bare server decodes the same message and sends the same ack; it has no state, no Redis and nobody to tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import os
import random
import re
import resource
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_connect, ws_create_server

from adapters.ec2_cluster.local import LocalCluster
from core import effects, events, messages, participant, routing
from core.decide import decide
from core.exam import new_exam
from core.identity import Principal, issue
from core.participant import ExamKey
from core.snapshot import view

SCHOOL = "bench"
_SECRET = "bench-secret-" + "0" * 32
_TOKEN_SECONDS = 6 * 3600.0
_TICK_SECONDS = 0.005
_CONNECT_AT_ONCE = 64
_HELD_SHARE = 0.98
HELD_P95_MS = 100.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_silent = logging.getLogger("compare.bench.cluster.sockets")
_silent.setLevel(logging.CRITICAL + 1)


class Shape(Struct, frozen=True):
    """What is put on a server: `rate` reports a second from so many students of so many exams."""

    rate: int
    students: int = 1_000
    exams: int = 20
    instances: int = 1
    workers: int = 2


class Figures(Struct, frozen=True):
    """What one counted stretch showed. Latencies in milliseconds, processor time in microseconds a report."""

    shape: Shape
    seconds: float
    sent: int
    acked: int
    delivered: int
    undelivered: int
    delivery_p50: float
    delivery_p95: float
    delivery_p99: float
    round_trip_p95: float
    workers_us: float
    redis_us: float
    others_us: float
    load_core: float

    @property
    def rate(self) -> float:
        """Reports acknowledged a second."""
        return self.acked / self.seconds

    @property
    def total_us(self) -> float:
        """Workers and Redis together."""
        return self.workers_us + self.redis_us

    @property
    def is_held(self) -> bool:
        """Whether the server kept up: it acked what was asked, lost nothing, and showed it in time."""
        kept_up = self.rate >= _HELD_SHARE * self.shape.rate and not self.undelivered
        return kept_up and self.delivery_p95 <= HELD_P95_MS


class Storm(Struct, frozen=True):
    """Everybody connecting in a short time, once from nothing and once after a cut. Milliseconds and seconds."""

    students: int
    seconds: float
    handshake_p99: float
    shown_worst: float
    handshake_p99_after_cut: float
    shown_worst_after_cut: float
    missing: int


class Steps(Struct, frozen=True):
    """What the steps of a report cost alone, one after the other in one process: microseconds."""

    decode: float
    decide: float
    encode_ack: float
    encode: float


# --- the load -------------------------------------------------------------------------------------------------------------


class _Student(WSListener):
    """One page: sends what it is told to, counts acks."""

    __slots__ = ("acked", "answered", "exam", "load", "number", "prefix", "sent_at", "seq", "token", "transport")

    def __init__(self, load: Load, number: int, exam: str, token: str = "") -> None:
        self.load = load
        self.number = number
        self.exam = exam
        self.token = token
        self.seq = 0
        self.acked = 0
        self.answered = 0
        self.sent_at: deque[float] = deque()
        self.prefix = (
            '{"action":"lmsQuizMonitoringStudent","data":{'
            f'"quiz_id":"{exam}","quiz_attempt_id":"a{number}","student_id":"s{number}","quiz_participant_id":"p{number}",'
            f'"quiz_result_id":"r{number}","student_name":"Student {number}","question_total":100,'
            '"time_start":"2026-01-01T08:00:00Z","time_end":"2099-01-01T11:00:00Z","score":0,'
            '"topic_uuid":"2f1c4f0e-9a55-4c55-a6a5-1d7a5b2f9d10",'
        ).encode()
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def cut(self) -> None:
        """Lose the connection, and with it what was on its way."""
        assert self.transport is not None  # connected
        self.transport.disconnect(False)
        self.sent_at.clear()
        self.acked = self.seq

    def next_report(self) -> bytes:
        self.seq += 1
        self.answered = (self.answered + 1) % 100
        away = self.seq % 20 in (10, 11)  # away for one report in ten; each of the two changes is a label
        status = b'"away"' if away else b'"active"'
        return b"%s\"user_status\":%s,\"question_answered\":%d,\"question_number_current\":%d,\"seq\":%d}}" % (
            self.prefix, status, self.answered, self.answered, self.seq,
        )  # fmt: skip

    def report(self, now: float) -> None:
        payload = self.next_report()
        self.sent_at.append(now)
        assert self.transport is not None  # connected before the first report
        self.transport.send(WSMsgType.TEXT, payload)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
        if payload.startswith(b'{"action":"ack"'):
            self.acked += 1
            self.load.acked += 1
            if self.acked % 8 == 0:
                # acks come in order; every eighth is timed, which is enough for a percentile and costs little
                behind = self.seq - self.acked
                self.load.round_trips.append(
                    time.perf_counter() - self.sent_at[-1 - behind] if behind < len(self.sent_at) else 0.0
                )
        elif payload.startswith(b'{"action":"error"'):
            self.load.errors.append(payload.decode())


class _Shown(Struct):
    student_id: str
    seq: int


class _ShownData(Struct):
    participants: list[_Shown] = []


class _ShownFrame(Struct):
    data: _ShownData


_shown = msgspec.json.Decoder(_ShownFrame)


class _Proctor(WSListener):
    """One dashboard: notes when each report, or a later state, was shown."""

    def __init__(self, load: Load, exam: str) -> None:
        self.load = load
        self.exam = exam
        self.watching = asyncio.get_running_loop().create_future()
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        order = b'{"action":"lmsQuizMonitoringProctor","data":{"quiz_id":"%s"}}' % self.exam.encode()
        transport.send(WSMsgType.TEXT, order)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        payload = frame.get_payload_as_bytes()
        now = time.perf_counter()
        if payload.startswith(b'{"action":"lmsQuizMonitoringUpdate"'):
            load = self.load
            for shown in _shown.decode(payload).data.participants:
                load.show(shown.student_id, shown.seq, now)
        elif payload.startswith(b'{"action":"lmsQuizMonitoringSnapshot"') and not self.watching.done():
            self.watching.set_result(None)


class Load:
    """All clients of a run, in this process."""

    def __init__(self) -> None:
        self.students: list[_Student] = []
        self.proctors: list[_Proctor] = []
        self.acked = 0
        self.round_trips: list[float] = []
        self.deliveries: list[float] = []
        self.errors: list[str] = []
        self.delivered = 0

    def show(self, student_id: str, seq: int, now: float) -> None:
        """A proctor was shown this state: every report up to it has arrived, itself or as a later state."""
        student = self.students[int(student_id[1:])]
        waiting = student.sent_at
        first = student.seq - len(waiting) + 1
        while waiting and first <= seq:
            self.deliveries.append(now - waiting.popleft())
            self.delivered += 1
            first += 1

    async def prepare(self, shape: Shape, urls: Sequence[str], seed: int = 1) -> None:
        """Connect the proctors; make the students, shuffled over exams."""
        rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        expires_at = time.time() + _TOKEN_SECONDS
        self.urls = urls
        exams = [f"exam-{n}" for n in range(shape.exams)]
        for n, exam in enumerate(exams):
            token = issue(Principal("proctor", SCHOOL, f"p{n}", (exam,), expires_at), _SECRET)
            proctor = _Proctor(self, exam)
            self.proctors.append(proctor)
            await _open(proctor, urls[n % len(urls)], token)
            await proctor.watching
        places = [exams[n % shape.exams] for n in range(shape.students)]
        rng.shuffle(places)
        for n, exam in enumerate(places):
            principal = Principal("student", SCHOOL, f"s{n}", (exam,), expires_at, f"a{n}")
            self.students.append(_Student(self, n, exam, issue(principal, _SECRET)))
        rng.shuffle(order := list(self.students))
        self.order = order

    async def connect(self, shape: Shape, urls: Sequence[str]) -> None:
        """Connect everybody, as fast as it goes."""
        await self.prepare(shape, urls)
        gate = asyncio.Semaphore(_CONNECT_AT_ONCE)

        async def connect(student: _Student) -> None:
            async with gate:
                await self.open(student)

        await asyncio.gather(*(connect(student) for student in self.students))

    async def open(self, student: _Student) -> float:
        """Connect a student; the seconds that the handshake took."""
        started = time.perf_counter()
        await _open(student, self.urls[student.number % len(self.urls)], student.token)
        return time.perf_counter() - started

    async def storm(self, seconds: float) -> list[float]:
        """Connect all students evenly within so many seconds, each reporting at once; the seconds of the handshakes."""

        async def come(student: _Student, after: float) -> float:
            await asyncio.sleep(after)
            took = await self.open(student)
            student.report(time.perf_counter())
            return took

        share = seconds / len(self.students)
        return await asyncio.gather(*(come(student, n * share) for n, student in enumerate(self.order)))

    async def send(self, rate: int, seconds: float) -> int:
        """Send `rate` reports a second, evenly, for so long; the number sent."""
        order, position, sent = self.order, 0, 0
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            due = int(elapsed * rate)
            now = time.perf_counter()
            while sent < due:
                order[position].report(now)
                position = (position + 1) % len(order)
                sent += 1
            await asyncio.sleep(_TICK_SECONDS)
        return sent

    async def settle(self, sent: int, seconds: float = 5.0) -> None:
        """Wait until everything sent is acked and shown, or the time is over."""
        deadline = time.perf_counter() + seconds
        # Looking now and then costs the load's core less than an event at each ack.
        while (self.acked < sent or any(s.sent_at for s in self.students)) and time.perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def start_counting(self) -> None:
        """Forget what was timed while the servers warmed up."""
        self.round_trips.clear()
        self.deliveries.clear()
        self.delivered = 0

    def close(self) -> None:
        """Hang up."""
        clients: list[_Student | _Proctor] = [*self.students, *self.proctors]
        for client in clients:
            if client.transport is not None:
                client.transport.disconnect()


async def _open(client: WSListener, url: str, token: str) -> None:
    headers = {"Sec-WebSocket-Protocol": f"proctorwire, bearer.{token}"}
    unverified = ssl._create_unverified_context() if url.startswith("wss:") else None  # noqa: S323 - our own, on this machine
    await ws_connect(lambda: client, url, extra_headers=headers, ssl_context=unverified, logger_name=_silent)


# --- the servers ----------------------------------------------------------------------------------------------------------


class _Bare(WSListener):
    """Decodes a report and acks it: what any server of this protocol costs at least."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.TEXT:
            return
        received_at = time.time()
        message = messages.decode(frame.get_payload_as_bytes())
        assert isinstance(message, messages.StatusFrame)  # nothing else is sent to it
        ack = messages.AckData(server_time=round(received_at * 1000, 3), seq=message.data.seq)
        transport.send(WSMsgType.TEXT, messages.encode(messages.Ack(ack)))


def _serve_bare(sock: socket.socket) -> None:
    async def serve() -> None:
        def accept(request: WSUpgradeRequest) -> _Bare:
            return _Bare()

        server = await ws_create_server(accept, sock=sock, logger_name=_silent)
        async with server:
            await server.serve_forever()

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())


@contextlib.contextmanager
def bare_servers(count: int) -> Iterator[tuple[str, list[int]]]:
    """So many bare servers on one port: its URL and their pids."""
    sockets = []
    port = 0
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", port))
        port = sock.getsockname()[1]
        sock.listen(1024)
        sockets.append(sock)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_serve_bare, args=(sock,), daemon=True) for sock in sockets]
    for process in processes:
        process.start()
    try:
        yield f"ws://127.0.0.1:{port}/", [process.pid or 0 for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()
        for sock in sockets:
            sock.close()


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of processes so far, of all their threads (the kernel's scheduler statistics: nanoseconds, no ticks)."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def busy_seconds() -> float:
    """What all cores have worked so far, whoever it was for (proc(5), /proc/stat)."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_A_SECOND


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started inside run on this core; None: wherever there is room."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1) if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.asynccontextmanager
async def cluster_on(core: int | None, shape: Shape) -> AsyncIterator[LocalCluster]:
    """A cluster, all of whose processes run on one core."""
    cluster = LocalCluster(instances=shape.instances, workers=shape.workers, token_secret=_SECRET)
    with pinned(core):
        await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()


# --- one measurement ------------------------------------------------------------------------------------------------------


async def measure_cluster(
    shape: Shape, cluster: LocalCluster, load: Load, warm_seconds: float, seconds: float
) -> Figures:
    """Warm up, then count for so long. The load must be connected."""
    await load.send(shape.rate, warm_seconds)
    await load.settle(load_sent(load))
    load.start_counting()
    acked_before = load.acked
    pids = cluster.pids()
    workers, redis = pids["worker"], pids["redis"]
    others = [pid for role, those in pids.items() if role not in ("worker", "redis") for pid in those]
    before = (cpu_seconds(workers), cpu_seconds(redis), cpu_seconds(others))
    own_before, started = time.process_time(), time.perf_counter()
    sent = await load.send(shape.rate, seconds)
    elapsed = time.perf_counter() - started
    own = time.process_time() - own_before
    acked_in_time = load.acked - acked_before
    await load.settle(load_sent(load))
    after = (cpu_seconds(workers), cpu_seconds(redis), cpu_seconds(others))
    spent = [b - a for a, b in zip(before, after, strict=True)]
    reports = max(load.acked - acked_before, 1)
    return Figures(
        shape=shape,
        seconds=elapsed,
        sent=sent,
        acked=acked_in_time,
        delivered=load.delivered,
        undelivered=_waiting(load),
        delivery_p50=_percentile(load.deliveries, 0.50),
        delivery_p95=_percentile(load.deliveries, 0.95),
        delivery_p99=_percentile(load.deliveries, 0.99),
        round_trip_p95=_percentile(load.round_trips, 0.95),
        workers_us=spent[0] / reports * 1e6,
        redis_us=spent[1] / reports * 1e6,
        others_us=spent[2] / reports * 1e6,
        load_core=own / elapsed,
    )


def load_sent(load: Load) -> int:
    """Reports sent so far by all students."""
    return sum(student.seq for student in load.students)


async def measure_bare(shape: Shape, core: int, warm_seconds: float, seconds: float) -> float:
    """Microseconds of processor time a report of the bare server, under the same load."""
    with pinned(core):
        manager = bare_servers(shape.workers)
        url, pids = manager.__enter__()
    load = Load()
    try:
        await _wait_for(url)
        students = Shape(shape.rate, shape.students, 0, 1, shape.workers)
        load.students = [_Student(load, n, "exam-0") for n in range(students.students)]
        load.order = list(load.students)
        for student in load.students:
            await ws_connect(lambda student=student: student, url, logger_name=_silent)
        await load.send(shape.rate, warm_seconds)
        before, acked = cpu_seconds(pids), load.acked
        await load.send(shape.rate, seconds)
        await asyncio.sleep(0.2)
        return (cpu_seconds(pids) - before) / max(load.acked - acked, 1) * 1e6
    finally:
        load.close()
        manager.__exit__(None, None, None)


async def _wait_for(url: str) -> None:
    parts = urlsplit(url)
    while True:
        try:
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return


def _percentile(samples: Sequence[float], share: float) -> float:
    """In milliseconds."""
    if not samples:
        return float("nan")
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000


def pss_bytes(pids: Sequence[int]) -> int:
    """Proportional set size of processes: shared pages are counted once, by share (proc(5), smaps_rollup)."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            found = re.search(r"^Pss:\s+(\d+) kB", rollup.read(), re.MULTILINE)
        total += int(found.group(1)) * 1024 if found else 0
    return total


async def measure_memory(shape: Shape, core: int) -> float:
    """Bytes of worker memory for a connected student who has reported once and sits idle, record included."""
    async with cluster_on(core, shape) as cluster:
        load = Load()
        await load.prepare(shape, cluster.urls)
        workers = cluster.pids()["worker"]
        before = pss_bytes(workers)
        gate = asyncio.Semaphore(_CONNECT_AT_ONCE)

        async def join(student: _Student) -> None:
            async with gate:
                await load.open(student)
                student.report(time.perf_counter())

        await asyncio.gather(*(join(student) for student in load.students))
        await load.settle(shape.students)
        used = pss_bytes(workers) - before
        load.close()
        return used / shape.students


@contextlib.contextmanager
def with_tls() -> Iterator[bool]:
    """Clusters started inside end TLS themselves, with a certificate made for this; False without an `openssl` program."""
    openssl = shutil.which("openssl")
    if openssl is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        names = {"TLS_CERTIFICATE": Path(folder, "certificate.pem"), "TLS_KEY": Path(folder, "key.pem")}
        subprocess.run(
            (
                *(
                    openssl,
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-days",
                    "1",
                ),
                *("-subj", "/CN=127.0.0.1", "-out", names["TLS_CERTIFICATE"], "-keyout", names["TLS_KEY"]),
            ),
            check=True,
            capture_output=True,
        )
        given = {f"PROCTORWIRE_{name}": str(path) for name, path in names.items()}
        os.environ.update(given)  # a local cluster hands its environment on
        try:
            yield True
        finally:
            for name in given:
                del os.environ[name]


async def measure_storm(shape: Shape, core: int | None, seconds: float) -> Storm:
    """Everybody connects within so many seconds and reports; then all are cut at once, and come again."""
    async with cluster_on(core, shape) as cluster:
        load = Load()
        await load.prepare(shape, cluster.urls)
        handshakes = await load.storm(seconds)
        await load.settle(shape.students)
        shown, missing = list(load.deliveries), _waiting(load)
        for student in load.students:
            student.cut()
        load.start_counting()
        again = await load.storm(seconds)
        await load.settle(load_sent(load))
        found = Storm(
            students=shape.students,
            seconds=seconds,
            handshake_p99=_percentile(handshakes, 0.99),
            shown_worst=_percentile(shown, 1.0),
            handshake_p99_after_cut=_percentile(again, 0.99),
            shown_worst_after_cut=_percentile(load.deliveries, 1.0),
            missing=missing + _waiting(load),
        )
        load.close()
        return found


def _waiting(load: Load) -> int:
    return sum(len(student.sent_at) for student in load.students)


def measure_steps(students: int = 200, rounds: int = 40) -> Steps:
    """The steps of a report alone; of each the fastest round, for the others were disturbed."""
    load, now = Load(), time.time()
    exam = new_exam(ExamKey(SCHOOL, "exam-0"), "ec2", now)
    senders, records, sources = [], [], []
    for n in range(students):
        principal = Principal("student", SCHOOL, f"s{n}", ("exam-0",), now + _TOKEN_SECONDS, f"a{n}")
        senders.append(_Student(load, n, "exam-0"))
        records.append(participant.new_participant(principal.participant, "ec2"))
        sources.append(routing.Source(f"worker/connection-{n}", now, principal))
    best = [float("inf")] * 4
    for _ in range(rounds):
        now += 1.0
        payloads = [sender.next_report() for sender in senders]
        moments = [time.thread_time()]
        frames = [messages.decode(payload) for payload in payloads]
        moments.append(time.thread_time())
        decisions = []
        for frame, source, record in zip(frames, sources, records, strict=True):
            routed = routing.route(frame, source, now)
            assert isinstance(routed, events.Addressed)  # as a student's report is
            decisions.append(decide(record, routed.event, exam, now))
        moments.append(time.thread_time())
        acks = [decision.effects[-1] for decision in decisions]
        for ack in acks:
            assert isinstance(ack, effects.Ack)  # stands last
            messages.encode(ack.frame)
        moments.append(time.thread_time())
        records = [decision.participant for decision in decisions]
        for record in records:
            messages.encode_value(view(record))
            participant.encode(record)
        moments.append(time.thread_time())
        took = [(after - before) / students * 1e6 for before, after in itertools.pairwise(moments)]
        best = [min(pair) for pair in zip(best, took, strict=True)]
    return Steps(*best)


def raise_file_limit() -> int:
    """As many sockets as this user may have; returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def throughput(
    rates: Sequence[int], shape: Shape, warm_seconds: float, seconds: float, say: Callable[[str], None]
) -> list[Figures]:
    """One cluster under one rate after the other; each line is said as it comes."""
    figures = []
    async with cluster_on(0, shape) as cluster:
        load = Load()
        await load.connect(shape, cluster.urls)
        for position, rate in enumerate(rates):
            at = msgspec.structs.replace(shape, rate=rate)
            found = await measure_cluster(at, cluster, load, warm_seconds if position == 0 else 2.0, seconds)
            figures.append(found)
            say(line_of(found))
        if load.errors:
            say(f"errors answered by the server: {len(load.errors)}, the first: {load.errors[0][:200]}")
        load.close()
    return figures


def line_of(found: Figures) -> str:
    """One measurement in one line."""
    shape = found.shape
    return (
        f"{shape.students:>6,} students  {shape.instances} x {shape.workers} workers  {shape.rate:>6,}/s asked"
        f"  {found.rate:>7,.0f}/s acked  delivery p50 {found.delivery_p50:6.1f}  p95 {found.delivery_p95:6.1f}"
        f"  p99 {found.delivery_p99:6.1f} ms  round trip p95 {found.round_trip_p95:6.1f} ms  CPU/report"
        f" {found.workers_us:5.1f} + Redis {found.redis_us:4.1f} = {found.total_us:5.1f} us (others {found.others_us:.1f})"
        f"  load core {found.load_core:4.0%}  undelivered {found.undelivered}"
    )
