"""From a frame to events: who may say it, about whom, and what happened then.

Both shells ask here, so that a rule of permission is written once. A student's frame becomes one event on their own record; a
proctor's becomes effects (watching) or events on the students' records (commands).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from core import effects, events, messages
from core.errors import Forbidden, Malformed
from core.identity import Principal
from core.participant import ExamKey, ParticipantKey


class Source(Struct, frozen=True):
    """The connection that a frame came on, and its bearer. `connected_at` is epoch seconds."""

    connection: str
    connected_at: float
    principal: Principal


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
    principal = source.principal
    action = "lmsQuizMonitoringStudent"
    reference: dict[str, int | str] = {} if report.seq is None else {"seq": report.seq}
    if principal.role == "student":
        wrong = _mismatch(report, principal)
        if wrong is None:
            return events.Addressed(
                ParticipantKey(principal.school, principal.quiz_ids[0], principal.subject),
                events.StatusReported(
                    received_at=received_at,
                    connection=source.connection,
                    connected_at=source.connected_at,
                    report=report,
                    time_start=_instant(report.time_start, "time_start", reference),
                    time_end=_instant(report.time_end, "time_end", reference),
                    name=principal.name,
                    group=principal.group,
                ),
            )
        complaint = f"data.{wrong} is not the token's"
    else:
        complaint = "only a student reports status; this token is a proctor's"
    raise Forbidden(complaint, action=action, reference=reference)


def _instant(value: messages.Instant | None, field: str, reference: dict[str, int | str]) -> float | None:
    """Epoch seconds of a report's instant; what can't be read is `Malformed`, with the report's `seq`."""
    if value is None:
        return None
    try:
        return messages.instant(value, field)
    except Malformed as exc:
        raise Malformed(exc.code, exc.message, action="lmsQuizMonitoringStudent", reference=reference) from None


def _mismatch(report: messages.Report, principal: Principal) -> str | None:
    """The first field that names somebody else. Ids may come as numbers."""
    if str(report.quiz_id) != principal.quiz_ids[0]:
        return "quiz_id"
    if str(report.student_id) != principal.subject:
        return "student_id"
    if str(report.quiz_attempt_id) != principal.attempt_id:
        return "quiz_attempt_id"
    return None


def _student(source: Source, action: str) -> ParticipantKey:
    """The participant of a student's connection."""
    if source.principal.role != "student":
        raise Forbidden("only a student's page sends this; the token is a proctor's", action=action)
    return source.principal.participant


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
    )
    if order.everyone:
        return CommandToAll(exam, events.ExamCommandIssued(received_at=received_at, command=event))
    keys = tuple(ParticipantKey(*exam, student_id) for student_id in dict.fromkeys(map(str, order.student_ids or ())))
    return CommandToSome(keys, event)
