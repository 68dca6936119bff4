"""From a frame to events: who may say it, about whom, and what happened then.

Both shells ask here, so that a rule of permission is written once. A student's frame becomes one event on their own record; a
proctor's becomes effects (watching) or events on the students' records (commands).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import force_setattr

from core import effects, events, messages
from core.errors import Forbidden, Malformed
from core.identity import Principal
from core.participant import ExamKey, ParticipantKey

_REPORT = "lmsQuizMonitoringStudent"


class Source(Struct, frozen=True):
    """The connection that a frame came on, and its bearer. `connected_at` is epoch seconds.

    `participant`, of a student's, is made here: once, and not for each frame.
    """

    connection: str
    connected_at: float
    principal: Principal
    participant: ParticipantKey | None = None

    def __post_init__(self) -> None:
        """Fill in what follows from the others."""
        if self.principal.role == "student":
            force_setattr(self, "participant", self.principal.participant)


class CommandToSome(Struct, frozen=True):
    """A proctor's command: the event, and the students' records that it goes to."""

    keys: tuple[ParticipantKey, ...]
    event: events.CommandIssued


class CommandToAll(Struct, frozen=True):
    """A proctor's command to everyone: an event on the exam."""

    exam: ExamKey
    event: events.ExamCommandIssued


class Refresh(Struct, frozen=True):
    """A fresh token for this connection; the shell verifies it and keeps its principal."""

    token: str


Routed: TypeAlias = events.Addressed | CommandToSome | CommandToAll | Refresh | effects.Subscribe | effects.Unsubscribe


def route(frame: messages.ClientFrame, source: Source, received_at: float) -> Routed:
    """What a frame means, coming from this source. Raises `Forbidden` or `Malformed`; then nothing has happened.

    A `Subscribe` asks the shell to subscribe and then to send a snapshot (`join_proctor` gives both effects).
    """
    match frame:
        case messages.StatusFrame():
            return _report(frame.data, source, received_at)
        case messages.HeartbeatFrame():
            key = _student(source, "lmsQuizMonitoringHeartbeat")
            return events.Addressed(
                key,
                events.HeartbeatReceived(received_at=received_at, connection=source.connection, heartbeat=frame.data),
            )
        case messages.StudentTextFrame():
            return _words(frame.data, source, received_at)
        case messages.ReceiptFrame():
            key = _student(source, "lmsQuizCommandReceipt")
            return events.Addressed(
                key, events.ReceiptReceived(received_at=received_at, connection=source.connection, receipt=frame.data)
            )
        case messages.TokenFrame():
            return Refresh(frame.data.token)
        case messages.WatchFrame():
            return _watch(frame.data, source)
        case messages.OrderFrame():
            return _order(frame.data, source, received_at)


def join_proctor(subscribe: effects.Subscribe) -> tuple[effects.Subscribe, effects.SendSnapshot]:
    """What joining takes, in the order that loses nothing: subscribe first, then a consistent snapshot."""
    return subscribe, effects.SendSnapshot(subscribe.exam, subscribe.connection, subscribe.groups)


def refreshed(known: Principal, fresh: Principal) -> Principal:
    """The principal after an in-band refresh. Raises `Forbidden` if the new token is somebody else's or narrower."""
    same = (known.role, known.school, known.subject, known.attempt_id)
    if same != (fresh.role, fresh.school, fresh.subject, fresh.attempt_id) or not set(known.quiz_ids) <= set(
        fresh.quiz_ids
    ):
        raise Forbidden("the new token must be for the same bearer and at least the same exams", action="lmsQuizToken")
    return fresh


def _report(report: messages.Report, source: Source, received_at: float) -> events.Addressed:
    """A status report, checked against the token."""
    principal, key = source.principal, source.participant
    if key is None:
        raise _refused(report, "only a student reports status; this token is a proctor's")
    # Ids may come as numbers.
    if report.student_id != principal.subject and str(report.student_id) != principal.subject:
        raise _refused(report, "data.student_id is not the token's")
    if report.quiz_attempt_id != principal.attempt_id and str(report.quiz_attempt_id) != principal.attempt_id:
        raise _refused(report, "data.quiz_attempt_id is not the token's")
    if report.quiz_id != key.quiz_id and str(report.quiz_id) != key.quiz_id:
        raise _refused(report, "data.quiz_id is not the token's")
    start, end = report.time_start, report.time_end
    return events.Addressed(
        key,
        events.StatusReported(
            received_at=received_at,
            connection=source.connection,
            connected_at=source.connected_at,
            report=report,
            time_start=None if start is None else _instant(report, start, "time_start"),
            time_end=None if end is None else _instant(report, end, "time_end"),
            name=principal.name,
            group=principal.group,
        ),
    )


def _instant(report: messages.Report, value: messages.Instant, field: str) -> float | None:
    """Epoch seconds of a report's instant; what can't be read is `Malformed`, with the report's `seq`."""
    try:
        return messages.instant(value, field)
    except Malformed as exc:
        raise Malformed(exc.code, exc.message, action=_REPORT, reference=_seq_of(report)) from None


def _refused(report: messages.Report, complaint: str) -> Forbidden:
    return Forbidden(complaint, action=_REPORT, reference=_seq_of(report))


def _seq_of(report: messages.Report) -> dict[str, int | str]:
    return {} if report.seq is None else {"seq": report.seq}


def _student(source: Source, action: str) -> ParticipantKey:
    """The participant of a student's connection."""
    if source.participant is None:
        raise Forbidden("only a student's page sends this; the token is a proctor's", action=action)
    return source.participant


def _words(text: messages.StudentText, source: Source, received_at: float) -> events.Addressed:
    """A student's chat line or raised hand."""
    action = "lmsQuizStudentMessage"
    key = _student(source, action)
    message_id = str(text.message_id)
    if text.kind == "chat" and not text.text.strip():
        raise Malformed(
            "bad_field", "data.text: empty; a chat needs words", action=action, reference={"message_id": message_id}
        )
    return events.Addressed(
        key,
        events.StudentMessaged(
            received_at=received_at, connection=source.connection, message_id=message_id, kind=text.kind, text=text.text
        ),
    )


def _exam(quiz_id: messages.Id, source: Source, action: str, reference: dict[str, int | str]) -> ExamKey:
    """The exam that a proctor's frame is about."""
    exam = ExamKey(source.principal.school, str(quiz_id))
    if not source.principal.may_watch(exam):
        raise Forbidden(
            f"this token is not for a proctor of quiz_id {exam.quiz_id}", action=action, reference=reference
        )
    return exam


def _watch(watch: messages.Watch, source: Source) -> effects.Subscribe | effects.Unsubscribe:
    """A proctor starts or stops watching. A token's group, if it has one, bounds what is seen."""
    exam = _exam(watch.quiz_id, source, "lmsQuizMonitoringProctor", {})
    if watch.stop:
        return effects.Unsubscribe(exam, source.connection)
    groups = watch.groups or ()
    bound = source.principal.group
    if bound:
        if any(group != bound for group in groups):
            raise Forbidden(f"this token is for group {bound} only", action="lmsQuizMonitoringProctor")
        groups = (bound,)
    return effects.Subscribe(exam, source.connection, groups)


_NEEDS: dict[messages.CommandName, Literal["text", "extra_minutes"]] = {
    "message": "text",
    "warn": "text",
    "update": "extra_minutes",
}


def _order(order: messages.Order, source: Source, received_at: float) -> CommandToSome | CommandToAll:
    """A proctor's command."""
    action, command_id = "lmsQuizProctorCommand", str(order.command_id)
    reference: dict[str, int | str] = {"command_id": command_id}
    exam = _exam(order.quiz_id, source, action, reference)
    if order.everyone == bool(order.student_ids):
        raise Malformed(
            "bad_field",
            "data: name either student_ids or everyone: true, and not both",
            action=action,
            reference=reference,
        )
    if order.everyone and source.principal.group:
        raise Forbidden("a proctor of one group can't command everyone", action=action, reference=reference)
    needed = _NEEDS.get(order.command)
    if needed and not getattr(order, needed):
        raise Malformed("bad_field", f"data.{needed}: required for {order.command}", action=action, reference=reference)
    event = events.CommandIssued(
        received_at=received_at,
        command_id=command_id,
        command=order.command,
        expires_at=received_at + order.expires_seconds,
        issued_by=source.principal.subject,
        text=order.text,
        extra_minutes=order.extra_minutes,
        reason_code=order.reason_code,
        only_group=source.principal.group,
        to_everyone=order.everyone,
    )
    if order.everyone:
        return CommandToAll(exam, events.ExamCommandIssued(received_at=received_at, command=event))
    keys = tuple(ParticipantKey(*exam, student_id) for student_id in dict.fromkeys(map(str, order.student_ids or ())))
    return CommandToSome(keys, event)
