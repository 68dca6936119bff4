"""The bridge of a move: one process that sees both sides, and makes each participant's home follow the plan.

It grants claims (a conditional write of `home` in DynamoDB, before the worker decides anything), completes what workers hand over,
carries events that arrived on the wrong side, mirrors views and frames for the proctors of either side, and writes the cluster's
records back to the table, so that a rollback can go on from there. On the serverless side it runs the shell of the functions
themselves: whatever it does there is decided by the same conditional saves.

It remembers nothing that matters: killed at any moment, the next one finds all in DynamoDB and Redis. While it is away claims are
refused, pages stay where they are, and neither side stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, cast

import msgspec
import websockets
from msgspec import Struct
from msgspec.structs import replace

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.broker import HomeClaim, RedisBroker, Save
from adapters.ec2_cluster.clock import ServiceClock
from adapters.ec2_cluster.keys import CLAIMS, MOVE, TURN, all_partitions, exam_keys, exam_of
from adapters.ec2_cluster.redis_client import RedisAddress, RedisClient, RedisError
from adapters.ec2_cluster.redis_cluster import ClusterClient
from adapters.ec2_cluster.shell import RETENTION_SECONDS
from adapters.lambda_apigw import config
from adapters.lambda_apigw.aws_http import AwsError, DynamoDb, Session
from adapters.lambda_apigw.handler import Application
from adapters.lambda_apigw.moves import DynamoMoves
from adapters.lambda_apigw.ports import InboxItem, Views
from adapters.lambda_apigw.shell import Outbox
from adapters.lambda_apigw.tokens import keys as token_keys
from core import events, messages, migration
from core import participant as participant_record
from core.errors import CloseCode, LocalError
from core.exam import Exam
from core.identity import Principal, issue
from core.messages import encode_value
from core.migration import OTHER, Health, Move, handed_over, target
from core.participant import LIVE, ExamKey, Home, Participant, ParticipantKey, new_participant
from core.policy import Policy
from core.snapshot import in_groups, view, visible
from deploy.bridge_sides import Renewed, Serverless, Several, all_of, of_instance, of_settings

log = logging.getLogger(__name__)

_ROUND_SECONDS = 0.25
_QUIET_SECONDS = 1.0
_PLAN_SECONDS = 0.5
_IDLE_PLAN_SECONDS = 3.0
_IDLE_REPORT_SECONDS = 60.0
_NO_MOVE_SECONDS = 10.0
_TABLE_SECONDS = 2.0
_TURN_SECONDS = 3
_ATTEMPT_SECONDS = 20.0
_GATHER_SECONDS = 0.08
_COLLECT_SECONDS = 0.04
_AGAIN_SECONDS = 20.0
_ON_THEIR_WAY_SECONDS = 5.0
_ASKED_SECONDS = 2.0
_ARRIVAL_SECONDS = 1.5
_ATTEMPTS = 8
_LACKING_SECONDS = 3.0
_CLOSING_SECONDS = 60.0
_EVER = 1e12
_HEARD_SECONDS = 60.0
_TOKEN_SECONDS = 7_000.0
_THREADS = 6
_CLAIMS_AT_ONCE = 100


class _Published(Struct):
    """What is read of a published view."""

    student_id: str


_PASSING = (RedisError, AwsError, LocalError, OSError, TimeoutError)
"""What may go wrong for a moment."""
_addressed = msgspec.json.Decoder(events.Addressed)
_home_claim = msgspec.json.Decoder(HomeClaim)
_server_frame = msgspec.json.Decoder(messages.ServerFrame)
_views = msgspec.json.Decoder(list[_Published])


class _Watched(Struct):
    """What is known of one exam. Moments are those of `time.monotonic`."""

    policy: Policy
    table: dict[ParticipantKey, Participant]
    """As last read from DynamoDB, or written there."""
    read_at: float = 0.0
    round_at: float = 0.0
    seen_open_at: float = 0.0
    version: int = 0
    """Of the plan, at the last round."""
    is_busy: bool = True
    """Somebody is not where they belong."""
    shown: set[str] = msgspec.field(default_factory=set)
    ordered: dict[ParticipantKey, tuple[int, float]] = msgspec.field(default_factory=dict)
    on_their_way: dict[ParticipantKey, float] = msgspec.field(default_factory=dict)
    """Until when each of these counts as on their way, should nothing be heard of them."""
    asked_back: set[ParticipantKey] = msgspec.field(default_factory=set)
    lacking: dict[ParticipantKey, float] = msgspec.field(default_factory=dict)
    changed: set[str] = msgspec.field(default_factory=set)
    changed_since: float = 0.0
    has_changed: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    published: int = 0
    """How much the bridge has published for the exam."""
    frames: asyncio.Queue[list[bytes]] = msgspec.field(default_factory=asyncio.Queue)
    """Published on the cluster, for the other side's proctors."""
    writing: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    tasks: list[asyncio.Task[None]] = msgspec.field(default_factory=list)


class _ToDo(Struct):
    """What a round found: who is where they do not belong, and what each needs."""

    leaving: list[ParticipantKey] = msgspec.field(default_factory=list)
    absent: list[tuple[ParticipantKey, Participant | None]] = msgspec.field(default_factory=list)
    returning: list[ParticipantKey] = msgspec.field(default_factory=list)
    handed_over: list[Participant] = msgspec.field(default_factory=list)
    stale: list[tuple[Participant, Participant]] = msgspec.field(default_factory=list)
    lacking: list[tuple[Participant, Home]] = msgspec.field(default_factory=list)
    strays: list[Participant] = msgspec.field(default_factory=list)


class LostTurn(Exception):
    """Another bridge acts."""


def _client(url: str, name: str) -> RedisClient | ClusterClient:
    """A connection of its own, for calls that wait for something and would keep others waiting behind them."""
    return (ClusterClient if RedisAddress.parse(url).is_cluster else RedisClient)(url, name=name)


class Bridge:
    """See the module. `settings` are those of the functions, `redis_url` is the cluster's, `renewed` gives credentials of now.

    The URL is one that `redis_sync.marked` returns: it says `cluster=1` of a Redis Cluster. Then each exam is on one node, and each
    key of the move (the plan, the claims, the turn) on some node.
    """

    def __init__(self, settings: config.Settings, redis_url: str, renewed: Renewed | None = None) -> None:
        self.name = f"bridge{secrets.token_hex(3)}"
        self._secret = token_keys(settings)
        self._audience = settings.audience
        self._plans = Serverless(settings, "bridge-plans", renewed)
        self._grants = Several(settings, "bridge-grants", _THREADS, renewed)
        self._writes = Several(settings, "bridge-writes", _THREADS, renewed)
        self._carries = Several(settings, "bridge-carries", _THREADS, renewed)
        self._shows = Serverless(settings, "bridge-shows", renewed)
        self._clock = ServiceClock()
        self._broker = RedisBroker(redis_url, self.name, self._clock, lambda *_: None)
        self._redis = self._broker.client
        self._publish_command = "SPUBLISH" if isinstance(self._redis, ClusterClient) else "PUBLISH"
        self._lists = _client(redis_url, f"{self.name}-lists")
        self._subscriber = self._broker.subscriber(self._hear_cluster, self._missed_something)
        self._channels: dict[bytes, _Watched] = {}
        self._exams: dict[ExamKey, _Watched] = {}
        self._open: set[ExamKey] = set()
        self._looked_at = self._reported_at = float("-inf")
        self._move: Move | None = None
        self._posted: dict[bytes, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors = self._claims = self._refused = self._gone = 0
        self._lag = 0.0

    # --- life ---

    async def run(self) -> None:
        """Until cancelled."""
        await self.connect()
        try:
            await self._broker.sample_clock()
            await self._wait_for_turn()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._again(self._round, _ROUND_SECONDS))
                group.create_task(self._again(self._take_all_inboxes, _ROUND_SECONDS))
                group.create_task(self._again(self._listen, 0.0))
                group.create_task(self._again(self._carry_away, 0.02))
                group.create_task(self._again(self._report, 1.0))
                group.create_task(self._keep_turn())
        finally:
            with contextlib.suppress(*_PASSING):
                if await self._redis.execute("GET", TURN) == self.name.encode():
                    await self._redis.execute("DEL", TURN)  # the next one need not wait
            await self.close()

    async def connect(self) -> None:
        """Return when Redis can be used: of a Redis Cluster, all nodes."""
        for one in (self._redis, self._lists, self._subscriber):
            await one.connect_patiently()

    async def close(self) -> None:
        """Leave Redis."""
        for one in (self._subscriber, self._lists, self._redis):
            await one.close()

    async def _wait_for_turn(self) -> None:
        """Each instance has a bridge, and one of them acts. Two at a time would do no harm, and everything twice."""
        while True:
            with contextlib.suppress(*_PASSING):
                if await self._redis.execute("SET", TURN, self.name, "NX", "EX", _TURN_SECONDS) is not None:
                    return
            await asyncio.sleep(_TURN_SECONDS / 6)

    async def _keep_turn(self) -> None:
        """Until another bridge has the turn: then this one ends, and whoever watches over it starts it again."""
        while True:
            with contextlib.suppress(*_PASSING):
                await self._redis.execute("SET", TURN, self.name, "NX", "EX", _TURN_SECONDS)
                if await self._redis.execute("GET", TURN) != self.name.encode():
                    raise LostTurn
                await self._redis.execute("EXPIRE", TURN, _TURN_SECONDS)
            await asyncio.sleep(_TURN_SECONDS / 3)

    async def _again(self, duty: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
        """A duty for ever: what goes wrong is counted, and tried again."""
        while True:
            try:
                await duty()
            except _PASSING as error:
                self._errors += 1
                log.warning("%s: %s: %s", duty.__name__, type(error).__name__, str(error)[:200])
                await asyncio.sleep(0.5)
            await asyncio.sleep(seconds)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def quietly() -> None:
            try:
                await coroutine
            except _PASSING as error:
                self._errors += 1
                log.warning("%s: %s", type(error).__name__, str(error)[:200])

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _report(self) -> None:
        if self._move is None and time.monotonic() - self._reported_at < _IDLE_REPORT_SECONDS:
            return
        self._reported_at = time.monotonic()
        records = [record for watched in self._exams.values() for record in watched.table.values()]
        move, now = self._move, time.monotonic()
        waiting = 0 if move is None else sum(self._waits(move, watched) for watched in self._exams.values())
        unshown = [now - watched.changed_since for watched in self._exams.values() if watched.changed]
        health = Health(
            at=time.time(),
            on_lambda=sum(r.home == "lambda" for r in records),
            on_ec2=sum(r.home == "ec2" for r in records),
            waiting=waiting,
            errors=self._errors,
            claims=self._claims,
            claims_refused=self._refused,
            lag_seconds=round(max(self._lag, *unshown, 0.0), 3),
            offline_after_move=self._gone,
        )
        self._lag = 0.0
        await self._plans.run(lambda app: app.moves.save_health(health))

    def _waits(self, move: Move, watched: _Watched) -> int:
        """How many are not where they belong, but for those that DNS has sent back after they were told to go."""
        stay = {key for key, (version, until) in watched.ordered.items() if version == move.version and until >= _EVER}
        return sum(target(move, r.key, r.group) != r.home and r.key not in stay for r in watched.table.values())

    # --- rounds: what is, against what ought to be ---

    async def _round(self) -> None:
        await self._broker.sample_clock()
        if time.monotonic() - self._looked_at > (_IDLE_PLAN_SECONDS if self._move is None else _PLAN_SECONDS):
            await self._look_at_plan()
        move = self._move
        if move is None:
            return
        await self._redis.execute("SET", MOVE, migration.encode(move))
        await all_of(self._exam_round(move, key) for key in self._open)

    async def _look_at_plan(self) -> None:
        """The plan, and the exams that it is about: those that are open on either side, and those that were a moment ago."""
        move, there = await self._plans.run(
            lambda app: (app.moves.load(), {ticket.exam for ticket in app.store.late_sweeps(_EVER)})
        )
        now = time.monotonic()
        self._looked_at = now
        if move is not None and move.state == "finished" and not there and not self._exams:
            # the last exam that both sides had is over: from now on the cluster asks nobody
            await self._redis.execute("DEL", MOVE)
            move = None
        if move is None:
            self._move, self._open = None, set()
            return
        here = await self._open_in_cluster(move, there) if move.state != "finished" else set()
        found = here | {key for key in there if migration.concerns(move, key.quiz_id)}
        for key in self._exams.keys() & found:
            self._exams[key].seen_open_at = now
        closing = {key for key, watched in self._exams.items() if now - watched.seen_open_at < _CLOSING_SECONDS}
        for key in self._exams.keys() - found - closing:
            for task in self._exams.pop(key).tasks:
                task.cancel()
            self._channels.pop(exam_keys(key).channel, None)
            self._spawn(self._subscriber.unsubscribe(exam_keys(key).channel))
        self._move, self._open = move, found | closing

    async def _open_in_cluster(self, move: Move, there: set[ExamKey]) -> set[ExamKey]:
        """Exams that were opened there only, over its HTTP API, and are the move's business."""
        partitions = all_partitions()
        replies = await self._redis.pipeline([("SMEMBERS", partition.exams) for partition in partitions])
        opened = {
            p.tag: found for p, found in zip(partitions, replies, strict=True) if not isinstance(found, RedisError)
        }
        keys = {exam_of(ident.decode()) for idents in opened.values() for ident in idents} - there
        exams = await all_of(self._broker.load_exam(key) for key in keys)
        # those of a node that is away are open if they were
        return {key for key in self._open if exam_keys(key).tag not in opened} | {
            exam.key
            for exam in exams
            if exam is not None and exam.state != "closed" and migration.concerns(move, exam.quiz_id, exam.opened_at)
        }

    async def _exam_round(self, move: Move, key: ExamKey) -> None:
        now = time.monotonic()
        watched = self._exams.get(key)
        if watched is None:
            exam = await self._agree_on_exam(key)
            if exam is None:
                return
            self._exams[key] = watched = _Watched(exam.policy, {}, seen_open_at=now)
            self._channels[exam_keys(key).channel] = watched
            watched.tasks = [
                self._spawn(self._watch(key, watched)),
                self._spawn(self._subscriber.subscribe(exam_keys(key).channel)),
                self._spawn(self._again(lambda: self._relay(key, watched), 0.0)),
                self._spawn(self._again(lambda: self._follow(key, watched), 0.0)),
            ]
        is_quiet = not watched.is_busy and watched.version == move.version
        if is_quiet and now - watched.round_at < _QUIET_SECONDS:
            return
        if now - watched.read_at > _TABLE_SECONDS:
            await self._agree_on_exam(key)
            await self._read_table(key, watched)
        live = await self._live(key)
        await self._write_back(key, watched, live)
        todo = self._compare(move, watched, live)
        watched.version, watched.round_at = move.version, now
        watched.is_busy = any(getattr(todo, name) for name in todo.__struct_fields__)
        await self._do(move, key, watched, todo)

    async def _live(self, key: ExamKey, student_ids: Sequence[str] | None = None) -> dict[ParticipantKey, Participant]:
        """What the cluster has of the exam, or of these students."""
        name = exam_keys(key).records
        if student_ids is None:
            stored = await self._redis.execute("HVALS", name)
        else:
            stored = await self._redis.execute("HMGET", name, *student_ids) if student_ids else []
        records = [participant_record.decode(text) for text in stored if text is not None]
        return {record.key: record for record in records}

    async def _take_all_inboxes(self) -> None:
        await all_of(self._take_inboxes(key) for key in self._exams)

    async def _follow(self, key: ExamKey, watched: _Watched) -> None:
        """Write down, and show, what the cluster has published: as late as this is, so late are the other side's proctors."""
        await watched.has_changed.wait()
        await asyncio.sleep(_GATHER_SECONDS)
        since, names = watched.changed_since, list(watched.changed)
        try:
            await self._write_back(key, watched, await self._live(key, names))
        except BaseException:
            watched.read_at = 0.0  # the next round does it
            raise
        finally:
            watched.changed.difference_update(names)
            watched.changed_since = time.monotonic()
            if not watched.changed:
                watched.has_changed.clear()
        self._lag = max(self._lag, time.monotonic() - since)

    async def _read_table(self, key: ExamKey, watched: _Watched) -> None:
        began = time.monotonic()
        records = await self._plans.run(lambda app: list(app.store.participants(key)))
        for record in records:
            before = watched.table.get(record.key)
            if before is None or record.version >= before.version:
                if before is not None and before.label != "offline" and record.label == "offline":
                    self._gone += record.key in watched.ordered
                watched.table[record.key] = record
        watched.read_at = began

    def _compare(self, move: Move, watched: _Watched, live: dict[ParticipantKey, Participant]) -> _ToDo:
        """What is, against what ought to be."""
        todo, now = _ToDo(), time.monotonic()
        for key, stored in watched.table.items():
            wanted, there = target(move, key, stored.group), live.get(key)
            if there is not None and there.home == "lambda" and there.home_epoch <= stored.home_epoch:
                there = None  # an older copy, or a stand-in of a worker whose claim was not answered
            if there is not None or stored.home == "lambda":
                watched.lacking.pop(key, None)
            if stored.home == "lambda":
                if there is not None and there.home == "ec2":
                    todo.stale.append((stored, there))
                elif wanted == "ec2":
                    if not migration.is_on(stored):
                        todo.absent.append((key, there))
                    elif not self._was_ordered(move, watched, key):
                        todo.leaving.append(key)
                elif move.percent == 0:
                    todo.strays.append(stored)
            elif there is None:
                if now - watched.lacking.setdefault(key, now) > _LACKING_SECONDS:
                    watched.lacking.pop(key, None)
                    todo.lacking.append((stored, wanted))
            elif there.home == "lambda":
                todo.handed_over.append(there)
            elif wanted == "lambda":
                if key not in watched.on_their_way:
                    todo.returning.append(key)
            elif move.percent == 100:
                todo.strays.append(stored)
        todo.strays = [record for record in todo.strays if self._strays(move, watched, record)]
        return todo

    async def _do(self, move: Move, key: ExamKey, watched: _Watched, todo: _ToDo) -> None:
        now = time.monotonic()
        watched.on_their_way = {who: until for who, until in watched.on_their_way.items() if until > now}
        going, most = len(watched.on_their_way), migration.at_once(len(watched.table))
        leaving = migration.due(move, todo.leaving, going, time.time(), most)
        returning = migration.due(move, todo.returning, going + len(leaving), time.time(), most)
        for stored, there in todo.stale:
            await self._forget_stale(stored, there)
        for stored, wanted in todo.lacking:
            await self._settle(watched, stored, wanted)
        for stray in todo.strays:
            await self._close_strays(move, watched, stray)
        await all_of(
            [
                self._complete_all(move, key, watched, todo.handed_over),
                self._send_over(move, watched, leaving),
                self._ask_back(key, watched, returning),
                *(self._bring(watched, who, there) for who, there in todo.absent[:most]),
            ]
        )

    def _was_ordered(self, move: Move, watched: _Watched, key: ParticipantKey) -> bool:
        version, again_at = watched.ordered.get(key, (0, 0.0))
        return version == move.version and again_at > time.monotonic()

    def _strays(self, move: Move, watched: _Watched, stored: Participant) -> list[str]:
        """Connections of the paper's own clients on the other side, of which that side's DNS record has gone."""
        if self._was_ordered(move, watched, stored.key):
            return []
        return [
            s.connection.removeprefix(OTHER)
            for s in stored.sessions
            if s.presence == "connected" and s.id == s.connection and s.connection.startswith(OTHER)
        ]

    async def _close_strays(self, move: Move, watched: _Watched, stored: Participant) -> None:
        """The paper's own clients that connected to the other side before DNS had changed: their reports are carried over, and now
        that DNS points to one side only they are closed, so that they find it.
        """
        watched.ordered[stored.key] = (move.version, time.monotonic() + _AGAIN_SECONDS)
        for connection in self._strays(replace(move, version=-1), watched, stored):
            if stored.home == "ec2":
                await self._close(connection)
            else:
                worker = connection.partition("/")[0]
                message = f"c{connection}\n{int(CloseCode.MOVED)} moved".encode()
                await self._broker.to_worker(worker, stored.key.exam, message)

    async def _close(self, connection: str) -> None:
        await self._writes.run(lambda app: app.connections.close(connection, CloseCode.MOVED, "moved"))

    # --- from serverless to the cluster ---

    async def _bring(self, watched: _Watched, key: ParticipantKey, live: Participant | None) -> None:
        """Who has no page here is moved without being asked: gone, or there already, and their claim was not granted in time."""
        record = await self._writes.run(lambda app: self._claimed(app, key, live))
        if record is not None:
            await self._put(key, record)
            watched.table[key] = record

    async def _send_over(self, move: Move, watched: _Watched, keys: Sequence[ParticipantKey]) -> None:
        """Tell the pages of these to go."""
        if not keys:
            return
        # the table as we know it may be seconds old, with another connection
        fresh = await self._writes.run(lambda app: app.store.load_many(keys))
        await all_of(self._send_one_over(move, watched, key, fresh.get(key)) for key in keys)

    async def _send_one_over(
        self, move: Move, watched: _Watched, key: ParticipantKey, fresh: Participant | None
    ) -> None:
        at, url = time.time(), move.url("ec2")
        after_ms = migration.slot_ms(move, key) % int(_ROUND_SECONDS * 1000)

        def order(app: Application) -> list[tuple[str, bool]]:
            """The connections that were told, and whether each has to be closed because its page does not read it."""
            if fresh is None or fresh.home != "lambda":
                return []
            known: Participant | None = fresh
            outbox, told = Outbox(), []
            for session in fresh.sessions:
                is_ours = session.presence == "connected" and not session.connection.startswith(OTHER)
                if is_ours and not migration.was_told(session, watched.policy):
                    event = events.ReconnectOrdered(
                        received_at=at, connection=session.connection, after_ms=after_ms, reason="moved", url=url
                    )
                    app.shell.apply(key, event, outbox, known=known, must_exist=True)
                    known = None
                    told.append((session.connection, session.id == session.connection))
            app.shell.finish(outbox)
            return told

        told = await self._writes.run(order)
        now = time.monotonic()
        again = _AGAIN_SECONDS if told else _TABLE_SECONDS
        if told and all(is_paper for _, is_paper in told) and 0 < move.percent < 100:
            again = _EVER  # DNS may well send them here again, and they are served here
        watched.ordered[key] = (move.version, now + again)
        if told:
            watched.on_their_way[key] = now + _ON_THEIR_WAY_SECONDS
        for connection, is_paper in told:
            if is_paper:
                # the paper's own clients do not read `reconnect`: they come back by their configured address, as DNS has it then
                await self._close(connection)

    def _claimed(
        self, app: Application, key: ParticipantKey, live: Participant | None, known: Participant | None = None
    ) -> Participant | None:
        """Make the cluster the participant's home, if it belongs there.

        `live`: what Redis has, whose owner can't save any more. `known`: the table's record, if it was just read.
        """
        move = self._move
        for _ in range(_ATTEMPTS):
            stored, known = known or app.store.load(key), None
            group = "" if stored is None else stored.group
            belongs = move is not None and target(move, key, group) == "ec2"
            if not belongs:
                return None
            watched = self._exams.get(key.exam)
            policy = Policy() if watched is None else watched.policy
            record = stored or new_participant(key, "lambda")
            after = migration.granted(record, live, time.time(), policy)
            if app.store.save(stored, after, ()):
                return after
        return None

    async def _put(self, key: ParticipantKey, record: Participant) -> None:
        """Put a record that nobody is connected for into Redis."""
        claimed = await self._broker.claim(key, self.name)
        if claimed.record is not None and claimed.record.version >= record.version:
            return
        await self._broker.save(self.name, {key.exam: [Save(record, claimed.epoch, encode_value(view(record)))]})

    async def _forget_stale(self, stored: Participant, live: Participant) -> None:
        """The table says otherwise than Redis: a forced rollback happened. The worker's next save is refused."""
        if stored.home_epoch <= live.home_epoch:
            return  # our reading of the table is the older one
        claimed = await self._broker.claim(stored.key, self.name)
        await self._broker.save(self.name, {stored.key.exam: [Save(stored, claimed.epoch)]})

    # --- from the cluster to serverless ---

    async def _ask_back(self, exam: ExamKey, watched: _Watched, keys: Sequence[ParticipantKey]) -> None:
        """Have the owners hand these over; without an owner, do it."""
        if not keys:
            return
        names = exam_keys(exam)
        owners = await self._redis.execute("HMGET", names.owners, *(key.student_id for key in keys))
        alive: dict[str, bool] = {}
        for key, stored in zip(keys, owners, strict=True):
            owner = "" if stored is None else stored.decode().partition(" ")[0]
            if owner not in alive:
                alive[owner] = owner not in ("", self.name) and await self._broker.is_alive(owner)
            watched.on_their_way[key] = time.monotonic() + _ASKED_SECONDS
            if alive[owner]:
                await self._broker.to_worker(owner, exam, b"h" + names.member(key.student_id).encode())
                continue
            claimed = await self._broker.claim(key, self.name)
            if claimed.record is not None and claimed.record.home == "ec2":
                record = handed_over(claimed.record, "lambda", self._clock.now(), watched.policy)
                await self._broker.save(self.name, {exam: [Save(record, claimed.epoch)]})
        is_collecting = bool(watched.asked_back)
        watched.asked_back.update(keys)
        if not is_collecting:
            self._spawn(self._collect(exam, watched))

    async def _collect(self, exam: ExamKey, watched: _Watched) -> None:
        """What was asked for comes at once: from its handing over until it is written down, nobody decides about it."""
        try:
            while watched.asked_back:
                await asyncio.sleep(_COLLECT_SECONDS)
                live = await self._live(exam, [key.student_id for key in watched.asked_back])
                given = [record for record in live.values() if record.home == "lambda"]
                watched.asked_back.difference_update(record.key for record in given)
                watched.asked_back.intersection_update(watched.on_their_way)  # a round asks again for the others
                if self._move is not None:
                    await self._complete_all(self._move, exam, watched, given)
        finally:
            watched.asked_back.clear()

    async def _complete_all(self, move: Move, exam: ExamKey, watched: _Watched, given: Sequence[Participant]) -> None:
        """Write the home of those that workers have handed over down, then send their pages."""
        done = await all_of(self._complete(move, watched, live) for live in given)
        views = [view(record) for record in done if record is not None]
        if views:
            await self._show_on_cluster(exam, watched, views)
            self._spawn(self._show_on_lambda(exam, views))

    async def _complete(self, move: Move, watched: _Watched, live: Participant) -> Participant | None:
        key, stored = live.key, watched.table.get(live.key)
        if stored is None or live.home_epoch <= stored.home_epoch:
            return None  # an older copy of what has come here again
        after = replace(live, version=max(live.version, stored.version + 1))
        if not await self._writes.run(lambda app: app.store.save(stored, after, ())):
            watched.read_at = 0.0  # the next round does it
            return None
        watched.table[key] = after
        watched.on_their_way[key] = time.monotonic() + _ARRIVAL_SECONDS
        for session in after.sessions:
            connection = session.connection.removeprefix(OTHER)
            worker = connection.partition("/")[0]
            if session.presence not in LIVE or not session.connection.startswith(OTHER):
                continue
            if session.id == connection:
                message = f"c{connection}\n{int(CloseCode.MOVED)} moved".encode()
            else:
                data = messages.ReconnectData(0, "moved", move.url("lambda"))
                message = b"s" + connection.encode() + b"\n" + messages.encode(messages.Reconnect(data))
            await self._broker.to_worker(worker, key.exam, message)
        return after

    async def _settle(self, watched: _Watched, stored: Participant, wanted: Home) -> None:
        """The cluster was given a participant and has not kept it: the answer was lost, or the worker. Bring it there, or back.

        We own it first, so that whoever was given it can't save any more.
        """
        key = stored.key
        claimed = await self._broker.claim(key, self.name)
        if claimed.record is not None and claimed.record.home == "ec2":
            return
        if wanted == "ec2":
            record = await self._writes.run(lambda app: self._claimed(app, key, claimed.record))
            if record is not None:
                saves = {key.exam: [Save(record, claimed.epoch, encode_value(view(record)))]}
                await self._broker.save(self.name, saves)
                watched.table[key] = record
            return
        after = handed_over(stored, "lambda", time.time(), watched.policy)
        if await self._writes.run(lambda app: app.store.save(stored, after, ())):
            watched.table[key] = after
        else:
            watched.read_at = 0.0

    async def _write_back(self, key: ExamKey, watched: _Watched, live: dict[ParticipantKey, Participant]) -> None:
        """The cluster's changed records to the table, their views to the serverless side's proctors."""
        fresh = [p.student_id for p, r in live.items() if r.home == "ec2" and p.student_id in watched.shown]
        if fresh:
            await self._redis.execute("HDEL", exam_keys(key).shown, *fresh)
            watched.shown.difference_update(fresh)
        async with watched.writing:
            # who was on the cluster before the move began is not in the table yet
            unknown = [record for p, record in live.items() if record.home == "ec2" and p not in watched.table]
            await all_of(self._write(watched, None, record) for record in unknown)
            changed = [
                (stored, record)
                for participant, record in live.items()
                if record.home == "ec2"
                and (stored := watched.table.get(participant)) is not None
                and stored.home == "ec2"
                and stored.home_epoch == record.home_epoch
                and record.version > stored.version
            ]
            if not changed:
                return
            views = [
                view(record)
                for stored, record in changed
                if visible(stored) != visible(record) or stored.sessions[0:1] != record.sessions[0:1]
            ]
            shown = self._spawn(self._show_on_lambda(key, views)) if views else None
            await all_of(self._write(watched, stored, record) for stored, record in changed)
        if shown is not None:
            await shown

    async def _write(self, watched: _Watched, stored: Participant | None, record: Participant) -> None:
        if await self._writes.run(lambda app: app.store.save(stored, record, ())):
            watched.table[record.key] = record
            watched.on_their_way.pop(record.key, None)
        else:
            watched.read_at = 0.0

    # --- what one side's proctors see of the other ---

    async def _show_on_lambda(self, key: ExamKey, views: list[messages.View]) -> None:
        for start in range(0, len(views), 80):
            part = Views(key, tuple(views[start : start + 80]))
            await self._shows.run(lambda app, part=part: app.shell.publish([part]))  # type: ignore[misc]

    async def _show_on_cluster(self, key: ExamKey, watched: _Watched, views: list[messages.View]) -> None:
        names = exam_keys(key)
        await self._redis.execute(
            "HSET", names.shown, *(part for v in views for part in (v.student_id, encode_value(v)))
        )
        watched.shown.update(v.student_id for v in views)
        await self._publish(key, watched, b",".join(map(encode_value, views)), [])

    async def _publish(self, key: ExamKey, watched: _Watched, views: bytes, frames: list[bytes]) -> None:
        """By numbers of their own: what the bridge saves as an owner is published, and counted, by its broker."""
        watched.published += 1
        payload = b"\n".join((f"{self.name}-shown {watched.published}".encode(), views, *frames))
        await self._redis.execute(self._publish_command, exam_keys(key).channel, payload)

    async def _watch(self, key: ExamKey, watched: _Watched) -> None:
        """Watch the exam on the serverless side as a proctor does, and show it on the cluster."""
        while True:
            try:
                move = self._move
                assert move is not None  # nothing is watched without one
                kid, secret = next(iter(self._secret.items()))
                principal = Principal("bridge", key.school, self.name, (key.quiz_id,), time.time() + _TOKEN_SECONDS)
                token = issue(principal, secret, kid, self._audience)
                async with websockets.connect(
                    move.lambda_url, subprotocols=cast(Any, ["proctorwire", f"bearer.{token}"]), max_size=2**20
                ) as socket:
                    ask = messages.WatchFrame(messages.Watch(quiz_id=key.quiz_id))
                    await socket.send(encode_value(ask).decode())
                    async for text in socket:
                        payload = text if isinstance(text, bytes) else text.encode()
                        await self._heard(key, watched, payload)
            except (websockets.WebSocketException, *_PASSING) as error:
                self._errors += 1
                log.warning("watching %s: %s", key.quiz_id, str(error)[:200])
            await asyncio.sleep(0.5)

    async def _heard(self, key: ExamKey, watched: _Watched, payload: bytes) -> None:
        frame = _server_frame.decode(payload)
        digest = hashlib.blake2b(payload, digest_size=8).digest()
        if self._posted.get(digest, 0.0) > time.monotonic():
            return
        if isinstance(frame, messages.Snapshot | messages.Update):
            views = [
                msgspec.convert(v, messages.View) if not isinstance(v, messages.View) else v
                for v in frame.data.participants
            ]
            ours = []
            for shown in views:
                record = watched.table.get(ParticipantKey(*key, shown.student_id))
                if record is None or record.home == "lambda":
                    ours.append(shown)
            for shown in ours:
                watched.on_their_way.pop(ParticipantKey(*key, shown.student_id), None)  # came back, and is heard
            if ours:
                await self._show_on_cluster(key, watched, ours)
            if isinstance(frame, messages.Update) and frame.data.incidents:
                await self._publish(key, watched, b"", [encode_value("") + b"\t" + payload])
        elif isinstance(frame, messages.StudentMessage | messages.CommandStatus):
            group = ""
            if isinstance(frame, messages.StudentMessage):
                record = watched.table.get(ParticipantKey(*key, frame.data.student_id))
                group = "" if record is None else record.group
            await self._publish(key, watched, b"", [encode_value(group) + b"\t" + payload])

    def _hear_cluster(self, channel: bytes, payload: bytes) -> None:
        """A publication of the cluster: note who has changed, and keep the frames for the serverless side's proctors."""
        watched = self._channels.get(channel)
        header, views, *frames = payload.split(b"\n")
        if watched is None or header.startswith(self.name.encode()):
            return
        if views:
            if not watched.changed:
                watched.changed_since = time.monotonic()
            watched.changed.update(shown.student_id for shown in _views.decode(b"[" + views + b"]"))
            watched.has_changed.set()
        kept = [frame for frame in frames if frame]
        if kept:
            watched.frames.put_nowait(kept)

    def _missed_something(self) -> None:
        """Publications were lost while a subscription was: the next rounds read all."""
        for watched in self._exams.values():
            watched.round_at = 0.0

    async def _relay(self, key: ExamKey, watched: _Watched) -> None:
        """Messages, command statuses and incidents of the cluster, to the serverless side's proctors, in their order."""
        await self._post(key, await watched.frames.get())

    async def _post(self, key: ExamKey, frames: list[bytes]) -> None:
        now = time.monotonic()
        self._posted = {digest: until for digest, until in self._posted.items() if until > now}
        parts = []
        for frame in frames:
            group, _, body = frame.partition(b"\t")
            self._posted[hashlib.blake2b(body, digest_size=8).digest()] = now + _HEARD_SECONDS
            parts.append((msgspec.json.decode(group, type=str), body))

        def post(app: Application) -> None:
            for connection, groups in app.subscriptions.subscriptions(key):
                for group, body in parts:
                    if not group or in_groups(group, groups):
                        app.connections.send(connection, body)

        await self._shows.run(post)

    # --- events on the wrong side ---

    async def _listen(self) -> None:
        """Claims of workers, as many at a time as there are. They have threads of their own, because pages wait for the answer."""
        found = await self._lists.execute("BLPOP", CLAIMS, 0.5)
        if found is not None:
            more = await self._lists.execute("LPOP", CLAIMS, _CLAIMS_AT_ONCE - 1) or []
            await self._answer([_home_claim.decode(text) for text in (found[1], *more)])

    async def _answer(self, claims: Sequence[HomeClaim]) -> None:
        """Grant or refuse. One that nobody waits for any more is neither: its page has turned back, and will come again."""
        now = self._clock.now()
        awaited = {claim.key: claim for claim in claims if claim.until > now}
        stored = await self._redis.pipeline([("HGET", exam_keys(key.exam).records, key.student_id) for key in awaited])
        found = dict(zip(awaited, stored, strict=True))
        for key in [key for key, text in found.items() if isinstance(text, RedisError)]:
            del awaited[key], found[key]  # their node is away: nobody could be decided about there
        self._refused += len(claims) - len(awaited)
        keys = list(awaited)
        if not keys:
            return
        live = {key: participant_record.decode(text) for key, text in found.items() if text is not None}
        known = await self._grants.run(lambda app: app.store.load_many(keys))
        await all_of(self._grant(claim, live.get(key), known.get(key)) for key, claim in awaited.items())

    async def _grant(self, claim: HomeClaim, live: Participant | None, known: Participant | None) -> None:
        key, move = claim.key, self._move

        def grant(app: Application) -> Participant | None:
            record = self._claimed(app, key, live, known)
            if record is not None and key.exam not in self._exams and move is not None and move.state != "finished":
                app.shell.exam(key.exam)  # opens it, if this first report of an exam did not go to the serverless side
            return record

        record = await self._grants.run(grant)
        self._claims += record is not None
        self._refused += record is None
        watched = self._exams.get(key.exam)
        if record is not None and watched is not None:
            watched.table[key] = record
            watched.on_their_way[key] = time.monotonic() + _ARRIVAL_SECONDS  # until their first report is written down
        await self._broker.answer_claim(claim.answer, record)

    async def _carry_away(self) -> None:
        """Events that workers keep for the serverless side. Taken off only when done, so that none is lost."""
        await all_of(self._carry_those_of(key) for key in self._exams)

    async def _carry_those_of(self, key: ExamKey) -> None:
        name = exam_keys(key).away
        waiting = [_addressed.decode(text) for text in await self._redis.execute("LRANGE", name, 0, 99)]
        of_each: defaultdict[ParticipantKey, list[events.ParticipantEvent]] = defaultdict(list)
        for addressed in waiting:
            of_each[addressed.key].append(addressed.event)
        await all_of(self._carry(participant, carried) for participant, carried in of_each.items())
        if waiting:
            await self._redis.execute("LTRIM", name, len(waiting), -1)

    async def _carry(self, key: ParticipantKey, carried: Sequence[events.ParticipantEvent]) -> None:
        """Decide events on the serverless side, as one of its functions would; not its home: they come back by the inbox."""

        def apply(app: Application) -> None:
            outbox = Outbox()
            for event in carried:
                app.shell.apply(key, event, outbox, must_exist=not isinstance(event, events.StatusReported))
            app.shell.finish(outbox)

        await self._carries.run(apply)

    async def _take_inboxes(self, key: ExamKey) -> None:
        """What functions left for the cluster: into its inboxes first, and only then off the table."""
        waiting = await self._carries.run(lambda app: app.moves.inboxes(key, app.store.shards(key)))
        if not waiting:
            return
        records = await self._carries.run(lambda app: app.store.load_many(list(waiting)))

        async def take(participant: ParticipantKey, items: Sequence[InboxItem]) -> None:
            await self._broker.append(participant, [migration.for_other(item.event) for item in items])
            taken = [item.id for item in items]
            await self._carries.run(lambda app: app.store.drop_from_inbox(participant, taken))

        def decide(app: Application, participant: ParticipantKey, items: Sequence[InboxItem]) -> None:
            outbox = Outbox()
            for item in items:
                app.shell.apply(participant, item.event, outbox, taken=[item.id], must_exist=True)
            app.shell.finish(outbox)

        async def decide_here(participant: ParticipantKey, items: Sequence[InboxItem]) -> None:
            """They came back before it was taken: the sweep would do this, some seconds later."""
            await self._carries.run(lambda app: decide(app, participant, items))

        await all_of(
            (take if records[participant].home == "ec2" else decide_here)(participant, items)
            for participant, items in waiting.items()
            if participant in records
        )

    # --- the exam ---

    async def _agree_on_exam(self, key: ExamKey) -> Exam | None:
        """Commands to everyone, pauses, opening and closing hold on both sides; the exam, None if neither side has it."""
        there = await self._writes.run(lambda app: app.store.load_exam(key))
        here = await self._broker.load_exam(key)
        if here is None and there is None:
            return None
        wanted_here, wanted_there = agreed(here, there, "ec2"), agreed(there, here, "lambda")
        if wanted_here != here:
            saved = await self._broker.save_exam(here, wanted_here, ())
            if saved and wanted_here.state == "closed":
                await self._broker.keep(key, RETENTION_SECONDS)
        given = [] if here is None or there is None or wanted_there.state == "closed" else missing(there, here)

        def follow(app: Application) -> None:
            if (wanted_there.state == "closed", wanted_there.opened_at) != (
                there is not None and there.state == "closed",
                None if there is None else there.opened_at,
            ):
                app.store.save_exam(there, wanted_there, ())
            for command in given:  # and to each who is there
                outbox = Outbox()
                event = events.ExamCommandIssued(received_at=command.received_at, command=command)
                app.shell.apply_exam(key, event, outbox)
                app.shell.finish(outbox)

        await self._writes.run(follow)
        return wanted_here


def missing(mine: Exam, other: Exam) -> list[events.CommandIssued]:
    """Commands to everyone that were given on the other side, and are not known on this one."""
    known = {command.command_id for command in mine.standing}
    return [command for command in other.standing if command.command_id not in known]


def agreed(mine: Exam | None, other: Exam | None, here: Home) -> Exam:
    """The exam as this side ought to have it: its own, with what was given to everyone, or was ended, on the other one.

    An exam that was closed and is opened again begins anew: then the later opening counts.
    """
    if mine is None:
        assert other is not None  # one of them has it
        return replace(other, here=here)
    if other is None:
        return mine
    latest = max(mine, other, key=lambda exam: exam.opened_at)
    if mine.opened_at == other.opened_at:
        is_closed = "closed" in (mine.state, other.state)
    else:
        is_closed = latest.state == "closed"
    fresh = [] if is_closed else missing(mine, other)
    state = mine.state
    if is_closed:
        state = "closed"
    elif state == "closed":
        state = other.state
    for command in fresh:
        if command.command in ("pause", "resume") and state != "closed":
            state = "paused" if command.command == "pause" else "open"
    policy = other.policy if here == "ec2" else mine.policy
    after = replace(
        mine,
        standing=() if is_closed else (*mine.standing, *fresh)[-16:],
        state=state,
        policy=policy,
        opened_at=latest.opened_at,
    )
    return mine if after == mine else replace(after, version=max(mine.version + 1, other.version))


def forced_rollback(app: Application, now: float, reason: str) -> int:
    """The cluster is dead: every participant goes on from the table's copy. Returns how many came back.

    The home's epoch rises, so that whatever the cluster may still hold is refused when it comes back.
    """
    move = app.moves.load()
    if move is None:
        raise migration.WrongStep("no move is under way")
    if not app.moves.save(move, migration.stepped(move, "rolled_back", 0.0, now, reason)):
        raise migration.WrongStep("somebody else changed the move; try again")
    came = 0
    for exam in {ticket.exam for ticket in app.store.late_sweeps(_EVER)}:
        loaded = app.store.load_exam(exam)
        policy = Policy() if loaded is None else loaded.policy
        for record in list(app.store.participants(exam)):
            stored: Participant | None = record
            for _ in range(_ATTEMPTS):
                if stored is None or stored.home == "lambda":
                    break
                if app.store.save(stored, handed_over(stored, "lambda", now, policy), ()):
                    came += 1
                    break
                stored = app.store.load(record.key)
        outbox = Outbox()  # what functions had left for the cluster, which nobody carries there any more
        for key, items in app.moves.inboxes(exam, app.store.shards(exam)).items():
            for item in items:
                app.shell.apply(key, item.event, outbox, taken=[item.id], must_exist=True)
        app.shell.finish(outbox)
    return came


def settings_of(environ: Mapping[str, str], renewed: Renewed | None) -> config.Settings:
    """The functions' settings: from the environment, or what that lacks from the table. Raises `ConfigError`.

    On an instance only the tables are known; where the serverless side is was written down by `deploy migrate start`.
    """
    known = dict(environ)
    if not known.get("AWS_ACCESS_KEY_ID") and renewed is not None:
        access_key, secret_key, session_token = renewed()
        known |= {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        known |= {"AWS_SESSION_TOKEN": session_token} if session_token else {}
    settings = config.from_environment(known)
    if settings.management_url:
        return settings
    session = Session(settings.credentials, settings.region)
    with session:
        session.begin(_ATTEMPT_SECONDS)
        database = DynamoDb(session.client("dynamodb", settings.dynamodb_url))
        side = DynamoMoves(database, settings.state_table, time.time).side()
    if not side:
        raise NoMoveYet
    return config.from_environment(known | side)


def asked(redis_url: str) -> str:
    """The URL, marked if its server is one of a Redis Cluster. One that is away is waited for; one that can't be is the end."""
    while True:
        try:
            return redis_sync.marked(redis_url)
        except (*redis_sync.ERRORS, OSError) as error:
            log.warning("Redis can't be asked what it is: %s", str(error)[:200])
            time.sleep(_TABLE_SECONDS)
        except (ValueError, TypeError) as error:
            sys.exit(f"PROCTORWIRE_REDIS_URL can't be used: {error}")


class NoMoveYet(Exception):
    """No move was ever started here."""


def main() -> None:
    """`python -m deploy.bridge`: settings of the functions and PROCTORWIRE_REDIS_URL, from the environment.

    Without PROCTORWIRE_MANAGEMENT_URL it waits for the first `deploy migrate start`, which writes down where that side is.
    Without AWS_ACCESS_KEY_ID it has the rights of the instance. With `--forced-rollback` (the cluster is dead, so that no Redis is
    needed) all go on from the table, and it ends.
    """
    forced = sys.argv[1:] == ["--forced-rollback"]
    if sys.argv[1:] and not forced:
        sys.exit(f"the bridge takes --forced-rollback or nothing, not {' '.join(sys.argv[1:])}")
    logging.basicConfig(level=os.environ.get("PROCTORWIRE_LOG_LEVEL", "WARNING"), stream=sys.stderr)
    redis_url = os.environ.get("PROCTORWIRE_REDIS_URL", "")
    renewed = None if os.environ.get("AWS_ACCESS_KEY_ID") else of_instance()
    while True:
        try:
            settings = settings_of(os.environ, renewed)
            break
        except config.ConfigError as error:
            sys.exit(f"the bridge needs the functions' settings: {error}")
        except NoMoveYet:
            if forced:
                sys.exit("no move is under way")
            time.sleep(_NO_MOVE_SECONDS)
        except (AwsError, OSError) as error:
            if forced:
                sys.exit(f"the table can't be read: {error}")
            log.warning("the table can't be read: %s", error)
            time.sleep(_IDLE_REPORT_SECONDS)
    if forced:
        try:
            came = forced_rollback(Application(settings, "bridge"), time.time(), "the cluster is dead")
        except migration.WrongStep as error:
            sys.exit(str(error))
        print(f"bridge: {came} participants go on from the table")
        return
    if not redis_url:
        sys.exit("the bridge needs PROCTORWIRE_REDIS_URL, the cluster's Redis")
    url = asked(redis_url)

    async def run() -> None:
        task = asyncio.create_task(Bridge(settings, url, renewed or of_settings(settings)).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        print("bridge: up", flush=True)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(run())
    except* LostTurn:
        sys.exit("another bridge acts; this one waits for its turn when it is started again")


if __name__ == "__main__":
    main()
