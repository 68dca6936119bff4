"""A move of a live exam, played on this machine: the emulated serverless side, a cluster, a bridge, pages and dashboards.

The judges are the pages (was each report acknowledged, and kept), and a dashboard on either side (was each report shown, how late,
and was anybody shown offline). The serverless side is emulated; the cluster, its Redis, the bridge and all sockets are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeAlias, cast

import websockets
from msgspec import Struct

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.config import new_secret
from adapters.ec2_cluster.keys import exam_keys
from adapters.ec2_cluster.local import LocalCluster
from adapters.lambda_apigw import config
from adapters.lambda_apigw.handler import Application
from adapters.lambda_apigw.local.exam_stack import LocalServerless
from adapters.lambda_apigw.shell import Outbox
from core import exam
from core.events import ExamClosed
from core.identity import Principal, issue
from core.migration import Health, Limits, Move, target
from core.participant import ExamKey, ParticipantKey
from deploy.migrate import follow, start, step

Fault: TypeAlias = Literal[
    "bridge", "worker", "redis", "environment", "two-tabs", "transit-command", "guard", "dead-cluster"
]
FAULTS: tuple[Fault, ...] = (
    "bridge", "worker", "redis", "environment", "two-tabs", "transit-command", "guard", "dead-cluster"
)  # fmt: skip
SCHOOL, QUIZ = "rehearsal", "exam-1"
_STEP_SECONDS = 60.0
_JOINS_A_SECOND = 20.0
_LOOK_SECONDS = 0.3
_VISITORS = 12
_PATIENT = Limits(silent_seconds=30.0, errors=10**6, lag_seconds=60.0, offline_share=1.0)
"""With a fault, of which the guard knows nothing: what is judged is that nobody notices it."""
_HASTY = Limits(silent_seconds=3.0)
_RESEND_SECONDS = 4.0


class MigrationRehearsalError(Exception):
    """The rehearsal could not be played, or a step did not end; one line."""


class Addresses:
    """What DNS says: where a client that only knows a name connects."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.urls = urls
        self.weight = 0.0

    def resolve(self, place: float) -> str:
        """By the weight, the same for a client each time."""
        return self.urls["ec2" if place < self.weight else "lambda"]


class _Plane:
    """`migrate.Plane` over the emulated side."""

    def __init__(self, app: Application, addresses: Addresses, one_at_a_time: threading.RLock) -> None:
        self._app = app
        self._addresses = addresses
        self._one_at_a_time = one_at_a_time

    def _moves(self) -> Any:
        self._app.session.begin(20)
        return self._app.moves

    def load(self) -> Move | None:
        """See `Plane`."""
        with self._one_at_a_time:
            move: Move | None = self._moves().load()
            return move

    def save(self, before: Move | None, after: Move) -> bool:
        """See `Plane`."""
        with self._one_at_a_time:
            return bool(self._moves().save(before, after))

    def health(self) -> Health | None:
        """See `Plane`."""
        with self._one_at_a_time:
            health: Health | None = self._moves().health()
            return health

    def weigh(self, percent: float) -> None:
        """See `Plane`."""
        self._addresses.weight = percent / 100


class Page:
    """A student's page. With `paper` it sends Figure 4 and nothing else, and knows no `reconnect`.

    Otherwise it does as the student script: a connection is kept until the next one has been heard on.
    """

    def __init__(
        self,
        name: str,
        token: str,
        addresses: Addresses,
        interval: float,
        *,
        paper: bool,
        tab: str = "",
        quiz_id: str = QUIZ,
    ) -> None:
        self.name = name
        self.quiz_id = quiz_id
        self.paper = paper
        self.tab = tab or f"tab-{name}"
        self.attempts: dict[int, float] = {}
        self.acked: dict[int, float] = {}
        self.commands: list[str] = []
        self.connects = 0
        self.on = ""
        self.running = True
        self._token = token
        self._addresses = addresses
        self._place = (hash_of(name) % 1000) / 1000
        self._interval = interval
        self._url = ""
        self._answered = 0
        self._seq = 0
        self._unacked: dict[int, dict[str, Any]] = {}
        self._sent_at: dict[int, float] = {}
        self._moves = asyncio.Event()
        self._order: tuple[float, str] | None = None
        self._former: tuple[Any, asyncio.Task[None]] | None = None
        self._retiring: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until told to end."""
        try:
            while self.running:
                url = self._url or self._addresses.resolve(self._place)
                try:
                    await self._connected(url)
                except (OSError, websockets.WebSocketException, TimeoutError):
                    self._url = ""  # the address that is configured
                    await asyncio.sleep(0.3)
        finally:
            await self._retire()

    async def _connected(self, url: str) -> None:
        """Talk on a new connection. The present one, if there is one, is kept until something is heard on the new one."""
        # the paper's own clients have their token in the address that is configured
        socket = await websockets.connect(
            f"{url}?token={self._token}" if self.paper else url,
            subprotocols=None if self.paper else cast(Any, ["proctorwire", f"bearer.{self._token}"]),
            ping_interval=None,
            close_timeout=0.2,
        )
        self.connects += 1
        self.on = url
        reader = asyncio.create_task(self._read(socket))
        is_moving = False
        try:
            is_moving = await self._talk(socket, reader)
        finally:
            await self._retire()
            self._former = socket, reader
            if not is_moving:
                await self._retire()

    async def _retire(self) -> None:
        former, self._former = self._former, None
        if former is not None:
            former[1].cancel()
            await former[0].close()

    async def _talk(self, socket: Any, reader: asyncio.Task[None]) -> bool:
        """Until the socket is closed (False), or it is time to move elsewhere (True)."""
        self._moves.clear()
        self._order = None
        if not self._unacked:
            await self._report(socket)
        for seq in list(self._unacked):
            await self._send(socket, seq)
        due = time.monotonic() + self._interval
        while self.running and not reader.done():
            wait = max(0.0, due - time.monotonic())
            if self._unacked:
                wait = min(wait, _RESEND_SECONDS)
            if (order := self._ordered()) is not None:
                wait = min(wait, max(0.0, order[0] - time.monotonic()))
            waker = asyncio.create_task(self._moves.wait())
            await asyncio.wait((waker, reader), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            waker.cancel()
            self._moves.clear()
            order = self._ordered()
            if order is not None and order[0] <= time.monotonic():
                self._url = order[1] or self._url
                return True
            if time.monotonic() >= due and not reader.done():
                due += self._interval
                await self._report(socket)
            for seq in [s for s, at in self._sent_at.items() if time.monotonic() - at > _RESEND_SECONDS]:
                await self._send(socket, seq)
        return False

    def _is_present(self, socket: Any) -> bool:
        return self._former is None or self._former[0] is not socket

    def _ordered(self) -> tuple[float, str] | None:
        return self._order

    async def _report(self, socket: Any) -> None:
        self._answered += 1
        self._seq += 1
        data: dict[str, Any] = {
            "quiz_id": self.quiz_id,
            "quiz_attempt_id": f"a-{self.name}",
            "student_id": self.name,
            "user_status": "active",
            "question_answered": self._answered,
            "question_total": 1000,
        }
        if not self.paper:
            data |= {"seq": self._seq, "tab_id": self.tab, "next_ms": 5_000}
        self.attempts.setdefault(self._answered, time.monotonic())
        if self.paper:
            await socket.send(json.dumps({"action": "lmsQuizMonitoringStudent", "data": data}))
        else:
            self._unacked[self._seq] = data
            await self._send(socket, self._seq)

    async def _send(self, socket: Any, seq: int) -> None:
        if seq in self._unacked:
            self._sent_at[seq] = time.monotonic()
            await socket.send(json.dumps({"action": "lmsQuizMonitoringStudent", "data": self._unacked[seq]}))

    async def _read(self, socket: Any) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in socket:
                frame = json.loads(text)
                data = frame["data"]
                if self._former is not None and self._former[0] is not socket:
                    self._retiring = asyncio.create_task(self._retire())
                if frame["action"] == "ack" and data.get("seq"):
                    self._sent_at.pop(data["seq"], None)
                    report = self._unacked.pop(data["seq"], None)
                    if report:
                        self.acked[report["question_answered"]] = time.monotonic()
                elif frame["action"] == "lmsQuizCommand":
                    self.commands.append(data["command_id"])
                    receipt = {"command_id": data["command_id"], "outcome": "delivered"}
                    await socket.send(json.dumps({"action": "lmsQuizCommandReceipt", "data": receipt}))
                elif (
                    frame["action"] == "reconnect"
                    and not self.paper
                    and self._order is None
                    and self._is_present(socket)
                ):
                    self._order = (time.monotonic() + data["after_ms"] / 1000, data.get("url") or "")
                    self._moves.set()


class Dashboard:
    """A proctor: what was shown of whom, and when."""

    def __init__(self, name: str, token: str, url: str, quiz_id: str = QUIZ) -> None:
        self.name = name
        self.quiz_id = quiz_id
        self.views: dict[str, dict[str, Any]] = {}
        self.shown: dict[tuple[str, int], float] = {}
        self.offline: list[tuple[str, float]] = []
        self.duplicates = 0
        self.acks: set[str] = set()
        self.statuses: dict[str, dict[str, str]] = {}
        self._token = token
        self._url = url
        self._socket: Any = None
        self._messages: set[str] = set()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
                async with websockets.connect(
                    self._url,
                    subprotocols=cast(Any, ["proctorwire", f"bearer.{self._token}"]),
                    max_size=2**20,
                    close_timeout=0.2,
                ) as socket:
                    self._socket = socket
                    await self._send("lmsQuizMonitoringProctor", quiz_id=self.quiz_id)
                    async for text in socket:
                        self._heard(json.loads(text))
            await asyncio.sleep(0.3)

    async def _send(self, action: str, **data: Any) -> None:
        await self._socket.send(json.dumps({"action": action, "data": data}))

    async def command(self, command_id: str, student_id: str) -> None:
        """Send a message to a student."""
        await self._send(
            "lmsQuizProctorCommand",
            command_id=command_id,
            quiz_id=self.quiz_id,
            student_ids=[student_id],
            command="message",
            text="hello",
        )

    def _heard(self, frame: dict[str, Any]) -> None:
        now, data = time.monotonic(), frame["data"]
        if frame["action"] in ("lmsQuizMonitoringSnapshot", "lmsQuizMonitoringUpdate"):
            for shown in data["participants"]:
                student_id = shown["student_id"]
                known = self.views.get(student_id)
                if known is not None and known["version"] >= shown["version"]:
                    continue
                if known is not None and known["question_answered"] > shown["question_answered"]:
                    self.duplicates += 1  # something old was applied again
                self.views[student_id] = shown
                if shown["label"] == "offline" and (known is None or known["label"] != "offline"):
                    self.offline.append((student_id, now))
                for answered in range(known["question_answered"] if known else 0, shown["question_answered"]):
                    self.shown.setdefault((student_id, answered + 1), now)
        elif frame["action"] == "ack" and data.get("command_id"):
            self.acks.add(data["command_id"])
        elif frame["action"] == "lmsQuizMonitoringMessage":
            self.duplicates += data["message_id"] in self._messages
            self._messages.add(data["message_id"])
        elif frame["action"] == "lmsQuizCommandStatus":
            self.statuses.setdefault(data["command_id"], {}).update(data["students"])


def hash_of(name: str) -> int:
    """The same in each run."""
    import zlib

    return zlib.crc32(name.encode())


class Step(Struct, frozen=True):
    """One step of the move, and how long it took."""

    what: str
    seconds: float


class Outcome(Struct, frozen=True):
    """What the judges found. Gaps in seconds, from a report's first sending to its showing on a dashboard, on each of them.

    They are those of the move; `before_p99` is the same of the reports before it, as this machine plays without any move.
    """

    students: int
    reports: int
    lost: int
    duplicates: int
    false_offline: int
    gap_p50: float
    gap_p99: float
    gap_max: float
    steps: tuple[Step, ...]
    fault: str = ""
    taken_back: str = ""
    """Why the guard took a step back."""
    before_p99: float = 0.0

    def problems(self) -> list[str]:
        """What must not be. With a fault that takes a process away, views may be as late as its return takes."""
        found = [
            f"{name} is {value}, not 0"
            for name, value in (
                ("lost", self.lost), ("duplicates", self.duplicates), ("false offline", self.false_offline)
            )
            if value
        ]  # fmt: skip
        if self.taken_back and self.fault != "guard":
            found.append(f"a step was taken back: {self.taken_back}")
        if self.fault == "guard" and not self.taken_back:
            found.append("the guard did not take the step back")
        if not self.fault:
            if self.gap_p99 >= 1.0:
                found.append(f"the gap's p99 is {self.gap_p99:.2f} s, not below 1 s")
            if self.gap_max >= 3.0:
                found.append(f"the greatest gap is {self.gap_max:.2f} s, not below 3 s")
            if found and self.before_p99 >= 1.0:
                found.append(
                    f"this machine is too busy: before the move the gap's p99 was {self.before_p99:.2f} s already"
                )
        return found


class Rehearsal:
    """Both sides, the bridge, pages and dashboards."""

    def __init__(
        self,
        students: int,
        say: Callable[[str], None],
        *,
        interval: float = 5.0,
        slot_seconds: float = 5.0,
        redis_url: str = "",
        is_timed: bool = True,
    ):
        """`redis_url`: an empty Redis, or a Redis Cluster, for the cluster's side; without it the cluster has one of its own.

        `is_timed`: gaps are of interest, so there is some warming up, and a while without a move to compare with.
        """
        self._redis_url = redis_url
        self._is_timed = is_timed
        self._students = students
        self._say = say
        self._interval = interval
        self._slot_seconds = slot_seconds
        self._secret = new_secret()
        self._began = time.monotonic()
        self._steps: list[Step] = []
        self._one_at_a_time = threading.RLock()
        self._taken_back = ""
        self._joined_at = self._moving_since = float("inf")
        self._sides: list[str] = []
        self._judged: dict[str, int] = {}
        self._not_kept = 0
        self.pages: list[Page] = []
        self.dashboards: dict[str, Dashboard] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._bridge: asyncio.subprocess.Process | None = None

    def _told(self, what: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  {what}")

    def token(self, role: Literal["student", "proctor"], name: str, quiz_id: str = QUIZ) -> str:
        """For a page or dashboard."""
        attempt = f"a-{name}" if role == "student" else ""
        return issue(Principal(role, SCHOOL, name, (quiz_id,), time.time() + 7_000, attempt), self._secret)

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator[Rehearsal]:
        """With everything up: all students on the serverless side, a dashboard on either side."""
        async with contextlib.AsyncExitStack() as stack:
            self.stack = await stack.enter_async_context(LocalServerless(token_secret=self._secret, environments=4))
            self._environment = self.stack.environment
            table = self._environment["PROCTORWIRE_JOURNAL_TABLE"]
            aws = {name: value for name, value in self._environment.items() if name.startswith("AWS_")}
            aws["AWS_DEFAULT_REGION"] = aws["AWS_REGION"]
            self.cluster = await stack.enter_async_context(
                LocalCluster(
                    token_secret=self._secret,
                    workers=2,
                    redis_url=self._redis_url,
                    journal=f"dynamodb:{table}",
                    environments=[aws],
                )
            )
            self.app = Application(config.from_environment(self._environment), "rehearsal")
            self.addresses = Addresses({"lambda": self.stack.websocket_url, "ec2": self.cluster.urls[0]})
            self._told("both sides are up: serverless (emulated) and a cluster of 2 workers")
            stack.push_async_callback(self._stop)
            for number in range(self._students):
                name = f"s{number:04d}"
                paper = number % 10 == 9
                page = Page(name, self.token("student", name), self.addresses, self._interval, paper=paper)
                self.pages.append(page)
            self._tasks += [asyncio.create_task(self._later(n, page)) for n, page in enumerate(self.pages)]
            for side, url in self.addresses.urls.items():
                dashboard = self.dashboards[side] = Dashboard(f"p-{side}", self.token("proctor", f"p-{side}"), url)
                self._tasks.append(asyncio.create_task(dashboard.run()))
            await self.until(lambda: all(p.attempts for p in self.pages), "students connect", 60)
            await self.until(lambda: self.sees_all("lambda"), "the serverless side's proctor sees all", 60)
            if self._is_timed:
                await self._visitors()
                await self.until(self._is_current, "the serverless side has caught up with all who joined", 60)
                self._joined_at = time.monotonic()
                played = self._joined_at + self._interval
                await self.until(lambda: time.monotonic() > played, "an interval is over", 2 * self._interval)
            self._told(
                f"{self._students} students report, {sum(p.paper for p in self.pages)} of them the paper's clients"
            )
            yield self

    async def _later(self, number: int, page: Page) -> None:
        over = max(self._interval, self._students / _JOINS_A_SECOND)
        await asyncio.sleep(over * number / max(1, self._students))
        await page.run()

    async def _visitors(self) -> None:
        """Pages that come and go together, as in any exam: so that the move does not meet functions that never ran before."""
        url = self.addresses.urls["lambda"]

        async def visit(number: int) -> None:
            protocols = cast(Any, ["proctorwire", f"bearer.{self.token('student', f'visitor-{number}')}"])
            async with websockets.connect(url, subprotocols=protocols, close_timeout=0.5):
                await asyncio.sleep(0.5)

        await asyncio.gather(*(visit(number) for number in range(_VISITORS)), return_exceptions=True)

    def _is_current(self) -> bool:
        """Whether what was reported a second ago is shown."""
        shown, now = self.dashboards["lambda"].shown, time.monotonic()
        return all((p.name, n) in shown for p in self.pages for n, at in p.attempts.items() if at < now - 1)

    async def _stop(self) -> None:
        for page in self.pages:
            page.running = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.kill_bridge()
        self.app.session.close()

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = _STEP_SECONDS) -> None:
        """Wait for it. Raises `MigrationRehearsalError`."""
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends:
                raise MigrationRehearsalError(f"did not happen within {seconds:.0f} s: {what}")
            await asyncio.sleep(0.05)

    def sees_all(self, side: str) -> bool:
        """Whether this side's dashboard shows every student as there."""
        views = self.dashboards[side].views
        return len(views) == self._students and all(v["label"] == "active" for v in views.values())

    # --- the bridge ---

    async def start_bridge(self) -> None:
        """A process of its own."""
        environment = {**os.environ, **self._environment, "PROCTORWIRE_REDIS_URL": self.cluster.redis_url}
        self._bridge = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.bridge"), env=environment, stdout=asyncio.subprocess.PIPE
        )
        assert self._bridge.stdout is not None
        await asyncio.wait_for(self._bridge.stdout.readline(), 20)

    async def kill_bridge(self) -> None:
        """Without a word."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None and bridge.returncode is None:
            bridge.kill()
            await bridge.wait()

    # --- steps ---

    async def _aws(self, work: Callable[[Application], Any]) -> Any:
        def invocation() -> Any:
            with self._one_at_a_time:
                self.app.session.begin(20)
                return work(self.app)

        return await asyncio.to_thread(invocation)

    async def start(self) -> None:
        """The plan at 0 %, and the bridge: both dashboards see all."""
        at = time.monotonic()
        urls = self.addresses.urls
        move = Move(urls["lambda"], urls["ec2"], slot_seconds=self._slot_seconds, changed_at=time.time())
        await self._aws(lambda app: start(_Plane(app, self.addresses, self._one_at_a_time), move))
        await self.start_bridge()
        await self.until(lambda: self.sees_all("ec2"), "the cluster's proctor sees all")
        self._done("start: the cluster's proctor sees all students of the serverless side", at)
        self._moving_since = time.monotonic()

    async def shift(
        self,
        percent: float,
        what: str = "",
        during: Callable[[], Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """To this percentage, until all who belong there are there. `during` does harm in the middle.

        The guard is the command's own: beyond its limits the step is taken back, and then all are where they were before.
        """
        at = time.monotonic()
        before = await self._aws(lambda app: app.moves.load())
        state: Any = "rolled_back" if percent < before.percent else "shifting"
        move: Move = await self._aws(
            lambda app: step(_Plane(app, self.addresses, self._one_at_a_time), state, percent, time.time())
        )
        limits = limits or (_PATIENT if during else Limits())
        guard = asyncio.create_task(asyncio.to_thread(self._watch, move, before.percent, limits))
        try:
            if during is not None:
                cluster = self.addresses.urls["ec2"]
                await self.until(
                    lambda: sum(p.on == cluster for p in self.pages) > len(self.pages) // 8, "the first pages go"
                )
                await during()
        finally:
            reason = await guard
        if reason:
            self._taken_back = reason
            self._told(f"the guard took the step back: {reason}")
            move = await self._aws(lambda app: app.moves.load())
        ends = time.monotonic() + _STEP_SECONDS
        while self._there(move) < len(self.pages):
            if time.monotonic() > ends:
                missing = [p.name for p in self.pages if not self._is_there(move, p)]
                raise MigrationRehearsalError(f"{len(missing)} pages did not come: {', '.join(missing[:5])}")
            await asyncio.sleep(0.05)
        while move.percent in (0, 100) and (await self._aws(lambda app: app.moves.health())).waiting:
            if time.monotonic() > ends:
                raise MigrationRehearsalError("the bridge still waits for some")
            await asyncio.sleep(0.2)
        what = what or f"shift to {percent:g} %"
        self._done(f"{what}, taken back to {move.percent:g} %" if reason else what, at)

    def _watch(self, move: Move, back_to: float, limits: Limits) -> str:
        """`migrate.follow`, as `deploy migrate shift` does it."""
        plane = _Plane(self.app, self.addresses, self._one_at_a_time)
        return follow(plane, move, back_to, lambda _: None, limits=limits, look_seconds=_LOOK_SECONDS)

    def _is_there(self, move: Move, page: Page) -> bool:
        home = target(move, ParticipantKey(SCHOOL, QUIZ, page.name))
        if page.paper:
            home = "ec2" if page._place < self.addresses.weight else "lambda"
            if home != target(move, ParticipantKey(SCHOOL, QUIZ, page.name)):
                return True  # DNS and plan differ for a while: its reports are carried over
        return page.on == self.addresses.urls[home]

    def _there(self, move: Move) -> int:
        return sum(self._is_there(move, page) for page in self.pages)

    def _done(self, what: str, at: float) -> None:
        seconds = time.monotonic() - at
        self._steps.append(Step(what, round(seconds, 2)))
        self._told(f"{what}: {seconds:.1f} s")

    async def begin_another(self, quiz_id: str) -> None:
        """An exam that begins during the move, with a report to the cluster: the serverless side's proctors see it."""
        name, urls = "late", self.addresses.urls
        there = Addresses({"lambda": urls["ec2"], "ec2": urls["ec2"]})
        page = Page(name, self.token("student", name, quiz_id), there, self._interval, paper=False, quiz_id=quiz_id)
        dashboard = Dashboard("late-proctor", self.token("proctor", "late-proctor", quiz_id), urls["lambda"], quiz_id)
        self._tasks += [asyncio.create_task(page.run()), asyncio.create_task(dashboard.run())]
        await self.until(lambda: page.acked and name in dashboard.views, "an exam that has just begun is seen")
        page.running = False
        self._told(f"{quiz_id} began on the cluster and is seen by the serverless side's proctor")

    async def close_exam(self) -> None:
        """The school closes the exam over the serverless side's API: it is closed on the cluster, too."""
        key, event = ExamKey(SCHOOL, QUIZ), ExamClosed(received_at=time.time(), by="api")

        def close(app: Application) -> None:
            outbox = Outbox()
            app.shell.apply_exam(key, event, outbox)
            app.shell.finish(outbox)

        await self._aws(close)
        with redis_sync.connect(redis_sync.marked(self.cluster.redis_url)) as client:
            ends = time.monotonic() + 20
            while exam.decode(cast(Any, await asyncio.to_thread(client.get, exam_keys(key).exam))).state != "closed":
                if time.monotonic() > ends:
                    raise MigrationRehearsalError("the exam was closed on one side and goes on on the other")
                await asyncio.sleep(0.1)
        self._told("the exam was closed on the serverless side, and is on the cluster")

    async def finish(self) -> None:
        """All are on the cluster: the plan is done with."""
        await self._aws(
            lambda app: step(_Plane(app, self.addresses, self._one_at_a_time), "finished", 100, time.time())
        )

    # --- harm ---

    def _weight_is(self, weight: float) -> bool:
        return self.addresses.weight == weight

    def _kill(self, role: str) -> None:
        os.kill(self.cluster.pids()[role][0], signal.SIGKILL)

    async def harm(self, fault: Fault) -> None:
        """Do it, in the middle of a step."""
        self._told(f"fault: {fault}")
        if fault == "bridge":
            await self.kill_bridge()
            await asyncio.sleep(2.5)
            await self.start_bridge()
        elif fault == "guard":
            weight = self.addresses.weight
            await self.kill_bridge()
            await self.until(lambda: not self._weight_is(weight), "the guard takes the step back", 30)
            await self.start_bridge()
        elif fault == "worker":
            self._kill("worker")
        elif fault == "environment":
            await self.stack.kill_environment()
        elif fault == "redis":
            from adapters.ec2_cluster.embedded import EmbeddedRedis

            killed = self.cluster._redis
            assert killed is not None  # it has one of its own
            self._kill("redis")
            await asyncio.to_thread(killed._process.wait)
            self.cluster._redis = await asyncio.to_thread(EmbeddedRedis.start, killed.directory)
        elif fault == "two-tabs":
            page = self.pages[0]
            addresses = Addresses({"lambda": self.addresses.urls["lambda"], "ec2": self.addresses.urls["lambda"]})
            other = Page(page.name, page._token, addresses, 3_600.0, paper=False, tab="second")
            other._answered = page._answered - 1  # it shows the same exam as the first one
            self._tasks.append(asyncio.create_task(other.run()))
            await self.until(lambda: other.acked, "the second tab's reports are acked")
            other.running = False
        elif fault == "transit-command":
            wanted = []
            for n, page in enumerate([p for p in self.pages if not p.paper][:8]):
                for side, dashboard in self.dashboards.items():
                    command_id = f"c-{side}-{n}"
                    await dashboard.command(command_id, page.name)
                    wanted.append((page, command_id))
            await self.until(lambda: all(c in p.commands for p, c in wanted), "commands from both sides arrive")
            self._told(f"{len(wanted)} commands from both sides reached students in transit")

    async def dead_cluster(self) -> None:
        """The whole cluster dies, and the move is rolled back without it."""
        self._told("fault: dead-cluster")
        at = time.monotonic()
        os.kill(self.cluster.pids()["supervisor"][0], signal.SIGKILL)
        await self.kill_bridge()
        came = await self._forced_rollback()
        self.addresses.weight = 0.0
        urls = self.addresses.urls
        await self.until(lambda: all(p.on == urls["lambda"] for p in self.pages), "all pages are back")
        self._done(f"forced rollback with the cluster dead: {came}", at)

    async def _forced_rollback(self) -> str:
        """By the operator's own command; returns what it said."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.bridge", "--forced-rollback"),
            env={**os.environ, **self._environment},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        if process.returncode != 0:
            raise MigrationRehearsalError(f"the forced rollback ended with {process.returncode}")
        return said.decode().strip().removeprefix("bridge: ")

    # --- judging ---

    async def settle(self) -> None:
        """Let what was sent arrive: no new reports, and each dashboard that lives shows the last one of each page."""
        self._judged = {page.name: max(page.attempts) for page in self.pages}
        for page in self.pages:
            if (
                not page.paper
            ):  # the paper's own goes on: what it reports next is all that repairs one that was overtaken on its way
                page._interval = 3_600.0
        sides = [s for s in self.dashboards if s == "lambda" or self.cluster.pids().get("worker")]

        def arrived() -> bool:
            return all(
                d.views.get(p.name, {}).get("question_answered", 0) >= self._judged[p.name]
                for d in (self.dashboards[s] for s in sides)
                for p in self.pages
            )

        with contextlib.suppress(MigrationRehearsalError):
            await self.until(arrived, "the last reports are shown", 15)
        self._sides = sides
        with contextlib.suppress(MigrationRehearsalError):
            await self.until(lambda: not any(p._unacked for p in self.pages), "all is acknowledged", 10)
        exam = ExamKey(SCHOOL, QUIZ)
        ends = time.monotonic() + 5
        while True:  # what was acknowledged is on record, in the table that both sides end in
            records = {r.student_id: r for r in await self.stack.records(exam)}
            self._not_kept = sum(
                bool(p._unacked) or records[p.name].question_answered < max(p.acked, default=0) for p in self.pages
            )
            if not self._not_kept or time.monotonic() > ends:
                break
            await asyncio.sleep(0.2)

    def outcome(self, fault: str = "") -> Outcome:
        """The judges' word."""
        lost, gaps, before = self._not_kept, [], []
        for side in self._sides:
            dashboard = self.dashboards[side]
            for page in self.pages:
                for answered, at in page.attempts.items():
                    if answered > self._judged[page.name]:
                        continue
                    shown = dashboard.shown.get((page.name, answered))
                    if shown is None:
                        lost += 1
                    elif at >= self._moving_since:
                        gaps.append(shown - at)
                    elif side == "lambda" and at >= self._joined_at:  # the cluster's saw nobody yet
                        before.append(shown - at)
        gaps.sort()
        before.sort()
        return Outcome(
            students=self._students,
            reports=sum(len(p.attempts) for p in self.pages),
            lost=lost,
            duplicates=sum(d.duplicates for d in self.dashboards.values()),
            false_offline=sum(len(d.offline) for d in self.dashboards.values()),
            gap_p50=statistics.median(gaps) if gaps else 0.0,
            gap_p99=gaps[int(len(gaps) * 0.99)] if gaps else 0.0,
            gap_max=gaps[-1] if gaps else 0.0,
            steps=tuple(self._steps),
            fault=fault,
            taken_back=self._taken_back,
            before_p99=before[int(len(before) * 0.99)] if before else 0.0,
        )


def refuse_used(redis_url: str) -> None:
    """What a rehearsal leaves in a Redis would be taken for a move. Raises `MigrationRehearsalError` unless it is empty."""
    try:
        with redis_sync.connect(redis_sync.marked(redis_url)) as client:
            known = cast(int, client.dbsize())
    except (*redis_sync.ERRORS, ValueError, TypeError, OSError) as error:
        raise MigrationRehearsalError(f"--redis can't be used: {error}") from error
    if known:
        raise MigrationRehearsalError(f"--redis has {known} keys; give an empty one, which nobody else uses")


async def rehearse(
    students: int,
    say: Callable[[str], None],
    fault: Fault | None = None,
    *,
    interval: float = 5.0,
    slot: float = 5.0,
    redis_url: str = "",
) -> Outcome:
    """Play a move in steps, one rollback in it, and finish; with a fault in the middle of a step.

    Raises `MigrationRehearsalError`.
    """
    rehearsal = Rehearsal(students, say, interval=interval, slot_seconds=slot, redis_url=redis_url)
    async with rehearsal.playing():
        await rehearsal.start()
        if fault is None:
            await rehearsal.shift(50)
            await rehearsal.shift(0, "rollback to 0 %")
            await rehearsal.shift(100)
            await rehearsal.begin_another("exam-2")
            await rehearsal.finish()
        elif fault == "dead-cluster":
            await rehearsal.shift(50)
            await asyncio.sleep(1.5)
            await rehearsal.dead_cluster()
        else:
            chosen, limits = fault, _HASTY if fault == "guard" else None
            await rehearsal.shift(50, during=lambda: rehearsal.harm(chosen), limits=limits)
        await rehearsal.settle()
        if fault is None:
            await rehearsal.close_exam()
        return rehearsal.outcome(fault or "")
