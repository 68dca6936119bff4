"""The same fault through both deployments: what was lost, doubled, wrongly shown, and how long it took until all was well.

Each trial has a deployment of its own: two instances with a worker each, or the real handlers behind the emulated gateway. Students
report about once a second, proctors watch, one fault comes, and everybody is given time to get over it. All students are there
to the end, so that whoever is shown as offline is shown so wrongly.

lost            a report that changed the picture and that neither it nor a later one ever reached a proctor for; an acknowledged
                change that the journal lacks; an acknowledged command that did not arrive
duplicates      a version shown twice to a proctor on one connection (harmless: dashboards keep the highest), a journal line or fact
                that is there twice
false offline   students shown or journalled as offline
recovery        from the end of the fault until every report made before was on every dashboard, nobody was shown reconnecting any
                more, whoever had lost a connection had a report acknowledged on a new one, and every dashboard had its snapshot
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias

from msgspec import Struct

from adapters.lambda_apigw.local.settings import Faults, Limits
from compare.bill.usage import Basis, Mode
from compare.faults.chaos import steady_schedule
from compare.faults.invariants import changed_reports, contradictions, is_behind
from compare.faults.processes import until
from compare.run.crowd import Crowd
from compare.run.measure import repeated_lines
from compare.run.recording import Recording
from compare.run.result import Environment, environment_here
from compare.run.target import ClusterTarget, ServerlessTarget, Target, TargetError
from compare.run.workload import SCHOOL
from core.identity import MIN_SECRET_BYTES
from core.participant import ExamKey

SCHEMA = "proctorwire.faults/1"
AWAY_SECONDS = 4.0
STORE_SECONDS = 6.0
KILLS = 20
CUT_AFTER_SECONDS = 15.0
_CUT_INTERVAL = (
    0.5  # a page must say something in the last 7 % of its connection's life, as one does in those of two hours
)
_WARM_SECONDS = 2.0
_AFTER_SECONDS = 3.0
_SETTLE_SECONDS = 70.0
"""A dashboard asks for a snapshot each minute, which brings what a killed process did not publish any more."""
_JOURNAL_SECONDS = 8.0
_MOST_WORDS = 8

SECONDS_EACH = 16.0
"""About how long one trial takes, for progress."""


class Scene:
    """What a fault can reach. `rng` decides whom it hits."""

    def __init__(self, target: Target, crowd: Crowd, rng: random.Random) -> None:
        self.target = target
        self.crowd = crowd
        self.rng = rng


Hit: TypeAlias = Callable[[Scene], Awaitable[None]]
"""Bring the fault, and return when it is over."""


class Trial(Struct, frozen=True):
    """One fault. `serverless` and `cluster` say what it is there."""

    name: str
    what: str
    serverless: str
    cluster: str
    hit: Hit
    faulty_table: bool = False
    lost_disconnects: bool = False
    cut_after: float | None = None
    storm: bool = False
    interval: float = 1.0


class Outcome(Struct, frozen=True, forbid_unknown_fields=True):
    """What one fault came to with one deployment. Times in seconds."""

    fault: str
    mode: Mode
    basis: Basis
    how: str  # what the fault was there
    reports: int
    lost: int
    duplicates: int
    false_offline: int
    recovery_s: float | None  # None: not before the end
    slowest_s: float  # the longest that a report, made at any time, was on its way to a proctor
    reconnecting: int  # students who were shown as reconnecting
    findings: tuple[str, ...] = ()  # the first losses, duplicates and false offlines in words


class FaultTable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All trials of one call."""

    schema: str = SCHEMA
    environment: Environment
    students: int
    seed: int
    outcomes: tuple[Outcome, ...]

    @property
    def anything_lost(self) -> bool:
        """Whether anything was lost or anybody wrongly shown as offline. A version shown twice harms nobody."""
        return any(outcome.lost or outcome.false_offline for outcome in self.outcomes)


# --- the faults -----------------------------------------------------------------------------------------------------------


async def _clients_dropped(scene: Scene) -> None:
    students = [student.plan.student_id for student in scene.crowd.recording.students]
    chosen = scene.rng.sample(students, max(1, len(students) // 3))
    for student_id in chosen:
        scene.crowd.page(student_id).drop()
    await asyncio.sleep(AWAY_SECONDS)
    for student_id in chosen:
        scene.crowd.page(student_id).connect()


async def _proctor_gone(scene: Scene) -> None:
    recording = scene.crowd.recording
    gone = [recording.proctors_of(quiz_id)[0].plan.proctor_id for quiz_id in recording.schedule.quiz_ids]
    for proctor_id in gone:
        scene.crowd.dashboard(proctor_id).drop()
    await asyncio.sleep(AWAY_SECONDS)
    for proctor_id in gone:
        scene.crowd.dashboard(proctor_id).connect()


async def _process_killed(scene: Scene) -> None:
    """A worker serves half of the students all the time; an environment nobody for most of it, so that one kill hits nothing."""
    for _ in range(KILLS if scene.target.name == "lambda" else 1):
        await scene.target.inject("kill_process")
        await asyncio.sleep(0.05)


async def _store_throttled(scene: Scene) -> None:
    await scene.target.inject("throttle_store")
    await asyncio.sleep(STORE_SECONDS)
    await scene.target.heal()


async def _store_stopped(scene: Scene) -> None:
    await scene.target.inject("stop_store")
    await asyncio.sleep(STORE_SECONDS)
    await scene.target.heal()


async def _planned_cut(scene: Scene) -> None:
    await scene.target.inject("plan_cut")


async def _storm(scene: Scene) -> None:
    recording = scene.crowd.recording
    for student in recording.students:
        scene.crowd.page(student.plan.student_id).cut()
    for proctor in recording.proctors:
        scene.crowd.dashboard(proctor.plan.proctor_id).cut()


TRIALS = (
    Trial(
        "clients-dropped",
        "a third of the students lose their network for 4 s",
        "connections cut",
        "connections cut",
        _clients_dropped,
    ),
    Trial(
        "proctor-gone",
        "one proctor of each exam vanishes for 4 s",
        "no $disconnect comes: posts to them are answered 410",
        "connections cut",
        _proctor_gone,
        lost_disconnects=True,
    ),
    Trial(
        "process-killed",
        "what serves the students dies",
        "20 x SIGKILL of an execution environment, a busy one first",
        "SIGKILL of one of two workers",
        _process_killed,
    ),
    Trial(
        "store-throttled",
        "for 6 s the store does a fifth of its work",
        "DynamoDB refuses 4 of 5 requests",
        "Redis stands still for 0.4 s of each 0.5 s",
        _store_throttled,
        faulty_table=True,
    ),
    Trial(
        "store-stopped",
        "for 6 s the store does nothing",
        "DynamoDB refuses every request",
        "Redis stands still",
        _store_stopped,
        faulty_table=True,
    ),
    Trial(
        "planned-cut",
        "connections end as planned",
        "API Gateway's two hours, here 15 s",
        "the drain of one of two instances (there is no limit)",
        _planned_cut,
        cut_after=CUT_AFTER_SECONDS,
        interval=_CUT_INTERVAL,
    ),
    Trial(
        "reconnect-storm",
        "every connection is cut at once",
        "new connections limited to a quarter of them a second (500 a second on AWS)",
        "all come back to two workers",
        _storm,
        storm=True,
    ),
)


# --- one trial ------------------------------------------------------------------------------------------------------------


def target_for(trial: Trial, mode: Mode, students: int) -> Target:
    """A deployment for this trial, not started yet."""
    secret = secrets.token_hex(MIN_SECRET_BYTES)
    if mode == "ec2":
        return ClusterTarget(secret, instances=2, workers=1, drain_seconds=2.0, silent=True)
    limits = Limits()
    if trial.cut_after is not None:
        limits = Limits(duration_seconds=trial.cut_after)
    if trial.storm:
        limits = Limits(connects_per_second=max(2.0, students / 4))
    return ServerlessTarget(
        secret,
        limits=limits,
        faults=Faults(disconnect_lost=1.0 if trial.lost_disconnects else 0.0),
        faulty_table=trial.faulty_table,
    )


async def play(
    trial: Trial, target: Target, students: int = 24, seed: int = 1, settle: float = _SETTLE_SECONDS
) -> Outcome:
    """Bring one fault over a deployment, and judge. Nothing is left running. Raises TargetError."""
    try:
        await target.start()
        schedule = steady_schedule(seed, students, trial.interval)
        async with Crowd(schedule, "proctorwire", target.urls, target.token_secret) as crowd:
            crowd.roam(target.urls)
            scene = Scene(target, crowd, random.Random(seed))  # noqa: S311 - replays, guards nothing
            healed_at = await _suffer(trial, scene, settle)
        return await _judge(trial, scene, healed_at)
    except TimeoutError as exc:
        raise TargetError(f"{trial.name}: {exc}") from exc
    finally:
        await target.stop()


async def _suffer(trial: Trial, scene: Scene, settle: float) -> float:
    """The exam with its fault; when that was over."""
    crowd, recording = scene.crowd, scene.crowd.recording
    playing = asyncio.create_task(crowd.play())
    try:
        await until(lambda: all(s.reports and s.reports[0].acked_at for s in recording.students), "everybody's join")
        await asyncio.sleep(_WARM_SECONDS)
        await trial.hit(scene)
        healed_at = crowd.clock()
        for quiz_id in recording.schedule.quiz_ids:
            there = [s.plan.student_id for s in recording.students if s.plan.quiz_id == quiz_id]
            crowd.order(quiz_id, scene.rng.choice(there))
        await asyncio.sleep(_AFTER_SECONDS)
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    beating = asyncio.create_task(_beat(crowd, trial.interval))
    with contextlib.suppress(TimeoutError):
        await until(lambda: _is_quiet(recording), "quiet", settle)
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    await crowd.stop()
    return healed_at


async def _beat(crowd: Crowd, interval: float) -> None:
    """Nothing new happens any more, but pages stay open: who fell silent now would rightly be shown as offline."""
    while True:
        await asyncio.sleep(interval)
        crowd.beat()


def _is_quiet(recording: Recording) -> bool:
    return not any(student.waiting for student in recording.students) and not any(
        is_behind(student, proctor)
        for student in recording.students
        for proctor in recording.proctors_of(student.plan.quiz_id)
    )


async def _judge(trial: Trial, scene: Scene, healed_at: float) -> Outcome:
    recording, target = scene.crowd.recording, scene.target
    lost, recovery, slowest = _views(recording, healed_at)
    doubled = list(_repeated_views(recording))
    offline = {
        f"{seen.view.student_id} was shown as offline"
        for proctor in recording.proctors
        for seen in proctor.seen
        if seen.view.label == "offline"
    }
    contradicting: list[str] = []
    repeated: list[str] = []
    deadline = time.monotonic() + _JOURNAL_SECONDS
    while True:  # the journal may be a moment behind
        contradicting, repeated, journalled = await _journal(recording, target)
        if not contradicting or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    lost += contradicting
    doubled += repeated
    offline |= journalled
    lost += _commands(recording)
    return Outcome(
        fault=trial.name,
        mode=target.name,
        basis="emulated" if target.name == "lambda" else "measured",
        how=trial.serverless if target.name == "lambda" else trial.cluster,
        reports=sum(bool(report.attempts) for student in recording.students for report in student.reports),
        lost=len(lost),
        duplicates=len(doubled),
        false_offline=len({words.split()[0] for words in offline}),
        recovery_s=recovery,
        slowest_s=slowest,
        reconnecting=len(
            {s.view.student_id for p in recording.proctors for s in p.seen if s.view.label == "reconnecting"}
        ),
        findings=tuple([*lost, *sorted(offline), *doubled][:_MOST_WORDS]),
    )


def _views(recording: Recording, healed_at: float) -> tuple[list[str], float | None, float]:
    """What never reached a dashboard, the recovery, and the slowest report."""
    lost: list[str] = []
    recovery: float | None = 0.0
    slowest = 0.0
    for student in recording.students:
        name = student.plan.student_id
        for proctor in recording.proctors_of(student.plan.quiz_id):
            seen = [s for s in proctor.seen if s.news and s.view.student_id == name]
            place = 0
            for report in changed_reports(student):
                while place < len(seen) and seen[place].view.seq < report.seq:
                    place += 1
                if place == len(seen):
                    lost.append(f"report {report.seq} of {name} never reached {proctor.plan.proctor_id}")
                    continue
                shown_at = seen[place].at
                slowest = max(slowest, shown_at - report.created_at)
                if report.created_at <= healed_at and recovery is not None:
                    recovery = max(recovery, shown_at - healed_at)
            for number, one in enumerate(seen):
                if one.view.label == "reconnecting":
                    if number + 1 == len(seen):
                        recovery = None
                    elif recovery is not None:
                        recovery = max(recovery, seen[number + 1].at - healed_at)
    moments = [*_pages_back(recording), *_dashboards_back(recording)]
    if lost or recovery is None or None in moments:
        return lost, None, slowest
    return lost, max(recovery, 0.0, *[at - healed_at for at in moments if at is not None]), slowest


def _pages_back(recording: Recording) -> Iterator[float | None]:
    """For each connection that a page lost, when a later one first had an answer; None: never."""
    for student in recording.students:
        answers = [report.acked_at for report in student.reports if report.acked_at is not None]
        for line in student.lines:
            if line.end and line.closed_at is not None:
                yield min((at for at in answers if at >= line.closed_at), default=None)


def _dashboards_back(recording: Recording) -> Iterator[float | None]:
    """The same for dashboards and their snapshots."""
    for proctor in recording.proctors:
        pictures = [watch.complete_at for watch in proctor.watches if watch.complete_at is not None]
        for watch in proctor.watches:
            if watch.ended_at is not None:
                yield min((at for at in pictures if at >= watch.ended_at), default=None)


def _repeated_views(recording: Recording) -> Iterator[str]:
    """The same version in two updates of one subscription."""
    for proctor in recording.proctors:
        times = Counter((s.watch, s.view.student_id, s.view.version) for s in proctor.seen if s.update)
        for (_, student_id, version), count in times.items():
            yield from [f"version {version} of {student_id} came to {proctor.plan.proctor_id} again"] * (count - 1)


async def _journal(recording: Recording, target: Target) -> tuple[list[str], list[str], set[str]]:
    """Where the journal contradicts the pages, what it says twice, and whom it calls offline."""
    wrong: list[str] = []
    twice: list[str] = []
    offline: set[str] = set()
    for quiz_id in recording.schedule.quiz_ids:
        entries = await target.journal(ExamKey(SCHOOL, quiz_id))
        twice += repeated_lines(entries)
        entries = sorted({(e.student_id, e.version, e.n): e for e in entries}.values(), key=lambda e: (e.version, e.n))
        offline |= {f"{e.student_id} is offline in the journal" for e in entries if e.after == "offline"}
        for student in recording.students:
            if student.plan.quiz_id == quiz_id:
                own = [entry for entry in entries if entry.student_id == student.plan.student_id]
                wrong += [found for found in contradictions(student, own) if not found.endswith("in the journal")]
        accepted = {e.reference for e in entries if e.kind == "command" and e.after == "accepted"}
        wrong += [
            f"the journal lacks {order.command_id}"
            for proctor in recording.proctors_of(quiz_id)
            for order in proctor.orders
            if order.acked_at is not None and order.command_id not in accepted
        ]
    return wrong, twice, offline


def _commands(recording: Recording) -> Sequence[str]:
    got = {command.command_id for student in recording.students for command in student.commands}
    return [
        f"{order.command_id} never reached {order.student_id}"
        for proctor in recording.proctors
        for order in proctor.orders
        if order.acked_at is not None and order.command_id not in got
    ]


Told: TypeAlias = Callable[[str, Mode], None]


async def try_all(
    trials: Sequence[Trial], modes: Sequence[Mode], students: int, seed: int, begins: Told, ended: Callable[[], None]
) -> FaultTable:
    """Every fault through every deployment, one after the other. Raises TargetError."""
    outcomes = []
    for trial in trials:
        for mode in modes:
            begins(trial.name, mode)
            outcomes.append(await play(trial, target_for(trial, mode, students), students, seed))
            ended()
    return FaultTable(environment=environment_here(), students=students, seed=seed, outcomes=tuple(outcomes))
