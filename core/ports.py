"""What a shell needs from its adapter, in the same words on both sides. The core never calls these.

The contracts are asynchronous in the cluster and synchronous on Lambda, so these protocols state the names and promises, not a
base class: `tests/contract` runs one set of checks over every implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from core.effects import SetDeadline
from core.exam import Exam
from core.journal import Entry
from core.messages import View
from core.participant import ExamKey, Participant, ParticipantKey


class ParticipantStore(Protocol):
    """Records and what must last."""

    def load(self, key: ParticipantKey) -> Participant | None:
        """The record as last saved by anyone; None if there is none. A consistent read."""

    def save(self, before: Participant | None, after: Participant, entries: Sequence[Entry]) -> bool:
        """Keep record and entries in one atomic step, if the stored version is still `before`'s; False if it is not."""

    def load_exam(self, key: ExamKey) -> Exam | None:
        """The exam as last saved by anyone."""

    def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry]) -> bool:
        """Keep the exam and entries in one atomic step, if the stored version is still `before`'s."""

    def participants(self, exam: ExamKey) -> Iterable[Participant]:
        """All records of an exam, each at least as new as when this was called."""


class Connections(Protocol):
    """Sockets of clients, wherever they end."""

    def send(self, connection: str, payload: bytes) -> bool:
        """Send a frame; False if that connection is gone."""

    def close(self, connection: str, code: int, reason: str) -> None:
        """Hang up. A connection that is gone already is no error."""


class Channels(Protocol):
    """Who watches which exam."""

    def subscribe(self, exam: ExamKey, connection: str, groups: Sequence[str]) -> None:
        """Return only when everything published from now on will reach the connection."""

    def unsubscribe(self, exam: ExamKey, connection: str) -> None:
        """Stop publishing to the connection. One that does not watch is no error."""

    def subscriptions(self, exam: ExamKey) -> Iterable[tuple[str, Sequence[str]]]:
        """Connections that watch the exam, each with its groups (none: all)."""


class Deadlines(Protocol):
    """A hint that comes at about the right time, perhaps twice, perhaps never."""

    def set(self, deadline: SetDeadline) -> None:
        """Bring `DeadlineReached(at)` at about `at`."""


class SnapshotReader(Protocol):
    """What the HTTP API reads."""

    def views(self, exam: ExamKey) -> Iterable[View]:
        """The views of all participants of an exam."""
