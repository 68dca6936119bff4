"""The wire protocol: names, fields and limits of every frame, and nothing about what they mean.

A frame is JSON text, `{"action": NAME, "data": {...}}`. `decode` reads a client's frame and raises `Malformed` naming the
field and the fix; `encode` writes a server's. Unknown fields are ignored, numbers may come as strings and ids as numbers, an
absent optional field means *unchanged*. The names are those of the paper's Figure 4 and its API Gateway routes; they appear in
this module alone.
"""

from __future__ import annotations

import datetime
import functools
import math
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta, Struct

from core.errors import Malformed, RemoteError
from core.policy import MAX_TEXT_CHARACTERS

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000)]
Seq: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]
Instant: TypeAlias = Annotated[str, Meta(max_length=40)] | int | float
UserStatus: TypeAlias = Literal["active", "away", "offline"]
MessageKind: TypeAlias = Literal["chat", "raise_hand", "lower_hand"]
CommandName: TypeAlias = Literal["message", "warn", "pause", "resume", "terminate", "update", "flag", "acknowledge"]
ReceiptOutcome: TypeAlias = Literal["delivered", "confirmed"]
AttemptState: TypeAlias = Literal["in_progress", "submitted"]
CommandOutcome: TypeAlias = Literal["accepted", "sent", "delivered", "confirmed", "expired", "refused"]


# --- from a student -------------------------------------------------------------------------------------------------------


class Report(Struct, frozen=True, omit_defaults=True, gc=False):
    """The data of a status report: Figure 4 of the paper, and our optional fields after it."""

    quiz_id: Id
    quiz_attempt_id: Id
    student_id: Id
    user_status: UserStatus
    question_answered: Count | None = None
    question_total: Count | None = None
    question_number_current: Count | None = None
    quiz_participant_id: Id | None = None
    quiz_result_id: Id | None = None
    score: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None
    student_name: Annotated[str, Meta(max_length=500)] | None = None
    time_end: Instant | None = None
    time_start: Instant | None = None
    topic_uuid: Id | None = None
    seq: Seq | None = None
    tab_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    next_ms: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    timestamp_sent: Instant | None = None
    attempt_state: AttemptState | None = None


class Heartbeat(Struct, frozen=True):
    """Nothing changed; `seq` repeats the last report's. Acknowledged only if `echo`."""

    seq: Seq | None = None
    next_ms: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    echo: bool = False


class StudentText(Struct, frozen=True):
    """A chat line, or a hand raised or lowered. `message_id` makes a resend harmless."""

    message_id: Id
    kind: MessageKind
    text: Text = ""


class Receipt(Struct, frozen=True):
    """The page has received (`delivered`) or the student has confirmed a command."""

    command_id: Id
    outcome: ReceiptOutcome


# --- from a proctor -------------------------------------------------------------------------------------------------------


class Watch(Struct, frozen=True):
    """Subscribe to an exam, or to some of its groups, and get a snapshot; `stop` unsubscribes."""

    quiz_id: Id
    groups: tuple[str, ...] | None = None
    stop: bool = False


class Order(Struct, frozen=True):
    """A command to some students, or to everyone. `command_id` is the idempotency key."""

    command_id: Id
    quiz_id: Id
    command: CommandName
    student_ids: Annotated[tuple[Id, ...], Meta(max_length=1_000)] | None = None
    everyone: bool = False
    text: Text = ""
    extra_minutes: Annotated[float, Meta(gt=0, le=600)] | None = None
    reason_code: Annotated[str, Meta(max_length=64)] = ""
    expires_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 300.0


class TokenData(Struct, frozen=True):
    """A fresh token for a live socket."""

    token: Annotated[str, Meta(max_length=8_000)]


class _Frame(Struct, frozen=True, tag_field="action", gc=False):
    """A frame of the protocol; the tag of a subclass is its name on the wire."""


class StatusFrame(_Frame, frozen=True, tag="lmsQuizMonitoringStudent"):  # noqa: D101
    data: Report


class HeartbeatFrame(_Frame, frozen=True, tag="lmsQuizMonitoringHeartbeat"):  # noqa: D101
    data: Heartbeat


class StudentTextFrame(_Frame, frozen=True, tag="lmsQuizStudentMessage"):  # noqa: D101
    data: StudentText


class ReceiptFrame(_Frame, frozen=True, tag="lmsQuizCommandReceipt"):  # noqa: D101
    data: Receipt


class TokenFrame(_Frame, frozen=True, tag="lmsQuizToken"):  # noqa: D101
    data: TokenData


class WatchFrame(_Frame, frozen=True, tag="lmsQuizMonitoringProctor"):  # noqa: D101
    data: Watch


class OrderFrame(_Frame, frozen=True, tag="lmsQuizProctorCommand"):  # noqa: D101
    data: Order


ClientFrame: TypeAlias = (
    StatusFrame | HeartbeatFrame | StudentTextFrame | ReceiptFrame | TokenFrame | WatchFrame | OrderFrame
)

CLIENT_ACTIONS: tuple[str, ...] = (
    "lmsQuizMonitoringStudent",
    "lmsQuizMonitoringHeartbeat",
    "lmsQuizStudentMessage",
    "lmsQuizCommandReceipt",
    "lmsQuizToken",
    "lmsQuizMonitoringProctor",
    "lmsQuizProctorCommand",
)
"""The names a client may send: also the routes of the API Gateway."""


# --- from the server ------------------------------------------------------------------------------------------------------


class View(Struct, frozen=True, gc=False):
    """What a proctor sees of a participant. Times are epoch seconds; seconds are totals of *ended* episodes and `*_since`
    the start of the open one, so that nothing in a view ticks; `label_since` is when the label became what it is. `seq` is the
    last report applied.
    """

    student_id: str
    student_name: str
    group: str
    quiz_attempt_id: str
    label: str
    user_status: str
    presence: str
    attention: str
    lifecycle: str
    question_number_current: int
    question_answered: int
    question_total: int
    score: float | None
    away_count: int
    away_seconds: float
    away_since: float | None
    offline_seconds: float
    offline_since: float | None
    reconnects: int
    time_start: float | None
    time_end: float | None
    last_seen: float
    version: int
    seq: int
    flags: tuple[str, ...]
    label_since: float | None = None


class Incident(Struct, frozen=True, omit_defaults=True):
    """A mass silence or a gap of the service itself. Open while `ended_at` is None."""

    kind: Literal["silence", "service"]
    started_at: float
    count: int
    ended_at: float | None = None


class AckData(Struct, frozen=True, omit_defaults=True, gc=False):
    """`server_time` is when the acknowledged frame was received: epoch milliseconds with a fraction."""

    server_time: float
    seq: int | None = None
    message_id: str | None = None
    command_id: str | None = None


class JoinedData(Struct, frozen=True):
    """The first answer to a page: which session it is, and from which `seq` to go on."""

    session_id: str
    last_seq: int
    server_time: float
    lifecycle: str
    time_end: float | None
    max_age_s: float


class SnapshotData(Struct, frozen=True):
    """One page of a snapshot. Clients merge by version; who is missing from a complete snapshot is gone."""

    quiz_id: str
    snapshot_id: str
    page: int
    pages: int
    participants: tuple[View | msgspec.Raw, ...]
    incidents: tuple[Incident, ...]
    server_time: float


class UpdateData(Struct, frozen=True):
    """Whole views of the participants that changed since the last update."""

    quiz_id: str
    participants: tuple[View | msgspec.Raw, ...]
    incidents: tuple[Incident, ...]
    server_time: float


class MessageData(Struct, frozen=True):
    """A student's words or raised hand, for the proctors."""

    message_id: str
    student_id: str
    kind: MessageKind
    text: str
    server_time: float


class CommandStatusData(Struct, frozen=True, omit_defaults=True):
    """How far a command has come: `students` maps an id to an outcome, a refusal with its reason after a colon."""

    command_id: str
    quiz_id: str
    counts: dict[str, int]
    students: dict[str, str]


class CommandData(Struct, frozen=True, omit_defaults=True):
    """A command as the student's page gets it."""

    command_id: str
    command: CommandName
    text: str = ""
    extra_minutes: float | None = None


class ReconnectData(Struct, frozen=True, omit_defaults=True):
    """Come back in `after_ms` (jittered by the server), to `url` if given."""

    after_ms: int
    reason: str
    url: str | None = None


class ErrorData(Struct, frozen=True, omit_defaults=True):
    """What was wrong, and what it answers. After `final` the server hangs up."""

    code: str
    message: str
    action: str | None = None
    seq: int | None = None
    command_id: str | None = None
    message_id: str | None = None
    final: bool = False


class Ack(_Frame, frozen=True, tag="ack"):  # noqa: D101
    data: AckData


class Joined(_Frame, frozen=True, tag="joined"):  # noqa: D101
    data: JoinedData


class Snapshot(_Frame, frozen=True, tag="lmsQuizMonitoringSnapshot"):  # noqa: D101
    data: SnapshotData


class Update(_Frame, frozen=True, tag="lmsQuizMonitoringUpdate"):  # noqa: D101
    data: UpdateData


class StudentMessage(_Frame, frozen=True, tag="lmsQuizMonitoringMessage"):  # noqa: D101
    data: MessageData


class CommandStatus(_Frame, frozen=True, tag="lmsQuizCommandStatus"):  # noqa: D101
    data: CommandStatusData


class Command(_Frame, frozen=True, tag="lmsQuizCommand"):  # noqa: D101
    data: CommandData


class Reconnect(_Frame, frozen=True, tag="reconnect"):  # noqa: D101
    data: ReconnectData


class Error(_Frame, frozen=True, tag="error"):  # noqa: D101
    data: ErrorData


ServerFrame: TypeAlias = Ack | Joined | Snapshot | Update | StudentMessage | CommandStatus | Command | Reconnect | Error

# --- reading and writing --------------------------------------------------------------------------------------------------

_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame, strict=False)
_encoder = msgspec.json.Encoder()
_REFERENCES = ("seq", "command_id", "message_id")


def decode(payload: bytes | str) -> ClientFrame:
    """Read a client's frame. Raises `Malformed`, which names the field, what was expected and what the frame answers."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _explain(payload, exc) from exc


def encode(frame: ServerFrame) -> bytes:
    """Write a server's frame as JSON text in UTF-8."""
    return _encoder.encode(frame)


def milliseconds(at: float) -> float:
    """An instant as the wire has it: epoch milliseconds with a fraction of three digits."""
    return int(at * 1e6 + 0.5) / 1e3  # `round` to three digits takes seven times as long


def encode_value(value: object) -> bytes:
    """Write a part of a frame, to be put into a `Raw` field once and sent many times."""
    return _encoder.encode(value)


def error_frame(error: RemoteError) -> Error:
    """Return the frame that answers a peer's fault."""
    reference = error.reference
    seq, command_id, message_id = (reference.get(name) for name in _REFERENCES)
    return Error(
        ErrorData(
            code=error.code,
            message=error.message,
            action=error.action,
            seq=seq if isinstance(seq, int) else None,
            command_id=None if command_id is None else str(command_id),
            message_id=None if message_id is None else str(message_id),
            final=error.final,
        )
    )


_CHOICES: dict[str, Any] = {
    "user_status": UserStatus,
    "attempt_state": AttemptState,
    "kind": MessageKind,
    "outcome": ReceiptOutcome,
    "command": CommandName,
}


def _explain(payload: bytes | str, exc: Exception) -> Malformed:
    """Turn a decoder's complaint into an answer: the action, the field, the fix and the reference of the frame."""
    try:
        frame: Any = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Malformed("not_json", 'the frame is not valid JSON text; send {"action": NAME, "data": {...}}')
    if not isinstance(frame, dict):
        return Malformed("bad_frame", 'the frame must be a JSON object {"action": NAME, "data": {...}}')
    action, data = frame.get("action"), frame.get("data")
    if not isinstance(action, str) or action not in CLIENT_ACTIONS:
        shown = repr(action)[:60] if "action" in frame else "missing"
        return Malformed("unknown_action", f"action is {shown}; it must be one of {', '.join(CLIENT_ACTIONS)}")
    reference: dict[str, int | str] = {}
    if isinstance(data, dict):
        reference = {name: data[name] for name in _REFERENCES if type(data.get(name)) in (int, str)}
    reason, _, path = str(exc).partition(" - at ")
    field = path.strip("`").removeprefix("$").removeprefix(".")
    if reason.startswith("Object missing required field"):
        field, reason = f"{field}.{reason.split('`')[1]}".removeprefix("."), "missing; this field is required"
    elif reason.startswith("Invalid enum value") and (choices := _CHOICES.get(field.rpartition(".")[2])):
        reason = f"{reason[:100]}; send one of {', '.join(get_args(choices))}"
    return Malformed("bad_field", f"{field}: {reason[:200]}", action=action, reference=reference)


@functools.lru_cache(maxsize=4096)  # a whole exam reports the same two instants
def instant(value: Instant | None, field: str) -> float | None:
    """Epoch seconds of a timestamp given as epoch seconds, epoch milliseconds or ISO 8601. Raises `Malformed`.

    A zone-less ISO time is taken as UTC, because the server can't know the page's zone.
    """
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except ValueError:
        try:
            moment = datetime.datetime.fromisoformat(str(value))
        except ValueError:
            raise Malformed(
                "bad_field", f"data.{field}: {str(value)[:40]!r} is no time; send epoch milliseconds or ISO 8601"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    if not 0 <= number <= 1e14:
        raise Malformed("bad_field", f"data.{field}: {number} is out of range; send epoch milliseconds")
    return number / 1000 if number > 1e11 else number
