"""The periodic look at every open exam: what nobody reports, because it is silence.

One delayed SQS message per exam and shard is the ticket for one sweep. Whoever receives it first exchanges it for the next one, in
a conditional write, so that a message delivered twice ends there and a crash later costs one sweep, not the chain. Should the
next message be lost all the same, a rule each minute finds the ticket that nobody used. Who turns offline before the next sweep is
looked at when it happens, by an extra one: so nobody waits ten seconds for it, and no more sweeps are needed while all is well.

A sweep reads its partition once. It decides every deadline that has passed, delivers what lies in inboxes, and counts the silent
for the exam's incidents. It repairs what a crash lost between two steps elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from adapters.lambda_apigw.ports import Connections, Row, Store, Subscriptions, SweepTicket
from adapters.lambda_apigw.shell import HERE, Outbox, Shell
from core import incidents, presence
from core.decide import decide
from core.errors import CloseCode
from core.events import CommandIssued, DeadlineReached, SweepCounted
from core.exam import Exam
from core.identity import Principal
from core.incidents import SilenceCounts
from core.participant import LIVE, RUNNING, ExamKey, Participant, ParticipantKey
from core.revocation import covers

_PUBLISH_AFTER = 100
_STANDS_NEW_SECONDS = 150.0
"""How long sweeps bring a command to those it missed: longer than a lost chain of sweeps takes to start again."""
_EXTRA_GAP_SECONDS = 2.0
"""Between extra sweeps, so that an exam in which many come and go costs no more than five times the sweeps."""

_DECIDES = 0
"""The shard whose sweep also decides about the exam as a whole."""


class Sweep:
    """Sweeps, with the same objects as the shell that decides for it."""

    def __init__(
        self,
        shell: Shell,
        store: Store,
        subscriptions: Subscriptions,
        connections: Connections,
        clock: Callable[[], float],
    ) -> None:
        self._shell = shell
        self._store = store
        self._subscriptions = subscriptions
        self._connections = connections
        self._clock = clock

    def sweep(self, ticket: SweepTicket) -> bool:
        """Plan the next sweep and do this one; False if the ticket was used before, or the exam is closed."""
        if not ticket.extra and not self._shell.plan_sweep(ticket):
            return False
        rows = list(self._store.partition(ticket.exam, ticket.shard))
        exam = self._decide_exam(ticket, rows)
        if exam is not None and exam.state != "closed":
            if not ticket.extra:
                self._plan_extra(ticket, exam, rows)
            self._decide_rows(exam, rows)
        if not ticket.extra:
            self._end_revoked(ticket, rows)
        if ticket.shard == _DECIDES:
            self._hang_up(ticket.exam)
        return True

    def restart_lost(self) -> int:
        """Start the chains again whose next sweep is long overdue; how many there were."""
        late = self._clock() - 2 * self._shell.sweep_seconds
        return sum(self._shell.plan_sweep(ticket) for ticket in list(self._store.late_sweeps(late)))

    def _plan_extra(self, ticket: SweepTicket, exam: Exam, rows: Iterable[Row]) -> None:
        """Look again when somebody turns offline before the next sweep: a closed socket, or a page long silent. Pages that keep
        their promises cost nothing here, because their silence would show later than that.
        """
        now = self._clock()
        for at in extra_sweeps(
            (row.record for row in rows if row.record is not None), exam, now, self._shell.sweep_seconds
        ):
            self._shell.plan_extra_sweep(SweepTicket(ticket.exam, ticket.shard, at, extra=True), at - now)

    def _decide_exam(self, ticket: SweepTicket, rows: Iterable[Row]) -> Exam | None:
        """Count first, because an incident that begins now must hold back what is decided after it. The exam, as it is then."""
        exam, now = self._store.load_exam(ticket.exam), self._clock()
        if exam is None:
            return None
        records = [_as_lapsed(row.record, exam, now) for row in rows if row.record is not None]
        counts = incidents.count(records, now, exam.policy)
        if self._store.shards(ticket.exam) > 1:
            self._store.put_counts(ticket.exam, ticket.shard, counts)
        if ticket.shard != _DECIDES:
            return exam
        if self._store.shards(ticket.exam) > 1:
            counts = self._store.counts(ticket.exam)
        outbox = Outbox()
        exam = self._shell.apply_exam(ticket.exam, _counted(counts, now), outbox, known=exam)
        self._shell.finish(outbox, at_once=True)
        return exam

    def _decide_rows(self, exam: Exam, rows: Iterable[Row]) -> None:
        now = self._clock()
        fresh = [command for command in exam.standing if now - command.received_at < _STANDS_NEW_SECONDS]
        outbox = Outbox()
        decided = 0
        for row in rows:
            decided += self._decide_row(row, fresh, outbox)
            if decided >= _PUBLISH_AFTER:
                self._shell.finish(outbox, at_once=True)
                decided = 0
        self._shell.finish(outbox, at_once=True)

    def _decide_row(self, row: Row, standing: list[CommandIssued], outbox: Outbox) -> int:
        """All that is due for one participant; how many events that was."""
        decided, now, record = 0, self._clock(), row.record
        if record is not None and record.home != HERE:
            return 0  # decided on the other side of a migration, which also reads the inbox
        for item in row.inbox:
            self._shell.apply(row.key, item.event, outbox, taken=(item.id,))
            decided += 1
        if record is None:
            return decided
        for command in standing:
            exam = self._shell.exam(row.key.exam)
            if _may_lack(command, record, exam) and decide(record, command, exam, now).participant is not record:
                self._shell.apply(row.key, command, outbox, must_exist=True)
                decided += 1
        if record.check_at is not None and record.check_at <= now:
            decided += self._check(row.key, record, now, outbox, is_old=decided > 0)
        return decided

    def _check(self, key: ParticipantKey, record: Participant, now: float, outbox: Outbox, *, is_old: bool) -> int:
        """Decide the deadline of a record. One that only asks again is not saved: the next sweep looks at the record anyway."""
        assert record.check_at is not None  # the caller looked
        event = DeadlineReached(received_at=now, at=record.check_at)
        after = decide(record, event, self._shell.exam(key.exam), now).participant
        if replace(after, check_at=record.check_at, version=record.version) == record:
            return 0
        self._shell.apply(key, event, outbox, known=None if is_old else record, must_exist=True)
        return 1

    def _end_revoked(self, ticket: SweepTicket, rows: Iterable[Row]) -> None:
        """Hang up on pages, and on proctors, whose tokens were revoked meanwhile; `$connect` keeps them out."""
        exam, now, reason = ticket.exam, self._clock(), "the token was revoked"
        students = self._subscriptions.revocations(exam.school, "student")
        for record in (row.record for row in rows if students and row.record is not None):
            bearer = Principal("student", exam.school, record.student_id, (exam.quiz_id,), now)
            if covers(students, bearer, exam.quiz_id, now):
                for session in record.sessions:
                    if session.presence in LIVE:
                        self._connections.close(session.connection, CloseCode.TOKEN, reason)
        if ticket.shard != _DECIDES or not (proctors := self._subscriptions.revocations(exam.school, "proctor")):
            return
        for connection, _ in list(self._subscriptions.subscriptions(exam)):
            watcher = self._subscriptions.principal(connection)
            if watcher is not None and covers(proctors, watcher, exam.quiz_id, now):
                self._connections.close(connection, CloseCode.TOKEN, reason)
                self._subscriptions.forget(connection)

    def _hang_up(self, exam: ExamKey) -> None:
        """Proctors whose token expired and who did not bring a new one."""
        for connection in list(self._subscriptions.expired(exam)):
            self._connections.close(connection, CloseCode.TOKEN, "the token has expired")
            self._subscriptions.forget(connection)


def extra_sweeps(records: Iterable[Participant], exam: Exam, now: float, sweep_seconds: float) -> list[float]:
    """When to look between now and the next sweep, so that each who turns offline meanwhile is shown within two seconds."""
    ends = (presence.silent_until(r.sessions, exam) for r in records if r.lifecycle in RUNNING)
    planned: list[float] = []
    for end in sorted(end for end in ends if end is not None and now < end < now + sweep_seconds):
        if not planned or end > planned[-1]:
            at = now + math.ceil(end - now)  # SQS counts whole seconds
            planned.append(max(at, planned[-1] + _EXTRA_GAP_SECONDS) if planned else at)
    return [at for at in planned if at < now + sweep_seconds]


def _may_lack(command: CommandIssued, record: Participant, exam: Exam) -> bool:
    """Whether this command to everyone may have missed the participant: they were joining while it was saved, so that they saw the
    exam without it, and were not there yet when it was carried out. All others have it, and ignore it.
    """
    if command.command == "pause":
        return exam.state == "paused"
    return command.command != "resume" or record.lifecycle == "paused"


def _as_lapsed(record: Participant, exam: Exam, now: float) -> Participant:
    """The record as it will be once its deadline is decided, with *offline* still held back."""
    if record.check_at is None or record.check_at > now:
        return record
    holding = replace(exam, hold_until=max(exam.hold_until, now + 1))
    return decide(record, DeadlineReached(received_at=now, at=record.check_at), holding, now).participant


def _counted(counts: SilenceCounts, now: float) -> SweepCounted:
    return SweepCounted(
        received_at=now,
        taking=counts.taking,
        fell_silent=counts.fell_silent,
        still_silent=counts.still_silent,
        last_time_end=counts.last_time_end,
    )
