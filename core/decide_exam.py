"""The decisions about an exam as a whole: opened and closed, commands to everyone, and the periodic look at who fell silent.

Pure, as `core.decide` is, and used in the same way.
"""

from __future__ import annotations

from typing import Any, assert_never

from msgspec import Struct
from msgspec.structs import replace

from core import effects, incidents
from core.events import ExamClosed, ExamCommandIssued, ExamEvent, ExamOpened, SweepCounted
from core.exam import Exam
from core.journal import Entry

_MAX_STANDING = 16


class ExamDecision(Struct, frozen=True):
    """What follows from an event on an exam."""

    exam: Exam
    entries: tuple[Entry, ...] = ()
    effects: tuple[effects.ExamEffect, ...] = ()


def decide_exam(exam: Exam, event: ExamEvent, now: float) -> ExamDecision:
    """What follows from this event for the exam as a whole."""
    version = max(exam.version + 1, int(now * 1000))
    match event:
        case ExamOpened():
            return _opened(exam, event, now, version)
        case ExamClosed():
            return _closed(exam, event, event.by, version)
        case ExamCommandIssued():
            return _exam_command(exam, event, now, version)
        case SweepCounted():
            return _swept(exam, event, now, version)
        case _:
            assert_never(event)


def _opened(exam: Exam, event: ExamOpened, now: float, version: int) -> ExamDecision:
    """Open, or, if it is open, only the rules change. Opened again, it has an hour even if its last end is long past."""
    policy = event.policy or exam.policy
    if exam.state != "closed":
        if policy == exam.policy:
            return ExamDecision(exam)
        after = replace(exam, policy=policy, version=version)
        return ExamDecision(after, _exam_entry(after, event, "policy", event.by))
    after = replace(exam, state="open", policy=policy, opened_at=now, last_sweep_at=None, version=version)
    return ExamDecision(after, _exam_entry(after, event, "opened", event.by), (_sweep(exam, "start"),))


def _closed(exam: Exam, event: ExamEvent, by: str, version: int) -> ExamDecision:
    if exam.state == "closed":
        return ExamDecision(exam)
    after = replace(exam, state="closed", standing=(), version=version)
    return ExamDecision(after, _exam_entry(after, event, "closed", by), (_sweep(exam, "stop"),))


def _exam_command(exam: Exam, event: ExamCommandIssued, now: float, version: int) -> ExamDecision:
    """A command to everyone: it stands for who joins later, and goes to each who is there."""
    command = event.command
    everyone = effects.CommandEveryone(exam.key, command)
    if any(standing.command_id == command.command_id for standing in exam.standing):
        return ExamDecision(exam, effects=(everyone,))  # a resend: who had it already ignores it
    standing = tuple(c for c in exam.standing if c.expires_at > now)
    state = exam.state
    if state != "closed" and command.command in ("pause", "resume"):
        state = "paused" if command.command == "pause" else "open"
    after = replace(exam, standing=(*standing, command)[-_MAX_STANDING:], state=state, version=version)
    (entry,) = _exam_entry(after, event, command.command, command.issued_by)
    entry = replace(entry, reference=command.command_id, text=command.words, to_everyone=True)
    return ExamDecision(after, (entry,), (everyone,))


def _swept(exam: Exam, event: SweepCounted, now: float, version: int) -> ExamDecision:
    """The periodic look: incidents begin and end, and an exam that is long over closes."""
    if exam.state == "closed":
        return ExamDecision(exam)
    after = replace(incidents.swept(exam, event, now), version=version)
    end = after.last_time_end
    if end is not None and now >= max(end, after.opened_at) + exam.policy.closes_after_seconds:
        return _closed(after, event, "an hour after its end", version)
    changed = tuple(i for i in after.incidents if i not in exam.incidents)
    entries = tuple(
        Entry(
            *exam.key,
            "",
            version,
            n,
            event.received_at,
            "incident",
            incident.kind,
            after="open" if incident.ended_at is None else "ended",
            text=f"{incident.count} participants",
        )
        for n, incident in enumerate(changed)
    )
    published = (effects.PublishIncidents(exam.key, changed),) if changed else ()
    return ExamDecision(after, entries, published)


def _exam_entry(exam: Exam, event: ExamEvent, cause: str, actor: str) -> tuple[Entry, ...]:
    return (Entry(*exam.key, "", exam.version, 0, event.received_at, "exam", cause, after=exam.state, actor=actor),)


def _sweep(exam: Exam, action: Any) -> effects.ScheduleSweep:
    return effects.ScheduleSweep(exam.key, action)
