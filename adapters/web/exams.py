"""Opening and closing exams: the short loop of this side. Decide, save unless somebody else did meanwhile, see to what follows."""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from adapters.web.access import SCHOOL_ACTOR
from adapters.web.ports import Ports, Unavailable
from core import effects
from core.decide_exam import decide_exam
from core.events import ExamClosed, ExamOpened
from core.exam import Exam, new_exam
from core.participant import ExamKey
from core.policy import Policy

_ATTEMPTS = 12


def open_exam(
    ports: Ports, key: ExamKey, policy: Policy | None, students: int = 0, by: str = SCHOOL_ACTOR
) -> tuple[Exam, bool]:
    """Open the exam; with a policy, under these rules from now on. Also whether it is new; then it is for so many students."""
    now = ports.now()
    return _change(ports, key, ExamOpened(received_at=now, by=by, policy=policy), students)


def close_exam(ports: Ports, key: ExamKey, by: str = SCHOOL_ACTOR) -> Exam:
    """Close the exam, which there must be."""
    exam, _ = _change(ports, key, ExamClosed(received_at=ports.now(), by=by))
    return exam


def _change(ports: Ports, key: ExamKey, event: ExamOpened | ExamClosed, students: int = 0) -> tuple[Exam, bool]:
    for _ in range(_ATTEMPTS):
        before = ports.load_exam(key)
        # an exam that nobody has opened is one that is closed: so its opening is journalled and swept like any other
        exam = before or replace(new_exam(key, ports.here, event.received_at, ports.policy), state="closed")
        decision = decide_exam(exam, event, max(ports.now(), event.received_at))
        if decision.exam is not exam and not ports.save_exam(before, decision.exam, decision.entries, students):
            continue
        for effect in decision.effects:
            _perform(ports, effect)
        return decision.exam, before is None
    raise Unavailable(f"exam {key.quiz_id} was changed by others {_ATTEMPTS} times in a row")


def _perform(ports: Ports, effect: effects.ExamEffect) -> None:
    match effect:
        case effects.ScheduleSweep():
            ports.schedule_sweep(effect)
        case effects.PublishIncidents() | effects.CommandEveryone():
            raise AssertionError(f"{effect} does not follow from opening or closing")
        case _:
            assert_never(effect)
