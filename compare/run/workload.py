"""The exam that both deployments sit: who joins when, answers, looks away, drops out, comes back, submits.

A `Schedule` is a pure function of its `Plan`: the same seed gives the same exam, to the millisecond. It says what *people and
networks* do; `clients` decides which frames follow from it. Times are seconds from the start of the schedule.

The first part of the run is its *opening*: everybody joins, and all that happens once (tab switches, dropped connections,
raised hands, warnings) is over at `Schedule.opening_ends`, so that what an exam's ordinary minutes use can be told from it.
Connections that never come back drop in the first 40 %, so that the server's verdict on them falls close to the end.
The *overtime* after `duration` keeps the pages alive until the last consequence was seen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

ClientKind: TypeAlias = Literal["proctorwire", "paper"]
StudentAct: TypeAlias = Literal["join", "tick", "away", "back", "drop", "return", "leave", "submit", "say"]
ProctorAct: TypeAlias = Literal["watch", "warn", "drop", "return"]
Part: TypeAlias = Literal["stays", "vanishes", "returns", "leaves", "submits", "speaks", "is_warned"]

SCHOOL = "compare"
SECONDS_PER_QUESTION = 30.0
QUESTIONS = 100
TICK_JITTER = 0.1
SWITCH_SHARE = 0.25
MAX_RETURN_SECONDS = 15.0  # below the server's grace for a closed socket: who returns was never offline
ANSWER_SECONDS = 4.0  # a warned student takes at most this long to confirm
OVERTIME_SECONDS = (
    40.0  # the longest grace before *offline*, the slower deployment's tolerance, and what a proctor may wait
)

_SHARES: tuple[tuple[Part, float], ...] = (
    ("is_warned", 0.0),
    ("vanishes", 0.03),
    ("returns", 0.05),
    ("submits", 0.10),
    ("leaves", 0.02),
    ("speaks", 0.05),
)
"""Parts and their shares of an exam; each is played by one at least, as far as there are students. Together the dropped ones
stay below what the server takes for a mass silence."""


class WorkloadError(Exception):
    """A plan that can't be scheduled: `option` is the command's name for what is wrong, the message says what to do."""

    def __init__(self, option: str, message: str) -> None:
        self.option = option
        self.message = message
        super().__init__(option, message)

    def __str__(self) -> str:
        return f"{self.option}: {self.message}"


class Plan(Struct, frozen=True):
    """What fixes a schedule. `run_id` keeps the exams of two runs apart on a deployment that lives longer than a run."""

    students: int = 100
    exams: int = 4
    proctors_per_exam: int = 1
    interval: float = 5.0
    duration: float = 30.0
    seed: int = 1
    run_id: str = "local"

    def checked(self) -> Plan:
        """Itself. Raises `WorkloadError` for what makes no exam."""
        for option, value, least, most in (
            ("--students", self.students, 1, 100_000),
            ("--exams", self.exams, 1, 1_000),
            ("--proctors-per-exam", self.proctors_per_exam, 1, 100),
        ):
            if not least <= value <= most:
                raise WorkloadError(option, f"{value} is out of range; give a number from {least} to {most:,}")
        if self.exams > self.students:
            raise WorkloadError(
                "--exams",
                f"{self.exams} exams for {self.students} students leave some empty; give at most {self.students}",
            )
        for option, seconds, shortest, longest in (
            ("--interval", self.interval, 0.2, 120.0),
            ("--duration", self.duration, 2.0, 86_400.0),
        ):
            if not (math.isfinite(seconds) and shortest <= seconds <= longest):
                raise WorkloadError(
                    option, f"{seconds:g} s is out of range; give from {shortest:g} to {longest:g} seconds"
                )
        return self


class StudentStep(Struct, frozen=True):
    """One thing that happens to a student's page. `text` is what is said, `score` comes with a submission."""

    at: float
    act: StudentAct
    progressed: bool = False
    kind: Literal["chat", "raise_hand", "lower_hand"] = "chat"
    text: str = ""
    score: float | None = None


class ProctorStep(Struct, frozen=True):
    """One thing that a proctor does. `student_id` is who is warned."""

    at: float
    act: ProctorAct
    student_id: str = ""


class StudentPlan(Struct, frozen=True):
    """One student, and all that happens to their page, in order."""

    student_id: str
    attempt_id: str
    name: str
    quiz_id: str
    part: Part
    steps: tuple[StudentStep, ...]

    @property
    def vanishes_at(self) -> float | None:
        """When the connection drops for good."""
        return self.goes_at if self.part == "vanishes" else None

    @property
    def goes_at(self) -> float | None:
        """When the page drops or leaves for good."""
        last = next((s for s in reversed(self.steps) if s.act in ("join", "return", "drop", "leave")), None)
        return last.at if last is not None and last.act in ("drop", "leave") else None


class ProctorPlan(Struct, frozen=True):
    """One proctor of one exam."""

    proctor_id: str
    quiz_id: str
    steps: tuple[ProctorStep, ...]


Step: TypeAlias = tuple[StudentPlan, StudentStep] | tuple[ProctorPlan, ProctorStep]


class Schedule(Struct, frozen=True):
    """The whole run."""

    plan: Plan
    quiz_ids: tuple[str, ...]
    students: tuple[StudentPlan, ...]
    proctors: tuple[ProctorPlan, ...]
    opening_ends: float
    ends: float  # the overtime's end

    def timeline(self) -> Sequence[Step]:
        """All steps of everybody, in order."""
        steps: list[Step] = [(student, step) for student in self.students for step in student.steps]
        steps += [(proctor, step) for proctor in self.proctors for step in proctor.steps]
        return sorted(steps, key=lambda pair: pair[1].at)


def schedule(plan: Plan) -> Schedule:
    """The schedule of a plan. Raises `WorkloadError`."""
    plan = plan.checked()
    rng = random.Random(plan.seed)  # noqa: S311  reproducible, not secret
    ends = plan.duration + OVERTIME_SECONDS
    quiz_ids = tuple(f"quiz-{plan.run_id}-{number}" for number in range(1, plan.exams + 1))
    students: list[StudentPlan] = []
    proctors: list[ProctorPlan] = []
    for number, quiz_id in enumerate(quiz_ids):
        size = len(range(number, plan.students, plan.exams))
        parts = _parts(size, rng)
        members = [
            _student(plan, quiz_id, len(students) + place, part, (place + rng.random()) / size, ends, rng)
            for place, part in enumerate(parts)
        ]
        students += members
        warned = next(member.student_id for member in members if member.part == "is_warned")
        proctors += [
            _proctor(plan, quiz_id, len(proctors) + place, warned if place == 0 else "")
            for place in range(plan.proctors_per_exam)
        ]
    return Schedule(plan, quiz_ids, tuple(students), tuple(proctors), 0.5 * plan.duration, ends)


def _parts(size: int, rng: random.Random) -> list[Part]:
    """Who plays which part in an exam: shuffled, the dropped ones in the first half of the queue at the door."""
    cast: list[Part] = []
    for part, share in _SHARES:
        if len(cast) < size:
            cast += [part] * min(max(1, round(share * size)), size - len(cast))
    cast += ["stays"] * (size - len(cast))
    rng.shuffle(cast)
    early = [part for part in cast if part in ("vanishes", "returns")]
    others = [part for part in cast if part not in ("vanishes", "returns")]
    for part in early:
        others.insert(rng.randrange(size // 2 + 1), part)
    return others


def _student(
    plan: Plan, quiz_id: str, number: int, part: Part, place: float, ends: float, rng: random.Random
) -> StudentPlan:
    """One student's steps. `place` is where in the queue at the door they stand, 0 to 1."""
    whole = plan.duration
    joins = 0.02 * whole + place * 0.18 * whole
    steps = [StudentStep(joins, "join")]
    done, gone = whole, ends
    if part == "vanishes":
        gone = rng.uniform(0.22, 0.4) * whole
        steps.append(StudentStep(gone, "drop"))
    elif part == "returns":
        drops = rng.uniform(0.22, 0.28) * whole
        back = drops + min(rng.uniform(0.06, 0.18) * whole, MAX_RETURN_SECONDS)
        steps += [StudentStep(drops, "drop"), StudentStep(back, "return")]
    elif part == "leaves":
        gone = rng.uniform(0.3, 0.45) * whole
        steps.append(StudentStep(gone, "leave"))
    elif part == "submits":
        done = rng.uniform(0.86, 0.97) * whole
        steps.append(StudentStep(done, "submit", score=float(rng.randrange(40, 101))))
    elif part == "speaks":
        speaks = rng.uniform(0.25, 0.35) * whole
        steps += [
            StudentStep(speaks, "say", kind="raise_hand"),
            StudentStep(speaks + 0.03 * whole, "say", text="May I leave the room for a moment?"),
            StudentStep(speaks + 0.08 * whole, "say", kind="lower_hand"),
        ]
    if part in ("stays", "is_warned", "submits") and rng.random() < SWITCH_SHARE:
        looks_away = rng.uniform(0.22, 0.32) * whole
        steps += [
            StudentStep(looks_away, "away"),
            StudentStep(looks_away + rng.uniform(0.09, 0.17) * whole, "back"),
        ]
    steps += ticks(joins, done, gone, plan.interval, rng)
    steps.sort(key=lambda step: step.at)
    student_id = f"student-{number + 1:05}"
    return StudentPlan(
        student_id, f"attempt-{plan.run_id}-{number + 1:05}", f"Student {number + 1}", quiz_id, part, tuple(steps)
    )


def ticks(joins: float, done: float, gone: float, interval: float, rng: random.Random) -> Iterator[StudentStep]:
    """The moments at which a page says how it stands, from `joins` to `gone`. From `done` on no question is answered."""
    at = joins + rng.uniform(0.3, 1.0) * interval
    while at < gone:
        progressed = rng.random() < interval / SECONDS_PER_QUESTION
        yield StudentStep(at, "tick", progressed=progressed and at < done)
        at += interval * rng.uniform(1 - TICK_JITTER, 1 + TICK_JITTER)


def _proctor(plan: Plan, quiz_id: str, number: int, warned: str) -> ProctorPlan:
    """One proctor's steps. The first of an exam warns a student, and loses the connection once after the opening."""
    whole = plan.duration
    steps = [ProctorStep(0.0, "watch")]
    if warned:
        warns = 0.36 * whole
        drops = max(0.56 * whole, warns + ANSWER_SECONDS)  # who is away hears no answer
        steps += [
            ProctorStep(warns, "warn", warned),
            ProctorStep(drops, "drop"),
            ProctorStep(drops + 0.04 * whole, "return"),
        ]
    return ProctorPlan(f"proctor-{number + 1:03}", quiz_id, tuple(steps))
