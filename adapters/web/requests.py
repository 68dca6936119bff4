"""Bodies and queries: the structs they must fit, and a `Problem` that names the field and the fix where they do not.

Unknown fields are refused, because a misspelt option that does nothing is found too late. Ids may be numbers, as on the wire.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgspec
from flask import Request
from msgspec import Meta, Struct
from werkzeug.datastructures import MultiDict

from adapters.web.problems import Problem
from core.journal import AuditPosition, Position
from core.messages import Id, Order
from core.policy import Policy
from core.roster import RosterLine

MAX_BODY_BYTES = 16 * 1024
MAX_ROSTER_BODY_BYTES = 1024 * 1024
MAX_COMMAND_BODY_BYTES = 256 * 1024
"""So that a command may name as many students as it may have, with ids as long as they may be."""

MAX_ROSTER_LINES = 1_000
"""As many as the serverless side saves well within the 30 s that API Gateway waits. A larger roster comes in parts."""

MAX_STUDENTS = 160_000
"""Of one exam: what 64 partitions of the serverless side carry."""

MAX_TOKEN_HOURS = 24 * 31
_MAX_ID_CHARACTERS = 128

Label: TypeAlias = Literal[
    "not_joined",
    "active",
    "away",
    "reconnecting",
    "offline",
    "paused",
    "submitted",
    "timed_out",
    "terminated",
]
LABELS: tuple[Label, ...] = get_args(Label)

_T = TypeVar("_T")
_Name: TypeAlias = Annotated[str, Meta(max_length=500)]
_Group: TypeAlias = Annotated[str, Meta(max_length=64)]


class TokenRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose token: a student's names one exam and the attempt, a proctor's may name several exams and one group to bound it."""

    role: Literal["student", "proctor"]
    quiz_id: Id | Annotated[list[Id], Meta(min_length=1, max_length=50)]
    student_id: Id | None = None
    proctor_id: Id | None = None
    quiz_attempt_id: Id | None = None
    name: _Name = ""
    group: _Group = ""
    hours: Annotated[float, Meta(gt=0, le=MAX_TOKEN_HOURS)] = 4.0

    @property
    def quiz_ids(self) -> tuple[str, ...]:
        """The exams, each once."""
        given = self.quiz_id if isinstance(self.quiz_id, list) else [self.quiz_id]
        return tuple(dict.fromkeys(str(quiz_id) for quiz_id in given))


class OpenRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`policy`: the rules that differ from the defaults. Absent: an exam that is open already keeps its own.

    `students`: how many are expected in all, of whom `roster` may be a part. A new exam is laid out for them. Without a `roster` a
    new exam takes the one on record, 1,000 students at a time: send the answer's `roster_cursor` back for the next ones.
    """

    policy: Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/Policy"})] | None = None
    roster: Annotated[list[RosterLine], Meta(max_length=MAX_ROSTER_LINES)] = []
    students: Annotated[int, Meta(ge=0, le=MAX_STUDENTS)] = 0
    roster_cursor: str = ""


class PlanRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """An exam for the list. An absent `name` stays as it is."""

    name: Annotated[str, Meta(max_length=200)] | None = None


def read_plan_request(request: Request) -> str | None:
    """The name in the body of a request to plan an exam, if there is one. Raises `Problem`."""
    return read_body(request, PlanRequest).name


class CloseRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say, so far."""


class PageRequest(Struct, frozen=True):
    """Which participants: those behind `after`, of any of the groups and labels (none: all)."""

    after: str
    limit: int
    groups: tuple[str, ...]
    labels: tuple[Label, ...]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which participants: behind `cursor`, of any of these groups and labels (none: all)."""

    cursor: str = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 200
    group: tuple[str, ...] = ()
    label: tuple[Label, ...] = ()


class HistoryRequest(Struct, frozen=True):
    """Which lines of what happened: those of a student (None: of all) behind `after`, where a label of `label_at` was passed."""

    after: Position | None
    label_at: float | None
    student_id: str | None
    limit: int
    order: Literal["oldest", "newest"]


class HistoryQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which lines: behind `cursor`; of a student (absent: of all; empty: those that are nobody's)."""

    cursor: str = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 200
    student_id: Annotated[str, Meta(max_length=_MAX_ID_CHARACTERS)] | None = None
    order: Literal["oldest", "newest"] = "oldest"


def read_history_request(query: MultiDict[str, str]) -> HistoryRequest:
    """The query of a request for a timeline or a conversation. Raises `Problem`."""
    try:
        asked = msgspec.convert(query.to_dict(), HistoryQuery, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    after, label_at = None, None
    if asked.cursor:
        try:
            after, label_at = _decode_history_cursor(position_of_cursor(asked.cursor))
        except msgspec.DecodeError:
            raise bad_cursor() from None
    return HistoryRequest(after, label_at, asked.student_id, asked.limit, asked.order)


_decode_history_cursor = msgspec.json.Decoder(tuple[Position, float | None]).decode


def history_cursor_of(position: Position, label_at: float | None) -> str:
    """A position in what happened as clients get it."""
    return cursor_of(msgspec.json.encode((position, label_at)).decode())


def read_token_request(request: Request) -> TokenRequest:
    """The body of a request for a token. Raises `Problem`."""
    wanted = read_body(request, TokenRequest)
    _check_bearer(wanted)
    return wanted


def _check_bearer(wanted: TokenRequest) -> None:
    """The fields that belong to the role, and no others."""
    student = wanted.role == "student"
    needed = ("student_id", "quiz_attempt_id") if student else ("proctor_id",)
    foreign = ("proctor_id",) if student else ("student_id", "quiz_attempt_id")
    for name in needed:
        if getattr(wanted, name) is None:
            raise bad_field(name, f"missing; a {wanted.role}'s token needs it")
    for name in foreign:
        if getattr(wanted, name) is not None:
            raise bad_field(name, f"not for a {wanted.role}'s token; leave it out")
    if student and len(wanted.quiz_ids) != 1:
        raise bad_field("quiz_id", "a student's token is for one exam; ask for one token for each")


def read_open_request(request: Request) -> tuple[OpenRequest, Policy | None]:
    """The body of a request to open an exam, with its policy checked. Raises `Problem`."""
    request.max_content_length = MAX_ROSTER_BODY_BYTES
    wanted = read_body(request, OpenRequest)
    seen: dict[str, int] = {}
    for row, line in enumerate(wanted.roster):
        first = seen.setdefault(str(line.student_id), row)
        if first != row:
            raise bad_field(f"roster[{row}].student_id", f"the same as in roster[{first}]; name each student once")
    return wanted, _policy(wanted.policy)


def _policy(stated: dict[str, Any] | None) -> Policy | None:
    if stated is None:
        return None
    unknown = set(stated) - set(Policy.__struct_fields__)
    if unknown:
        known = ", ".join(Policy.__struct_fields__)
        raise bad_field(f"policy.{min(unknown)}", f"there is no such rule; the rules are {known}")
    try:
        return msgspec.convert(stated, Policy)
    except msgspec.ValidationError as error:
        raise _explained(error, "policy") from error


CommandRequest = msgspec.defstruct(
    "CommandRequest",
    [
        (field.name, field.type) if field.required else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(Order)
        if field.name != "quiz_id"
    ],
    namespace={"__doc__": "A command to some students, or to everyone. `command_id` is the idempotency key."},
    frozen=True,
    forbid_unknown_fields=True,
)
"""What a frame has, without the exam, which the path names."""


def read_command_request(request: Request, quiz_id: str) -> Order:
    """The body of a command. Raises `Problem`."""
    request.max_content_length = MAX_COMMAND_BODY_BYTES
    return Order(quiz_id=quiz_id, **msgspec.structs.asdict(read_body(request, CommandRequest)))


class FileRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A file that a page made: what it is called, and how many students or lines are in it."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    rows: Annotated[int, Meta(ge=0, le=1_000_000)]


class ExportRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose record."""

    student_id: Id


def read_export_request(request: Request) -> str:
    """The student in the body of a request for an export. Raises `Problem`."""
    return str(read_body(request, ExportRequest).student_id)


def read_csv_body(request: Request) -> bytes:
    """The body of a request that brings a CSV file. Raises `Problem`."""
    request.max_content_length = MAX_ROSTER_BODY_BYTES
    body = request.get_data(cache=False)
    if request.mimetype != "text/csv":
        detail = "send the file as it is, with the header Content-Type: text/csv"
        raise Problem(415, "not_csv", detail)
    return body


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which part of a list: behind `cursor`."""

    cursor: str = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 200


class ListRequest(Struct, frozen=True):
    """Which part of a list: behind the id `after`."""

    after: str
    limit: int


def read_list_request(query: MultiDict[str, str]) -> ListRequest:
    """The query of a request for a part of a list. Raises `Problem`."""
    try:
        asked = msgspec.convert(query.to_dict(), ListQuery, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    return ListRequest(position_of_cursor(asked.cursor), asked.limit)


class AuditQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which lines of the audit log: behind `cursor`; of an exam (absent: of all; empty: those that concern none)."""

    cursor: str = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 200
    quiz_id: Annotated[str, Meta(max_length=_MAX_ID_CHARACTERS)] | None = None
    order: Literal["oldest", "newest"] = "newest"


class AuditRequest(Struct, frozen=True):
    """Which lines of the audit log: those behind `after`, of an exam (None: of all)."""

    after: AuditPosition | None
    limit: int
    quiz_id: str | None
    order: Literal["oldest", "newest"]


_decode_audit_cursor = msgspec.json.Decoder(AuditPosition).decode


def read_audit_request(query: MultiDict[str, str]) -> AuditRequest:
    """The query of a request for the audit log. Raises `Problem`."""
    try:
        asked = msgspec.convert(query.to_dict(), AuditQuery, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    after = None
    if asked.cursor:
        try:
            after = _decode_audit_cursor(position_of_cursor(asked.cursor))
        except msgspec.DecodeError:
            raise bad_cursor() from None
    return AuditRequest(after, asked.limit, asked.quiz_id, asked.order)


def audit_cursor_of(position: AuditPosition) -> str:
    """A position in the audit log as clients get it."""
    return cursor_of(msgspec.json.encode(position).decode())


def read_close_request(request: Request) -> None:
    """The body of a request to close an exam, which may be empty. Raises `Problem`."""
    read_body(request, CloseRequest)


def read_page_request(query: MultiDict[str, str]) -> PageRequest:
    """The query of a request for participants. Raises `Problem`."""
    repeated = ("group", "label")
    given: Mapping[str, Any] = {
        name: values if name in repeated else values[-1] for name, values in query.lists() if values
    }
    try:
        asked = msgspec.convert(given, PageQuery, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    return PageRequest(position_of_cursor(asked.cursor), asked.limit, asked.group, asked.label)


class ExamsRequest(Struct, frozen=True):
    """Which exams: those behind the id `after`, in this state, watched or not (None: either)."""

    after: str
    limit: int
    watched: bool | None
    state: Literal["open", "closed", "planned", "all"]


class ExamsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which exams: behind `cursor`; `open` (paused ones too), `closed`, `planned` or `all`; watched or not (absent: either)."""

    cursor: str = ""
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    watched: Literal["true", "false"] | None = None
    state: Literal["open", "closed", "planned", "all"] = "open"


def read_exams_request(query: MultiDict[str, str]) -> ExamsRequest:
    """The query of a request for the school's exams. Raises `Problem`."""
    try:
        asked = msgspec.convert(query.to_dict(), ExamsQuery, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    watched = None if asked.watched is None else asked.watched == "true"
    return ExamsRequest(position_of_cursor(asked.cursor), asked.limit, watched, asked.state)


def cursor_of(position: str) -> str:
    """A position as clients get it: to be sent back, not to be read."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def position_of_cursor(cursor: str) -> str:
    """The position that a cursor of ours stands for. Raises `Problem`."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise bad_cursor() from None


def bad_cursor() -> Problem:
    """A cursor that we never gave."""
    return bad_field("cursor", "not one of ours; send the last page's next_cursor, or none to begin again")


def checked_quiz_id(quiz_id: str) -> str:
    """The exam in a path, if it can be one. Raises `Problem`."""
    if len(quiz_id) > _MAX_ID_CHARACTERS:
        raise bad_field("quiz_id", f"longer than {_MAX_ID_CHARACTERS} characters")
    return quiz_id


def read_body(request: Request, kind: type[_T]) -> _T:
    """The body as this struct; an empty one is an empty object. Raises `Problem`."""
    body = request.get_data(cache=False)
    if not body:
        body = b"{}"
    elif request.mimetype != "application/json":
        detail = "send the body as JSON, with the header Content-Type: application/json"
        raise Problem(415, "not_json", detail)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _explained(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "not_json", f"the body is not valid JSON: {error}") from error


def _explained(error: msgspec.ValidationError, within: str = "") -> Problem:
    """A decoder's complaint as a problem of one field."""
    reason, _, path = str(error).partition(" - at ")
    field = _joined((within, path.strip("`").removeprefix("$").removeprefix(".")))
    if reason.startswith("Object missing required field"):
        return bad_field(_joined((field, reason.split("`")[1])), "missing; this field is required")
    if reason.startswith("Object contains unknown field"):
        return bad_field(_joined((field, reason.split("`")[1])), "there is no such field; leave it out")
    return bad_field(field, reason[:1].lower() + reason[1:])


def _joined(parts: Iterable[str]) -> str:
    return ".".join(part for part in parts if part)


def bad_field(field: str, detail: str) -> Problem:
    """A field of a body or query that can't be served, and the fix."""
    return Problem(422, "bad_field", f"{field}: {detail}" if field else detail, field=field)
