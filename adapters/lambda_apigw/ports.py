"""What the shell needs from AWS: the verbs of `core.ports`, and those that only this side has.

Every call is synchronous and is one or a few requests on the wire. `tests/adapters/lambda_apigw` runs one set of checks over the
DynamoDB store and over the fakes that the shell's own tests use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from core.events import CommandIssued, ParticipantEvent
from core.exam import Exam
from core.identity import Principal, Role
from core.incidents import SilenceCounts
from core.journal import Entry
from core.messages import View
from core.participant import ExamKey, Participant, ParticipantKey
from core.ports import Channels, Connections, ParticipantStore
from core.revocation import Revocation

__all__ = [
    "TOKEN_GRACE_SECONDS",
    "CommandChunk",
    "Connections",
    "InboxItem",
    "Queue",
    "Row",
    "Store",
    "Subscriptions",
    "SweepTicket",
    "Views",
]


TOKEN_GRACE_SECONDS = 60.0
"""How long a proctor's socket outlives a token that was not refreshed."""


class InboxItem(Struct, frozen=True):
    """An event that the other side of a migration left for us; `id` names it in `Store.save(taken=...)`."""

    id: str
    event: ParticipantEvent


class Row(Struct, frozen=True):
    """What a partition holds of one student; an inbox may be there before the record."""

    key: ParticipantKey
    record: Participant | None
    inbox: tuple[InboxItem, ...] = ()


class SweepTicket(Struct, frozen=True):
    """The right to do one sweep: of this exam and shard, the one that was planned for `at`.

    An `extra` one comes between two of the chain, because somebody turns offline then. It plans nothing, so it needs no right, and
    two of it, or none, do no harm.
    """

    exam: ExamKey
    shard: int
    at: float
    extra: bool = False


class CommandChunk(Struct, frozen=True, omit_defaults=True):
    """A part of a command to many: to everyone of a shard who comes after the id `after`, or to `student_ids`."""

    exam: ExamKey
    event: CommandIssued
    shard: int = 0
    after: str = ""
    student_ids: tuple[str, ...] = ()


class Views(Struct, frozen=True):
    """Views of an exam that are published a moment later, together with what others publish until then."""

    exam: ExamKey
    views: tuple[View, ...]


class Store(ParticipantStore, Protocol):
    """Records, the exam, the journal, inboxes, and when each shard of an open exam is swept next.

    `save_exam` also keeps the list of open exams: a shard of an exam that opens is on it with the ticket 0, one that closes is off
    it, in the same atomic step.
    """

    def load(self, key: ParticipantKey, *, latest: bool = True) -> Participant | None:
        """As `ParticipantStore.load`. Else perhaps an older one, at half the price: good if a save is going to prove it new."""

    def save(
        self, before: Participant | None, after: Participant, entries: Sequence[Entry], taken: Sequence[str] = ()
    ) -> bool:
        """As `ParticipantStore.save`; the inbox items `taken` go in the same step."""

    def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry], students: int = 0) -> bool:
        """As `ParticipantStore.save_exam`; an exam that is stored first is spread for so many students (0: not known)."""

    def shards(self, exam: ExamKey) -> int:
        """Over how many partitions the exam's participants are spread. Never changes once the exam is stored."""

    def partition(self, exam: ExamKey, shard: int, after: str = "") -> Iterable[Row]:
        """The rows of a shard in the order of student ids, from behind `after`. They may be a moment old."""

    def put_in_inbox(self, key: ParticipantKey, event: ParticipantEvent) -> None:
        """Leave an event for the side that is the participant's home. The same event twice is one item."""

    def drop_from_inbox(self, key: ParticipantKey, taken: Sequence[str]) -> None:
        """Remove inbox items that changed nothing."""

    def claim_sweep(self, ticket: SweepTicket, next_at: float) -> bool:
        """Exchange a ticket for the one at `next_at`; False if another has done so, or the exam is closed."""

    def put_counts(self, exam: ExamKey, shard: int, counts: SilenceCounts) -> None:
        """Keep what the last sweep of a shard counted, for the shard that decides."""

    def counts(self, exam: ExamKey) -> SilenceCounts:
        """What the last sweeps of all shards counted, added up."""

    def late_sweeps(self, before: float) -> Iterable[SweepTicket]:
        """The tickets of open exams that should have been exchanged before this moment."""


class Subscriptions(Channels, Protocol):
    """Who is connected, and who of them watches which exam."""

    def subscribe(self, exam: ExamKey, connection: str, groups: Sequence[str], expires_at: float | None = None) -> None:
        """As `Channels.subscribe`; nothing is published to the connection after `expires_at`."""

    def expired(self, exam: ExamKey) -> Iterable[str]:
        """Connections that still watch the exam although their token expired a while ago."""

    def remember(self, connection: str, connected_at: float, principal: Principal) -> None:
        """Keep who is on a connection: at its start, and after its token was refreshed."""

    def principal(self, connection: str) -> Principal | None:
        """Who is on a connection. A consistent read; None if it is not known (any more)."""

    def revocations(self, school: str, role: Role) -> Mapping[Revocation, float]:
        """Tokens that count no more, with the moment until which each revocation holds."""

    def forget(self, connection: str) -> None:
        """Forget a connection and all that it watches. One that is not known is no error."""

    def failed(self, connection: str) -> int:
        """Count a faulty frame; how many there were in a row, as far as is known."""

    def succeeded(self, connection: str) -> None:
        """End the row of faulty frames. Free unless this very object counted one."""


class Queue(Protocol):
    """Work for later invocations: delivered at least once, in any order."""

    def sweep(self, ticket: SweepTicket, delay_seconds: float) -> None:
        """Bring this ticket to the sweep after the delay."""

    def command(self, chunk: CommandChunk) -> None:
        """Have this part of a command carried out."""

    def publish(self, views: Views) -> None:
        """Have these views published soon. Only asked for if the shell was told to coalesce."""
