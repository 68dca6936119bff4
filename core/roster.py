"""Who is expected: what a line of a roster makes of a student who has not joined yet.

A roster is what a school knows before the exam. From the first report on, the record belongs to the one who decides for it: a line
is then brought to them as the event `RosterChanged`, if it says anything new.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from core.events import RosterChanged
from core.messages import Id
from core.participant import ExamKey, Home, Participant, ParticipantKey, new_participant
from core.policy import MAX_NAME_CHARACTERS


class RosterLine(Struct, frozen=True, forbid_unknown_fields=True):
    """One student of a roster. A longer name is cut, as it is in reports."""

    student_id: Id
    name: Annotated[str, Meta(max_length=500)] = ""
    group: Annotated[str, Meta(max_length=64)] = ""


def enrolled(before: Participant | None, exam: ExamKey, line: RosterLine, here: Home, now: float) -> Participant | None:
    """The record of the student as this line has it; None if there is nothing to change, or the student has joined.

    What a line leaves empty stays as it is known.
    """
    known = before or new_participant(ParticipantKey(*exam, str(line.student_id)), here)
    if has_joined(known) or known.home != here:
        return None
    name, group = line.name[:MAX_NAME_CHARACTERS] or known.student_name, line.group or known.group
    if before is not None and (name, group) == (known.student_name, known.group):
        return None
    version = max(known.version + 1, int(now * 1000))
    return replace(known, student_name=name, group=group, version=version)


def roster_changed(joined: Participant, line: RosterLine, by: str, now: float) -> RosterChanged | None:
    """What this line means for a student who has joined; None if it says nothing new. A name or group left empty stays."""
    name, group = line.name[:MAX_NAME_CHARACTERS] or joined.student_name, line.group or joined.group
    if (name, group) == (joined.student_name, joined.group):
        return None
    return RosterChanged(received_at=now, by=by, name=line.name[:MAX_NAME_CHARACTERS], group=line.group)


def has_joined(record: Participant) -> bool:
    """Whether somebody has reported for this student: then the record is kept, and no roster takes it away."""
    return record.lifecycle != "not_joined" or bool(record.sessions) or bool(record.quiz_attempt_id)
