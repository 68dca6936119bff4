"""`proctorwire demo`: a cluster, the web app and simulated students, to look at the dashboard and to try the demo exam.

Everything is real but the students: processes over an embedded Redis, the HTTP API that the roster goes in through, tokens,
pages. The exam is already running when it opens, so that there is something to see. Nothing of it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Literal
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from adapters.ec2_cluster.config import new_secret
from adapters.ec2_cluster.local import LocalCluster
from adapters.ec2_cluster.web import WebReady
from adapters.lambda_apigw.local.child_process import die_with_parent
from compare.run.clients import Client, Surroundings
from compare.run.recording import Clock, LineEnd, Traffic
from core import messages as m
from core.errors import CloseCode
from core.identity import Principal, issue

SCHOOL = "demo"
QUIZ = "geography-11"
QUESTIONS = 40
EXAM_SECONDS = 3_600.0
ALREADY_SECONDS = 1_500.0
ROOM_SEATS = 25
YOU = "you"

_HEARTBEAT_MS = 19_000
_HIDDEN_MS = 60_000
_TICK_SECONDS = (4.0, 6.0)
_TOKEN_SECONDS = 8 * 3_600.0
_READY_SECONDS = 20.0
_NEVER_COME = 0.03

# fmt: off
_FIRST = (
    "Adi", "Agus", "Ayu", "Bagas", "Bayu", "Budi", "Citra", "Dewi", "Dian", "Dimas", "Eka", "Fajar", "Farah", "Fitri", "Gilang",
    "Hana", "Indah", "Intan", "Joko", "Kartika", "Laras", "Made", "Maya", "Nadia", "Nanda", "Nisa", "Putri", "Rafi", "Rahma",
    "Ratna", "Reza", "Rizki", "Salsa", "Sari", "Sinta", "Taufik", "Tika", "Wahyu", "Yoga", "Zahra",
)
_LAST = (
    "Anggraini", "Hakim", "Halim", "Hidayat", "Kurniawan", "Kusuma", "Lestari", "Lubis", "Maulana", "Nasution", "Nugroho",
    "Permata", "Pratama", "Purnama", "Rahayu", "Ramadhan", "Santoso", "Saputra", "Setiawan", "Siregar", "Sitorus", "Suryani",
    "Susanti", "Utami", "Wibowo", "Wijaya", "Wulandari",
)
# fmt: on
_ASKS = (
    "May I go to the toilet?",
    "The picture of question 12 does not load.",
    "My keyboard types the wrong letters.",
    "Is it allowed to use scratch paper?",
    "",
)
_SAYS = (
    "Sorry, an update window opened.",
    "My internet was gone for a moment.",
    "I am back now.",
    "Does question 23 have one answer or several?",
)
_THANKS = ("Thank you.", "OK.", "Understood.")


class Habits(Struct, frozen=True):
    """What a kind of student does: chances per tick, of about five seconds."""

    share: float
    away: float
    drop: float


_HABITS = {
    "steady": Habits(0.80, 0.0015, 0.0003),
    "restless": Habits(0.12, 0.02, 0.0003),
    "shaky": Habits(0.08, 0.002, 0.012),
}
_RAISES_HAND = 0.0008
_WRITES = 0.0003


class Face(Struct, frozen=True):
    """Who a simulated student is."""

    student_id: str
    name: str
    group: str
    attempt_id: str
    comes: bool


class Links(Struct, frozen=True):
    """Where to look. Both hold tokens."""

    dashboard: str
    exam: str


def faces(students: int, rng: random.Random) -> list[Face]:
    """A school's students, seated in rooms. A few never come."""
    return [
        Face(
            f"s{number:05}",
            f"{rng.choice(_FIRST)} {rng.choice(_LAST)}",
            f"Room {(number - 1) // ROOM_SEATS + 1}",
            f"a{number}",
            rng.random() >= _NEVER_COME,
        )
        for number in range(1, students + 1)
    ]


class DemoStudent(Client):
    """A student's page that is used as people use them: at their own pace, sometimes elsewhere, sometimes cut off."""

    def __init__(
        self, face: Face, url: str, token: str, surroundings: Surroundings, rng: random.Random, started_at: float
    ) -> None:
        super().__init__(face.student_id, url, token, surroundings)
        self.face = face
        self._rng = rng
        self._habits = _HABITS[rng.choices(list(_HABITS), [h.share for h in _HABITS.values()])[0]]
        self._seconds_each = max(20.0, rng.gauss(62, 14))
        self._answered = min(QUESTIONS - 1, max(0, round(rng.gauss(ALREADY_SECONDS / self._seconds_each, 3))))
        self._started_at = started_at
        self._ends_at = started_at + EXAM_SECONDS
        self._status: Literal["active", "away"] = "active"
        self._paused = self._over = self._hand_is_up = False
        self._score: float | None = None
        self._seq = 0
        self._said = 0

    async def live(self) -> None:
        """Come, take the exam, hand it in. Ends when the attempt has."""
        rng = self._rng
        await asyncio.sleep(rng.uniform(0, 8))
        self.connect()
        next_answer = time.monotonic() + rng.uniform(0, self._seconds_each)
        quiet = 0
        while not self._over:
            await asyncio.sleep(rng.uniform(*_TICK_SECONDS))
            if self._paused:
                self._beat()
            elif rng.random() < self._habits.away:
                await self._wander()
            elif rng.random() < self._habits.drop:
                await self._lose_network()
            elif time.monotonic() >= next_answer:
                next_answer += rng.uniform(0.5, 1.5) * self._seconds_each
                self._answer()
            else:
                self._talk()
                quiet = (quiet + 1) % 3
                if not quiet:
                    self._beat()

    async def _wander(self) -> None:
        """Look at something else: mostly a glance, now and then for long."""
        self._status = "away"
        self._report()
        await asyncio.sleep(min(120.0, self._rng.lognormvariate(2.3, 0.9)))
        self._status = "active"
        self._report()

    async def _lose_network(self) -> None:
        self.drop()
        await asyncio.sleep(min(180.0, self._rng.lognormvariate(2.6, 1.0)))
        self.connect()

    def _answer(self) -> None:
        self._answered += 1
        if self._answered >= QUESTIONS:
            self._score = float(min(100, max(20, round(self._rng.gauss(74, 12)))))
            self._over = True
        self._report()

    def _talk(self) -> None:
        rng = self._rng
        if rng.random() < _RAISES_HAND and not self._hand_is_up:
            self._hand_is_up = True
            self._say("raise_hand", rng.choice(_ASKS))
            self._later(rng.uniform(60, 240), self._give_up_waiting)
        elif rng.random() < _WRITES:
            self._say("chat", rng.choice(_SAYS))

    def _give_up_waiting(self) -> None:
        if self._hand_is_up:
            self._hand_is_up = False
            self._say("lower_hand", "")

    # --- frames ---

    def _report(self) -> None:
        if self._socket is None:
            return  # the next connection begins with a report of what is true then
        self._seq += 1
        face = self.face
        self._send(
            m.StatusFrame(
                m.Report(
                    QUIZ,
                    face.attempt_id,
                    face.student_id,
                    self._status,
                    question_answered=self._answered,
                    question_total=QUESTIONS,
                    question_number_current=min(self._answered + 1, QUESTIONS),
                    score=self._score,
                    time_start=round(self._started_at * 1000),
                    time_end=round(self._ends_at * 1000),
                    seq=self._seq,
                    tab_id=f"tab-{face.student_id}",
                    next_ms=_HIDDEN_MS if self._status == "away" else _HEARTBEAT_MS,
                    attempt_state="submitted" if self._score is not None else None,
                )
            )
        )

    def _beat(self) -> None:
        if self._socket is not None and self._seq:
            self._send(m.HeartbeatFrame(m.Heartbeat(seq=self._seq, next_ms=_HEARTBEAT_MS)))

    def _say(self, kind: Literal["chat", "raise_hand", "lower_hand"], text: str) -> None:
        if self._socket is not None:
            self._said += 1
            self._send(m.StudentTextFrame(m.StudentText(f"{self.face.student_id}-{self._said}", kind, text)))

    def _on_open(self, now: float) -> None:
        self._report()

    def _on_close(self, now: float, how: LineEnd, code: int) -> None:
        pass

    def _on_frame(self, now: float, frame: m.ServerFrame) -> None:
        if isinstance(frame, m.Command):
            self._obey(frame.data)

    def _obey(self, command: m.CommandData) -> None:
        """Do as a proctor says, in the time that a page, and then a person, takes."""
        rng, command_id = self._rng, command.command_id
        self._later(rng.uniform(0.05, 0.6), lambda: self._sign(command_id, "delivered"))
        match command.command:
            case "pause" | "resume":
                self._paused = command.command == "pause"
            case "terminate":
                self._over = True
            case "update":
                self._ends_at += 60 * (command.extra_minutes or 0)
                self._report()
            case "warn":
                self._later(rng.uniform(2, 9), lambda: self._sign(command_id, "confirmed"))
            case "message":
                self._later(rng.uniform(4, 15), self._give_up_waiting)
                if rng.random() < 0.4:
                    self._later(rng.uniform(3, 12), lambda: self._say("chat", rng.choice(_THANKS)))
            case "flag" | "acknowledge":
                self._hand_is_up = False

    def _sign(self, command_id: str, outcome: Literal["delivered", "confirmed"]) -> None:
        if self._socket is not None:
            self._send(m.ReceiptFrame(m.Receipt(command_id, outcome)))

    def goodbye(self) -> None:
        """Leave as a closed page does."""
        self.leave(CloseCode.LEAVE)


class DemoError(Exception):
    """The demo could not start; the message is for the user."""


async def demo(students: int, port: int, seed: int, tell: Callable[[Links], None]) -> None:
    """Run until cancelled or ended by SIGTERM; `tell` is called when there is something to see. Raises `DemoError`."""
    this = asyncio.current_task()
    assert this is not None  # it runs
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, this.cancel
    )  # what was started is ended as for Ctrl-C
    rng = random.Random(seed)  # noqa: S311  names and habits, no secrets
    school_key, crowd = new_secret(), faces(students, rng)
    with _environment(PROCTORWIRE_ORIGINS="*"):  # the pages come from another port of this machine
        cluster = LocalCluster(workers=2)
        async with cluster, _web(cluster, school_key, port) as site:
            await asyncio.to_thread(_open_exam, site, school_key, crowd)
            links = _links(site, cluster)
            around = Surroundings(Clock(), Traffic(), [], lambda: None)
            started_at = time.time() - ALREADY_SECONDS
            come = []
            for face in crowd:
                if face.comes:
                    token = _token(cluster, "student", face.student_id, face)
                    own = random.Random(rng.random())  # noqa: S311
                    come.append(DemoStudent(face, cluster.urls[0], token, around, own, started_at))
            try:
                async with asyncio.TaskGroup() as tasks:
                    for student in come:
                        tasks.create_task(student.live())
                    tell(links)
                    await asyncio.Event().wait()
            finally:  # before their servers end: they would call for them again
                for student in come:
                    student.stop()
                for task in around.tasks:
                    task.cancel()


def _token(cluster: LocalCluster, role: Literal["student", "proctor"], subject: str, face: Face | None = None) -> str:
    principal = Principal(
        role,
        SCHOOL,
        subject,
        (QUIZ,),
        time.time() + _TOKEN_SECONDS,
        attempt_id=face.attempt_id if face else "",
        name=face.name if face else "",
        group=face.group if face else "",
    )
    return issue(principal, cluster.token_secret)


def _links(site: str, cluster: LocalCluster) -> Links:
    def link(page: str, token: str) -> str:
        return f"{site}/{page}#{urlencode({'token': token, 'url': cluster.urls[0]})}"

    you = Face(YOU, "You, in the demo exam", "Room 1", f"a-{YOU}", True)
    return Links(
        link("dashboard", _token(cluster, "proctor", "proctor")), link("exam", _token(cluster, "student", YOU, you))
    )


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables for the processes started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.asynccontextmanager
async def _web(cluster: LocalCluster, school_key: str, port: int) -> AsyncIterator[str]:
    """The web app as a process of its own; its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "compare.proctorwire",
        "web",
        "--json",
        "--port",
        str(port),
        "--log-level",
        "ERROR",
        env={
            **os.environ,
            "PROCTORWIRE_TOKEN_SECRET": cluster.token_secret,
            "PROCTORWIRE_SCHOOL_KEYS": f"{SCHOOL}:{school_key}",
            "PROCTORWIRE_REDIS_URL": cluster.redis_url,
            "PROCTORWIRE_JOURNAL": cluster.journal_place,
            "PROCTORWIRE_SOCKET_URL": cluster.urls[0],
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018  asked for above
    try:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise DemoError(f"the web app was not ready within {_READY_SECONDS:.0f} s") from error
        if not line:
            said = (await process.stderr.read()).decode(errors="replace").strip()
            raise DemoError(said or "the web app did not start")
        yield msgspec.json.decode(line, type=WebReady).url
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


def _open_exam(site: str, school_key: str, crowd: list[Face]) -> None:
    """Open the exam with its roster, as a school's LMS would."""
    for start in range(0, len(crowd), 500):
        lines = [
            {"student_id": face.student_id, "name": face.name, "group": face.group}
            for face in crowd[start : start + 500]
        ]
        request = urllib.request.Request(  # noqa: S310  our own address
            f"{site}/api/exams/{QUIZ}/open",
            data=msgspec.json.encode({"roster": lines}),
            headers={"Authorization": f"Bearer {school_key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10):  # noqa: S310
                pass
        except urllib.error.URLError as error:
            raise DemoError(f"the exam could not be opened: {error}") from error
