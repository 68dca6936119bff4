"""Journal entries: what must last. A shell saves them in the same atomic step as the record that caused them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

EntryKind: TypeAlias = Literal[
    "attempt", "label", "session", "command", "receipt", "message", "exam", "incident", "roster", "audit"
]


class Entry(Struct, frozen=True, omit_defaults=True):
    """One line. Its key is (school, quiz_id, student_id, version, n): the same entry written twice is one entry.

    `cause` names what brought it about (`reported`, `silence`, `dropped`, ...); for a label `before` and `after` are labels, for
    a command or receipt `reference` is its id and `after` its outcome. `actor` is a proctor or `student`; lines without one are
    the server's own inferences. Entries about the whole exam have an empty `student_id`, and `audit` ones that concern no exam an
    empty `quiz_id`. `to_everyone`: a command that came to
    this student because it was given to the whole exam, whose own entry has it too.
    """

    school: str
    quiz_id: str
    student_id: str
    version: int
    n: int
    at: float
    kind: EntryKind
    cause: str
    before: str = ""
    after: str = ""
    reference: str = ""
    actor: str = ""
    text: str = ""
    to_everyone: bool = False


class Position(Struct, frozen=True, array_like=True):
    """Where an entry stands: in a student's timeline by version and number, in a conversation by time first."""

    at: float
    student_id: str
    version: int
    n: int


def position_of(entry: Entry) -> Position:
    """Where this entry stands."""
    return Position(entry.at, entry.student_id, entry.version, entry.n)


def is_conversation(entry: Entry) -> bool:
    """Whether this is a line of the conversation between students and proctors: words or a hand, each said once.

    What was said to everyone is the exam's own line, not one for each student.
    """
    if entry.kind == "message":
        return True
    if entry.cause not in ("message", "warn"):
        return False
    return entry.kind == "exam" or (entry.kind == "command" and not entry.to_everyone and entry.after == "accepted")


class AuditPosition(Struct, frozen=True, array_like=True):
    """Where an entry stands in a school's audit log: in the order of time."""

    at: float
    quiz_id: str
    student_id: str
    version: int
    n: int


def audit_position(entry: Entry) -> AuditPosition:
    """Where this entry stands in the audit log."""
    return AuditPosition(entry.at, entry.quiz_id, entry.student_id, entry.version, entry.n)


def is_audited(entry: Entry) -> bool:
    """Whether this belongs in the school's audit log: what people did to an exam, to students or to records, each act once.

    Entries of the kind `audit` are there only, and in no timeline.

    A command to everyone is the exam's own line, not one for each student; what became of a command is in the timeline.
    """
    if entry.kind in ("audit", "roster"):
        return True
    if entry.kind == "exam":
        return bool(entry.actor)
    return entry.kind == "command" and not entry.to_everyone and entry.after in ("accepted", "refused")


def audited(entry: Entry) -> Entry:
    """The entry as the audit log has it: without words, which go with the exam when that is purged."""
    return replace(entry, text="") if entry.text else entry


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


def encode(entry: Entry) -> bytes:
    """The entry as a stream or a table keeps it."""
    return _encoder.encode(entry)


def decode(stored: bytes | str) -> Entry:
    """The entry from what was kept. Raises `msgspec.ValidationError` if that is no entry."""
    return _decoder.decode(stored)
