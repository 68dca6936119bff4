"""Records: what a school keeps about its exams and its people, apart from the live state of an exam.

Schools, the keys that they call with, exams (closed ones too), rosters with groups, and which proctor is assigned to which exam.
One port, kept in a relational database (`sql`: SQLite on one machine, PostgreSQL, Aurora PostgreSQL) or in DynamoDB (`dynamodb`,
which costs nothing while nobody asks); one contract test runs over all of them. Only the HTTP API and commands ask here; no frame
of a socket does, so neither SQLAlchemy nor a table's client is ever imported on that path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from core.participant import ExamKey
from core.roster import RosterLine


class RecordsUnavailable(Exception):
    """The records can't be reached, or are too busy: the same request may succeed in a moment."""


class School(Struct, frozen=True):
    """A school. `retention_days`: how long after its end an exam is kept; None: until the deployment's own limit."""

    school: str
    name: str = ""
    retention_days: float | None = None
    created_at: float = 0.0


class SchoolKey(Struct, frozen=True):
    """A key that a school calls with. Only the SHA-256 of it is kept: it is random, so that no slower hash is needed.

    It counts from `created_at` until `expires_at` (None: until revoked). Times are epoch seconds.
    """

    school: str
    key_id: str
    digest: str
    label: str = ""
    created_at: float = 0.0
    created_by: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at is None or now < self.expires_at else "expired"


class ExamRecord(Struct, frozen=True):
    """An exam as its school knows it. Whether it is open now, its live state says; `purged_at`: its data is gone since."""

    school: str
    quiz_id: str
    name: str = ""
    created_at: float = 0.0
    opened_at: float | None = None
    closed_at: float | None = None
    purged_at: float | None = None

    @property
    def key(self) -> ExamKey:
        """The address of this exam."""
        return ExamKey(self.school, self.quiz_id)


class Assignment(Struct, frozen=True):
    """A proctor of an exam. With a `group` they see and act on that group only."""

    proctor_id: str
    name: str = ""
    group: str = ""
    assigned_at: float = 0.0
    assigned_by: str = ""


class Records(Protocol):
    """What every kind of storage does. Each call is one atomic step, threads may make them, any may raise `RecordsUnavailable`.

    What is put again is replaced, and what is removed twice is removed once, so every call may be repeated.
    """

    def check(self) -> None:
        """Return if requests can be served."""

    def put_school(self, school: School) -> None:
        """Keep a school, in the place of the one with this id if there is one."""

    def school(self, school: str) -> School | None:
        """The school of this id."""

    def schools(self) -> Iterator[School]:
        """All schools by id: for an operator."""

    def add_key(self, key: SchoolKey) -> bool:
        """Keep a new key; False if there is one with its id, or with its digest, already."""

    def put_key(self, key: SchoolKey) -> bool:
        """Change label, expiry and revocation of a key that there is; False if there is none with this school and id."""

    def key_of(self, digest: str) -> SchoolKey | None:
        """The key with this digest, whatever its state, as last put by anyone."""

    def keys(self, school: str) -> list[SchoolKey]:
        """All keys of a school by id, revoked ones too."""

    def put_exam(self, exam: ExamRecord) -> None:
        """Keep an exam, in the place of the one with its ids if there is one."""

    def exam(self, key: ExamKey) -> ExamRecord | None:
        """The exam of this key."""

    def exams(self, school: str, after: str = "") -> Iterator[ExamRecord]:
        """A school's exams behind this quiz id, in the order of their ids."""

    def put_lines(self, exam: ExamKey, lines: Sequence[RosterLine]) -> None:
        """Keep lines of an exam's roster, each in the place of its student's one. Each line is a step of its own."""

    def drop_line(self, exam: ExamKey, student_id: str) -> bool:
        """Take a student off the roster; whether they were on it."""

    def lines(self, exam: ExamKey, after: str = "") -> Iterator[RosterLine]:
        """The roster behind this student id, in the order of their ids."""

    def assign(self, exam: ExamKey, assignment: Assignment) -> None:
        """Assign a proctor, in the place of their former assignment if there is one."""

    def unassign(self, exam: ExamKey, proctor_id: str) -> bool:
        """Take a proctor off an exam; whether they were assigned."""

    def assignments(self, exam: ExamKey) -> list[Assignment]:
        """The proctors of an exam by id, as last assigned by anyone. None assigned: anybody with a token may watch it."""

    def purge(self, exam: ExamKey) -> int:
        """Forget roster and assignments of an exam; how many there were. The exam itself stays, for its school's list."""

    def close(self) -> None:
        """Give up connections."""
