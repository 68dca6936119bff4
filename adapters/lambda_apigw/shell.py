"""The shell of the serverless side: load, decide, save if nobody else did meanwhile, then perform what follows.

One invocation is one call here, and remembers nothing that matters: what another invocation saved in between makes the conditional
save fail, and then the event is decided again on the record as it is now. During the call everything that is published is put
together, so that the proctors of an exam get one update however many students changed; acks go last of all.

All I/O goes through the objects given to the constructor, in synchronous calls, so that a simulator can run this code with other
invocations, and crashes, between any two of them.
"""

from __future__ import annotations

import itertools
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import assert_never

from msgspec import Raw

from adapters.lambda_apigw.ports import (
    TOKEN_GRACE_SECONDS,
    CommandChunk,
    Connections,
    Queue,
    Store,
    Subscriptions,
    SweepTicket,
    Views,
)
from core import effects, events, messages, routing
from core.decide import decide
from core.decide_exam import decide_exam
from core.errors import CloseCode, LocalError, Malformed, RemoteError, TokenRejected
from core.exam import Exam, new_exam
from core.identity import Principal
from core.migration import OTHER, Move, speaks_protocol
from core.participant import ExamKey, Home, Participant, ParticipantKey, new_participant
from core.policy import MAX_ERRORS_IN_A_ROW, MAX_MESSAGE_BYTES, Policy
from core.routing import Source
from core.snapshot import cut, in_groups, newer, pages, view

HERE: Home = "lambda"
_ATTEMPTS = 12
_DIRECT_STUDENTS = 20
"""A command to more students than this is carried out by later invocations: API Gateway waits 29 seconds for this one."""
_CHUNK_STUDENTS = 100


_QUEUED_VIEWS = 80
_RENEW_SHARE = 0.93
"""Of the greatest age of a connection, after which it is told to come back. The page's script renews at 0.7 to 0.9 by itself."""

_RENEW_SPREAD_SHARE = 0.02
"""Pages that opened their connections together do not all come back together."""

FanOut = Callable[[Sequence[tuple[str, Sequence[bytes]]]], Iterable[str]]
"""Sends to many connections at a time, to each its frames in their order; returns those that are gone."""


class Contended(LocalError):
    """A record was changed by others at each attempt to save it; the client, or the queue, sends the event again."""


class _Publication:
    """What one invocation has to tell the proctors of one exam."""

    __slots__ = ("frames", "incidents", "merged", "statuses", "views")

    def __init__(self) -> None:
        self.views: dict[ParticipantKey, Participant] = {}
        self.merged: dict[str, messages.View] = {}
        self.frames: list[tuple[str, bytes]] = []
        self.statuses: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self.incidents: tuple[messages.Incident, ...] = ()

    def payloads(self, exam: ExamKey, groups: Sequence[str], now: float) -> Iterator[bytes]:
        """The frames for a proctor who watches these groups (none: all)."""
        changed = (view(record) for record in self.views.values())
        wanted = (v for v in (*changed, *self.merged.values()) if in_groups(v.group, groups))
        parts: list[tuple[Raw, ...]] = list(cut(map(messages.encode_value, wanted)))
        if not parts and self.incidents:
            parts = [()]
        for part in parts:
            yield messages.encode(
                messages.Update(messages.UpdateData(exam.quiz_id, part, self.incidents, _milliseconds(now)))
            )
        for group, frame in self.frames:
            if in_groups(group, groups):
                yield frame
        for command_id, students in self.statuses.items():
            yield messages.encode(messages.CommandStatus(_command_status(exam, command_id, students)))


class Outbox:
    """What the decisions of one invocation ask for that is done once at its end: publications, then acks."""

    __slots__ = ("acks", "publications")

    def __init__(self) -> None:
        self.publications: defaultdict[ExamKey, _Publication] = defaultdict(_Publication)
        self.acks: list[tuple[ParticipantKey | None, effects.Ack]] = []

    def status(self, exam: ExamKey, command_id: str, student_id: str, outcome: str, reason: str = "") -> None:
        """How far a command has come for one student; the latest word of an invocation counts."""
        self.publications[exam].statuses[command_id][student_id] = f"{outcome}: {reason}" if reason else outcome


class Shell:
    """Decides events on what is stored. One object serves an execution environment, one call at a time.

    `verify` checks a token given in-band and raises `TokenRejected`. `policy` is that of exams that open with their first report.
    An exam may be as old as `exam_cache_seconds` when a report is decided, except for the first report of a connection. With
    `coalesce`, the queue publishes what more than `direct_watchers` proctors watch, or what changes in a big exam; `fan_out` sends
    to more than that many. A connection older than nearly `max_connection_seconds` is told to reconnect.
    """

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        connections: Connections,
        queue: Queue,
        clock: Callable[[], float],
        *,
        verify: Callable[[str], Principal] | None = None,
        policy: Policy | None = None,
        exam_cache_seconds: float = 2.0,
        sweep_seconds: float = 10.0,
        coalesce: bool = False,
        direct_watchers: int = 3,
        fan_out: FanOut | None = None,
        max_connection_seconds: float = 7_200.0,
        move: Callable[[], Move | None] = lambda: None,
    ) -> None:
        self.sweep_seconds = sweep_seconds
        self._store = store
        self._subscriptions = subscriptions
        self._connections = connections
        self._queue = queue
        self._clock = clock
        self._verify = verify
        self._policy = policy
        self._exam_cache_seconds = exam_cache_seconds
        self._coalesce = coalesce
        self._direct_watchers = direct_watchers
        self._fan_out = fan_out
        self._max_connection_seconds = max_connection_seconds
        self._move = move
        self._told: set[str] = set()
        self._exams: dict[ExamKey, tuple[Exam, float]] = {}

    # --- what happens to a connection ---

    def connected(self, source: Source) -> None:
        """A socket is open. Nothing can be sent to it before this invocation has ended."""
        self._subscriptions.remember(source.connection, source.connected_at, source.principal)

    def disconnected(self, source: Source, event: events.ConnectionLost) -> None:
        """A socket is gone, or so API Gateway says: it may not say so, and silence alone is enough."""
        self._subscriptions.forget(source.connection)
        if source.principal.role == "student":
            outbox = Outbox()
            self.apply(source.principal.participant, event, outbox, must_exist=True)
            self.finish(outbox)

    def received(self, payload: str, source: Source, received_at: float) -> None:
        """A frame came in. The peer's faults are answered and counted; whatever else goes wrong is raised."""
        outbox = Outbox()
        try:
            if len(payload) > MAX_MESSAGE_BYTES or len(payload.encode()) > MAX_MESSAGE_BYTES:
                raise Malformed("too_big", f"the frame is larger than {MAX_MESSAGE_BYTES} bytes; send less at once")
            frame = messages.decode(payload)
            if not self._admits(frame, source):
                return
            self._dispatch(routing.route(frame, source, received_at), source, received_at, outbox)
            if received_at - source.connected_at > _RENEW_SHARE * self._max_connection_seconds:
                self._renew(source, received_at, outbox)
        except RemoteError as error:
            self._answer_fault(error, source)
            return
        self._subscriptions.succeeded(source.connection)
        self.finish(outbox)

    def _renew(self, source: Source, received_at: float, outbox: Outbox) -> None:
        """API Gateway is going to cut this connection: have its page open another one before, so that nobody sees a change.

        Told once by each execution environment; a repetition is harmless.
        """
        if source.connection in self._told:
            return
        if len(self._told) >= 10_000:
            self._told.clear()
        self._told.add(source.connection)
        spread_ms = max(1, int(_RENEW_SPREAD_SHARE * self._max_connection_seconds * 1000))
        after_ms = zlib.crc32(source.connection.encode()) % spread_ms
        if source.principal.role == "student":
            order = events.ReconnectOrdered(
                received_at=received_at, connection=source.connection, after_ms=after_ms, reason="max_age"
            )
            self.apply(source.principal.participant, order, outbox, must_exist=True)
        else:
            self._send(None, source.connection, messages.Reconnect(messages.ReconnectData(after_ms, "max_age")), outbox)

    def _admits(self, frame: messages.ClientFrame, source: Source) -> bool:
        """Whether a proctor's token still holds; a student's socket outlives its token."""
        principal = source.principal
        over = principal.role != "student" and principal.expires_at + TOKEN_GRACE_SECONDS < self._clock()
        if over and not isinstance(frame, messages.TokenFrame):
            self._subscriptions.forget(source.connection)
            self._connections.close(source.connection, CloseCode.TOKEN, "the token has expired")
            return False
        return True

    def _answer_fault(self, error: RemoteError, source: Source) -> None:
        self._connections.send(source.connection, messages.encode(messages.error_frame(error)))
        if self._subscriptions.failed(source.connection) > MAX_ERRORS_IN_A_ROW:
            self._connections.close(source.connection, CloseCode.FORBIDDEN, "too many faulty frames in a row")

    def _dispatch(self, routed: routing.Routed, source: Source, received_at: float, outbox: Outbox) -> None:
        match routed:
            case events.Addressed():
                self.apply(routed.key, routed.event, outbox)
            case routing.CommandToSome():
                self._command_some(routed, outbox)
                self._ack(source, received_at, outbox, command_id=routed.event.command_id)
            case routing.CommandToAll():
                self.apply_exam(routed.exam, routed.event, outbox)
                self._ack(source, received_at, outbox, command_id=routed.event.command.command_id)
            case routing.Refresh():
                self._refresh(routed, source)
                self._ack(source, received_at, outbox)
            case effects.Subscribe():
                for effect in routing.join_proctor(routed):
                    self._serve_proctor(effect, source)
            case effects.Unsubscribe():
                self._serve_proctor(routed, source)
            case _:
                assert_never(routed)

    def _serve_proctor(self, effect: effects.ProctorEffect, source: Source) -> None:
        match effect:
            case effects.Subscribe():
                expires_at = source.principal.expires_at + TOKEN_GRACE_SECONDS
                self._subscriptions.subscribe(effect.exam, effect.connection, effect.groups, expires_at)
            case effects.Unsubscribe():
                self._subscriptions.unsubscribe(effect.exam, effect.connection)
            case effects.SendSnapshot():
                self._send_snapshot(effect)
            case _:
                assert_never(effect)

    def _send_snapshot(self, effect: effects.SendSnapshot) -> None:
        """Subscribed already, so whatever is saved after this read reaches the proctor as an update."""
        now = self._clock()
        exam = self._store.load_exam(effect.exam)
        incidents = () if exam is None else exam.incidents
        records = () if exam is None else self._store.participants(effect.exam)
        views = (view(record) for record in records if in_groups(record.group, effect.groups))
        snapshot_id = f"{int(now * 1000):x}"
        for page in pages(effect.exam.quiz_id, snapshot_id, views, incidents, _milliseconds(now)):
            if not self._connections.send(effect.connection, messages.encode(page)):
                self._subscriptions.unsubscribe(effect.exam, effect.connection)
                return

    def _refresh(self, routed: routing.Refresh, source: Source) -> None:
        if self._verify is None:
            raise LocalError("this function was built without a way to verify tokens")
        try:
            fresh = routing.refreshed(source.principal, self._verify(routed.token))
        except TokenRejected as exc:
            # the old token may hold for a while: the bearer can try again, so this is not the end of the socket
            raise RemoteError("token_invalid", exc.message, action="lmsQuizToken") from exc
        self._subscriptions.remember(source.connection, source.connected_at, fresh)

    def _ack(self, source: Source, received_at: float, outbox: Outbox, command_id: str | None = None) -> None:
        frame = messages.Ack(messages.AckData(_milliseconds(received_at), command_id=command_id))
        outbox.acks.append((None, effects.Ack(source.connection, frame)))

    # --- commands to many ---

    def _command_some(self, routed: routing.CommandToSome, outbox: Outbox) -> None:
        """Each on their own record, or, if there are many, first of all into the queue: kept either way when this returns."""
        if len(routed.keys) <= _DIRECT_STUDENTS:
            self.command_students(routed.keys, routed.event, outbox)
            return
        exam, student_ids = routed.keys[0].exam, [key.student_id for key in routed.keys]
        for start in range(0, len(student_ids), _CHUNK_STUDENTS):
            chunk = tuple(student_ids[start : start + _CHUNK_STUDENTS])
            self._queue.command(CommandChunk(exam, routed.event, student_ids=chunk))

    def command_students(self, keys: Sequence[ParticipantKey], event: events.CommandIssued, outbox: Outbox) -> None:
        """Bring a command to these students; who is not in the exam is refused. Repeats are harmless."""
        for key in keys:
            if not self.apply(key, event, outbox, must_exist=True):
                outbox.status(key.exam, event.command_id, key.student_id, "refused", "not in this exam")

    def carry_out(self, chunk: CommandChunk) -> None:
        """Do a part of a command to many, and queue the next part, if there is one. Repeats are harmless."""
        outbox, last = Outbox(), chunk.after
        if chunk.student_ids:
            keys = [ParticipantKey(*chunk.exam, student_id) for student_id in chunk.student_ids]
            self.command_students(keys, chunk.event, outbox)
            self.finish(outbox)
            return
        rows = iter(self._store.partition(chunk.exam, chunk.shard, chunk.after))
        for row in itertools.islice(rows, _CHUNK_STUDENTS):
            if row.record is not None:
                self.apply(row.key, chunk.event, outbox, known=row.record)
            last = row.key.student_id
        if next(rows, None) is not None:
            self._queue.command(CommandChunk(chunk.exam, chunk.event, chunk.shard, last))
        self.finish(outbox)

    # --- decide, save, perform ---

    def apply(
        self,
        key: ParticipantKey,
        event: events.ParticipantEvent,
        outbox: Outbox,
        *,
        known: Participant | None = None,
        taken: Sequence[str] = (),
        must_exist: bool = False,
    ) -> bool:
        """Decide an event on a participant, save, and perform what follows; `finish` does the rest.

        `known` is the record if it has just been read (it may be old: then the save fails, and it is read again). The inbox items
        `taken` go in the same step. False if the participant `must_exist` and does not; then nothing has happened.
        """
        # A page's frames are seconds apart, so that a cheap read nearly always finds the last one. It counts only if the save, on
        # condition of the version, proves that it did.
        cheap = known is None and isinstance(event, events.HeartbeatReceived)
        for _ in range(_ATTEMPTS):
            unproven, cheap = cheap, False
            before, known = known or self._store.load(key, latest=not unproven), None
            if before is None and unproven:
                continue
            if before is None and must_exist:
                return False
            exam = self._load_exam(key.exam) if _needs_fresh_exam(event, before) else self.exam(key.exam)
            record = before or new_participant(key, HERE)
            decision = decide(record, event, exam, max(self._clock(), event.received_at))
            if decision.participant is record:
                if unproven:
                    continue
                if taken:
                    self._store.drop_from_inbox(key, taken)
            elif not self._store.save(before, decision.participant, decision.entries, taken):
                continue
            self._perform(decision.participant, decision.effects, outbox)
            return True
        raise Contended(key.quiz_id, key.student_id)

    def apply_exam(self, key: ExamKey, event: events.ExamEvent, outbox: Outbox, known: Exam | None = None) -> Exam:
        """Decide an event on an exam, which opens with it if nobody has opened it before; save, and perform what follows.

        `known` is the exam if it has just been read.
        """
        for _ in range(_ATTEMPTS):
            before, known = known or self._load_exam(key), None
            decision = decide_exam(before, event, max(self._clock(), event.received_at))
            if decision.exam is not before and not self._store.save_exam(before, decision.exam, decision.entries):
                continue
            self._remember_exam(decision.exam)
            for effect in decision.effects:
                self._perform_exam(effect, outbox)
            return decision.exam
        raise Contended(key.quiz_id, "the exam")

    def command(self, routed: routing.CommandToSome | routing.CommandToAll) -> None:
        """Bring a command that came over HTTP to its students: kept when this returns."""
        outbox = Outbox()
        if isinstance(routed, routing.CommandToAll):
            self.apply_exam(routed.exam, routed.event, outbox)
        else:
            self._command_some(routed, outbox)
        self.finish(outbox)

    def show_again(self, exam: ExamKey) -> None:
        """Send everybody who watches the exam a fresh snapshot: who is no longer in it is gone from their screens."""
        for connection, groups in list(self._subscriptions.subscriptions(exam)):
            self._send_snapshot(effects.SendSnapshot(exam, connection, tuple(groups)))

    def finish(self, outbox: Outbox, *, at_once: bool = False) -> None:
        """Publish, then ack. A connection found gone on the way is one more event, so its change is published too.

        With `at_once` nothing waits in the queue of views: a sweep has put together all there is, and has waited long enough.
        """
        while outbox.publications or outbox.acks:
            while outbox.publications:
                self._publish(*outbox.publications.popitem(), at_once=at_once)
            acks, outbox.acks = outbox.acks, []
            for key, ack in acks:
                self._send(key, ack.connection, ack.frame, outbox)

    def _perform(self, record: Participant, wanted: Sequence[effects.ParticipantEffect], outbox: Outbox) -> None:
        key = record.key
        for effect in wanted:
            match effect:
                case effects.SetDeadline():
                    pass  # saved with the record as `check_at`, which the sweep looks for: there is no other timer
                case effects.PublishView():
                    outbox.publications[key.exam].views[key] = record
                case effects.PublishMessage():
                    frame = (effect.group, messages.encode(effect.frame))
                    outbox.publications[effect.exam].frames.append(frame)
                case effects.PublishCommandStatus():
                    outbox.status(effect.exam, effect.command_id, effect.student_id, effect.outcome, effect.reason)
                case effects.Send():
                    self._send(key, effect.connection, effect.frame, outbox)
                case effects.Close():
                    if not effect.connection.startswith(OTHER):
                        self._connections.close(effect.connection, effect.code, effect.reason)
                case effects.Forward():
                    self._forward(effect)
                case effects.Ack():
                    outbox.acks.append((key, effect))
                case _:
                    assert_never(effect)

    def _forward(self, effect: effects.Forward) -> None:
        """To the participant's home on the other side of a move; the page, if it can, is told to go there itself."""
        self._store.put_in_inbox(effect.key, effect.event)
        event = effect.event
        if isinstance(event, events.StatusReported) and speaks_protocol(event):
            move = self._move()
            if move is not None and not event.connection.startswith(OTHER):
                data = messages.ReconnectData(0, "moved", move.url("ec2"))
                self._connections.send(event.connection, messages.encode(messages.Reconnect(data)))

    def _perform_exam(self, effect: effects.ExamEffect, outbox: Outbox) -> None:
        match effect:
            case effects.PublishIncidents():
                outbox.publications[effect.exam].incidents += effect.incidents
            case effects.CommandEveryone():
                for shard in range(self._store.shards(effect.exam)):
                    self._queue.command(CommandChunk(effect.exam, effect.event, shard))
            case effects.ScheduleSweep():
                if effect.action == "start":  # a stopped chain ends by itself: its ticket went with the save
                    self._start_sweeps(effect.exam)
            case _:
                assert_never(effect)

    def _send(self, key: ParticipantKey | None, connection: str, frame: messages.ServerFrame, outbox: Outbox) -> None:
        """Send to a student's page (`key`) or a proctor's. A student's connection that is gone is lost from now on."""
        if connection.startswith(OTHER) or self._connections.send(connection, messages.encode(frame)):
            return  # what only the other side can send goes out when the page comes here
        if key is None:
            self._subscriptions.forget(connection)
        else:
            self.apply(key, events.ConnectionLost(received_at=self._clock(), connection=connection), outbox)

    def _publish(self, exam: ExamKey, publication: _Publication, *, at_once: bool = False) -> None:
        """To all who watch the exam, as they are now: after the save, so that a proctor who joins meanwhile misses nothing."""
        only_views = not (publication.frames or publication.statuses or publication.incidents)
        coalesce = self._coalesce and not at_once
        always = coalesce and (self._direct_watchers == 0 or self._store.shards(exam) > 1)
        if always and only_views:
            self._enqueue(exam, publication)
            return
        watchers = list(self._subscriptions.subscriptions(exam))
        if always or (coalesce and len(watchers) > self._direct_watchers):
            self._enqueue(exam, publication)
        self._deliver(exam, publication, watchers)

    def _enqueue(self, exam: ExamKey, publication: _Publication) -> None:
        """Leave the views to a later invocation. The rest is rare, and its order matters: it goes out now."""
        views = [view(record) for record in publication.views.values()]
        publication.views.clear()
        for start in range(0, len(views), _QUEUED_VIEWS):
            self._queue.publish(Views(exam, tuple(views[start : start + _QUEUED_VIEWS])))

    def publish(self, batch: Iterable[Views]) -> None:
        """Publish queued views, each exam's in one update, of each student the newest. Repeats and any order are harmless."""
        publications: defaultdict[ExamKey, _Publication] = defaultdict(_Publication)
        for queued in batch:
            merged = publications[queued.exam].merged
            for received in queued.views:
                merged[received.student_id] = newer(merged.get(received.student_id), received)
        for exam, publication in publications.items():
            self._deliver(exam, publication, list(self._subscriptions.subscriptions(exam)))

    def _deliver(self, exam: ExamKey, publication: _Publication, watchers: Sequence[tuple[str, Sequence[str]]]) -> None:
        now = self._clock()
        rendered: dict[tuple[str, ...], list[bytes]] = {}
        for _, watched in watchers:
            groups = tuple(watched)
            if groups not in rendered:
                rendered[groups] = list(publication.payloads(exam, groups, now))
        frames = [
            (connection, rendered[tuple(watched)]) for connection, watched in watchers if rendered[tuple(watched)]
        ]
        if self._fan_out is not None and len(frames) > self._direct_watchers:
            gone = list(self._fan_out(frames)) if frames else []
        else:
            gone = [c for c, payloads in frames if not all(self._connections.send(c, payload) for payload in payloads)]
        for connection in gone:
            self._subscriptions.unsubscribe(exam, connection)

    # --- the exam ---

    def exam(self, key: ExamKey) -> Exam:
        """The exam as it was at most `exam_cache_seconds` ago; opened now if nobody has opened it before."""
        exam, loaded_at = self._exams.get(key, (None, 0.0))
        if exam is not None and 0 <= self._clock() - loaded_at < self._exam_cache_seconds:
            return exam
        return self._load_exam(key)

    def _load_exam(self, key: ExamKey) -> Exam:
        """The exam as last saved; opened now if there is none."""
        exam = self._store.load_exam(key) or self._open_exam(key)
        self._remember_exam(exam)
        return exam

    def _remember_exam(self, exam: Exam) -> None:
        if len(self._exams) >= 1_000:
            self._exams.clear()
        self._exams[exam.key] = (exam, self._clock())

    def _open_exam(self, key: ExamKey) -> Exam:
        fresh = new_exam(key, HERE, self._clock(), self._policy)
        if self._store.save_exam(None, fresh, ()):
            self._start_sweeps(key)
            return fresh
        exam = self._store.load_exam(key)
        if exam is None:
            raise Contended(key.quiz_id, "the exam")
        return exam

    def _start_sweeps(self, exam: ExamKey) -> None:
        """Begin the chain of sweeps of each shard. Should this be lost, the rule of each minute does it."""
        for shard in range(self._store.shards(exam)):
            self.plan_sweep(SweepTicket(exam, shard, 0.0))

    def plan_sweep(self, ticket: SweepTicket) -> bool:
        """Exchange a ticket for the next one and queue that; False if the ticket was used before."""
        at = round(self._clock() + self.sweep_seconds, 3)
        if not self._store.claim_sweep(ticket, at):
            return False
        self._queue.sweep(SweepTicket(ticket.exam, ticket.shard, at), self.sweep_seconds)
        return True

    def plan_extra_sweep(self, ticket: SweepTicket, delay_seconds: float) -> None:
        """Queue a sweep that belongs to no chain."""
        self._queue.sweep(ticket, delay_seconds)


def _needs_fresh_exam(event: events.ParticipantEvent, record: Participant | None) -> bool:
    """Standing commands and a pause hold for who joins now; and a pause that comes late must see that it was lifted meanwhile."""
    if isinstance(event, events.StatusReported):
        return record is None or record.session_of(event.connection) is None
    return isinstance(event, events.CommandIssued) and event.command in ("pause", "resume")


def _command_status(exam: ExamKey, command_id: str, students: dict[str, str]) -> messages.CommandStatusData:
    counts: defaultdict[str, int] = defaultdict(int)
    for outcome in students.values():
        counts[outcome.partition(":")[0]] += 1
    return messages.CommandStatusData(command_id, exam.quiz_id, dict(counts), students)


def _milliseconds(at: float) -> float:
    return round(at * 1000, 3)
