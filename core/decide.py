"""The decisions: events in, the next record, journal entries and effects out. Pure: no clock, no socket, no uuid.

`decide` is about one participant; `decide_exam`, in its own module, about one exam. A shell loads the record, calls, saves the
returned record and entries in one atomic step (nothing if `decision.participant is participant`), and performs the effects in
their order.
Calling twice with the same arguments gives the same answer, so a shell may decide again after a lost race.

Each handler below changes the record for one kind of event; `_settle` then does what every change needs: the label and its
entry, offline time, the one outstanding deadline, the version, and the publication if something visible changed. Nine events of
ten are reports of a page that only goes on; `_goes_on` gives their decision without that machinery, by the same functions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from operator import methodcaller
from typing import Any, assert_never

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from core import attention, effects, incidents, lifecycle, presence
from core import messages as m
from core.errors import CloseCode
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
from core.exam import Exam
from core.journal import Entry, EntryKind
from core.lifecycle import LifecycleEvent
from core.migration import knows_connection, speaks_protocol
from core.participant import LIVE, RUNNING, Lifecycle, Participant, PendingCommand, Session
from core.policy import MAX_NAME_CHARACTERS
from core.snapshot import visible

_copied = methodcaller("__copy__")  # what `copy.copy` ends at; it takes twice as long to find that out
_MAX_DONE = 12
_MAX_PENDING = 16
_MAX_PAST_ATTEMPTS = 3
SESSION_MAX_AGE_SECONDS = 7_200.0
"""Told to pages in `joined`: API Gateway cuts a connection after two hours (its quotas page), so they renew before."""


class Decision(Struct, frozen=True, gc=False):
    """What follows from an event on a participant."""

    participant: Participant
    entries: tuple[Entry, ...] = ()
    effects: tuple[effects.ParticipantEffect, ...] = ()


class _Draft:
    """A decision while it is being made: the record as it stands, and what has been collected for it.

    `after` is `before` itself until something changes, then a copy that only this draft knows.
    """

    __slots__ = ("after", "before", "closing", "effects", "event", "exam", "lines", "now")

    def __init__(self, before: Participant, event: ParticipantEvent, exam: Exam, now: float) -> None:
        self.before = before
        self.after = before
        self.event = event
        self.exam = exam
        self.now = now
        self.lines: list[tuple[EntryKind, str, dict[str, Any]]] = []
        self.effects: list[effects.ParticipantEffect] = []
        self.closing: list[effects.ParticipantEffect] = []

    def change(self, **fields: Any) -> None:
        """Set fields of the record: on a copy of our own, made once, since a copy at each step would be most of the cost."""
        if self.after is self.before:
            self.after = _copied(self.before)
        for name, value in fields.items():
            force_setattr(self.after, name, value)

    def note(self, kind: EntryKind, cause: str, **fields: Any) -> None:
        """Add a journal line."""
        self.lines.append((kind, cause, fields))

    def send(self, connection: str, frame: m.ServerFrame) -> None:
        """Send a frame to a connection."""
        self.effects.append(effects.Send(connection, frame))

    def ack(self, connection: str, **reference: Any) -> None:
        """Acknowledge the event's frame, last of all."""
        frame = m.Ack(m.AckData(m.milliseconds(self.event.received_at), **reference))
        self.closing.append(effects.Ack(connection, frame))

    def refuse(self, connection: str, code: str, message: str, action: str, **reference: Any) -> None:
        """Answer the event's frame with an error that changes nothing."""
        self.closing.append(
            effects.Send(connection, m.Error(m.ErrorData(code=code, message=message, action=action, **reference)))
        )


def decide(participant: Participant, event: ParticipantEvent, exam: Exam, now: float) -> Decision:
    """What follows from this event for this participant; `now` is the service's clock in epoch seconds."""
    if participant.home != exam.here:
        if type(event) is ConnectionLost and not knows_connection(participant, event.connection):
            return Decision(participant)  # its page has moved on, and the home knows
        return Decision(participant, effects=(effects.Forward(participant.key, event),))
    if type(event) is StatusReported:
        decision = _goes_on(participant, event, exam, now)
        if decision is not None:
            return decision
    return _the_long_way(participant, event, exam, now)


def _the_long_way(participant: Participant, event: ParticipantEvent, exam: Exam, now: float) -> Decision:
    draft = _Draft(participant, event, exam, now)
    _HANDLERS[type(event)](draft, event)
    return _settle(draft)


# --- a page speaks --------------------------------------------------------------------------------------------------------


def _goes_on(record: Participant, event: StatusReported, exam: Exam, now: float) -> Decision | None:
    """The decision if the one page of a running attempt goes on as before, with more answered; None if it may be more than that.

    A short cut and no rule of its own: a test holds it against the long way.
    """
    report, connection, at, sessions = event.report, event.connection, event.received_at, record.sessions
    if len(sessions) != 1 or record.lifecycle != "in_progress" or exam.state == "closed":
        return None
    session, seq = sessions[0], report.seq
    if (
        session.connection != connection
        or session.id != (report.tab_id or connection)
        or session.presence != "connected"
        or session.attention != "focused"
        or report.user_status != "active"
        or report.attempt_state == "submitted"
        or report.quiz_attempt_id != record.quiz_attempt_id
        or (at < session.applied_at if seq is None else seq <= session.seq)
        or record.away_since is not None
        or record.offline_since is not None
        or record.flags
    ):
        return None
    news = _news(record, event)
    promise = presence.promise_seconds(report.next_ms, False, exam.policy)
    session = replace(session, seq=session.seq if seq is None else seq, applied_at=at)
    session = presence.renewed(session, at, promise, exam.policy)
    lapses_at, time_out, check_at = presence.due(session, exam), _times_out_at(record, exam), record.check_at
    assert lapses_at is not None  # it is connected
    due = lapses_at if time_out is None or lapses_at < time_out else time_out
    if (
        session.lease_until <= now
        or check_at is None
        or check_at > due
        or record.commands
        or "time_end_reported" in news
    ):
        return None
    following = _following(check_at, due, exam, now)
    version = record.version + 1
    milliseconds = int(now * 1000)
    after = replace(
        record,
        version=version if version > milliseconds else milliseconds,
        sessions=(session,),
        last_seen=at if at > record.last_seen else record.last_seen,
        check_at=following,
        **news,
    )
    wanted: tuple[effects.ParticipantEffect, ...] = ()
    if following != check_at:
        wanted = (effects.SetDeadline(after.key, following),)
    if news:
        wanted = (*wanted, effects.PublishView())
    if seq is not None:
        wanted = (*wanted, effects.Ack(connection, m.Ack(m.AckData(m.milliseconds(at), seq))))
    return Decision(after, (), wanted)


def _status_reported(draft: _Draft, event: StatusReported) -> None:
    """A report: joins if its connection is new, is acked again if it is old, else moves the record on."""
    record, report, exam = draft.after, event.report, draft.exam
    attempt_id = str(report.quiz_attempt_id)
    began = False
    action, reference = "lmsQuizMonitoringStudent", {} if report.seq is None else {"seq": report.seq}
    if exam.state == "closed":
        draft.refuse(event.connection, "exam_closed", "the exam is closed; nothing is recorded", action, **reference)
        return
    if attempt_id != record.quiz_attempt_id:
        if attempt_id in record.past_attempts:
            draft.refuse(event.connection, "attempt_over", "a newer attempt has begun", action, **reference)
            return
        _begin_attempt(draft, event, attempt_id)
        began = True
    known = draft.after.session_of(event.connection)
    session = _session_for(draft, event)
    if session is None:
        return  # an overtaken frame of a replaced connection: not applied and not acked
    joining = known is None or known.id != session.id
    if joining:
        _welcome(draft, event, session)
    repeated = report.seq is not None and report.seq <= session.seq
    # of all pages: a report without a number that was on its way while its page connected anew says what was
    overtaken = report.seq is None and event.received_at < max(s.applied_at for s in (session, *draft.after.sessions))
    if repeated or overtaken:
        if report.attempt_state == "submitted":
            _step(draft, "submit")  # safe in any order: nothing but a new attempt follows a submission
        if report.seq == session.seq:  # its ack never came: whoever saved it may have died before proctors were told
            draft.effects.append(effects.PublishView())
    else:
        _apply(draft, event, session)
    if joining:
        _resend_commands(draft, event.connection)
    elif speaks_protocol(event):  # no other page gives receipts
        _send_lost_commands(draft, event.connection)
    if began:
        _standing_commands(draft)
    if report.seq is not None:
        draft.ack(event.connection, seq=report.seq)


def _begin_attempt(draft: _Draft, event: StatusReported, attempt_id: str) -> None:
    """Start (again): counters from zero, the version goes on, pages of the old attempt are closed."""
    old = draft.after
    for session in old.sessions:
        if session.presence in LIVE and session.connection != event.connection:
            draft.closing.append(effects.Close(session.connection, CloseCode.REPLACED, "a new attempt has begun"))
    past = (*old.past_attempts, old.quiz_attempt_id)[-_MAX_PAST_ATTEMPTS:] if old.quiz_attempt_id else ()
    draft.after = Participant(
        *old.key,
        home=old.home,
        home_epoch=old.home_epoch,
        version=old.version,
        schema=old.schema,
        # whom a proctor terminated before the first attempt stays terminated in it
        lifecycle=lifecycle.step(old.lifecycle, "begin" if old.quiz_attempt_id else "report"),
        quiz_attempt_id=attempt_id,
        past_attempts=past,
        student_name=old.student_name,
        group=old.group,
        roster_at=old.roster_at,
        done=old.done,
        commands=old.commands if not old.quiz_attempt_id else (),
        flags=old.flags if not old.quiz_attempt_id else (),
        check_at=old.check_at,
        later=old.later,
        label_since=event.received_at,
    )
    report = event.report
    ids = (report.quiz_participant_id, report.quiz_result_id, report.topic_uuid)
    draft.note(
        "attempt",
        "reported",
        before=old.quiz_attempt_id,
        after=attempt_id,
        text=" ".join("" if i is None else str(i) for i in ids).strip(),
    )
    if draft.exam.state == "paused":
        _step(draft, "pause")


def _standing_commands(draft: _Draft) -> None:
    """What was said to everyone holds for who joins late, once the first report has told where the attempt stands."""
    for command in draft.exam.standing:
        over = command.expires_at <= draft.now or (command.command == "pause" and draft.exam.state != "paused")
        if not over and command.command not in ("resume", "acknowledge"):
            _command(draft, command)


def _session_for(draft: _Draft, event: StatusReported) -> Session | None:
    """The session that this report belongs to, taken over by its connection if that is newer; None if it is older."""
    connection = event.connection
    session_id = event.report.tab_id or connection
    known = draft.after.session_named(session_id)
    if known is not None and known.connection == connection:
        return known
    fresh = Session(session_id, connection, event.connected_at, presence="offline")
    if known is None:
        # one connection carries one page: who comes with another `tab_id` is no longer the former one
        others = tuple(s for s in draft.after.sessions if s.connection != connection)
        sessions, evicted = presence.admitted(others, fresh)
        if evicted is fresh:
            draft.closing.append(effects.Close(connection, CloseCode.REPLACED, "three newer pages are open"))
            return None
        if evicted is not None:
            draft.closing.append(effects.Close(evicted.connection, CloseCode.REPLACED, "a fourth page was opened"))
            draft.note("session", "evicted", before=evicted.id, after=fresh.id)
        if any(s.presence in LIVE for s in sessions):
            draft.note("session", "opened", after=fresh.id)
        draft.change(sessions=sessions)
        return fresh
    if event.connected_at < known.connected_at:
        draft.closing.append(effects.Close(connection, CloseCode.REPLACED, "this page has a newer connection"))
        return None
    if known.presence == "connected":
        draft.closing.append(effects.Close(known.connection, CloseCode.REPLACED, "this page has a newer connection"))
    taken = replace(fresh, attention=known.attention, seq=known.seq, applied_at=known.applied_at)
    draft.change(sessions=tuple(s for s in draft.after.sessions if s.connection != connection))
    _put_session(draft, taken)
    return taken


def _welcome(draft: _Draft, event: StatusReported, session: Session) -> None:
    """Tell a page that speaks our protocol which session it is; the paper's own clients hear nothing new."""
    _put_session(draft, _renewed(session, event, event.report.next_ms, draft.exam, draft.now))
    if not speaks_protocol(event):
        return
    record = draft.after
    state: Lifecycle = "in_progress" if record.lifecycle == "not_joined" else record.lifecycle
    end = event.time_end
    draft.send(
        event.connection,
        m.Joined(
            m.JoinedData(
                session_id=session.id,
                last_seq=session.seq,
                server_time=m.milliseconds(event.received_at),
                lifecycle=state,
                time_end=record.time_end if end in (None, record.time_end_reported) else end,
                max_age_s=SESSION_MAX_AGE_SECONDS,
            )
        ),
    )


def _apply(draft: _Draft, event: StatusReported, session: Session) -> None:
    """Take over what a report says."""
    report = event.report
    session = replace(
        session,
        attention=presence.attention_of(report.user_status),
        seq=session.seq if report.seq is None else report.seq,
        applied_at=event.received_at,
    )
    if report.user_status == "offline":
        session = presence.left(session, event.received_at)
    else:
        session = _renewed(session, event, report.next_ms, draft.exam, draft.now)
    _put_session(draft, session)
    record = draft.after
    draft.change(last_seen=max(event.received_at, record.last_seen), **_news(record, event))
    _step(draft, "submit" if report.attempt_state == "submitted" else "report")


def _news(record: Participant, event: StatusReported) -> dict[str, Any]:
    """The fields of the record that a report changes, all of them visible. An absent field means unchanged."""
    report = event.report
    news: dict[str, Any] = {}
    if (number := report.question_number_current) is not None and number != record.question_number_current:
        news["question_number_current"] = number
    if (answered := report.question_answered) is not None and answered != record.question_answered:
        news["question_answered"] = answered
    if (total := report.question_total) is not None and total != record.question_total:
        news["question_total"] = total
    if (score := report.score) is not None and score != record.score:
        news["score"] = score
    if (start := event.time_start) is not None and start != record.time_start:
        news["time_start"] = start
    if (end := event.time_end) is not None and end != record.time_end_reported:
        news["time_end_reported"] = end
        news["granted_seconds"] = 0.0  # the page has applied what was granted: its end includes it
    if event.group and event.group != record.group and not record.roster_at:
        news["group"] = event.group
    given = "" if record.roster_at and record.student_name else event.name
    name = given or (report.student_name if not record.student_name else None)
    if name and name != record.student_name and name[:MAX_NAME_CHARACTERS] != record.student_name:
        news["student_name"] = name[:MAX_NAME_CHARACTERS]
    return news


def _heartbeat_received(draft: _Draft, event: HeartbeatReceived) -> None:
    """Nothing changed: the lease is renewed."""
    session = draft.after.session_of(event.connection)
    if session is None or session.presence == "left":
        draft.refuse(
            event.connection,
            "report_first",
            "this connection has no session; send a status report first",
            "lmsQuizMonitoringHeartbeat",
        )
        return
    beat = event.heartbeat
    _put_session(draft, _renewed(session, event, beat.next_ms, draft.exam, draft.now))
    draft.change(last_seen=max(event.received_at, draft.after.last_seen))
    _send_lost_commands(draft, event.connection)
    if beat.echo:
        draft.ack(event.connection, seq=session.seq or None)


def _student_messaged(draft: _Draft, event: StudentMessaged) -> None:
    """A chat line or a hand: published once, acked as often as it is sent."""
    record = draft.after
    done = f"message {event.message_id}"
    if not _is_done(record, done):
        _mark_done(draft, done)
        if event.kind != "chat":
            _flag(draft, "hand_raised", event.kind == "raise_hand")
        draft.note("message", event.kind, reference=event.message_id, actor="student", text=event.text)
        frame = m.StudentMessage(
            m.MessageData(
                event.message_id, record.student_id, event.kind, event.text, m.milliseconds(event.received_at)
            )
        )
        draft.effects.append(effects.PublishMessage(record.key.exam, record.group, frame))
    draft.ack(event.connection, message_id=event.message_id)


def _receipt_received(draft: _Draft, event: ReceiptReceived) -> None:
    """A command arrived at the page, or the student confirmed it: a repeat changes nothing and is acked again.

    Of a command that this record does not know nothing is acked: the record may be an older copy than the command's.
    """
    command_id, outcome = str(event.receipt.command_id), event.receipt.outcome
    confirmation = f"confirmed {command_id}"
    pending = next((c for c in draft.after.commands if c.command_id == command_id), None)
    news = (outcome == "delivered" and pending is not None and not pending.delivered) or (
        outcome == "confirmed" and _is_known(draft.after, command_id) and not _is_done(draft.after, confirmation)
    )
    if news:
        if pending is not None:
            draft.change(commands=tuple(c for c in draft.after.commands if c is not pending))
        if outcome == "confirmed":
            _mark_done(draft, confirmation)
        draft.note("receipt", outcome, reference=command_id, after=outcome, actor="student")
        _command_status(draft, command_id, outcome)
    if _is_known(draft.after, command_id):
        draft.ack(event.connection, command_id=command_id)


# --- a connection or the clock speaks -------------------------------------------------------------------------------------


def _connection_lost(draft: _Draft, event: ConnectionLost) -> None:
    """A socket is gone. If its session has a newer one already, nothing happened."""
    session = draft.after.session_of(event.connection)
    if session is None or session.presence not in LIVE:
        return
    policy, at = draft.exam.policy, event.received_at
    if event.reason == "left":
        _put_session(draft, presence.left(session, at))
    elif event.reason == "lost_by_us":
        _put_session(draft, presence.lost_by_us(session, at, policy))
    elif session.presence == "connected":
        _put_session(draft, presence.dropped(session, at, policy))


def _owner_lost(draft: _Draft, event: OwnerLost) -> None:
    """The process that held the sockets died: all sessions get the time to find another one."""
    sessions = tuple(presence.lost_by_us(s, event.received_at, draft.exam.policy) for s in draft.after.sessions)
    if sessions != draft.after.sessions:
        draft.change(sessions=sessions)


def _reconnect_ordered(draft: _Draft, event: ReconnectOrdered) -> None:
    """We send a page elsewhere, or away for a moment: the silence that follows is planned."""
    session = draft.after.session_of(event.connection)
    if session is None or session.presence not in LIVE:
        return
    policy = draft.exam.policy
    _put_session(draft, presence.planned(session, event.received_at, event.after_ms / 1000, policy))
    draft.send(event.connection, m.Reconnect(m.ReconnectData(event.after_ms, event.reason, event.url)))


def _deadline_reached(draft: _Draft, event: DeadlineReached) -> None:
    """The outstanding deadline is due: see what has lapsed. A stray one is ignored, an early one asked for again."""
    record, now = draft.after, draft.now
    if event.at != record.check_at:
        return
    if now < event.at:
        draft.effects.append(effects.SetDeadline(record.key, event.at))
        return
    draft.change(check_at=None)
    if draft.exam.state == "closed":
        return
    if record.lifecycle in RUNNING:  # afterwards nobody looks after leases: a last page may close when it likes
        sessions = tuple(presence.lapsed(s, now, draft.exam) for s in record.sessions)
        if sessions != record.sessions:
            draft.change(sessions=sessions)
    time_out = _times_out_at(draft.after, draft.exam)
    if time_out is not None and time_out <= now:
        _step(draft, "time_out")
    _expire_commands(draft)


# --- a proctor speaks -----------------------------------------------------------------------------------------------------


def _command_issued(draft: _Draft, event: CommandIssued) -> None:
    """A proctor's command takes effect on the record, is saved, and only then is sent."""
    _command(draft, event)


def _roster_changed(draft: _Draft, event: RosterChanged) -> None:
    """The school knows better than the token, and its latest word counts, however often an earlier one comes again.

    Names stay out of the journal; a change of group is in it.
    """
    record = draft.after
    if event.received_at <= record.roster_at:
        return
    name, group = event.name[:MAX_NAME_CHARACTERS] or record.student_name, event.group or record.group
    if (name, group) == (record.student_name, record.group):
        return
    cause = "name" if group == record.group else "group"
    draft.note("roster", cause, before=record.group, after=group, actor=event.by)
    draft.change(student_name=name, group=group, roster_at=event.received_at)


_STEPS: dict[m.CommandName, LifecycleEvent] = {"pause": "pause", "resume": "resume", "terminate": "terminate"}


def _command(draft: _Draft, event: CommandIssued) -> None:
    """Apply a command once. What can't be done here is refused, with the reason; a repeat changes nothing."""
    if _is_known(draft.after, event.command_id):
        return
    stands = any(event.command_id == standing.command_id for standing in draft.exam.standing)
    reason = _undone(draft.exam, event) if stands else ""
    reason = reason or _refusal(draft, event)
    if reason and stands and draft.after.lifecycle == "not_joined":
        return  # decided when they join
    _mark_done(draft, f"command {event.command_id}")
    if reason:
        draft.note("command", event.command, after="refused", text=reason, **_given(event))
        _command_status(draft, event.command_id, "refused", reason)
        return
    if event.command in _STEPS:
        _step(draft, _STEPS[event.command])
    if event.command == "update" and event.extra_minutes is not None:
        draft.change(granted_seconds=draft.after.granted_seconds + event.extra_minutes * 60)
    if event.command == "warn":
        _flag(draft, "warned", True)
    if event.command == "flag":
        _flag(draft, "flagged", True)
    if event.command == "acknowledge":
        _flag(draft, "hand_raised", False)
        _flag(draft, "flagged", False)
    draft.note("command", event.command, after="accepted", text=event.words, **_given(event))
    if event.command in ("flag", "acknowledge"):
        _command_status(draft, event.command_id, "confirmed")  # the student's page has no part in these
        return
    connection = draft.after.connection
    pending = PendingCommand(
        event.command_id,
        event.command,
        event.expires_at,
        event.text,
        event.extra_minutes,
        sent=connection is not None,
        sent_at=0.0 if connection is None else draft.now,
    )
    draft.change(commands=(*draft.after.commands, pending))
    if connection is not None:
        draft.send(connection, _command_frame(pending))
    _command_status(draft, event.command_id, "accepted" if connection is None else "sent")


def _undone(exam: Exam, event: CommandIssued) -> str:
    """Why a command to everyone is no longer carried out: it came late, or again, and the exam has gone on since."""
    late = (event.command == "pause" and exam.state != "paused") or (
        event.command == "resume" and exam.state == "paused"
    )
    return "undone by a later command to everyone" if late else ""


def _refusal(draft: _Draft, event: CommandIssued) -> str:
    """Why this command can't be carried out here; empty if it can."""
    record = draft.after
    if event.only_group and record.group != event.only_group:
        return f"not in group {event.only_group}"
    if event.expires_at <= draft.now:
        return "expired before it was decided"
    if event.command in _STEPS and not lifecycle.allows(record.lifecycle, _STEPS[event.command]):
        return f"not possible while {record.lifecycle}"
    if event.command == "update" and (record.lifecycle not in RUNNING or record.time_end_reported is None):
        return "no attempt with a known end is in progress"
    if len(record.commands) >= _MAX_PENDING:
        return f"{_MAX_PENDING} commands wait for this student already"
    return ""


def _given(event: CommandIssued) -> dict[str, Any]:
    """Which command, by whom and to whom, as journal lines say it."""
    return {"reference": event.command_id, "actor": event.issued_by, "to_everyone": event.to_everyone}


def _resend_commands(draft: _Draft, connection: str) -> None:
    """On a new connection: everything that waits for a receipt goes out (again)."""
    _expire_commands(draft)
    _send_commands(draft, connection, draft.after.commands)


def _send_lost_commands(draft: _Draft, connection: str) -> None:
    """On a connection that lives: what has been without a receipt for a while may have been lost on its way."""
    if draft.after.commands:
        _expire_commands(draft)
        before = draft.now - draft.exam.policy.command_again_seconds
        _send_commands(draft, connection, [c for c in draft.after.commands if c.sent_at <= before])


def _send_commands(draft: _Draft, connection: str, commands: Sequence[PendingCommand]) -> None:
    if not commands:
        return
    for command in commands:
        draft.send(connection, _command_frame(command))
        if not command.sent:
            _command_status(draft, command.command_id, "sent")
    draft.change(
        commands=tuple(replace(c, sent=True, sent_at=draft.now) if c in commands else c for c in draft.after.commands)
    )


def _expire_commands(draft: _Draft) -> None:
    """Give up what nobody received in time, and say so."""
    expired = [c for c in draft.after.commands if c.expires_at <= draft.now]
    if not expired:
        return
    draft.change(commands=tuple(c for c in draft.after.commands if c.expires_at > draft.now))
    for command in expired:
        draft.note("receipt", "expired", reference=command.command_id, after="expired")
        _command_status(draft, command.command_id, "expired")


# --- what every change needs ----------------------------------------------------------------------------------------------


def _settle(draft: _Draft) -> Decision:
    """Finish a decision: label, offline time, away episodes, deadline, version, publication, order of effects."""
    before = draft.before
    if draft.after is before:
        return Decision(before, (), (*draft.effects, *draft.closing))
    _track_attention(draft)
    label_changed = _track_label(draft)
    check_at = _rolling_check(draft.after, draft.exam, draft.now)
    version = max(before.version + 1, int(draft.now * 1000))
    draft.change(version=version, check_at=check_at)
    after = draft.after
    wanted: list[effects.ParticipantEffect] = []
    if check_at is not None and check_at != before.check_at:
        wanted.append(effects.SetDeadline(after.key, check_at))
    if label_changed or visible(before) != visible(after):
        wanted.append(effects.PublishView())
    wanted += draft.effects
    wanted += draft.closing
    entries = [
        Entry(*after.key, version, n, draft.event.received_at, kind, cause, **fields)
        for n, (kind, cause, fields) in enumerate(draft.lines)
    ]
    return Decision(after, tuple(entries), tuple(wanted))


def _track_attention(draft: _Draft) -> None:
    """Count away episodes, and flag a second page."""
    after, at = draft.after, draft.event.received_at
    is_away = after.lifecycle == "in_progress" and after.attention == "away"
    if is_away or after.away_since is not None:
        record = attention.tracked(after, is_away, at, draft.exam.policy.away_counts_after_seconds)
        if record is not None:
            draft.change(
                away_count=record.away_count,
                away_seconds=record.away_seconds,
                away_since=record.away_since,
                away_counted=record.away_counted,
                last_away_since=record.last_away_since,
                last_away_ended_at=record.last_away_ended_at,
            )
    if len(after.sessions) > 1 or "several_pages" in after.flags:
        _flag(draft, "several_pages", sum(s.presence in LIVE for s in after.sessions) > 1)


def _track_label(draft: _Draft) -> bool:
    """Journal a change of label, and say whether there is one; measure offline time, less what incidents account for."""
    before, after, at = draft.before, draft.after, draft.event.received_at
    was, is_now = before.label, after.label
    if is_now == "offline" and after.offline_since is None:
        draft.change(offline_since=at)
    elif is_now != "offline" and after.offline_since is not None:
        since, until = after.offline_since, max(at, after.offline_since)
        excused = incidents.seconds_in_incidents(draft.exam.incidents, since, until)
        draft.change(offline_since=None, offline_seconds=after.offline_seconds + until - since - excused)
    if was == is_now:
        return False
    same_attempt = before.quiz_attempt_id == after.quiz_attempt_id
    if same_attempt and was in ("reconnecting", "offline") and is_now in ("active", "away"):
        draft.change(reconnects=after.reconnects + 1)
    draft.change(label_since=at)
    draft.lines.append(("label", _cause(draft.event), {"before": was, "after": is_now}))
    return True


def _cause(event: ParticipantEvent) -> str:
    """What brought a change of label about, in the journal's words."""
    match event:
        case StatusReported():
            return "reported"
        case HeartbeatReceived():
            return "heartbeat"
        case ConnectionLost():
            return event.reason
        case OwnerLost() | ReconnectOrdered():
            return "lost_by_us"
        case DeadlineReached():
            return "deadline"
        case CommandIssued():
            return f"command {event.command}"
        case StudentMessaged() | ReceiptReceived():
            return "reported"
        case RosterChanged():
            return "roster"
        case _:
            assert_never(event)


def _rolling_check(record: Participant, exam: Exam, now: float) -> float | None:
    """The one outstanding deadline: kept while it is early enough, set anew when it is due, nearly due in vain, or too late."""
    if exam.state == "closed":
        return None
    soonest = math.inf
    for command in record.commands:
        soonest = min(soonest, command.expires_at)
    if record.lifecycle in RUNNING:
        for session in record.sessions:
            lapses_at = presence.due(session, exam)
            if lapses_at is not None and lapses_at < soonest:
                soonest = lapses_at
        time_out = _times_out_at(record, exam)
        if time_out is not None and time_out < soonest:
            soonest = time_out
    if soonest == math.inf:
        return record.check_at
    return max(soonest, now) if record.check_at is None else _following(record.check_at, soonest, exam, now)


def _following(check_at: float, due: float, exam: Exam, now: float) -> float:
    """This deadline, or the one in its place: `due` if that is earlier, or if this one would come in vain before the next report.

    Moved now, it goes with a save that is made anyway; left alone, it would be decided and saved by itself, for each student each
    time that a lease has passed. The old one is then a stray.
    """
    return due if due < check_at or check_at - now < exam.policy.report_seconds else check_at


def _times_out_at(record: Participant, exam: Exam) -> float | None:
    """When an attempt that is still running is over."""
    end = record.time_end
    if end is None or record.lifecycle not in RUNNING:
        return None
    return end + exam.policy.time_out_after_seconds


def _step(draft: _Draft, event: LifecycleEvent) -> None:
    """Move the lifecycle, if the table allows it."""
    state = draft.after.lifecycle
    if lifecycle.allows(state, event):
        following = lifecycle.step(state, event)
        if following != state:
            draft.change(lifecycle=following)


def _put_session(draft: _Draft, session: Session) -> None:
    """Put a session in the place of the one with its id."""
    sessions = draft.after.sessions
    if len(sessions) == 1:
        draft.change(sessions=(session,))
    else:
        draft.change(sessions=tuple(session if s.id == session.id else s for s in sessions))


def _flag(draft: _Draft, flag: str, on: bool) -> None:
    """Raise or lower a visible flag."""
    flags = draft.after.flags
    if on and flag not in flags:
        draft.change(flags=(*flags, flag))
    elif not on and flag in flags:
        draft.change(flags=tuple(f for f in flags if f != flag))


def _command_status(draft: _Draft, command_id: str, outcome: m.CommandOutcome, reason: str = "") -> None:
    record = draft.after
    draft.effects.append(effects.PublishCommandStatus(record.key.exam, command_id, record.student_id, outcome, reason))


def _command_frame(command: PendingCommand) -> m.Command:
    return m.Command(m.CommandData(command.command_id, command.command, command.text, command.extra_minutes))


def _digest(reference: str) -> int:
    """What `done` keeps of an id: 48 bits, so that the record stays small."""
    return int.from_bytes(hashlib.blake2b(reference.encode(), digest_size=6).digest())


def _is_done(record: Participant, reference: str) -> bool:
    return _digest(reference) in record.done


def _is_known(record: Participant, command_id: str) -> bool:
    """Whether this command was decided here: it waits for its receipt, or is remembered."""
    return any(c.command_id == command_id for c in record.commands) or _is_done(record, f"command {command_id}")


def _mark_done(draft: _Draft, reference: str) -> None:
    draft.change(done=(*draft.after.done, _digest(reference))[-_MAX_DONE:])


def _renewed(
    session: Session, event: StatusReported | HeartbeatReceived, next_ms: int | None, exam: Exam, now: float
) -> Session:
    """The session with the lease that the event's frame buys it, which has run out if the frame waited too long in an inbox."""
    promise = presence.promise_seconds(next_ms, session.attention == "away", exam.policy)
    return presence.lapsed(presence.renewed(session, event.received_at, promise, exam.policy), now, exam)


_HANDLERS: dict[type, Callable[[_Draft, Any], None]] = {
    StatusReported: _status_reported,
    HeartbeatReceived: _heartbeat_received,
    StudentMessaged: _student_messaged,
    ReceiptReceived: _receipt_received,
    ConnectionLost: _connection_lost,
    OwnerLost: _owner_lost,
    ReconnectOrdered: _reconnect_ordered,
    DeadlineReached: _deadline_reached,
    CommandIssued: _command_issued,
    RosterChanged: _roster_changed,
}
