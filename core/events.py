"""What happened. Events are data: they can be stored in an inbox and decided later, on another process or side.

Every event carries `received_at`, the server's receive time in epoch seconds of the service's clock, which may lie well before
`now` if the event waited in an inbox.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from core.messages import CommandName, Heartbeat, MessageKind, Receipt, Report
from core.participant import ParticipantKey
from core.policy import Policy


class _Event(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True):
    received_at: float


class StatusReported(_Event, frozen=True, kw_only=True):
    """A page reported its status. On a connection that the record does not know, this is the join.

    `name` and `group` come from the token and outrank the report's. `time_start` and `time_end` are the report's, read: epoch
    seconds.
    """

    connection: str
    connected_at: float
    report: Report
    time_start: float | None = None
    time_end: float | None = None
    name: str = ""
    group: str = ""


class HeartbeatReceived(_Event, frozen=True, kw_only=True):
    """A page is alive, and nothing changed."""

    connection: str
    heartbeat: Heartbeat


class StudentMessaged(_Event, frozen=True, kw_only=True):
    """A student wrote, or raised or lowered a hand."""

    connection: str
    message_id: str
    kind: MessageKind
    text: str = ""


class ReceiptReceived(_Event, frozen=True, kw_only=True):
    """A page received a command, or its student confirmed it."""

    connection: str
    receipt: Receipt


class ConnectionLost(_Event, frozen=True, kw_only=True):
    """A socket is gone. `left`: the page said goodbye; `dropped`: it did not; `lost_by_us`: drain, crash, two-hour cut."""

    connection: str
    reason: Literal["left", "dropped", "lost_by_us"] = "dropped"


class OwnerLost(_Event, frozen=True, kw_only=True):
    """The process that held this participant's sockets died: all its connections are lost by us."""


class ReconnectOrdered(_Event, frozen=True, kw_only=True):
    """We told the page to come back in `after_ms`: a planned silence, which extends its lease."""

    connection: str
    after_ms: int
    reason: str
    url: str | None = None


class DeadlineReached(_Event, frozen=True, kw_only=True):
    """The deadline set for `at` is due, or so the timer says. It may be late, repeated, early or stray."""

    at: float


class CommandIssued(_Event, frozen=True, kw_only=True):
    """A proctor's command to this participant. `only_group` bounds a proctor who may act on one group.

    `to_everyone`: it was given to the whole exam, not to some students by name.
    """

    command_id: str
    command: CommandName
    expires_at: float
    issued_by: str
    text: str = ""
    extra_minutes: float | None = None
    reason_code: str = ""
    only_group: str = ""
    to_everyone: bool = False

    @property
    def words(self) -> str:
        """The reason, the minutes and the text, as journal lines say them."""
        minutes = "" if self.extra_minutes is None else f"{self.extra_minutes:g} min"
        return " ".join(part for part in (self.reason_code, minutes, self.text) if part)


class RosterChanged(_Event, frozen=True, kw_only=True):
    """The school gave a student who has joined another name or group (empty: as it is known), which outranks tokens from now on."""

    by: str
    name: str = ""
    group: str = ""


ParticipantEvent: TypeAlias = (
    StatusReported
    | HeartbeatReceived
    | StudentMessaged
    | ReceiptReceived
    | ConnectionLost
    | OwnerLost
    | ReconnectOrdered
    | DeadlineReached
    | CommandIssued
    | RosterChanged
)


class ExamOpened(_Event, frozen=True, kw_only=True):
    """The API or a roster opened the exam (again), perhaps under other rules."""

    by: str
    policy: Policy | None = None


class ExamClosed(_Event, frozen=True, kw_only=True):
    """The API closed the exam."""

    by: str


class ExamCommandIssued(_Event, frozen=True, kw_only=True):
    """A proctor's command to everyone."""

    command: CommandIssued


class SweepCounted(_Event, frozen=True, kw_only=True):
    """The periodic look at all records of an exam: what `incidents.count` found."""

    taking: int
    fell_silent: int
    still_silent: int
    last_time_end: float | None = None


ExamEvent: TypeAlias = ExamOpened | ExamClosed | ExamCommandIssued | SweepCounted


class Addressed(Struct, frozen=True, gc=False):
    """An event with the participant that it is for: what an inbox holds."""

    key: ParticipantKey
    event: ParticipantEvent


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[ParticipantEvent] = msgspec.json.Decoder(ParticipantEvent)


def encode(event: ParticipantEvent) -> bytes:
    """The event as an inbox keeps it."""
    return _encoder.encode(event)


def decode(stored: bytes | str) -> ParticipantEvent:
    """The event from an inbox. Raises `msgspec.ValidationError` if that is no event."""
    return _decoder.decode(stored)
