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
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import msgspec
import redis.asyncio
import websockets
from msgspec import Struct
from msgspec.structs import replace

from adapters.ec2_cluster.broker import HomeClaim, RedisBroker, Save
from adapters.ec2_cluster.clock import ServiceClock
from adapters.ec2_cluster.keys import CLAIMS, MOVE, exam_keys
from adapters.lambda_apigw import config
from adapters.lambda_apigw.aws_http import AwsError
from adapters.lambda_apigw.handler import Application
from adapters.lambda_apigw.ports import Views
from adapters.lambda_apigw.shell import Outbox
from adapters.lambda_apigw.tokens import keys as token_keys
from core import events, messages, migration
from core import participant as participant_record
from core.errors import CloseCode, LocalError
from core.exam import Exam
from core.identity import Principal, issue
from core.messages import encode_value
from core.migration import OTHER, Health, Move, handed_over, slot_ms, target
from core.participant import LIVE, ExamKey, Participant, ParticipantKey, new_participant
from core.policy import Policy
from core.snapshot import in_groups, view, visible

log = logging.getLogger(__name__)
_T = TypeVar("_T")

_ROUND_SECONDS = 0.25
_TABLE_SECONDS = 1.0
_LISTEN_SECONDS = 0.5
_AGAIN_SECONDS = 20.0
_ATTEMPTS = 8
_LACKING_SECONDS = 3.0
_EVER = 1e12
_CALL_SECONDS = 20.0
_HEARD_SECONDS = 60.0
_TOKEN_SECONDS = 7_000.0
_addressed = msgspec.json.Decoder(events.Addressed)
_home_claim = msgspec.json.Decoder(HomeClaim)
_server_frame = msgspec.json.Decoder(messages.ServerFrame)


class _Serverless:
    """The serverless side: the functions' own objects, used by one thread."""

    def __init__(self, settings: config.Settings, name: str) -> None:
        self.app = Application(settings, name)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, work: Callable[[Application], _T]) -> _T:
        """Do this there, as one invocation."""

        def invocation() -> _T:
            self.app.session.begin(_CALL_SECONDS)
            return work(self.app)

        return await asyncio.get_running_loop().run_in_executor(self._thread, invocation)


class _Watched(Struct):
    """What is known of one exam."""

    policy: Policy
    table: dict[ParticipantKey, Participant]
    """As last read from DynamoDB, or written there."""
    read_at: float = 0.0
    shown: set[str] = msgspec.field(default_factory=set)
    ordered: dict[ParticipantKey, tuple[int, float]] = msgspec.field(default_factory=dict)
    lacking: dict[ParticipantKey, float] = msgspec.field(default_factory=dict)
    tasks: list[Any] = msgspec.field(default_factory=list)


class Bridge:
    """See the module. `settings` are those of the functions, `redis_url` is the cluster's."""

    def __init__(self, settings: config.Settings, redis_url: str) -> None:
        self.name = f"bridge{secrets.token_hex(3)}"
        self._secret = token_keys(settings)
        self._decides = _Serverless(settings, "bridge-decides")
        self._writes = _Serverless(settings, "bridge-writes")
        self._moves = _Serverless(settings, "bridge-moves")
        self._shows = _Serverless(settings, "bridge-shows")
        self._carries = _Serverless(settings, "bridge-carries")
        self._redis = redis.asyncio.Redis.from_url(redis_url)
        self._lists = redis.asyncio.Redis.from_url(redis_url)
        self._clock = ServiceClock()
        self._broker = RedisBroker(redis_url, self.name, self._clock, lambda: None)
        self._exams: dict[ExamKey, _Watched] = {}
        self._move: Move | None = None
        self._published = 0
        self._publishing = asyncio.Lock()
        self._posted: dict[bytes, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors = self._claims = self._refused = self._gone = 0
        self._lag = 0.0

    # --- life ---

    async def run(self) -> None:
        """Until cancelled."""
        await self._broker.client.connect_patiently()
        await self._broker.sample_clock()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._round, _ROUND_SECONDS))
            group.create_task(self._again(self._mirror, _ROUND_SECONDS))
            group.create_task(self._again(self._listen, 0.0))
            group.create_task(self._again(self._carry_away, 0.02))
            group.create_task(self._again(self._report, 1.0))

    async def _again(self, duty: Callable[[], Coroutine[Any, Any, None]], seconds: float) -> None:
        """A duty for ever: what goes wrong is counted, and tried again."""
        while True:
            try:
                await duty()
            except (redis.RedisError, AwsError, LocalError, OSError, TimeoutError) as error:
                self._errors += 1
                log.warning("%s: %s: %s", duty.__name__, type(error).__name__, str(error)[:200])
                await asyncio.sleep(0.5)
            await asyncio.sleep(seconds)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def quietly() -> None:
            try:
                await coroutine
            except (redis.RedisError, AwsError, LocalError, OSError, TimeoutError) as error:
                self._errors += 1
                log.warning("%s: %s", type(error).__name__, str(error)[:200])

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _report(self) -> None:
        records = [record for watched in self._exams.values() for record in watched.table.values()]
        move = self._move
        waiting = 0 if move is None else sum(target(move, r.key, r.group) != r.home for r in records)
        health = Health(
            at=time.time(),
            on_lambda=sum(r.home == "lambda" for r in records),
            on_ec2=sum(r.home == "ec2" for r in records),
            waiting=waiting,
            errors=self._errors,
            claims=self._claims,
            claims_refused=self._refused,
            lag_seconds=round(self._lag, 3),
            offline_after_move=self._gone,
        )
        self._lag = 0.0
        await self._writes.run(lambda app: app.moves.save_health(health))

    # --- rounds: what is, against what ought to be ---

    async def _round(self) -> None:
        await self._broker.sample_clock()
        move, exams = await self._moves.run(
            lambda app: (app.moves.load(), {ticket.exam for ticket in app.store.late_sweeps(_EVER)})
        )
        self._move = move
        if move is None:
            return
        await self._redis.set(MOVE, migration.encode(move))
        for key in exams:
            if not move.exams or key.quiz_id in move.exams:
                await self._exam_round(move, key)

    async def _exam_round(self, move: Move, key: ExamKey) -> None:
        watched = self._exams.get(key)
        if watched is None:
            exam = await self._decides.run(lambda app: app.store.load_exam(key))
            if exam is None:
                return
            self._exams[key] = watched = _Watched(exam.policy, {})
            watched.tasks = [self._spawn(self._watch(key, watched)), self._spawn(self._relay(key))]
        await self._agree_on_exam(key)
        if time.monotonic() - watched.read_at > _TABLE_SECONDS:
            await self._read_table(key, watched)
        live = await self._live(key)
        for participant in watched.table.keys() | live.keys():
            await self._see_to(move, participant, watched, live.get(participant))

    async def _live(self, key: ExamKey) -> dict[ParticipantKey, Participant]:
        stored = await cast(Any, self._redis.hgetall(exam_keys(key).records))
        records = [participant_record.decode(text) for text in stored.values()]
        return {record.key: record for record in records}

    async def _mirror(self) -> None:
        """Beside the rounds, which may take long while many go: what one side's proctors are late is the time of this."""
        began = time.monotonic()
        for key, watched in list(self._exams.items()):
            await self._take_inboxes(key)
            await self._write_back(key, watched, await self._live(key))
        self._lag = max(self._lag, time.monotonic() - began)

    async def _read_table(self, key: ExamKey, watched: _Watched) -> None:
        records = await self._moves.run(lambda app: list(app.store.participants(key)))
        for record in records:
            before = watched.table.get(record.key)
            if before is None or record.version >= before.version:
                if before is not None and before.label != "offline" and record.label == "offline":
                    self._gone += record.key in watched.ordered
                watched.table[record.key] = record
        watched.read_at = time.monotonic()

    async def _see_to(self, move: Move, key: ParticipantKey, watched: _Watched, live: Participant | None) -> None:
        """One participant: bring the home to where it belongs."""
        stored = watched.table.get(key)
        if stored is None:
            return
        wanted = target(move, key, stored.group)
        if live is not None and live.home == "lambda" and live.home_epoch <= stored.home_epoch:
            live = None  # an older copy, or a stand-in of a worker whose claim was not answered
        if live is not None or stored.home == "lambda":
            watched.lacking.pop(key, None)
        if stored.home == "lambda":
            if live is not None and live.home == "ec2":
                await self._forget_stale(key, stored, live)
            elif wanted == "ec2":
                await self._send_over(move, key, watched, stored, live)
            elif move.percent == 0:
                await self._close_strays(move, key, watched, stored)
        elif live is None:
            if time.monotonic() - watched.lacking.setdefault(key, time.monotonic()) > _LACKING_SECONDS:
                watched.lacking.pop(key, None)
                await self._settle(key, watched, stored, wanted)
        elif live.home == "lambda":
            await self._complete(move, key, watched, stored, live)
        elif wanted == "lambda":
            await self._ask_back(move, key, watched)
        elif move.percent == 100:
            await self._close_strays(move, key, watched, stored)

    async def _close_strays(self, move: Move, key: ParticipantKey, watched: _Watched, stored: Participant) -> None:
        """The paper's own clients that connected to the other side before DNS had changed: their reports are carried over, and now
        that DNS points to one side only they are closed, so that they find it.
        """
        strays = [
            s.connection.removeprefix(OTHER)
            for s in stored.sessions
            if s.presence == "connected" and s.id == s.connection and s.connection.startswith(OTHER)
        ]
        now = time.monotonic()
        version, again_at = watched.ordered.get(key, (0, 0.0))
        if not strays or (version == move.version and again_at > now):
            return
        watched.ordered[key] = (move.version, now + _AGAIN_SECONDS)
        for connection in strays:
            if stored.home == "ec2":
                self._spawn(self._close_later(0.0, [connection]))
            else:
                worker = connection.partition("/")[0]
                await self._broker.to_worker(worker, key.exam, f"c{connection}\n{int(CloseCode.MOVED)} moved".encode())

    # --- from serverless to the cluster ---

    async def _send_over(
        self, move: Move, key: ParticipantKey, watched: _Watched, stored: Participant, live: Participant | None
    ) -> None:
        """Tell the pages to go; who has none is moved without being asked."""
        there = [s for s in stored.sessions if s.presence in LIVE]
        if not there:
            record = await self._decides.run(lambda app: self._claimed(app, key, live))
            if record is not None:
                await self._put(key, record)
                watched.table[key] = record
            return
        now = time.monotonic()
        version, again_at = watched.ordered.get(key, (0, 0.0))
        if version == move.version and again_at > now:
            return
        slot = slot_ms(move, key)
        url, at = move.url("ec2"), time.time()

        def order(app: Application) -> list[tuple[str, bool]]:
            """The connections that were told, and whether each has to be closed because its page does not read it."""
            fresh = app.store.load(key)  # the table as we know it may be a second old, with another connection
            if fresh is None or fresh.home != "lambda":
                return []
            outbox, told = Outbox(), []
            for session in fresh.sessions:
                is_ours = session.presence == "connected" and not session.connection.startswith(OTHER)
                if is_ours and not migration.was_told(session, watched.policy):
                    event = events.ReconnectOrdered(
                        received_at=at, connection=session.connection, after_ms=slot, reason="moved", url=url
                    )
                    app.shell.apply(key, event, outbox, must_exist=True)
                    told.append((session.connection, session.id == session.connection))
            app.shell.finish(outbox)
            return told

        told = await self._moves.run(order)
        pause = slot / 1000 + _AGAIN_SECONDS if told else _TABLE_SECONDS
        watched.ordered[key] = (move.version, now + pause)
        papers = [connection for connection, is_paper in told if is_paper]
        if papers:
            self._spawn(self._close_later(slot / 1000, papers))

    async def _close_later(self, seconds: float, connections: list[str]) -> None:
        """The paper's own clients do not read `reconnect`: they come back by their configured address, as DNS has it then."""
        await asyncio.sleep(seconds)
        for connection in connections:
            await self._moves.run(lambda app, c=connection: app.connections.close(c, CloseCode.MOVED, "moved"))  # type: ignore[misc]

    def _claimed(self, app: Application, key: ParticipantKey, live: Participant | None) -> Participant | None:
        """Make the cluster the participant's home, if it belongs there. `live`: what Redis has, whose owner can't save any more."""
        move = self._move
        for _ in range(_ATTEMPTS):
            stored = app.store.load(key)
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

    async def _forget_stale(self, key: ParticipantKey, stored: Participant, live: Participant) -> None:
        """The table says otherwise than Redis: a forced rollback happened. The worker's next save is refused."""
        if stored.home_epoch <= live.home_epoch:
            return  # our reading of the table is the older one
        claimed = await self._broker.claim(key, self.name)
        await self._broker.save(self.name, {key.exam: [Save(stored, claimed.epoch)]})

    # --- from the cluster to serverless ---

    async def _ask_back(self, move: Move, key: ParticipantKey, watched: _Watched) -> None:
        """Have the owner hand the participant over, when it is their turn; without an owner, do it."""
        if time.time() < move.changed_at + slot_ms(move, key) / 1000:
            return
        owner = await cast(Any, self._redis.hget(exam_keys(key.exam).owners, key.student_id))
        name = "" if owner is None else owner.decode().partition(" ")[0]
        if name and name != self.name and await self._broker.is_alive(name):
            await self._broker.to_worker(name, key.exam, b"h" + exam_keys(key.exam).member(key.student_id).encode())
            return
        claimed = await self._broker.claim(key, self.name)
        if claimed.record is not None and claimed.record.home == "ec2":
            record = handed_over(claimed.record, "lambda", self._clock.now(), watched.policy)
            await self._broker.save(self.name, {key.exam: [Save(record, claimed.epoch)]})

    async def _complete(
        self, move: Move, key: ParticipantKey, watched: _Watched, stored: Participant, live: Participant
    ) -> None:
        """A worker has handed over: write the home down, then send the pages."""
        if live.home_epoch <= stored.home_epoch:
            return  # an older copy of what has come here again
        after = replace(live, version=max(live.version, stored.version + 1))
        if not await self._writes.run(lambda app: app.store.save(stored, after, ())):
            watched.read_at = 0.0
            return
        watched.table[key] = after
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
        await self._show_on_cluster(key.exam, watched, [view(after)])
        self._spawn(self._show_on_lambda(key.exam, [view(after)]))

    async def _settle(self, key: ParticipantKey, watched: _Watched, stored: Participant, wanted: str) -> None:
        """The cluster was given a participant and has not kept it: the answer was lost, or the worker. Bring it there, or back.

        We own it first, so that whoever was given it can't save any more.
        """
        claimed = await self._broker.claim(key, self.name)
        if claimed.record is not None and claimed.record.home == "ec2":
            return
        if wanted == "ec2":
            record = await self._decides.run(lambda app: self._claimed(app, key, claimed.record))
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
        changed = [
            (stored, record)
            for participant, record in live.items()
            if record.home == "ec2"
            and (stored := watched.table.get(participant)) is not None
            and stored.home == "ec2"
            and stored.home_epoch == record.home_epoch
            and record.version > stored.version
        ]
        fresh = [r for p, r in live.items() if r.home == "ec2" and p.student_id in watched.shown]
        if fresh:
            ids = [record.student_id for record in fresh]
            await cast(Any, self._redis.hdel(exam_keys(key).shown, *ids))
            watched.shown.difference_update(ids)
        unknown = [p for p, r in live.items() if r.home == "ec2" and p not in watched.table]
        if unknown:
            watched.read_at = 0.0
        if not changed:
            return
        views = [
            view(record)
            for stored, record in changed
            if visible(stored) != visible(record) or stored.sessions[0:1] != record.sessions[0:1]
        ]
        shown = self._spawn(self._show_on_lambda(key, views)) if views else None

        def write(app: Application) -> list[bool]:
            return [app.store.save(stored, record, ()) for stored, record in changed]

        saved = await self._writes.run(write)
        for (_, record), done in zip(changed, saved, strict=True):
            if done:
                watched.table[record.key] = record
            else:
                watched.read_at = 0.0
        if shown is not None:
            await shown

    # --- what one side's proctors see of the other ---

    async def _show_on_lambda(self, key: ExamKey, views: list[messages.View]) -> None:
        for start in range(0, len(views), 80):
            part = Views(key, tuple(views[start : start + 80]))
            await self._shows.run(lambda app, part=part: app.shell.publish([part]))  # type: ignore[misc]

    async def _show_on_cluster(self, key: ExamKey, watched: _Watched, views: list[messages.View]) -> None:
        names = exam_keys(key)
        await cast(Any, self._redis.hset(names.shown, mapping={v.student_id: encode_value(v) for v in views}))
        watched.shown.update(v.student_id for v in views)
        await self._publish(key, b",".join(map(encode_value, views)), [])

    async def _publish(self, key: ExamKey, views: bytes, frames: list[bytes]) -> None:
        async with self._publishing:  # so that a subscriber sees the numbers in their order
            self._published += 1
            payload = b"\n".join((f"{self.name} {self._published}".encode(), views, *frames))
            await self._redis.publish(exam_keys(key).channel, payload)

    async def _watch(self, key: ExamKey, watched: _Watched) -> None:
        """Watch the exam on the serverless side as a proctor does, and show it on the cluster."""
        while True:
            try:
                move = self._move
                assert move is not None  # nothing is watched without one
                kid, secret = next(iter(self._secret.items()))
                principal = Principal("bridge", key.school, self.name, (key.quiz_id,), time.time() + _TOKEN_SECONDS)
                token = issue(principal, secret, kid)
                async with websockets.connect(
                    move.lambda_url, subprotocols=cast(Any, ["proctorwire", f"bearer.{token}"]), max_size=2**20
                ) as socket:
                    ask = messages.WatchFrame(messages.Watch(quiz_id=key.quiz_id))
                    await socket.send(encode_value(ask).decode())
                    async for text in socket:
                        payload = text if isinstance(text, bytes) else text.encode()
                        await self._heard(key, watched, payload)
            except (OSError, websockets.WebSocketException, redis.RedisError) as error:
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
            if ours:
                await self._show_on_cluster(key, watched, ours)
            if isinstance(frame, messages.Update) and frame.data.incidents:
                await self._publish(key, b"", [encode_value("") + b"\t" + payload])
        elif isinstance(frame, messages.StudentMessage | messages.CommandStatus):
            group = ""
            if isinstance(frame, messages.StudentMessage):
                record = watched.table.get(ParticipantKey(*key, frame.data.student_id))
                group = "" if record is None else record.group
            await self._publish(key, b"", [encode_value(group) + b"\t" + payload])

    async def _relay(self, key: ExamKey) -> None:
        """Messages, command statuses and incidents of the cluster, to the serverless side's proctors."""
        names = exam_keys(key)
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(names.channel)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            header, _, *frames = message["data"].split(b"\n")
                            if frames and not header.startswith(self.name.encode()):
                                await self._post(key, [frame for frame in frames if frame])
            except (redis.RedisError, OSError) as error:
                self._errors += 1
                log.warning("listening for %s: %s", key.quiz_id, error)
                await asyncio.sleep(0.5)

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
        """Claims of workers. They have a thread of their own, because pages wait for the answer."""
        found = await cast(Any, self._lists.blpop([CLAIMS], timeout=0.5))
        if found is not None:
            await self._answer(_home_claim.decode(found[1]))

    async def _carry_away(self) -> None:
        """Events that workers keep for the serverless side. Taken off only when done, so that none is lost."""
        for key in list(self._exams):
            name = exam_keys(key).away
            for text in await cast(Any, self._redis.lrange(name, 0, 99)):
                await self._carry(_addressed.decode(text))
                await cast(Any, self._redis.lpop(name))

    async def _answer(self, claim: HomeClaim) -> None:
        stored = await cast(Any, self._redis.hget(exam_keys(claim.key.exam).records, claim.key.student_id))
        live = None if stored is None else participant_record.decode(stored)
        record = await self._decides.run(lambda app: self._claimed(app, claim.key, live))
        self._claims += record is not None
        self._refused += record is None
        watched = self._exams.get(claim.key.exam)
        if record is not None and watched is not None:
            watched.table[claim.key] = record
        await self._broker.answer_claim(claim.answer, record)

    async def _carry(self, addressed: events.Addressed) -> None:
        """Decide an event on the serverless side, as one of its functions would; not its home: it comes back by the inbox."""

        def apply(app: Application) -> None:
            outbox = Outbox()
            must_exist = not isinstance(addressed.event, events.StatusReported)
            app.shell.apply(addressed.key, addressed.event, outbox, must_exist=must_exist)
            app.shell.finish(outbox)

        await self._carries.run(apply)

    async def _take_inboxes(self, key: ExamKey) -> None:
        """What functions left for the cluster: into its inboxes first, and only then off the table."""
        waiting = await self._writes.run(lambda app: app.moves.inboxes(key, app.store.shards(key)))
        for participant, items in waiting.items():
            record = await self._writes.run(lambda app, p=participant: app.store.load(p))  # type: ignore[misc]
            if record is not None and record.home == "ec2":
                await self._broker.append(participant, [migration.for_other(item.event) for item in items])
                taken = [item.id for item in items]
                await self._writes.run(lambda app, p=participant, t=taken: app.store.drop_from_inbox(p, t))  # type: ignore[misc]

    # --- the exam ---

    async def _agree_on_exam(self, key: ExamKey) -> None:
        """Commands to everyone, pauses and the end hold on both sides."""
        there = await self._decides.run(lambda app: app.store.load_exam(key))
        if there is None:
            return
        here = await self._broker.load_exam(key)
        merged = agreed(here, there)
        if here is None or merged != here:
            await self._broker.save_exam(here, merged, ())
        elif here.standing != there.standing:
            known = {command.command_id for command in there.standing}
            for command in here.standing:
                if command.command_id not in known:
                    given = events.ExamCommandIssued(received_at=command.received_at, command=command)
                    await self._decides.run(lambda app, g=given: _applied(app, key, g))  # type: ignore[misc]


def _applied(app: Application, key: ExamKey, event: events.ExamEvent) -> None:
    outbox = Outbox()
    app.shell.apply_exam(key, event, outbox)
    app.shell.finish(outbox)


def agreed(here: Exam | None, there: Exam) -> Exam:
    """The exam as the cluster ought to have it: its own, with what was given to everyone on the serverless side."""
    if here is None:
        return replace(there, here="ec2")
    known = {command.command_id for command in here.standing}
    fresh = [command for command in there.standing if command.command_id not in known]
    state = here.state
    for command in fresh:
        if command.command in ("pause", "resume") and state != "closed":
            state = "paused" if command.command == "pause" else "open"
    if there.state == "closed":
        state = "closed"
    if not fresh and state == here.state and there.policy == here.policy:
        return here
    version = max(here.version + 1, there.version)
    return replace(here, standing=(*here.standing, *fresh)[-16:], state=state, policy=there.policy, version=version)


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
    return came


def main() -> None:
    """`python -m deploy.bridge`: settings of the functions and PROCTORWIRE_REDIS_URL, from the environment.

    With `--forced-rollback` (the cluster is dead, so that no Redis is needed) all go on from the table, and it ends.
    """
    forced = sys.argv[1:] == ["--forced-rollback"]
    if sys.argv[1:] and not forced:
        sys.exit(f"the bridge takes --forced-rollback or nothing, not {' '.join(sys.argv[1:])}")
    logging.basicConfig(level=os.environ.get("PROCTORWIRE_LOG_LEVEL", "WARNING"), stream=sys.stderr)
    try:
        settings = config.from_environment()
    except config.ConfigError as error:
        sys.exit(f"the bridge needs the functions' settings: {error}")
    if forced:
        try:
            came = forced_rollback(Application(settings, "bridge"), time.time(), "the cluster is dead")
        except migration.WrongStep as error:
            sys.exit(str(error))
        print(f"bridge: {came} participants go on from the table")
        return
    redis_url = os.environ.get("PROCTORWIRE_REDIS_URL", "")
    if not redis_url:
        sys.exit("the bridge needs PROCTORWIRE_REDIS_URL, the cluster's Redis")

    async def run() -> None:
        task = asyncio.create_task(Bridge(settings, redis_url).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        print("bridge: up", flush=True)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())


if __name__ == "__main__":
    main()
