"""A recorded exam: a CSV file of time, student, event, checked row by row, and the schedule that replays it.

Times are seconds from any start, rising. join and leave open and close a page, drop loses its network until the next join, change
is another question or answer, away and back turn from the page and to it, submit hands in. Between these a page sends its
heartbeats, which nobody records.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from compare.run.workload import (
    OVERTIME_SECONDS,
    Part,
    Plan,
    ProctorPlan,
    ProctorStep,
    Schedule,
    StudentPlan,
    StudentStep,
    ticks,
)

TraceEvent: TypeAlias = Literal["join", "leave", "drop", "change", "away", "back", "submit"]
EVENTS: tuple[str, ...] = get_args(TraceEvent)
HEADING = ["time", "student", "event"]
_MOST_ROWS = 5_000_000


class TraceError(Exception):
    """A recording that can't be used; the message is one line that names the row, counted from 1 for the heading."""


class Row(Struct, frozen=True):
    """One line of a recording."""

    number: int
    at: float
    student: str
    event: TraceEvent


def read_trace(lines: Iterable[str]) -> list[Row]:
    """The rows of a recording. Raises TraceError for the first that is wrong, in itself or after those before it."""
    reader = csv.reader(lines)
    heading = [cell.strip().lower() for cell in next(reader, [])]
    if heading != HEADING:
        raise TraceError(f"row 1: the heading is {','.join(heading) or 'empty'}; it must be time,student,event")
    rows: list[Row] = []
    here: dict[str, bool] = {}
    try:
        for number, cells in enumerate(reader, start=2):
            if not cells or not any(cell.strip() for cell in cells):
                continue
            row = _row(number, cells)
            if rows and row.at < rows[-1].at:
                raise TraceError(f"row {number}: time {row.at:g} is before the row above it; sort the file by time")
            _check_order(row, here)
            rows.append(row)
            if len(rows) > _MOST_ROWS:
                raise TraceError(f"row {number}: more than {_MOST_ROWS:,} rows; give a part of the recording")
    except csv.Error as exc:
        raise TraceError(f"row {reader.line_num}: no CSV: {exc}") from exc
    if not here:
        raise TraceError("nobody joins in this recording")
    return rows


def _row(number: int, cells: Sequence[str]) -> Row:
    if len(cells) != 3:
        raise TraceError(f"row {number}: {len(cells)} fields; give time,student,event")
    time, student, event = (cell.strip() for cell in cells)
    try:
        at = float(time)
    except ValueError:
        raise TraceError(f"row {number}: time {time!r} is no number of seconds") from None
    if not math.isfinite(at):
        raise TraceError(f"row {number}: time {time!r} is no number of seconds")
    if not student:
        raise TraceError(f"row {number}: student is empty; give a name or number")
    if event not in EVENTS:
        raise TraceError(f"row {number}: event {event!r} is not one of {', '.join(EVENTS)}")
    return Row(number, at, student, event)  # type: ignore[arg-type]  # one of them, as was just seen


def _check_order(row: Row, here: dict[str, bool]) -> None:
    """A page is opened before anything happens on it, and once at a time."""
    known, joined = row.student in here, here.get(row.student, False)
    if row.event == "join":
        if joined:
            raise TraceError(f"row {row.number}: {row.student!r} joins again without a drop or leave before")
        here[row.student] = True
    elif row.event in ("drop", "leave"):
        if not joined:
            raise TraceError(
                f"row {row.number}: {row.event} of {row.student!r}, who is not there; a join must come before"
            )
        here[row.student] = False
    elif not known:
        raise TraceError(f"row {row.number}: {row.event} of {row.student!r} before the first join")


def trace_seconds(rows: Sequence[Row]) -> float:
    """From the first row to the last."""
    return rows[-1].at - rows[0].at


def schedule_of(rows: Sequence[Row], plan: Plan) -> Schedule:
    """The schedule that replays the first `plan.duration` seconds; students are dealt out to the exams as they join.

    Raises WorkloadError.
    """
    begins = rows[0].at
    by_student: dict[str, list[Row]] = {}
    for row in rows:
        if row.at - begins <= plan.duration:
            by_student.setdefault(row.student, []).append(row)
    plan = Plan(
        students=len(by_student),
        exams=plan.exams,
        proctors_per_exam=plan.proctors_per_exam,
        interval=plan.interval,
        duration=plan.duration,
        seed=plan.seed,
        run_id=plan.run_id,
    ).checked()
    rng = random.Random(plan.seed)  # noqa: S311  reproducible, not secret
    quiz_ids = tuple(f"quiz-{plan.run_id}-{number}" for number in range(1, plan.exams + 1))
    ends = plan.duration + OVERTIME_SECONDS
    students = tuple(
        _student(number, name, own, quiz_ids[number % plan.exams], begins, plan, rng)
        for number, (name, own) in enumerate(by_student.items())
    )
    proctors = tuple(
        ProctorPlan(f"proctor-{number + 1:03}", quiz_ids[number % plan.exams], (ProctorStep(0.0, "watch"),))
        for number in range(plan.exams * plan.proctors_per_exam)
    )
    joined = max(student.steps[0].at for student in students)
    return Schedule(plan, quiz_ids, students, proctors, min(joined, 0.5 * plan.duration), ends)


_ACTS: dict[str, Literal["drop", "leave", "away", "back", "submit"]] = {
    "drop": "drop",
    "leave": "leave",
    "away": "away",
    "back": "back",
    "submit": "submit",
}


def _student(
    number: int, name: str, rows: Sequence[Row], quiz_id: str, begins: float, plan: Plan, rng: random.Random
) -> StudentPlan:
    steps = [*_steps(rows, begins), *_heartbeats(rows, begins, plan, rng)]
    steps.sort(key=lambda step: step.at)
    last = next((row.event for row in reversed(rows) if row.event in ("join", "drop", "leave")), "join")
    part: Part = "vanishes" if last == "drop" else "leaves" if last == "leave" else "stays"
    return StudentPlan(
        f"student-{number + 1:05}", f"attempt-{plan.run_id}-{number + 1:05}", name, quiz_id, part, tuple(steps)
    )


def _steps(rows: Sequence[Row], begins: float) -> Iterator[StudentStep]:
    been = False
    for row in rows:
        at = max(0.001, row.at - begins)  # at 0 the proctors begin
        if row.event == "join":
            yield StudentStep(at, "return" if been else "join")
            been = True
        elif row.event == "change":
            yield StudentStep(at, "tick", progressed=True)
        else:
            yield StudentStep(at, _ACTS[row.event])


def _heartbeats(rows: Sequence[Row], begins: float, plan: Plan, rng: random.Random) -> Iterator[StudentStep]:
    """While the page is open, and to the end of the overtime if it stays."""
    opened: float | None = None
    for row in rows:
        if row.event == "join":
            opened = row.at - begins
        elif row.event in ("drop", "leave") and opened is not None:
            yield from ticks(opened, 0.0, row.at - begins, plan.interval, rng)
            opened = None
    if opened is not None:
        yield from ticks(opened, 0.0, plan.duration + OVERTIME_SECONDS, plan.interval, rng)
