"""Who did what: lines of a school's audit log that no save of an exam brings about, and how people read them.

Commands, openings and closings are journalled with the record that they change, wherever they came from, and the log has these
lines too. This module adds what only the API does: keys, rosters, assignments, exports, files, purges. Nobody can delete a line.
"""

from __future__ import annotations

import secrets
from typing import Any

from msgspec import Struct

from adapters.web.ports import Ports
from core.journal import Entry, EntryKind
from core.participant import ExamKey

_FIRST_NOTE = 100


class AuditLine(Struct, frozen=True):
    """What somebody did. `actor`: a proctor's id, `api` or `api:KEY_ID` for a school's key. `kind` and `cause` say what, and
    `reference` to what (a command's, key's or proctor's id, a file). An empty `quiz_id` concerns no exam, an empty `student_id` no
    single student.
    """

    at: float
    actor: str
    kind: str
    cause: str
    quiz_id: str
    student_id: str
    reference: str
    before: str
    after: str
    to_everyone: bool


def audit_line(entry: Entry) -> AuditLine:
    """The line that an entry is."""
    return AuditLine(**{name: getattr(entry, name) for name in AuditLine.__struct_fields__})


def note(
    ports: Ports, exam: ExamKey, actor: str, cause: str, reference: str = "", kind: EntryKind = "audit", **fields: Any
) -> None:
    """Keep a line of the audit log: of an exam, or (no `quiz_id`) of the school. May raise `Unavailable`.

    Of the kind `exam` it is a line of the exam's timeline, too.
    """
    now = ports.now()
    number = _FIRST_NOTE + secrets.randbelow(1_000 - _FIRST_NOTE)  # beside what a save notes at this moment
    ports.note(Entry(*exam, "", int(now * 1000), number, now, kind, cause, reference=reference, actor=actor, **fields))
