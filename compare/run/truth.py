"""What proctors ought to have seen of a student: `decide` replayed over what the page sent and how its connections ended.

The replay knows the clients' side only: each frame counts as received when it was sent, a dropped connection as lost when it was
cut, and every deadline comes to the instant. So it leads any server by the time that frames and timers take. A frame whose fate
nobody knows, because its connection ended before an answer could come, does not count.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable

from msgspec import Struct

from compare.run.recording import Attempt, Line, Report, StudentLog
from compare.run.workload import QUESTIONS, SCHOOL
from core import decide, new_exam, new_participant
from core import messages as m
from core.events import ConnectionLost, DeadlineReached, HeartbeatReceived, ParticipantEvent, StatusReported
from core.journal import Entry
from core.participant import ExamKey, Home, ParticipantKey
from core.policy import Policy

FATE_SECONDS = 5.0
"""A connection that ended sooner than this after an unanswered frame took its fate along."""
PAPER_FATE_SECONDS = 0.5
"""The same for frames that are never answered: what was written half a second before has arrived."""


class Shown(Struct, frozen=True):
    """A change of label as it ought to be."""

    at: float
    before: str
    label: str
    cause: str


class Truth(Struct, frozen=True):
    """The labels of one student over time."""

    shown: tuple[Shown, ...]

    def label_at(self, at: float) -> str:
        """The label at this moment."""
        index = bisect.bisect_right(self.shown, at, key=lambda change: change.at)
        return self.shown[index - 1].label if index else "not_joined"

    def labels_between(self, start: float, end: float) -> set[str]:
        """All labels there were from `start` to `end`."""
        return {self.label_at(start)} | {change.label for change in self.shown if start <= change.at <= end}

    def until(self, change: Shown, end: float) -> float:
        """How long this label lasted, up to `end`."""
        index = self.shown.index(change)
        return (self.shown[index + 1].at if index + 1 < len(self.shown) else end) - change.at


def replay(
    log: StudentLog,
    here: Home,
    policy: Policy,
    until: float,
    next_ms: int | None,
    whatever_was_sent: bool = False,
) -> Truth:
    """The truth about one student, up to `until`. `next_ms` is what the page promised while active, None if nothing.

    With `whatever_was_sent`, frames of unknown fate count too.
    """
    plan = log.plan
    exam = new_exam(ExamKey(SCHOOL, plan.quiz_id), here, 0.0, policy)
    record = new_participant(ParticipantKey(SCHOOL, plan.quiz_id, plan.student_id), here)
    entries: list[Entry] = []

    def happen(event: ParticipantEvent, now: float) -> None:
        nonlocal record
        decision = decide(record, event, exam, now)
        record = decision.participant
        entries.extend(decision.entries)

    def let_time_pass(now: float) -> None:
        while record.check_at is not None and record.check_at <= now:
            happen(DeadlineReached(received_at=record.check_at, at=record.check_at), record.check_at)

    for event in sorted(_events(log, next_ms, until, whatever_was_sent), key=lambda event: event.received_at):
        if event.received_at >= until:
            break
        let_time_pass(event.received_at)
        happen(event, event.received_at)
    let_time_pass(until)
    return Truth(tuple(Shown(e.at, e.before, e.after, e.cause) for e in entries if e.kind == "label"))


def reached_server(
    attempt: Attempt, lines: list[Line], acked_at: float | None, numbered: bool, until: float = math.inf
) -> bool:
    """Whether a frame surely reached the server; all connections ended at `until`."""
    closed_at = lines[attempt.line].closed_at
    ended_at = until if closed_at is None else closed_at
    if acked_at is not None and attempt.at <= acked_at <= ended_at:
        return True
    return ended_at - attempt.at >= (FATE_SECONDS if numbered else PAPER_FATE_SECONDS)


def _events(log: StudentLog, next_ms: int | None, until: float, everything: bool) -> Iterable[ParticipantEvent]:
    """What reached the server, as events."""
    for report in log.reports:
        for attempt in report.attempts:
            if everything or reached_server(attempt, log.lines, report.acked_at, report.seq > 0, until):
                yield StatusReported(
                    received_at=attempt.at,
                    connection=_connection(attempt.line),
                    connected_at=log.lines[attempt.line].opened_at,
                    report=_on_the_wire(log, report, next_ms),
                )
    for beat in log.beats:
        if everything or reached_server(beat, log.lines, None, numbered=False, until=until):
            yield HeartbeatReceived(
                received_at=beat.at, connection=_connection(beat.line), heartbeat=m.Heartbeat(next_ms=next_ms)
            )
    for number, line in enumerate(log.lines):
        if line.closed_at is not None and line.end:
            yield ConnectionLost(
                received_at=line.closed_at,
                connection=_connection(number),
                reason="lost_by_us" if line.end == "cut" else line.end,
            )


def _connection(line: int) -> str:
    return f"line-{line}"


def _on_the_wire(log: StudentLog, report: Report, next_ms: int | None) -> m.Report:
    """The report as far as labels depend on it."""
    plan, state = log.plan, report.state
    away_promise = None if next_ms is None else 60_000
    return m.Report(
        plan.quiz_id,
        plan.attempt_id,
        plan.student_id,
        state.status,
        question_answered=state.answered,
        question_total=QUESTIONS,
        seq=report.seq or None,
        tab_id="tab" if report.seq else None,
        next_ms=away_promise if state.status == "away" else next_ms,
        attempt_state="submitted" if state.submitted and report.seq else None,
    )
