"""Bodies of answers: what each route sends, and so what the OpenAPI document says that it sends.

Times are epoch seconds; `server_time` is milliseconds with a fraction, as on the wire. A `next_cursor` of null ends the pages.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from adapters.web.ports import Enrolled
from adapters.web.requests import Label
from core.journal import EntryKind
from core.messages import Incident, View
from core.policy import Policy

ExamState: TypeAlias = Literal["open", "paused", "closed"]


class Health(Struct, frozen=True):
    """What a load balancer asks."""

    status: Literal["ok", "ready"]


class TokenAnswer(Struct, frozen=True):
    """A token, until when it is good, and where to connect with it."""

    token: str
    expires_at: int
    endpoints: tuple[str, ...]
    url: str


class FullPolicy(Policy, frozen=True, omit_defaults=False):
    """The rules of an exam, each of them stated."""


class ExamAnswer(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An exam's state. `last_time_end` is the latest end that any student's page has reported; `roster` after a roster was sent, or
    taken from the record, of which `roster_cursor` has the rest.
    """

    quiz_id: str
    state: ExamState
    opened_at: float
    last_time_end: float | None
    policy: FullPolicy
    incidents: tuple[Incident, ...]
    version: int
    server_time: float
    roster: Enrolled | None = None
    roster_cursor: str | None = None


class ExamCounts(ExamAnswer, frozen=True, omit_defaults=True, kw_only=True):
    """An exam's state, with how many are under each label."""

    participants: int
    counts: dict[Label, int]


class PlannedAnswer(Struct, frozen=True):
    """An exam on the school's list, which need not be open yet."""

    quiz_id: str
    name: str
    created_at: float
    opened_at: float | None
    closed_at: float | None
    purged_at: float | None
    server_time: float


class ExamLine(Struct, frozen=True):
    """One of a school's exams. `planned`: not opened yet. `watched`: a proctor's dashboard shows it. `purged_at`: since then all
    about its students is gone.
    """

    quiz_id: str
    name: str
    state: Literal["open", "paused", "closed", "planned"]
    opened_at: float | None
    closed_at: float | None
    purged_at: float | None
    last_time_end: float | None
    watched: bool
    open_incidents: int


class ExamsPage(Struct, frozen=True):
    """A page of a school's exams, by id."""

    exams: list[ExamLine]
    next_cursor: str | None
    server_time: float


class RosterAnswer(Struct, frozen=True):
    """What became of the lines of a roster: in the exam, or, while it is not open, on record."""

    quiz_id: str
    roster: Enrolled


class CommandAnswer(Struct, frozen=True):
    """The command is kept; what becomes of it for each student is in the timeline."""

    command_id: str
    server_time: float


class ParticipantsPage(Struct, frozen=True):
    """A page of an exam's participants, and all of its incidents."""

    quiz_id: str
    participants: list[View]
    incidents: tuple[Incident, ...]
    next_cursor: str | None
    server_time: float


class NotedAnswer(Struct, frozen=True):
    """It is in the audit log."""

    quiz_id: str
    server_time: float


class TimelineLine(Struct, frozen=True):
    """A journal entry. An empty `student_id` is the exam itself. `before` and `after` of a label are labels, `duration_seconds` is
    how long it lasted (null while it does). `actor` is a proctor's id, `student`, `api`, or nobody: the service's inference.
    """

    at: float
    student_id: str
    student_name: str
    group: str
    kind: EntryKind
    cause: str
    before: str
    after: str
    duration_seconds: float | None
    actor: str
    reference: str
    text: str
    to_everyone: bool


class TimelinePage(Struct, frozen=True):
    """A page of what happened."""

    quiz_id: str
    entries: list[TimelineLine]
    next_cursor: str | None
    server_time: float


class ConversationLine(Struct, frozen=True):
    """What was said, or a hand that went up or down. An empty `student_id`: to everyone."""

    at: float
    student_id: str
    student_name: str
    group: str
    kind: str
    by: Literal["student", "proctor"]
    actor: str
    reference: str
    text: str
    to_everyone: bool


class ConversationPage(Struct, frozen=True):
    """A page of what was said."""

    quiz_id: str
    lines: list[ConversationLine]
    next_cursor: str | None
    server_time: float


class ExportAnswer(Struct, frozen=True):
    """All that is kept about one student. `participant` is null when the live record is gone."""

    quiz_id: str
    student_id: str
    participant: View | None
    entries: list[TimelineLine]
    server_time: float
