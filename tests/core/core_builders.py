"""Short words for the tests of the core: an exam, events, and a story that plays them on one participant.

Times are seconds after `T0`. Nothing here is a fake: the core is pure, so that a test needs data alone.
"""

from __future__ import annotations

from typing import Any

from core import Decision, Exam, ExamKey, Participant, ParticipantKey, decide, new_exam, new_participant
from core import effects as fx
from core import messages as m
from core.events import (
    CommandIssued,
    ConnectionLost,
    DeadlineReached,
    HeartbeatReceived,
    OwnerLost,
    ParticipantEvent,
    ReceiptReceived,
    ReconnectOrdered,
    RosterChanged,
    StatusReported,
    StudentMessaged,
)
from core.identity import Principal
from core.journal import Entry

T0 = 1_700_000_000.0
KEY = ParticipantKey("school", "quiz", "ann")
EXAM_KEY = ExamKey("school", "quiz")
EXAM = new_exam(EXAM_KEY, "ec2", T0)
NOBODY = new_participant(KEY, "ec2")


def report(
    at: float = 0.0,
    *,
    connection: str = "c1",
    connected_at: float = 0.0,
    status: str = "active",
    attempt: str = "a1",
    name: str = "",
    group: str = "",
    time_start: float | None = None,
    time_end: float | None = None,
    **fields: Any,
) -> StatusReported:
    """A status report received `at`; `fields` are those of the wire."""
    return StatusReported(
        received_at=T0 + at,
        connection=connection,
        connected_at=T0 + connected_at,
        report=m.Report("quiz", attempt, "ann", status, **fields),
        time_start=time_start,
        time_end=time_end,
        name=name,
        group=group,
    )


def heartbeat(at: float, *, connection: str = "c1", **fields: Any) -> HeartbeatReceived:
    return HeartbeatReceived(received_at=T0 + at, connection=connection, heartbeat=m.Heartbeat(**fields))


def lost(at: float, *, connection: str = "c1", reason: str = "dropped") -> ConnectionLost:
    return ConnectionLost(received_at=T0 + at, connection=connection, reason=reason)


def owner_lost(at: float) -> OwnerLost:
    return OwnerLost(received_at=T0 + at)


def ordered(at: float, *, connection: str = "c1", after_ms: int = 2_000) -> ReconnectOrdered:
    return ReconnectOrdered(received_at=T0 + at, connection=connection, after_ms=after_ms, reason="drain")


def deadline(at: float, received: float | None = None) -> DeadlineReached:
    return DeadlineReached(received_at=T0 + (at if received is None else received), at=T0 + at)


def command(
    at: float, name: str = "message", *, id: str = "k1", expires: float = 300.0, by: str = "proctor", **fields: Any
) -> CommandIssued:
    return CommandIssued(
        received_at=T0 + at, command_id=id, command=name, expires_at=T0 + at + expires, issued_by=by, **fields
    )


def regrouped(at: float, **fields: str) -> RosterChanged:
    return RosterChanged(received_at=T0 + at, by="api", **fields)


def receipt(at: float, outcome: str = "delivered", *, id: str = "k1", connection: str = "c1") -> ReceiptReceived:
    return ReceiptReceived(received_at=T0 + at, connection=connection, receipt=m.Receipt(id, outcome))


def words(
    at: float, kind: str = "chat", *, id: str = "m1", text: str = "hello", connection: str = "c1"
) -> StudentMessaged:
    return StudentMessaged(received_at=T0 + at, connection=connection, message_id=id, kind=kind, text=text)


class Story:
    """One participant, event after event. Keeps every decision, and what it put out."""

    def __init__(self, exam: Exam = EXAM, record: Participant = NOBODY) -> None:
        self.exam = exam
        self.record = record
        self.entries: list[Entry] = []
        self.effects: list[fx.ParticipantEffect] = []

    def __call__(self, event: ParticipantEvent, now: float | None = None) -> Decision:
        """Decide an event, at its receive time unless it waited until `now`."""
        decision = decide(self.record, event, self.exam, event.received_at if now is None else T0 + now)
        self.record = decision.participant
        self.entries += decision.entries
        self.effects += decision.effects
        return decision

    def until(self, moment: float) -> str:
        """Bring every deadline that is due up to this moment, each on its second; the label then."""
        while self.record.check_at is not None and self.record.check_at <= T0 + moment:
            self(deadline(self.record.check_at - T0))
        return self.record.label

    @property
    def labels(self) -> list[str]:
        """Labels in the order in which the journal has them."""
        return [entry.after for entry in self.entries if entry.kind == "label"]


def joined(exam: Exam = EXAM, **fields: Any) -> Story:
    """A story whose student joined at `T0`."""
    story = Story(exam)
    story(report(**fields))
    return story


def of(effects: tuple[Any, ...] | list[Any], kind: type) -> list[Any]:
    """The effects of a kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def frames(decision: Decision, kind: type) -> list[Any]:
    """The data of the frames of a kind that a decision sends."""
    sent = [e.frame for e in decision.effects if isinstance(e, fx.Send | fx.Ack)]
    return [frame.data for frame in sent if isinstance(frame, kind)]


STUDENT = Principal("student", "school", "ann", ("quiz",), T0 + 3_600, "a1")
PROCTOR = Principal("proctor", "school", "pat", ("quiz", "other"), T0 + 3_600)
