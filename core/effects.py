"""What to do after a decision. Effects are data; the shells perform them, in the order of the decision.

The order is a rule, found by simulation: deadlines *before* the save, everything else after it, the ack last. `SetDeadline`
therefore stands first and `Ack` last in every decision. An effect names a channel or the connection on record, never a list of
sockets, and never asks for an answer. Any of them may be lost or repeated.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from core.events import CommandIssued, ParticipantEvent
from core.messages import Ack as AckFrame
from core.messages import CommandOutcome, Incident, ServerFrame
from core.participant import ExamKey, ParticipantKey


class SetDeadline(Struct, frozen=True):
    """Bring `DeadlineReached(at=at)` to this participant at about `at`. Performed before the save; never cancelled."""

    key: ParticipantKey
    at: float


class PublishView(Struct, frozen=True, gc=False):
    """Show the participant's view, as saved, to the exam's proctors. Coalescible: the latest one wins."""


class PublishMessage(Struct, frozen=True):
    """Show a student's words to the exam's proctors."""

    exam: ExamKey
    group: str
    frame: ServerFrame


class PublishCommandStatus(Struct, frozen=True):
    """Tell all proctors of the exam how far a command has come for one student. Coalescible by command."""

    exam: ExamKey
    command_id: str
    student_id: str
    outcome: CommandOutcome
    reason: str = ""


class PublishIncidents(Struct, frozen=True):
    """Tell the exam's proctors which incidents are open or have just ended."""

    exam: ExamKey
    incidents: tuple[Incident, ...]


class Send(Struct, frozen=True):
    """Send a frame to one connection. A connection that is gone becomes `ConnectionLost`."""

    connection: str
    frame: ServerFrame


class Ack(Struct, frozen=True, gc=False):
    """Acknowledge, last of all: only what is saved is acknowledged."""

    connection: str
    frame: AckFrame


class Close(Struct, frozen=True):
    """Close one connection. Where codes can't be sent, an `error` frame with `final` goes before."""

    connection: str
    code: int
    reason: str


class Subscribe(Struct, frozen=True):
    """Add a proctor's connection to the exam's channel. Before the snapshot is read."""

    exam: ExamKey
    connection: str
    groups: tuple[str, ...]


class Unsubscribe(Struct, frozen=True):
    """Take a proctor's connection off the exam's channel."""

    exam: ExamKey
    connection: str


class SendSnapshot(Struct, frozen=True):
    """Read a consistent snapshot of the exam and send it, in pages. After `Subscribe` has taken hold."""

    exam: ExamKey
    connection: str
    groups: tuple[str, ...]


class Forward(Struct, frozen=True):
    """The participant lives on the other side: put the event into its inbox there and nudge it. Nothing is acked."""

    key: ParticipantKey
    event: ParticipantEvent


class CommandEveryone(Struct, frozen=True):
    """Bring this command to every participant of the exam, in chunks; repeats are harmless."""

    exam: ExamKey
    event: CommandIssued


class ScheduleSweep(Struct, frozen=True):
    """See that the exam is swept from now on (`start`), or no more."""

    exam: ExamKey
    action: Literal["start", "stop"]


ParticipantEffect: TypeAlias = (
    SetDeadline | PublishView | PublishMessage | PublishCommandStatus | Send | Close | Forward | Ack
)
ExamEffect: TypeAlias = PublishIncidents | CommandEveryone | ScheduleSweep
ProctorEffect: TypeAlias = Subscribe | Unsubscribe | SendSnapshot
Effect: TypeAlias = ParticipantEffect | ExamEffect | ProctorEffect
