"""What the serverless side costs: the units of each kind of frame, measured, and those of a student's hour, put together.

Three measurements. *Start*: what a fresh interpreter takes to import and construct what Lambda would, above a bare one. *Client*:
the lean signed client beside boto3, against a server that only answers. *Units*: the handlers behind the emulated gateway, one kind
of frame after the other, with what each used: CPU time, calls, DynamoDB's units as it returned them, frames.

A student's hour is then so many of each kind, counted from how a page behaves. Billed milliseconds are modelled: CPU time here on
the function's share of a vCPU, plus the published or assumed wait of each call. The CPU time of this machine is not that of AWS's;
what the units come to is hardly moved by it, because frames and DynamoDB's units are most of the money.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, TypeAlias

import websockets
from msgspec import Struct
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from adapters.lambda_apigw.aws_http import Credentials, Session
from adapters.lambda_apigw.gateway import ApiGatewayConnections
from adapters.lambda_apigw.local.exam_stack import LocalServerless, StackUsage
from compare.bill.assumptions import SERVICE_LATENCIES
from compare.bill.cost import VCPU_MEMORY_MB
from compare.bill.prices import Prices
from core import participant
from core.identity import Principal, issue
from core.participant import ExamKey, Participant
from core.policy import Policy

Path: TypeAlias = Literal["direct", "together"]
"""How changes reach proctors: at once, or through the queue that collects them for two seconds."""

BEATS = (5.0, 10.0, 15.0, 19.0, 20.0)
PAPER_INTERVAL = 5.0
SWEEP_SECONDS = 10.0
LATE_SECONDS = 2.0
"""How late an end of a lease is seen at worst: extra sweeps are at least so far apart."""

WINDOW_SECONDS = 2.3
"""How often the queue of views is emptied under load: its window of two seconds, and what the invocation takes."""

_SCHOOL, _QUIZ = "bench", "bench"
_SECRET = "bench-secret-" + "0" * 32
_STEP_BYTES = 32 * 1024
_WAIT_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_SWEEPS = 3
_VIEW_BYTES = 700
"""Of one view in a snapshot or an update, for the steps of 32 KiB in which frames are billed."""


class BenchError(Exception):
    """The bench can't go on; the message is one line for the user."""


# --- how long a start takes ---------------------------------------------------------------------------------------------------


class StartTime(Struct, frozen=True):
    """Medians over fresh interpreters, above a bare one."""

    what: str
    cpu_ms: float
    wall_ms: float
    memory_mb: float


_ENVIRONMENT = {
    "AWS_REGION": "ap-southeast-1",
    "AWS_DEFAULT_REGION": "ap-southeast-1",
    "AWS_ACCESS_KEY_ID": "AKIDLOCAL",
    "AWS_SECRET_ACCESS_KEY": "local-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "PROCTORWIRE_STATE_TABLE": "state",
    "PROCTORWIRE_JOURNAL_TABLE": "journal",
    "PROCTORWIRE_MANAGEMENT_URL": "https://api.execute-api.ap-southeast-1.amazonaws.com/live",
    "PROCTORWIRE_TOKEN_SECRET": _SECRET,
}
_STARTS = (
    ("message handler, with its TLS context", "import adapters.lambda_apigw.handler as h; h.application()"),
    ("authorizer", "import adapters.lambda_apigw.authorizer as a; a._settings()"),
    (
        "for comparison: boto3 with two clients",
        "import boto3; boto3.client('dynamodb'); boto3.client('apigatewaymanagementapi')",
    ),
    ("for comparison: pydantic", "import pydantic; type('M', (pydantic.BaseModel,), {'__annotations__': {'a': int}})"),
)
_TAIL = """
import time
used = time.process_time() * 1000, time.perf_counter() * 1000 - {began}
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(*used, peak / 1024)
"""


def start_times(runs: int = 5) -> tuple[StartTime, ...]:
    """Import and construction in interpreters that have their byte code, as the zip has it."""
    bare = _started("pass", runs)
    found = []
    for what, code in _STARTS:
        cpu, wall, memory = (a - b for a, b in zip(_started(code, runs), bare, strict=True))
        found.append(StartTime(what, cpu, wall, memory + bare[2]))
    return (StartTime("bare Python", *bare), *found)


def _started(code: str, runs: int) -> tuple[float, float, float]:
    figures = []
    for _ in range(runs + 1):  # the first one writes the byte code
        began = time.perf_counter() * 1000
        done = subprocess.run(
            [sys.executable, "-c", code + _TAIL.format(began=began)],
            env=_ENVIRONMENT | {"PATH": os.environ.get("PATH", os.defpath)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{code!r} failed: {done.stderr.strip().splitlines()[-1]}")
        figures.append(tuple(map(float, done.stdout.split())))
    cpu, wall, memory = zip(*figures[1:], strict=True)
    return statistics.median(cpu), statistics.median(wall), statistics.median(memory)


# --- what a call takes --------------------------------------------------------------------------------------------------------


class ClientSpeed(Struct, frozen=True):
    """Calls of PostToConnection one after the other, against a server that only answers."""

    client: str
    calls_per_second: float
    cpu_ms: float


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def client_speeds(calls: int = 1_000) -> tuple[ClientSpeed, ...]:
    """The lean client and boto3, in the same run: the ratio holds on a busy machine, the figures less so."""
    with _answering_server() as url, Session(Credentials("AKIDLOCAL", "local-secret"), "ap-southeast-1") as session:
        connections = ApiGatewayConnections(session.client("execute-api", url), lambda connection, status: None)
        lean = _timed("lean client", lambda: connections.send("abc=", b"{}"), calls)
        import boto3

        client = boto3.client(
            "apigatewaymanagementapi",
            endpoint_url=url,
            region_name="ap-southeast-1",
            aws_access_key_id="AKIDLOCAL",
            aws_secret_access_key="local-secret",  # noqa: S106  opens nothing
        )
        post = client.post_to_connection
        boto = _timed("boto3", lambda: post(ConnectionId="abc=", Data=b"{}"), max(1, calls // 3))
        client.close()
    return lean, boto


def _timed(name: str, call: Callable[[], object], calls: int) -> ClientSpeed:
    for _ in range(20):
        call()
    wall, cpu = time.perf_counter(), time.thread_time()
    for _ in range(calls):
        call()
    return ClientSpeed(name, calls / (time.perf_counter() - wall), (time.thread_time() - cpu) * 1000 / calls)


@contextlib.contextmanager
def _answering_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# --- units of each kind of frame ----------------------------------------------------------------------------------------------


class Units(Struct, frozen=True):
    """What something used of all that is billed. Of one frame or one student's hour, so not in whole numbers."""

    messages_in: float = 0.0
    messages_out: float = 0.0
    connection_minutes: float = 0.0
    invocations: float = 0.0
    cpu_ms: float = 0.0
    read_units: float = 0.0
    write_units: float = 0.0
    sqs: float = 0.0
    log_bytes: float = 0.0
    calls: Mapping[str, float] = {}
    """Calls that a handler waits for, by kind."""

    def __add__(self, other: Units) -> Units:
        calls = {kind: self.calls.get(kind, 0) + other.calls.get(kind, 0) for kind in {**self.calls, **other.calls}}
        numbers = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        return Units(calls=calls, **numbers)

    def times(self, factor: float) -> Units:
        """So many of these."""
        numbers = {name: getattr(self, name) * factor for name in _NUMBERS}
        return Units(calls={kind: count * factor for kind, count in self.calls.items()}, **numbers)

    def at_least_zero(self) -> Units:
        """Without what noise made negative."""
        numbers = {name: max(0.0, getattr(self, name)) for name in _NUMBERS}
        return Units(calls={kind: max(0.0, count) for kind, count in self.calls.items()}, **numbers)

    def billed_ms(self, memory_mb: float) -> float:
        """Modelled: CPU time on the share of a vCPU, the waits, and half a millisecond for the rounding."""
        waiting = math.fsum(self.calls.get(latency.call, 0.0) * latency.ms for latency in SERVICE_LATENCIES)
        return self.cpu_ms * max(1.0, VCPU_MEMORY_MB / memory_mb) + waiting + 0.5 * self.invocations

    def gb_seconds(self, memory_mb: float) -> float:
        """Modelled."""
        return self.billed_ms(memory_mb) / 1000 * memory_mb / 1024

    def usd(self, prices: Prices, memory_mb: float, architecture: str = "arm64") -> dict[str, float]:
        """Cost by line, at the prices of the first unit of a month."""

        def price(service: str, key: str) -> float:
            return prices.price(service, key).first_usd

        return {
            "messages in": self.messages_in * price("apigateway", "websocket-message"),
            "messages out": self.messages_out * price("apigateway", "websocket-message"),
            "connection minutes": self.connection_minutes * price("apigateway", "websocket-minute"),
            "Lambda requests": self.invocations * price("lambda", "request"),
            "Lambda compute": self.gb_seconds(memory_mb) * price("lambda", f"gb-second-{architecture}"),
            "reads": self.read_units * price("dynamodb", "read-unit"),
            "writes": self.write_units * price("dynamodb", "write-unit"),
            "SQS": self.sqs * price("sqs", "request"),
            "logs": self.log_bytes / 2**30 * price("logs", "ingest-gb"),
        }


_NUMBERS = tuple(name for name in Units.__struct_fields__ if name != "calls")
_WAITS = {latency.call for latency in SERVICE_LATENCIES}


class Measured(Struct, frozen=True):
    """Units by kind. A watch and a sweep grow with the exam: `per_student` says by how much."""

    path: Path
    each: Mapping[str, Units]
    per_student: Mapping[str, Units]
    usage_line_bytes: float


async def measure(path: Path, students: int = 16, rounds: int = 12, sweeps: int = _SWEEPS) -> Measured:
    """Run the handlers behind the emulated gateway, one kind of frame after the other; sweeps come each second."""
    async with LocalServerless(
        token_secret=_SECRET,
        policy=Policy(),
        sweep_seconds=1.0,
        minute_seconds=3_600.0,
        coalesce=path == "together",
        direct_watchers=0 if path == "together" else 3,
        environments=2,
    ) as stack:
        bench = _Bench(stack, students, rounds, sweeps)
        try:
            return await bench.run(path)
        finally:
            await bench.close()


class _Bench:
    """The clients of a measurement, and what was used between two moments."""

    def __init__(self, stack: LocalServerless, students: int, rounds: int, sweeps: int) -> None:
        self.stack = stack
        self.students = students
        self.rounds = rounds
        self.sweeps_measured = sweeps
        self.pages: list[_Page] = []
        self.each: dict[str, Units] = {}
        self.growth: dict[str, Units] = {}

    async def close(self) -> None:
        for page in self.pages:
            await page.close()

    async def run(self, path: Path) -> Measured:
        for number in range(2):  # each function's first invocations are not like the others
            warm = await self.page(f"warm-{number}")
            await warm.report()
            await warm.close()
        proctor = await self.page("proctor", role="proctor")
        await proctor.watch()
        await self.sweeping(2)
        few = await self.sweeps("few")
        async with self.kind("watch-few", self.rounds):
            for _ in range(self.rounds):
                await proctor.watch()
        async with self.kind("connect", self.students, "authorizer", "connect"):
            pages = [await self.page(f"s{number}") for number in range(self.students)]
        async with self.kind("join", self.students):
            await self.all(pages, lambda page: page.report())
        many = await self.sweeps("many")
        async with self.kind("watch-many", self.rounds):
            for _ in range(self.rounds):
                await proctor.watch()
        count = self.rounds * self.students
        async with self.kind("same", count):
            await self.repeat(pages, lambda page: page.report())
        async with self.kind("beat", count):
            for _ in range(self.rounds):  # two of one page at the same time would decide twice
                done = (await self.stack.usage()).gateway.functions["message"].invocations + len(pages)
                await self.all(pages, lambda page: page.beat())
                await self.settled(partial(_is_done, done))
        async with self.kind("echo", count):
            await self.repeat(pages, lambda page: page.beat(echo=True))
        async with self.kind("change", count):
            await self.repeat(pages, lambda page: page.report(answered=page.seq))
        async with self.kind("label", count):
            await self.repeat(pages, lambda page: page.report("away" if page.seq % 2 else "active"))
        async with self.kind("words", self.students):
            await self.all(pages, lambda page: page.say())
        async with self.kind("command", self.students):
            for page in pages:
                await proctor.order(page.name)
        async with self.kind("receipt", self.students):
            await self.all(pages, lambda page: page.confirm(f"k-{page.name}"))
        async with self.kind("disconnect", self.students, "disconnect"):
            for page in pages:
                await page.close()
        size = statistics.mean(map(_item_bytes, await self.stack.records(ExamKey(_SCHOOL, _QUIZ))))
        self._split("watch", self.each.pop("watch-few"), self.each.pop("watch-many"), size / 4096)
        self._split("sweep", few, many, 0.5 * size / 4096)
        usage = await self.settled()
        functions = usage.gateway.functions
        if views := functions["views"].invocations:
            self.each["views"] = _used(usage, "views").times(1 / views)
        lines = sum(meter.usage_line_bytes for meter in usage.meters.values())
        invocations = sum(function.invocations for function in functions.values())
        return Measured(path, self.each, self.growth, lines / max(1, invocations))

    async def page(self, name: str, role: Literal["student", "proctor"] = "student") -> _Page:
        page = _Page(name, role)
        self.pages.append(page)
        await page.connect(self.stack.websocket_url)
        return page

    async def all(self, pages: Sequence[_Page], act: Callable[[_Page], Awaitable[None]]) -> None:
        await asyncio.gather(*(act(page) for page in pages))

    async def repeat(self, pages: Sequence[_Page], act: Callable[[_Page], Awaitable[None]]) -> None:
        for _ in range(self.rounds):
            await self.all(pages, act)

    @contextlib.asynccontextmanager
    async def kind(self, name: str, count: int, *functions: str) -> AsyncIterator[None]:
        """Measure what one of `count` events uses of these functions, or of that for messages."""
        functions = functions or ("message",)
        before = await self.settled()
        wanted = before.gateway.functions[functions[-1]].invocations + count
        yield
        after = await self.settled(lambda usage: usage.gateway.functions[functions[-1]].invocations >= wanted)
        used = Units(messages_in=count if functions == ("message",) else 0)
        for function in functions:
            used += _used(after, function) + _used(before, function).times(-1)
        self.each[name] = used.times(1 / count)

    async def sweeping(self, count: int) -> None:
        start = (await self.stack.usage()).gateway.functions["sweep"].invocations
        await self.settled(lambda usage: usage.gateway.functions["sweep"].invocations >= start + count)

    async def sweeps(self, name: str) -> Units:
        """What one sweep of the exam uses, as it is now and quiet."""
        before = await self.settled(apart=("minute",))
        wanted = before.gateway.functions["sweep"].invocations + self.sweeps_measured
        after = await self.settled(
            lambda usage: usage.gateway.functions["sweep"].invocations >= wanted, apart=("minute",)
        )
        done = after.gateway.functions["sweep"].invocations - before.gateway.functions["sweep"].invocations
        used = _used(after, "sweep") + _used(before, "sweep").times(-1)
        return (used + Units(sqs=2.0 * done)).times(1 / done)  # a message is received and deleted, besides being sent

    async def settled(
        self, reached: Callable[[StackUsage], bool] = lambda usage: True, apart: Sequence[str] = ("sweep", "minute")
    ) -> StackUsage:
        """The usage when nothing is under way any more, apart from these functions."""
        deadline = time.monotonic() + _WAIT_SECONDS
        last: StackUsage | None = None
        while True:
            usage = await self.stack.usage()
            running = sum(f.invocations_running for name, f in usage.gateway.functions.items() if name not in apart)
            quiet = last is not None and all(
                usage.meters[name] == last.meters[name] for name in usage.meters if name not in apart
            )
            if quiet and running == 0 and reached(usage):
                return usage
            if time.monotonic() > deadline:
                raise BenchError(f"the emulated gateway was not done within {_WAIT_SECONDS:.0f} s")
            last = usage
            await asyncio.sleep(_LOOK_SECONDS)

    def _split(self, name: str, few: Units, many: Units, read_units: float) -> None:
        """From a small and a larger exam: what the kind costs by itself, and by student.

        The emulated table counts a query as one unit; DynamoDB counts the bytes of its items in steps of 4 KB.
        """
        growth = (many + few.times(-1)).times(1 / self.students).at_least_zero()
        self.growth[name] = replace(growth, read_units=read_units)
        self.each[name] = few


def _item_bytes(record: Participant) -> int:
    """The size of a participant's item: names and values of its attributes ("Item sizes and formats", DynamoDB guide)."""
    keys = len(f"pks#{record.school}#{record.quiz_id}#0skp#{record.student_id}")
    return keys + len("vrttl") + 9 + 6 + len(participant.encode(replace(record, school="", quiz_id="", student_id="")))


def _is_done(invocations: int, usage: StackUsage) -> bool:
    return usage.gateway.functions["message"].invocations >= invocations


def _used(usage: StackUsage, name: str) -> Units:
    """What a function has used since the start. Each of its posts is a frame below 32 KiB; larger ones are not measured here."""
    function, meter = usage.gateway.functions[name], usage.meters[name]
    calls = {kind: float(meter.calls.get(kind, 0)) for kind in _WAITS}
    return Units(
        messages_out=calls["post_to_connection"],
        invocations=function.invocations,
        cpu_ms=function.cpu_ms,
        read_units=meter.read_units,
        write_units=meter.write_units,
        sqs=calls["sqs"],
        log_bytes=function.log_bytes - meter.usage_line_bytes,
        calls=calls,
    )


class _Page:
    """A student's page or a proctor's dashboard, as simple as can be."""

    def __init__(self, name: str, role: Literal["student", "proctor"]) -> None:
        self.name = name
        self.role = role
        self.seq = 0
        self.answered = 0
        self._socket: ClientConnection | None = None

    async def connect(self, url: str) -> None:
        attempt = f"attempt-{self.name}" if self.role == "student" else ""
        principal = Principal(self.role, _SCHOOL, self.name, (_QUIZ,), time.time() + 3600, attempt_id=attempt)
        token = issue(principal, _SECRET)
        self._socket = await websockets.connect(
            url,
            subprotocols=[Subprotocol("proctorwire"), Subprotocol(f"bearer.{token}")],
            ping_interval=None,
            compression=None,
            max_size=2**20,
        )

    async def report(self, status: str = "active", answered: int | None = None) -> None:
        self.seq += 1
        self.answered = self.answered if answered is None else answered
        await self._send(
            "lmsQuizMonitoringStudent",
            quiz_id=_QUIZ,
            quiz_attempt_id=f"attempt-{self.name}",
            student_id=self.name,
            user_status=status,
            question_answered=self.answered,
            question_number_current=self.answered + 1,
            question_total=100,
            seq=self.seq,
            tab_id="0f8fad5b-d9cb-469f-a165-70867728950e",
            next_ms=120_000,
        )
        await self._until("ack", seq=self.seq)

    async def beat(self, echo: bool = False) -> None:
        await self._send(
            "lmsQuizMonitoringHeartbeat", seq=self.seq, next_ms=120_000, **({"echo": True} if echo else {})
        )
        if echo:
            await self._until("ack", seq=self.seq)

    async def say(self) -> None:
        await self._send(
            "lmsQuizStudentMessage", message_id=f"m-{self.name}", kind="chat", text="may I leave the room?"
        )
        await self._until("ack", message_id=f"m-{self.name}")

    async def confirm(self, command_id: str) -> None:
        await self._send("lmsQuizCommandReceipt", command_id=command_id, outcome="delivered")
        await self._until("ack", command_id=command_id)

    async def watch(self) -> None:
        await self._send("lmsQuizMonitoringProctor", quiz_id=_QUIZ)
        await self._until("lmsQuizMonitoringSnapshot")

    async def order(self, student: str) -> None:
        await self._send(
            "lmsQuizProctorCommand",
            command_id=f"k-{student}",
            quiz_id=_QUIZ,
            student_ids=[student],
            command="warn",
            text="eyes on your own paper",
        )
        await self._until("ack", command_id=f"k-{student}")

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _send(self, action: str, **data: Any) -> None:
        assert self._socket is not None  # connected first
        await self._socket.send(json.dumps({"action": action, "data": data}))

    async def _until(self, action: str, **expected: Any) -> None:
        assert self._socket is not None  # connected first
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while True:
                    frame = json.loads(await self._socket.recv())
                    data = frame.get("data", {})
                    if frame.get("action") == "error":
                        raise BenchError(f"{self.name} was answered {data}")
                    if frame.get("action") == action and all(data.get(k) == v for k, v in expected.items()):
                        return
        except TimeoutError:
            raise BenchError(f"no {action} for {self.name} within {_WAIT_SECONDS:.0f} s") from None


# --- a student's hour ---------------------------------------------------------------------------------------------------------


class Hour(Struct, frozen=True):
    """An exam as the table sees it, for one hour of one of its students."""

    students: int = 200
    proctors: int = 1
    changes: float = 60.0
    """Visible ones, of which `switches` are away or back."""

    switches: float = 2.0
    connects: float = 0.7
    """A two-hour exam, and a drop every five hours: each with its first report and its `$disconnect`."""

    drops: float = 0.2
    """Of these, sockets that close in the middle of an attempt: each may need an extra sweep."""

    words: float = 0.2
    commands: float = 0.1
    echo_beats: float = 4.0
    """A page that heard nothing for so many heartbeats asks for an answer with the next one."""

    held: bool = False
    """Whether progress waits for the page's next beat, as in `compare run`; else it is reported at once, as the script does."""

    memory_mb: int = 256
    exam_cache_seconds: float = 2.0


class Row(Struct, frozen=True):
    """One line of the table."""

    name: str
    beat: float
    units: Units
    usd: float
    lines: Mapping[str, float]
    share: float
    """Of the paper's pattern."""

    silent_seconds: float
    closed_seconds: float


def heartbeats(hour: Hour, beat: float) -> float:
    """In an hour. Changes come at random moments, and the timer starts again with each report that does not wait for it."""
    if hour.held:
        return max(0.0, 3600 / beat - hour.changes)
    return hour.changes / math.expm1(beat * hour.changes / 3600)


def echoes(hour: Hour, beat: float) -> float:
    """How many of the heartbeats ask for an answer: acks of reports are answers, too."""
    return hour.changes / math.expm1(hour.echo_beats * beat * hour.changes / 3600)


def detection_seconds(beat: float) -> tuple[float, float]:
    """When a proctor is shown offline: who falls silent, and whose socket was closed; an extra sweep comes at that moment."""
    return 2 * beat + 15 + LATE_SECONDS, Policy().closed_grace_seconds + LATE_SECONDS


def student_hour(found: Measured, hour: Hour, beat: float) -> Units:
    """Our protocol: a report when something changed, else a heartbeat."""
    beats, asking = heartbeats(hour, beat), echoes(hour, beat)
    plain = found.each["change"].times(hour.changes - hour.switches) + found.each["label"].times(hour.switches)
    total = plain + found.each["beat"].times(beats - asking) + found.each["echo"].times(asking)
    frames = beats + hour.changes
    if found.path == "together":
        total += _together(found, hour)
    total += found.each["words"].times(hour.words)
    total += (found.each["command"] + found.each["receipt"]).times(hour.commands)
    return total + _around(found, hour, frames)


def paper_hour(found: Measured, hour: Hour) -> Units:
    """The paper's pattern: Figure 4 every five seconds, each acked and each forwarded to the proctor."""
    frames = 3600 / PAPER_INTERVAL
    return found.each["change"].times(frames) + _around(found, hour, frames)


def _together(found: Measured, hour: Hour) -> Units:
    """The function that publishes what was collected, which runs as often as the window allows."""
    rate = hour.students * hour.changes / 3600
    runs = 3600 * rate / (1 + rate * WINDOW_SECONDS) / hour.students
    frames = hour.proctors * math.ceil(hour.changes / runs * _VIEW_BYTES / _STEP_BYTES)
    one = found.each["views"]  # of one run, with a frame to the one proctor of the measurement
    more = Units(messages_out=frames - one.messages_out, calls={"post_to_connection": hour.proctors - 1.0})
    return (one + more + Units(sqs=2.0)).times(runs)


def _around(found: Measured, hour: Hour, frames: float) -> Units:
    """What an hour costs besides frames: connections, the exam read by each environment, sweeps, and the proctors."""
    connects = (found.each["connect"] + found.each["join"] + found.each["disconnect"]).times(hour.connects)
    busy_ms = found.each["change"].billed_ms(hour.memory_mb)
    environments = max(1.0, hour.students * frames / 3600 * busy_ms / 1000 * 1.33)
    exam_reads = min(frames, environments * 3600 / hour.exam_cache_seconds / hour.students)
    exam = Units(read_units=1.0, calls={"dynamodb_read": 1.0}).times(exam_reads)
    sweep = found.each["sweep"] + found.per_student["sweep"].times(hour.students)
    # at most one extra sweep for each socket that drops: its page may be back before
    extra = min(hour.drops, (3600 / LATE_SECONDS - 3600 / SWEEP_SECONDS) / hour.students)
    sweeps = sweep.times(3600 / SWEEP_SECONDS / hour.students + extra)
    watch = found.each["watch"] + found.per_student["watch"].times(hour.students)
    pages = math.ceil(hour.students * _VIEW_BYTES / _STEP_BYTES)
    watch = watch + Units(messages_out=pages - watch.messages_out)
    watches = watch.times(60 * hour.proctors / hour.students)
    polling = Units(sqs=2 * 15 * 60 / hour.students)  # two queues that are empty, five pollers each, twenty seconds
    minutes = Units(connection_minutes=60 * (1 + hour.proctors / hour.students) + 0.5 * hour.connects)
    logs = Units(log_bytes=found.usage_line_bytes * environments * 60 / hour.students)
    return connects + exam + sweeps + watches + polling + minutes + logs


def table(direct: Measured, together: Measured, hour: Hour, prices: Prices) -> tuple[Row, ...]:
    """The paper's pattern, then both paths for each beat."""

    def row(name: str, beat: float, units: Units, base: float | None) -> Row:
        lines = units.usd(prices, hour.memory_mb)
        usd = math.fsum(lines.values())
        silent, closed = detection_seconds(beat)
        return Row(name, beat, units, usd, lines, usd / (base or usd), silent, closed)

    paper = row("paper's pattern", PAPER_INTERVAL, paper_hour(direct, hour), None)
    rows = [paper]
    for beat in BEATS:
        for found in (direct, together):
            for held in (False, True):
                units = student_hour(found, replace(hour, held=held), beat)
                rows.append(
                    row(f"{found.path}, progress {'with the beat' if held else 'at once'}", beat, units, paper.usd)
                )
    return tuple(rows)
