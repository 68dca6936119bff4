"""Keys in DynamoDB that both deployments write alike: an exam that moves between them has one journal.

    pk                        sk                                     what
    s#SCHOOL#QUIZ#SHARD       STUDENT#VERSION#N                      entries of one save, in the journal
    m#SCHOOL#QUIZ             MILLISECONDS#STUDENT#VERSION#N         a line of the conversation with proctors, once more
    a#SCHOOL                  MILLISECONDS#QUIZ#STUDENT#VERSION#N    a line of the school's audit log, once more

A `#` or `%` in an id is escaped, so that no two ids meet. Numbers have leading zeros, so that text sorts as they do.
"""

from __future__ import annotations

from core.journal import AuditPosition, Position
from core.participant import ExamKey

MAX_SHARDS = 64
"""Over how many partitions the students of an exam are spread at most."""
AUDIT_SECONDS = 365 * 86_400
"""How long a line of the audit log is kept at least."""


def escaped(value: str) -> str:
    """An id as a part of a key: without the separator."""
    return value.replace("%", "%25").replace("#", "%23") if "#" in value or "%" in value else value


def plain(value: str) -> str:
    """The id that was escaped."""
    return value.replace("%23", "#").replace("%25", "%")


def shard_partition(exam: ExamKey, shard: int) -> str:
    """Where a shard's participants lie, and their entries in the journal."""
    return f"s#{escaped(exam.school)}#{escaped(exam.quiz_id)}#{shard}"


def journal_key(position: Position) -> str:
    """The sort key of a save's entries in the journal: students in the order of their escaped ids."""
    return f"{escaped(position.student_id)}#{position.version:016d}#{position.n:03d}"


def conversation_partition(exam: ExamKey) -> str:
    """Where the conversation of an exam lies in the journal."""
    return f"m#{escaped(exam.school)}#{escaped(exam.quiz_id)}"


def conversation_key(position: Position) -> str:
    """The sort key of a line of the conversation."""
    return f"{int(position.at * 1000):013d}#{journal_key(position)}"


def audit_partition(school: str) -> str:
    """Where the audit log of a school lies in the journal."""
    return f"a#{escaped(school)}"


def audit_key(position: AuditPosition) -> str:
    """The sort key of a line of the audit log."""
    place = Position(position.at, position.student_id, position.version, position.n)
    return f"{int(position.at * 1000):013d}#{escaped(position.quiz_id)}#{journal_key(place)}"
