"""Both sides in one simulated world, and a move between them while students report: the real shells of both, the real records.

The bridge here takes the steps of `deploy.bridge`, one I/O at a time, and dies at any of them; so do workers and invocations. The
plan goes up, down and somewhere in the end. At every save of the cluster the table must name it as the home.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import sim_cluster
import sim_lambda
from sim_checks import check_journal, check_students
from sim_clients import HEAL_AT, Student
from sim_world import Process, Violation, World

from adapters.ec2_cluster.broker import Save, Waiting
from adapters.ec2_cluster.keys import exam_keys
from adapters.ec2_cluster.worker import Worker
from adapters.lambda_apigw.shell import Contended, Outbox
from core import events, migration
from core import messages as m
from core.migration import OTHER, Move, handed_over, target
from core.participant import LIVE, Participant, ParticipantKey, new_participant
from core.policy import Policy

STUDENTS = ("s0", "s1", "s2")
URLS = {"lambda": "ws://lambda", "ec2": "ws://ec2"}
_ROUND_SECONDS = 0.4
_AT_ONCE = 2
_ON_THEIR_WAY_SECONDS = 3.0
_GRANT_SECONDS = 1.5


class Table(sim_lambda.Table):
    """With inboxes, which nobody needs without a move. All reads are consistent: `run_lambda` looks at the others."""

    def load(self, key: ParticipantKey, *, latest: bool = True) -> Participant | None:
        return super().load(key)

    def put_in_inbox(self, key: ParticipantKey, event: events.ParticipantEvent) -> None:
        self.world.io()
        name = f"{event.received_at:.6f} {events.encode(event).decode()}"
        self.inboxes.setdefault(key, {})[name] = sim_lambda.InboxItem(name, event)

    def drop_from_inbox(self, key: ParticipantKey, taken: Sequence[str]) -> None:
        self.world.io()
        for name in taken:
            self.inboxes[key].pop(name, None)


class Redis(sim_cluster.Redis):
    """Where nothing is decided for a participant whose home the table has elsewhere."""

    table: Table

    def store(self, process: Process, save: Save) -> None:
        stored = self.table.records.get(save.record.key)
        if save.record.home == "ec2" and (stored is None or stored.home != "ec2"):
            raise Violation(f"the cluster decided for {save.record.student_id}, whose home is {stored}")
        super().store(process, save)


class Broker(sim_cluster.Broker):
    """With a bridge."""

    async def move(self) -> Move:
        await self._step()
        return self.node.cluster.both.move

    async def claim_home(self, key: ParticipantKey) -> Participant | None:
        is_lost = await self._step()
        answers: list[Participant | None] = []
        self.node.cluster.both.bridge.ask(key, answers.append)
        ends = self.world.now + 2
        while not answers and self.world.now < ends:  # noqa: ASYNC110 - as the real one does
            await asyncio.sleep(0.1)
        self._answer(is_lost)
        return answers[0] if answers else None

    async def forward(self, key: ParticipantKey, event: events.ParticipantEvent) -> None:
        is_lost = await self._step()
        self.node.cluster.both.away.append((key, migration.for_other(event)))
        self._answer(is_lost)


class Cluster(sim_cluster.Cluster):
    def __init__(self, world: World, both: Both, *, faults: bool) -> None:
        self.both = both
        super().__init__(world, Redis, faults=faults)

    def build(self, node: sim_cluster.Node) -> Worker:
        real = sim_cluster.Broker
        sim_cluster.Broker = Broker  # type: ignore[misc]
        try:
            return super().build(node)
        finally:
            sim_cluster.Broker = real  # type: ignore[misc]

    def lease_runs(self, worker: str) -> bool:
        return worker != "bridge" and super().lease_runs(worker)


class Bridge:
    """The steps of `deploy.bridge`. Killed, another one takes its place, and knows nothing."""

    def __init__(self, both: Both) -> None:
        self.both, self.world = both, both.world
        self.restarts = -1
        self._begin()
        self.world.after(_ROUND_SECONDS, self._tick)

    def _begin(self) -> None:
        self.restarts += 1
        self.process = Process("bridge")
        self.ordered: dict[ParticipantKey, tuple[int, float]] = {}
        self.lacking: dict[ParticipantKey, float] = {}
        self.on_their_way: dict[ParticipantKey, float] = {}
        self.busy = False

    def crashed(self) -> None:
        self.world.after(self.world.random.uniform(0.5, 5), self._begin)

    def _tick(self) -> None:
        self.world.after(_ROUND_SECONDS, self._tick)
        if not self.process.is_dead and not self.busy:
            process, self.busy = self.process, True

            def done(_: bool) -> None:
                if process is self.process:
                    self.busy = False

            self.world.start(process, self._round, done)

    def ask(self, key: ParticipantKey, answer: Callable[[Participant | None], None]) -> None:
        until = self.world.now + _GRANT_SECONDS

        def grant() -> None:
            if self.world.now < until:
                record = self._claimed(key)
                self.on_their_way.pop(key, None)
                answer(record)

        if not self.process.is_dead:
            self.world.start(self.process, grant)

    def _is_due(self, key: ParticipantKey) -> bool:
        now = self.world.now
        going = sum(until > now for until in self.on_their_way.values())
        return bool(migration.due(self.both.move, [key], going, now, _AT_ONCE))

    def _environment(self) -> sim_lambda.Environment:
        env = sim_lambda.Environment(self.both.gateway)
        env.process = self.process
        return env

    def _apply(self, key: ParticipantKey, event: Any) -> None:
        outbox, shell = Outbox(), self._environment().shell
        try:
            shell.apply(key, event, outbox, must_exist=not isinstance(event, events.StatusReported))
            shell.finish(outbox)
        except Contended:
            pass

    def _claimed(self, key: ParticipantKey) -> Participant | None:
        self.world.io()
        live = self.both.cluster.redis.records.get(key)
        table = self.both.table
        for _ in range(8):
            stored, belongs = table.load(key), target(self.both.move, key) == "ec2"
            if not belongs:
                return None
            after = migration.granted(stored or new_participant(key, "lambda"), live, self.world.now, Policy())
            if table.save(stored, after, ()):
                self.both.claims += 1
                return after
        return None

    def _round(self) -> None:
        table, redis = self.both.table, self.both.cluster.redis
        while self.both.away:
            key, event = self.both.away[0]
            self._apply(key, event)
            if self.both.away and self.both.away[0][1] is event:
                self.both.away.pop(0)
        for key in list(table.inboxes):
            self._take_inbox(key)
        for name in STUDENTS:
            key = ParticipantKey("school", "quiz", name)
            stored = table.load(key)
            self.world.io()
            live = redis.records.get(key)
            if stored is not None:
                self._see_to(key, stored, live)

    def _take_inbox(self, key: ParticipantKey) -> None:
        table, redis = self.both.table, self.both.cluster.redis
        items = list(table.inboxes[key].values())
        record = table.load(key)
        if not items or record is None or record.home != "ec2":
            return
        self.world.io()
        inbox = redis.inboxes[key]
        for item in items:
            inbox.append(
                Waiting(
                    max(int(self.world.now * 1e6), inbox[-1].number + 1 if inbox else 0),
                    migration.for_other(item.event),
                )
            )
        table.drop_from_inbox(key, [item.id for item in items])

    def _see_to(self, key: ParticipantKey, stored: Participant, live: Participant | None) -> None:
        table, wanted = self.both.table, target(self.both.move, key)
        if live is not None and live.home == "lambda" and live.home_epoch <= stored.home_epoch:
            live = None
        if live is not None or stored.home == "lambda":
            self.lacking.pop(key, None)
        if stored.home == "lambda":
            if wanted == "ec2" and not (live is not None and live.home == "ec2"):
                self._send_over(key, stored)
        elif live is None:
            if self.world.now - self.lacking.setdefault(key, self.world.now) > 3:
                self._settle(key, stored, wanted)
        elif live.home == "lambda":
            self._complete(key, stored, live)
        elif wanted == "lambda":
            self._ask_back(key)
        elif live.home_epoch == stored.home_epoch and live.version > stored.version:
            table.save(stored, live, ())

    def _settle(self, key: ParticipantKey, stored: Participant, wanted: str) -> None:
        known, epoch = self._owns(key)
        if known is not None and known.home == "ec2":
            return
        if wanted == "ec2":
            record = self._claimed(key)
            if record is not None:
                self._save(key, record, epoch)
        else:
            self.both.table.save(stored, handed_over(stored, "lambda", self.world.now, Policy()), ())

    def _send_over(self, key: ParticipantKey, stored: Participant) -> None:
        now, move = self.world.now, self.both.move
        if not migration.is_on(stored):
            record = self._claimed(key)
            if record is not None:
                self._put(key, record)
            return
        version, again_at = self.ordered.get(key, (0, 0.0))
        if (version == move.version and again_at > now) or not self._is_due(key):
            return
        self.on_their_way[key] = now + _ON_THEIR_WAY_SECONDS
        self.ordered[key] = (move.version, now + 6)
        for session in stored.sessions:
            is_ours = session.presence == "connected" and not session.connection.startswith(OTHER)
            if is_ours and not migration.was_told(session, Policy()):
                order = events.ReconnectOrdered(
                    received_at=now, connection=session.connection, after_ms=500, reason="moved", url=URLS["ec2"]
                )
                self._apply(key, order)

    def _owns(self, key: ParticipantKey) -> tuple[Participant | None, int]:
        """`claim.lua` for the bridge."""
        self.world.io()
        redis = self.both.cluster.redis
        epoch = redis.owners.get(key, (None, 0))[1] + 1
        redis.owners[key] = ("bridge", epoch)
        return redis.records.get(key), epoch

    def _save(self, key: ParticipantKey, record: Participant, epoch: int) -> None:
        """`save.lua` for the bridge."""
        self.world.io()
        redis = self.both.cluster.redis
        if redis.owners.get(key) == ("bridge", epoch):
            redis.store(self.process, Save(record, epoch))
            if record.home != "ec2":
                redis.set_deadline(key, None)

    def _put(self, key: ParticipantKey, record: Participant) -> None:
        known, epoch = self._owns(key)
        if known is None or known.version < record.version:
            self._save(key, record, epoch)

    def _ask_back(self, key: ParticipantKey) -> None:
        if self.on_their_way.get(key, 0.0) > self.world.now or not self._is_due(key):
            return
        self.on_their_way[key] = self.world.now + _ON_THEIR_WAY_SECONDS
        self.world.io()
        cluster = self.both.cluster
        owner = cluster.redis.owners.get(key, ("", 0))[0]
        if owner and owner != "bridge" and cluster.lease_runs(owner):
            message = b"h" + exam_keys(key.exam).member(key.student_id).encode()
            cluster.redis.publish(sim_cluster.partition_keys(exam_keys(key.exam).tag).worker(owner), message)
            return
        record, epoch = self._owns(key)
        if record is not None and record.home == "ec2":
            self._save(key, handed_over(record, "lambda", self.world.now, Policy()), epoch)

    def _complete(self, key: ParticipantKey, stored: Participant, live: Participant) -> None:
        if live.home_epoch <= stored.home_epoch:
            return
        after = migration.replace(live, version=max(live.version, stored.version + 1))
        if not self.both.table.save(stored, after, ()):
            return
        self.both.releases += 1
        self.world.io()
        for session in after.sessions:
            if session.presence in LIVE and session.connection.startswith(OTHER):
                connection = session.connection.removeprefix(OTHER)
                frame = m.encode(m.Reconnect(m.ReconnectData(500, "moved", URLS["lambda"])))
                channel = sim_cluster.partition_keys(exam_keys(key.exam).tag).worker(connection.partition("/")[0])
                self.both.cluster.redis.publish(channel, b"s" + connection.encode() + b"\n" + frame)


class MovingStudent(Student):
    """A page that follows `reconnect`."""

    side = "lambda"

    def heard(self, connection: Any, action: str, data: dict[str, Any]) -> None:
        if action == "reconnect" and connection is self.connection and self.here:
            self.world.after(data["after_ms"] / 1000, self._go, connection, data.get("url"))
        super().heard(connection, action, data)

    def _go(self, connection: Any, url: str | None) -> None:
        if connection is self.connection and self.here:
            if url is not None:
                self.side = "ec2" if url == URLS["ec2"] else "lambda"
            self.connection = None
            connection.close(1000)
            self._connect()


class Both:
    """Both sides, and the plan."""

    def __init__(self, world: World, *, faults: bool) -> None:
        self.world = world
        self.move = Move(URLS["lambda"], URLS["ec2"], slot_seconds=2.0)
        self.away: list[tuple[ParticipantKey, events.ParticipantEvent]] = []
        self.claims = self.releases = 0
        self.cluster = Cluster(world, self, faults=faults)
        self.gateway = sim_lambda.Gateway(world, Table)
        self.gateway.move = lambda: self.move  # type: ignore[attr-defined]
        self.table: Table = self.gateway.table  # type: ignore[assignment]
        self.cluster.redis.table = self.table
        self.cluster.redis.journal = self.table.journal
        self.bridge = Bridge(self)
        world.crash = self._crash

    def _crash(self, process: Process) -> None:
        if process.name in self.cluster.all:
            self.cluster.crash(process)
        else:
            self.world.kill(process)
            if process is self.bridge.process:
                self.bridge.crashed()

    def connect(self, client: Any) -> None:
        (self.cluster if client.side == "ec2" else self.gateway).connect(client)

    def plan(self, percent: float) -> None:
        self.move = migration.replace(
            self.move, percent=percent, version=self.move.version + 1, changed_at=self.world.now
        )

    def truth(self) -> dict[ParticipantKey, Participant]:
        """Each record as its home has it."""
        redis = self.cluster.redis.records
        return {k: redis.get(k, r) if r.home == "ec2" else r for k, r in self.table.records.items()}


def run_move(seed: int) -> Counter[str]:
    """A move up, down and somewhere, without crashes, with some or with many. Raises `Violation`."""
    crash_share = (0.0, 0.005, 0.02)[seed % 3]
    world = World(seed, crash_share=crash_share)
    both = Both(world, faults=crash_share > 0)
    dice = world.random
    students = [MovingStudent(world, both, name) for name in STUDENTS]
    moments = sorted(dice.uniform(4, 38) for _ in range(3))
    shares = [dice.choice((50, 100)), dice.choice((0, 50, 0)), dice.choice((0, 100))]
    for moment, share in zip(moments, shares, strict=True):
        world.after(moment, both.plan, share)
    try:
        both.cluster.run(HEAL_AT)
        world.crash_share = 0.0
        both.cluster.heal()
        both.cluster.run(HEAL_AT + 30)
        world.slow_share = 0.0
        both.cluster.run(HEAL_AT + 195)  # longer than leases that a gap of the sweeps has extended
    finally:
        both.cluster.close()
    truth = both.truth()
    check_students(students, truth)
    check_journal(students, [], truth, both.table.journal)
    wanted = "ec2" if shares[-1] else "lambda"
    for key, record in truth.items():
        if record.home != wanted:
            raise Violation(f"{key.student_id} is at home on {record.home}, not {wanted}: {record}")
    return Counter(
        steps=world.steps, crashes=world.crashes, claims=both.claims, releases=both.releases, runs=1
    ) + Counter(restarts=both.bridge.restarts)
