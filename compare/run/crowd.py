"""All clients of a run, and the hand that plays the schedule: who does what when, until told to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType

from compare.run.clients import Client, PaperStudent, Proctor, Student, Surroundings
from compare.run.recording import Clock, Generator, ProctorLog, Recording, StudentLog
from compare.run.workload import SCHOOL, ClientKind, ProctorPlan, ProctorStep, Schedule, StudentPlan, StudentStep
from core.identity import Principal, issue

EXAM_SECONDS = 3 * 3600
TOKEN_SECONDS = 6 * 3600
_PATROL_SECONDS = 1.0
_LAG_PROBE_SECONDS = 0.02


class Crowd:
    """Students and proctors against one deployment; an async context manager that leaves no socket behind."""

    def __init__(
        self, schedule: Schedule, client: ClientKind, urls: Sequence[str], token_secret: str, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.recording = Recording(
            schedule,
            client,
            self.clock(),
            [StudentLog(plan) for plan in schedule.students],
            [ProctorLog(plan) for plan in schedule.proctors],
        )
        self.news = asyncio.Event()
        """Set when a dashboard saw something or an outbox emptied; whoever waits for it clears it."""
        self._around = Surroundings(self.clock, self.recording.traffic, self.recording.problems, self.news.set)
        self._students: dict[str, Student] = {}
        self._proctors: dict[str, Proctor] = {}
        self._helpers: list[asyncio.Task[None]] = []
        self._lags: list[float] = []
        self._cpu_at_start = time.process_time()
        self._admit(urls, token_secret)

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def roam(self, urls: Sequence[str]) -> None:
        """Let everybody go on to the next of these addresses when a connection is lost."""
        for client in (*self._students.values(), *self._proctors.values()):
            client.roam(urls)

    def page(self, student_id: str) -> Client:
        """A student's page."""
        return self._students[student_id]

    def dashboard(self, proctor_id: str) -> Client:
        """A proctor's dashboard."""
        return self._proctors[proctor_id]

    def beat(self) -> None:
        """Have every page say that it is still there, whatever the schedule says."""
        for student in self._students.values():
            student.act(StudentStep(0.0, "tick"))

    def order(self, quiz_id: str, student_id: str) -> None:
        """Have the proctors of an exam warn a student now."""
        for proctor in self.recording.proctors_of(quiz_id)[:1]:
            self._proctors[proctor.plan.proctor_id].act(ProctorStep(0.0, "warn", student_id))

    def _admit(self, urls: Sequence[str], token_secret: str) -> None:
        """Make the clients. A student and the proctors of their exam are spread over different addresses."""
        now = self.clock()
        times = (round(now * 1000), round((now + EXAM_SECONDS) * 1000))
        interval = self.recording.schedule.plan.interval
        kind = Student if self.recording.client == "proctorwire" else PaperStudent
        for number, student in enumerate(self.recording.students):
            plan = student.plan
            principal = Principal(
                "student", SCHOOL, plan.student_id, (plan.quiz_id,), now + TOKEN_SECONDS, plan.attempt_id, plan.name
            )
            self._students[plan.student_id] = kind(
                student, urls[number % len(urls)], sign(principal, token_secret), self._around, interval, times
            )
        for number, proctor in enumerate(self.recording.proctors, 1):
            principal = Principal(
                "proctor", SCHOOL, proctor.plan.proctor_id, (proctor.plan.quiz_id,), now + TOKEN_SECONDS
            )
            self._proctors[proctor.plan.proctor_id] = Proctor(
                proctor,
                urls[number % len(urls)],
                sign(principal, token_secret),
                self._around,
                warns=kind is Student,
            )

    async def play(self, started: asyncio.Event | None = None) -> None:
        """Play the whole schedule; returns at the end of its overtime. The proctors are there before the first student."""
        self._helpers += [asyncio.create_task(self._patrol()), asyncio.create_task(self._probe())]
        timeline = self.recording.schedule.timeline()
        at_once = [pair for pair in timeline if pair[1].at <= 0]
        for who, step in at_once:
            self._act(who, step)
        while not all(proctor.is_watching for proctor in self._proctors.values()):
            self.news.clear()
            await self.news.wait()
        self.recording.started_at = start = self.clock()
        if started is not None:
            started.set()
        for who, step in timeline[len(at_once) :]:
            ahead = start + step.at - self.clock()
            if ahead > 0:
                await asyncio.sleep(ahead)
            self._act(who, step)

    def _act(self, who: StudentPlan | ProctorPlan, step: StudentStep | ProctorStep) -> None:
        if isinstance(step, StudentStep) and isinstance(who, StudentPlan):
            self._students[who.student_id].act(step)
        elif isinstance(step, ProctorStep) and isinstance(who, ProctorPlan):
            self._proctors[who.proctor_id].act(step)

    async def stop(self) -> None:
        """Close every socket at once and write down how the load generator fared."""
        recording = self.recording
        if recording.stopped_at is not None:
            return
        recording.stopped_at = self.clock()
        recording.generator = self._generator(recording.stopped_at)
        tasks = [*self._helpers, *self._around.tasks]
        for task in tasks:
            task.cancel()
        clients: list[Client] = [*self._students.values(), *self._proctors.values()]
        for client in clients:
            client.stop()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _patrol(self) -> None:
        while True:
            await asyncio.sleep(_PATROL_SECONDS)
            now = self.clock()
            for client in (*self._students.values(), *self._proctors.values()):
                client.patrol(now)

    async def _probe(self) -> None:
        """How late the event loop is: a frame may have waited as long before it was timed."""
        while True:
            due = time.perf_counter() + _LAG_PROBE_SECONDS
            await asyncio.sleep(_LAG_PROBE_SECONDS)
            self._lags.append(max(0.0, time.perf_counter() - due))

    def _generator(self, now: float) -> Generator:
        lags = sorted(self._lags) or [0.0]
        return Generator(
            cpu_seconds=time.process_time() - self._cpu_at_start,
            wall_seconds=now - self.recording.started_at,
            lag_ms_p99=lags[min(len(lags) - 1, int(len(lags) * 0.99))] * 1000,
            lag_ms_max=lags[-1] * 1000,
        )


def sign(principal: Principal, token_secret: str) -> str:
    """A token of this principal; the secret is given as to the servers, with or without its `kid`."""
    kid, key = signing_key(token_secret)
    return issue(principal, key, kid)


def signing_key(token_secret: str) -> tuple[str, str]:
    """The first `kid` and key of `SECRET`, or of `kid:SECRET,kid:SECRET`."""
    kid, colon, key = token_secret.partition(",")[0].strip().partition(":")
    return (kid, key) if colon else ("", kid)
