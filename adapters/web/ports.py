"""What the app needs of a deployment: the live state of exams. It knows neither Redis nor DynamoDB.

The cluster has `adapters.ec2_cluster.web`, the serverless side `adapters.lambda_apigw.http`; one set of tests runs over both. All
calls are synchronous, and several threads may make them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from core.effects import ScheduleSweep
from core.exam import Exam
from core.identity import Principal
from core.journal import AuditPosition, Entry, Position
from core.migration import Move
from core.participant import ExamKey, Home, Participant
from core.policy import Policy
from core.revocation import Revocation
from core.roster import RosterLine
from core.routing import CommandToAll, CommandToSome


class Unavailable(Exception):
    """The deployment's store can't be reached, or is too busy: the same request may succeed in a moment."""


class BadPosition(ValueError):
    """A position that this deployment never gave."""


class Enrolled(Struct, frozen=True):
    """What became of the lines of a roster: students added, changed, and left as they are, because nothing is new.

    A change of one who has joined is decided by who decides for them, and shown within a moment.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0

    def __add__(self, other: Enrolled) -> Enrolled:
        return Enrolled(self.added + other.added, self.changed + other.changed, self.unchanged + other.unchanged)


Removed: TypeAlias = Literal["removed", "joined", "unknown"]


class Purged(Struct, frozen=True):
    """How many items are gone, and whether that was all; if not, ask again."""

    items: int
    done: bool

    def __add__(self, other: Purged) -> Purged:
        return Purged(self.items + other.items, self.done and other.done)


class Ports(Protocol):
    """Every method but `now` may raise `Unavailable`."""

    @property
    def here(self) -> Home:
        """The side that decides about exams opened here."""

    @property
    def max_answer_bytes(self) -> int | None:
        """How long an answer may be; None: it is sent as it is made, however long."""

    @property
    def policy(self) -> Policy:
        """The rules of exams that are opened without any."""

    def now(self) -> float:
        """The service's clock, in epoch seconds: the one that tokens are checked by."""

    def check(self) -> None:
        """Return if requests can be served."""

    def move(self) -> Move | None:
        """The move to the other side that is under way, or was the last one; at most a few seconds old."""

    def load_exam(self, key: ExamKey) -> Exam | None:
        """The exam as last saved by anyone."""

    def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry], students: int = 0) -> bool:
        """Keep the exam and entries in one atomic step, if the stored version is still `before`'s, and tell who decides by it.

        A new exam may be laid out for so many `students` (0: not known).
        """

    def schedule_sweep(self, effect: ScheduleSweep) -> None:
        """See that the exam is swept from now on, or no more."""

    def enroll(self, exam: ExamKey, lines: Sequence[RosterLine], by: str = "api") -> Enrolled:
        """Make or change the students of these lines, and show them to who watches the exam.

        Each line is one atomic step. Repeated, it changes nothing. `by`: who changes those who have joined, for the journal.
        """

    def remove(self, exam: ExamKey, student_id: str) -> Removed:
        """Take a student who has not joined out of the exam, and show it again to who watches; who has joined stays."""

    def participants(self, exam: ExamKey, after: str = "") -> Iterator[tuple[str, Participant]]:
        """The records of an exam in an order that stays, each with its position; only those behind `after`, if that is given.

        A record may be a moment old. Raises `BadPosition`.
        """

    def records(self, exam: ExamKey, student_ids: Sequence[str]) -> Mapping[str, Participant]:
        """The records of these students of an exam; those who are not known are left out."""

    def command(self, routed: CommandToSome | CommandToAll) -> None:
        """Bring a proctor's command to students or to all: kept when this returns; who is not in the exam is left out.

        Each student's record decides, as it does for a command that comes over a socket. Repeated, it changes nothing.
        """

    # --- what a school has ---

    def open_exams(self, school: str) -> Sequence[ExamKey]:
        """The exams of a school that are not closed, or were not a moment ago, in any order."""

    def is_watched(self, exam: ExamKey) -> bool:
        """Whether any proctor's dashboard shows this exam now."""

    # --- what lasts ---

    def timeline(
        self, exam: ExamKey, student_id: str | None, after: Position | None, *, newest_first: bool
    ) -> Iterator[Entry]:
        """Journal entries behind a position: of one student by version and number, or (None) of the exam, student by student.

        An empty `student_id` is the exam itself. The last moment may be missing.
        """

    def conversation(self, exam: ExamKey, after: Position | None, *, newest_first: bool) -> Iterator[Entry]:
        """The entries that are lines of an exam's conversation (`is_conversation`), behind a position, in the order of time."""

    def audit(self, school: str, after: AuditPosition | None, *, newest_first: bool) -> Iterator[Entry]:
        """The entries that people caused (`is_audited`) in all exams of a school, behind a position, in the order of time."""

    def purge(self, exam: ExamKey, seconds: float) -> Purged:
        """Delete what is kept about a closed exam and its students, live and journalled, for about so long. The audit log stays."""

    def note(self, entry: Entry) -> None:
        """Keep an entry that belongs to no save, such as who exported what."""

    # --- who reads ---

    def is_revoked(self, principal: Principal) -> bool:
        """Whether the tokens of this bearer count no more."""

    def revoke(self, revocation: Revocation, hours: float) -> None:
        """Let tokens count no more for so long, and close the sockets that were opened with them."""

    def allow(self, revocation: Revocation) -> None:
        """Take a revocation back, if there is one."""
