"""The serverless side in a simulated world: the real shell and sweep over a table, a queue and a gateway that keep AWS's promises.

Each invocation is a fiber in an execution environment of its own for that time; a crash takes the environment and its memory.
Reads of the table are consistent but for those of a sweep and the first for a heartbeat, sweeps and commands may be delivered
twice, messages of one connection run at the same time, and `$disconnect` may never come.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sim_checks import Journal, check_ack
from sim_clients import Client, Student
from sim_world import Process, World

from adapters.lambda_apigw.ports import CommandChunk, InboxItem, Row, SweepTicket
from adapters.lambda_apigw.shell import Contended, Outbox, Shell
from adapters.lambda_apigw.sweep import Sweep
from core.events import ConnectionLost, DeadlineReached, ParticipantEvent
from core.exam import Exam
from core.identity import Principal
from core.incidents import SilenceCounts
from core.journal import Entry
from core.participant import ExamKey, Participant, ParticipantKey
from core.revocation import Revocation
from core.routing import Source


class Table:
    """DynamoDB: conditional writes, transactions, consistent reads, and reads at half the price."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.records: dict[ParticipantKey, Participant] = {}
        self.older: dict[ParticipantKey, tuple[float, Participant | None]] = {}
        self.exams: dict[ExamKey, Exam] = {}
        self.tickets: dict[tuple[ExamKey, int], float] = {}
        self.journal = Journal()
        self.conflicts = 0
        self.deadlines: list[tuple[ParticipantKey, float]] = []
        self.inboxes: dict[ParticipantKey, dict[str, InboxItem]] = {}

    def load(self, key: ParticipantKey, *, latest: bool = True) -> Participant | None:
        self.world.io()
        saved_at, older = self.older.get(key, (-math.inf, None))
        if not latest and self.world.now - saved_at < 1 and self.world.chance(0.5):
            return older
        return self.records.get(key)

    def save(
        self, before: Participant | None, after: Participant, entries: Sequence[Entry], taken: Sequence[str] = ()
    ) -> bool:
        self.world.io()
        stored = self.records.get(after.key)
        if (stored and stored.version) != (before and before.version):
            self.conflicts += 1
            return False
        self.older[after.key] = (self.world.now, stored)
        if after.check_at is not None:
            self.deadlines.append((after.key, after.check_at))
        self.records[after.key] = after
        self.journal.add(entries)
        for item in taken:
            self.inboxes.get(after.key, {}).pop(item, None)
        return True

    def participants(self, exam: ExamKey) -> Iterator[Participant]:
        self.world.io()
        return iter(list(self.records.values()))

    def partition(self, exam: ExamKey, shard: int, after: str = "") -> Iterator[Row]:
        self.world.io()
        rows = []
        for key in sorted(self.records):
            record: Participant | None = self.records[key]
            saved_at, older = self.older[key]
            if self.world.now - saved_at < 1 and self.world.chance(0.5):
                record = older  # an eventually consistent read
            if key.student_id > after:
                rows.append(Row(key, record, tuple(self.inboxes.get(key, {}).values())))
        return iter(rows)

    def shards(self, exam: ExamKey) -> int:
        return 1

    def load_exam(self, key: ExamKey) -> Exam | None:
        self.world.io()
        return self.exams.get(key)

    def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry], students: int = 0) -> bool:
        self.world.io()
        stored = self.exams.get(after.key)
        if (stored and stored.version) != (before and before.version):
            return False
        self.exams[after.key] = after
        if stored is None or (stored.state == "closed" and after.state != "closed"):
            self.tickets[after.key, 0] = 0.0
        elif after.state == "closed":
            self.tickets.pop((after.key, 0), None)
        self.journal.add(entries)
        return True

    def put_in_inbox(self, key: ParticipantKey, event: ParticipantEvent) -> None:
        raise AssertionError("nobody's home is elsewhere")

    def drop_from_inbox(self, key: ParticipantKey, taken: Sequence[str]) -> None:
        raise AssertionError("nobody's home is elsewhere")

    def claim_sweep(self, ticket: SweepTicket, next_at: float) -> bool:
        self.world.io()
        if self.tickets.get((ticket.exam, ticket.shard)) != ticket.at:
            return False
        self.tickets[ticket.exam, ticket.shard] = next_at
        return True

    def put_counts(self, exam: ExamKey, shard: int, counts: SilenceCounts) -> None:
        raise AssertionError("one shard has nothing to add up")

    def counts(self, exam: ExamKey) -> SilenceCounts:
        raise AssertionError("one shard has nothing to add up")

    def late_sweeps(self, before: float) -> Iterable[SweepTicket]:
        self.world.io()
        return [SweepTicket(exam, shard, at) for (exam, shard), at in self.tickets.items() if at < before]


class Watchers:
    """Who is connected and who watches, in the same table."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.principals: dict[str, Principal] = {}
        self.rows: dict[str, tuple[str, ...]] = {}

    def subscribe(self, exam: ExamKey, connection: str, groups: Sequence[str], expires_at: float | None = None) -> None:
        self.world.io()
        self.rows[connection] = tuple(groups)

    def unsubscribe(self, exam: ExamKey, connection: str) -> None:
        self.world.io()
        self.rows.pop(connection, None)

    def subscriptions(self, exam: ExamKey) -> list[tuple[str, tuple[str, ...]]]:
        self.world.io()
        return list(self.rows.items())

    def expired(self, exam: ExamKey) -> list[str]:
        return []

    def remember(self, connection: str, connected_at: float, principal: Principal) -> None:
        self.world.io()
        self.principals[connection] = principal

    def principal(self, connection: str) -> Principal | None:
        self.world.io()
        return self.principals.get(connection)

    def revocations(self, school: str, role: str) -> dict[Revocation, float]:
        return {}

    def forget(self, connection: str) -> None:
        self.world.io()
        self.principals.pop(connection, None)
        self.rows.pop(connection, None)

    def failed(self, connection: str) -> int:
        return 0

    def succeeded(self, connection: str) -> None:
        pass


class Socket:
    """A connection as the client holds it."""

    def __init__(self, gateway: Gateway, client: Client) -> None:
        self.gateway = gateway
        self.client = client
        self.id = f"c{len(gateway.sockets)}"
        self.connected_at = gateway.world.now
        self.is_open = False
        self.arrived_at = 0.0
        gateway.sockets[self.id] = self

    @property
    def source(self) -> Source:
        return Source(self.id, self.connected_at, self.client.principal)

    def send(self, text: str) -> None:
        """A frame of the client. What is sent on one connection arrives in order; the invocations run as they like."""
        world = self.gateway.world
        if self.is_open:
            self.arrived_at = max(self.arrived_at, world.now + world.latency())
            world.at(self.arrived_at, self.gateway.frame_arrived, self, text)

    def close(self, code: int | None) -> None:
        """The client hangs up, or its line breaks (None); what it sent before arrives before."""
        self.gateway.world.at(self.arrived_at, self.gateway.ended, self, code)


class Gateway:
    """API Gateway and Lambda: sockets in front, invocations behind; the management API in between."""

    def __init__(self, world: World, table: type[Table]) -> None:
        self.world = world
        self.table = table(world)
        self.watchers = Watchers(world)
        self.sockets: dict[str, Socket] = {}
        self.idle: list[Environment] = []
        self.environments = 0
        world.after(20, self._minute)
        world.after(3, self._stray_deadline)

    def connect(self, client: Client) -> None:
        socket = Socket(self, client)

        def done(ended: bool) -> None:
            if not ended:  # API Gateway answers 500 to the handshake
                self.world.after(1, client.refused)
                return
            socket.is_open = True
            self.world.after(self.world.latency(), client.opened, socket)

        self._invoke(lambda env: env.shell.connected(socket.source), done)

    def frame_arrived(self, socket: Socket, text: str) -> None:
        received_at = self.world.now
        if socket.is_open:
            self._invoke(lambda env: env.shell.received(text, socket.source, received_at))

    def ended(self, socket: Socket, code: int | None) -> None:
        """The connection is gone. `$disconnect` comes soon, late or never."""
        if not socket.is_open:
            return
        socket.is_open = False
        world = self.world
        world.after(world.latency(), socket.client.lost, socket)
        dice = world.random.random()
        if dice < 0.7:
            at = world.now
            reason: Any = "left" if code == 4000 else "dropped"
            event = ConnectionLost(received_at=at, connection=socket.id, reason=reason)
            delay = world.latency() if dice < 0.6 else 8 * dice
            world.after(delay, self._invoke, lambda env: env.shell.disconnected(socket.source, event))

    # --- the management API ---

    def send(self, connection: str, payload: bytes) -> bool:
        self.world.io()
        return self.post(connection, payload)

    def post(self, connection: str, payload: bytes) -> bool:
        """The step of `send`."""
        socket = self.sockets[connection]
        if not socket.is_open:
            return False
        read = json.loads(payload)
        client, data = socket.client, read["data"]
        if read["action"] == "ack" and isinstance(client, Student):
            check_ack(client, self.table.records.get(client.key), data, world_now=self.world.now)
        self.world.after(self.world.latency(), self._deliver, socket, read["action"], data)
        if self.world.chance(0.03):  # a publication or an answer again, and late
            self.world.after(100 * self.world.random.random(), self._deliver, socket, read["action"], data)
        return True

    def _deliver(self, socket: Socket, action: str, data: dict) -> None:
        if socket.is_open:
            socket.client.heard(socket, action, data)

    def close(self, connection: str, code: int, reason: str) -> None:
        self.world.io()
        self.ended(self.sockets[connection], None)

    # --- the queues ---

    def sweep(self, ticket: SweepTicket, delay_seconds: float) -> None:
        self.world.io()
        self._enqueue(lambda env: env.sweep.sweep(ticket), delay_seconds)

    def command(self, chunk: CommandChunk) -> None:
        self.world.io()
        self._enqueue(lambda env: env.shell.carry_out(chunk), 0.1)

    def _enqueue(self, work: Callable[[Environment], object], delay: float) -> None:
        def done(ended: bool) -> None:
            if not ended:
                self.world.after(6, self._invoke, work, done)  # the visibility timeout

        self.world.after(delay + self.world.latency(), self._invoke, work, done)
        if self.world.chance(0.05):
            self.world.after(delay + 3 * self.world.random.random(), self._invoke, work)

    def _minute(self) -> None:
        """The rule that starts lost chains again."""
        self.world.after(20, self._minute)
        self._invoke(lambda env: env.sweep.restart_lost())

    def _stray_deadline(self) -> None:
        """A deadline that was set once comes at another time: early, late, or again."""
        self.world.after(6 * self.world.random.random(), self._stray_deadline)
        if not self.table.deadlines:
            return
        key, at = self.world.random.choice(self.table.deadlines[-6:])
        event = DeadlineReached(received_at=self.world.now, at=at)

        def work(env: Environment) -> None:
            outbox = Outbox()
            env.shell.apply(key, event, outbox, must_exist=True)
            env.shell.finish(outbox)

        self._invoke(work)

    # --- invocations ---

    def _invoke(self, work: Callable[[Environment], object], done: Callable[[bool], None] | None = None) -> None:
        idle = self.idle
        env = idle.pop(self.world.random.randrange(len(idle))) if idle else Environment(self)

        def body() -> None:
            with contextlib.suppress(Contended):  # the client, or the queue, sends it again
                work(env)
            idle.append(env)

        self.world.start(env.process, body, done)


class Environment:
    """One execution environment: what an invocation may find from an earlier one."""

    def __init__(self, gateway: Gateway) -> None:
        gateway.environments += 1
        self.process = Process(f"env{gateway.environments}")
        table, world = gateway.table, gateway.world
        move = getattr(gateway, "move", lambda: None)
        self.shell = Shell(table, gateway.watchers, gateway, gateway, world.clock, move=move)
        self.sweep = Sweep(self.shell, table, gateway.watchers, gateway, world.clock)
