"""One worker process: sockets in front, the shell behind, Redis at its side.

This file only wires: bytes become frames in `core.messages`, frames become events in `core.routing`, events are decided in
`shell`, proctors are shown things by `hub`. What is here is about connections (who they are, when they must go), the ticks and
the looks that keep everything alive, and the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import random
import resource
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Literal

import uvloop

from adapters.ec2_cluster.access import JWKS_PERIOD_SECONDS, Revocations, TokenKeys
from adapters.ec2_cluster.admin import WorkerState
from adapters.ec2_cluster.broker import RedisBroker, Returned
from adapters.ec2_cluster.clock import ServiceClock
from adapters.ec2_cluster.config import ClusterSettings, tls_context
from adapters.ec2_cluster.connection import Connection, ConnectionSettings
from adapters.ec2_cluster.handshake import Accepted, Handshake, Refused
from adapters.ec2_cluster.hub import Hub
from adapters.ec2_cluster.keys import REVOKED_CHANNEL, all_partitions, exam_keys, participant_of
from adapters.ec2_cluster.listener import Listener, listen
from adapters.ec2_cluster.metrics import FigureFile, Figures, Histogram, labelled
from adapters.ec2_cluster.redis_client import RedisError
from adapters.ec2_cluster.shell import Hold, Shell
from core import effects, events, exam, messages
from core.errors import CloseCode, Malformed, RemoteError, TokenRejected
from core.identity import SUBPROTOCOL, Principal, verify
from core.incidents import count
from core.migration import OTHER
from core.participant import ExamKey
from core.policy import MAX_ERRORS_IN_A_ROW, MAX_MESSAGE_BYTES
from core.routing import CommandToAll, CommandToSome, Refresh, Source, refreshed, route

log = logging.getLogger(__name__)

_LEASE_PERIOD_SECONDS = 1.0
_FULL_BATCH = 16
_LOOK_PERIOD_SECONDS = 2.0
_SWEEP_PERIOD_SECONDS = 5.0
_CLOCK_PERIOD_SECONDS = 10.0
_PROCTOR_GRACE_SECONDS = 60.0
_RESTORE_SECONDS = 0.8
_OTHERS_SECONDS = 3.0
_OTHERS_LOOK_SECONDS = 0.05
_REVOKED_PERIOD_SECONDS = 30.0
_DEADLINES_SECONDS = 0.1
_DROPPED = ("too_fast", "too_big", "slow", "dead")
_EXCESS_SECONDS = 5.0
_SPARE_DESCRIPTORS = 256
_MOST_CONNECTIONS = 50_000
_OURS_TO_CLOSE = frozenset((CloseCode.DRAIN, CloseCode.RESYNC, CloseCode.MOVED, CloseCode.OVERLOAD))


class _Client:
    """What this worker knows of a connection beside its socket."""

    __slots__ = ("errors", "excess", "has_reported", "name", "paced_until", "source")

    def __init__(self, principal: Principal) -> None:
        self.source = Source("", 0.0, principal)
        self.name = ""
        self.has_reported = False
        self.errors = 0
        self.paced_until = 0.0  # when what it has sent so far will have been sent at the permitted rate
        self.excess = 0


class Worker:
    """The endpoint of a listener, the sockets of a shell, and the periodic duties of a worker."""

    def __init__(self, worker: str, settings: ClusterSettings) -> None:
        self.worker = worker
        self.settings = settings
        self.clock = ServiceClock()
        self._was_connected = False
        self._written_back: deque[str] = deque(maxlen=32)
        self._losses = 0
        self.broker = RedisBroker(settings.redis_url, worker, self.clock, self._redis_connected, self._redis_lost)
        self.shell = Shell(worker, self.broker, self, self.clock.now, self._spawn, self._wake)
        # Publications of one save come together, those of other workers at any time of the tick: a longer wait joins few more.
        self.hub = Hub(self.broker, self.clock.now, self._spawn, settings.tick_seconds / 4)
        self.subscriber = self.broker.subscriber(self._published, self._gap)
        self.hub.subscriber = self.subscriber
        self.listener: Listener | None = None
        self.ready = False
        self.draining = False
        self._port = 0
        self.messages = self.reports = self.failures = 0
        self._saves, self._publications, self._lags = Histogram(), Histogram(), Histogram()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_name: dict[str, Connection] = {}
        self.keys = TokenKeys(settings.token_secrets, settings.jwks)
        self.revocations = Revocations()
        self._pace_seconds = 1 / settings.messages_per_second
        self._burst_seconds = settings.message_burst / settings.messages_per_second
        self._flush_at: asyncio.TimerHandle | None = None
        self._next_flush = 0.0
        self._arrived: list[tuple[Connection, bytes, float]] = []

    # --- start and end ---

    async def start(self, sock: socket.socket) -> None:
        """Connect to Redis, however long it is away, then accept: who ended because of that would only be started again."""
        await self.broker.client.connect_patiently()
        await self.subscriber.connect_patiently()
        await self.broker.sample_clock()
        self._port = sock.getsockname()[1]
        self.broker.lease = self._state
        await self.broker.renew_lease()
        await self.broker.memory_seconds()
        await self.subscriber.subscribe(*(partition.worker(self.worker) for partition in all_partitions()))
        await self.subscriber.subscribe(*(partition.control for partition in all_partitions()), REVOKED_CHANNEL)
        await self._read_revocations()
        await self.keys.refresh()
        self._spawn(self.keys.until_complete())
        self._every(_LEASE_PERIOD_SECONDS, self.broker.renew_lease)
        self._every(_CLOCK_PERIOD_SECONDS, self.broker.sample_clock)
        self._every(_LOOK_PERIOD_SECONDS, self._look)
        self._every(_SWEEP_PERIOD_SECONDS, self._sweep)
        self._every(JWKS_PERIOD_SECONDS, self.keys.refresh)
        self._every(_REVOKED_PERIOD_SECONDS, self._read_revocations)
        self._loop.call_soon(self._check_deadlines)
        self.listener = await listen(
            sock,
            self,
            ConnectionSettings(
                origins=self.settings.origins,
                tls=tls_context(self.settings),
                max_connections=_descriptors_for_connections(),
                max_per_address=self.settings.connections_per_address,
            ),
            transport=self.settings.transport,
        )
        self.ready = True

    async def drain(self) -> None:
        """Send everybody elsewhere in paced slots, so that no departure is shown, then end.

        Until then requests are still answered: `/readyz` and newcomers with 503, so that a balancer knows and nobody waits in
        the queue of a socket that no process reads.
        """
        assert self.listener is not None
        self.ready = False
        self.draining = True
        window = self.settings.drain_seconds
        for connection in list(self.listener.connections.values()):
            client: _Client = connection.principal
            after = random.uniform(0, window)  # noqa: S311 - spreading load, not guarding a secret
            if client.has_reported:
                event = events.ReconnectOrdered(
                    received_at=self.clock.now(), connection=client.name, after_ms=int(after * 1000), reason="drain"
                )
                self.shell.handle(client.source.principal.participant, event)
            else:
                frame = messages.Reconnect(messages.ReconnectData(int(after * 1000), "drain"))
                connection.send(messages.encode(frame))
            self._loop.call_later(after + 0.5, connection.close, CloseCode.DRAIN, "this server restarts")
        deadline = self._loop.time() + window + 2
        # A drain takes seconds, and happens once: looking now and then is cheaper than an event at each close.
        while self.listener.connections and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await self.stop()

    async def stop(self) -> None:
        """Close what is left, save what is decided, give up the lease."""
        self.ready = False
        if self.listener is not None:
            await self.listener.close(CloseCode.DRAIN, "this server stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while self._arrived or not self.shell.is_idle:
                    self._take_in()
                    await self.shell.flush()
                    await asyncio.sleep(0.005)
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(RedisError):
            await self.broker.end_lease()
        await self.subscriber.close()
        await self.broker.client.close()

    # --- the listener's endpoint ---

    def admit(self, handshake: Handshake) -> Accepted | Refused:
        """Check the token; nothing else is asked of anybody before."""
        if self.draining:
            return Refused(503, "this server restarts", retry_after=1)
        try:
            principal = self._verified(handshake.bearer, self.clock.now())
        except TokenRejected as rejected:
            if not self.keys.are_complete:  # a 401 would be final
                return Refused(503, "the keys of tokens are not known yet", retry_after=5)
            return Refused(rejected.status, rejected.message)
        return Accepted(_Client(principal), SUBPROTOCOL if SUBPROTOCOL in handshake.subprotocols else None)

    def _verified(self, token: str | None, now: float) -> Principal:
        principal = verify(token, self.keys.by_kid, now, self.settings.audience)
        if self.revocations.refuses(principal, now):
            raise TokenRejected("the token was revoked")
        return principal

    def opened(self, connection: Connection) -> None:
        """Name the connection so that any worker can address it."""
        client: _Client = connection.principal
        connection.connected_at = self.clock.now()
        client.name = f"{self.worker}/{connection.id}"
        client.source = Source(client.name, connection.connected_at, client.source.principal)
        self._by_name[client.name] = connection

    def received(self, connection: Connection, payload: bytes) -> None:
        """One frame: it waits for the flush, where all are read and decided in a row.

        Nothing is acked before that anyway, and one step done many times runs from the processor's caches.
        """
        client: _Client = connection.principal
        self.messages += 1
        now = self._loop.time()
        if client.paced_until < now:
            client.paced_until, client.excess = now + self._pace_seconds, 0
        elif client.paced_until - now > self._burst_seconds:
            self._too_fast(connection, client)
            return
        else:
            client.paced_until += self._pace_seconds
        if not self._arrived:
            self._wake()
        self._arrived.append((connection, payload, self.clock.now()))

    def pinged(self, connection: Connection) -> bool:
        """Whether to answer a ping: pings count as messages do."""
        client: _Client = connection.principal
        now = self._loop.time()
        if client.paced_until < now:
            client.paced_until, client.excess = now, 0
        if client.paced_until - now > self._burst_seconds:
            self._too_fast(connection, client)
            return False
        client.paced_until += self._pace_seconds
        return True

    def _take_in(self) -> None:
        """Decide the frames that have arrived. A failure of ours ends the connection that brought it to light, and no other."""
        arrived, self._arrived = self._arrived, []
        for connection, payload, at in arrived:
            try:
                self._read(connection, payload, at)
            except Exception as error:
                assert self.listener is not None  # whose connection this is
                self.listener.report("a frame failed", error)
                connection.close(1011, "internal error")

    def _read(self, connection: Connection, payload: bytes, received_at: float) -> None:
        """One frame: read, checked, and brought to where it is decided."""
        client: _Client = connection.principal
        try:
            self._routed(connection, client, messages.decode(payload), received_at)
            client.errors = 0
        except RemoteError as error:
            self._answer_error(connection, client, error)

    def _too_fast(self, connection: Connection, client: _Client) -> None:
        """A message beyond the rate is dropped; it was not acked, so it may come again. Who goes on like this has to go."""
        assert self.listener is not None
        self.listener.counters["too_fast"] += 1
        client.excess += 1
        rate = self.settings.messages_per_second
        if client.excess == 1:
            error = RemoteError(
                "rate", f"more than {rate:g} messages a second; this one and some after it were dropped"
            )
            connection.send(messages.encode(messages.error_frame(error)))
        elif client.excess > _EXCESS_SECONDS * rate:
            connection.close(CloseCode.RATE, "too many messages")

    def too_big(self, connection: Connection) -> None:
        """A frame over the limit was dropped; the socket stays."""
        message = f"the frame is over {MAX_MESSAGE_BYTES} bytes; send less at a time"
        self._answer_error(connection, connection.principal, Malformed("too_big", message))

    def writable(self, connection: Connection) -> None:
        """A slow proctor can be shown things again."""
        self.hub.writable(connection)

    def closed(self, connection: Connection, code: int, reason: str, by_us: bool) -> None:
        """The socket is gone: what that means for a student is decided by their record."""
        self._take_in()  # what came before the end
        client: _Client = connection.principal
        self._by_name.pop(client.name, None)
        if client.source.principal.role != "student":
            self.hub.gone(connection)
        elif client.has_reported:
            why: Literal["left", "dropped", "lost_by_us"] = "dropped"
            if by_us and code in _OURS_TO_CLOSE:
                why = "lost_by_us"
            elif code == CloseCode.LEAVE and not by_us:
                why = "left"
            event = events.ConnectionLost(received_at=self.clock.now(), connection=client.name, reason=why)
            self.shell.handle(client.source.principal.participant, event)

    def health(self, path: str) -> tuple[int, bytes]:
        """`/healthz`: this process answers. `/readyz`: it may get new connections."""
        if path == "/healthz":
            return 200, b"ok\n"
        if self.ready and self.keys.by_kid and self.broker.client.is_connected and self.subscriber.is_healthy:
            return 200, b"ready\n"
        return 503, b"not ready\n"

    def _routed(self, connection: Connection, client: _Client, frame: messages.ClientFrame, now: float) -> None:
        routed = route(frame, client.source, now)
        match routed:
            case events.Addressed():
                is_report = type(routed.event) is events.StatusReported
                self.reports += is_report
                first = is_report and not client.has_reported
                client.has_reported = client.has_reported or first
                self.shell.handle(routed.key, routed.event, claim=first)
            case effects.Subscribe(watched, _, groups):
                self._spawn(self.hub.join(watched, connection, groups))
            case effects.Unsubscribe(watched, _):
                self.hub.leave(watched, connection)
            case CommandToSome(keys, command):
                self._spawn(self._command(connection, command, self.shell.command(keys, command), now))
            case CommandToAll(watched, order):
                self._spawn(self._command(connection, order.command, self.shell.exam_event(watched, order), now))
            case Refresh(token):
                self._refresh(connection, client, token, now)

    async def _command(
        self,
        connection: Connection,
        command: events.CommandIssued,
        kept: Coroutine[None, None, None],
        received_at: float,
    ) -> None:
        """Ack a proctor's command when it is kept."""
        try:
            await kept
        except RedisError:
            error = RemoteError(
                "unavailable",
                "the command could not be kept; send it again",
                action="lmsQuizProctorCommand",
                reference={"command_id": command.command_id},
            )
            connection.send(messages.encode(messages.error_frame(error)))
            return
        ack = messages.AckData(server_time=messages.milliseconds(received_at), command_id=command.command_id)
        connection.send(messages.encode(messages.Ack(ack)))

    def _refresh(self, connection: Connection, client: _Client, token: str, now: float) -> None:
        try:
            fresh = refreshed(client.source.principal, self._verified(token, now))
        except TokenRejected as rejected:
            raise RemoteError("token_invalid", rejected.message, action="lmsQuizToken") from rejected
        client.source = Source(client.name, client.source.connected_at, fresh)
        connection.send(messages.encode(messages.Ack(messages.AckData(server_time=messages.milliseconds(now)))))

    def _answer_error(self, connection: Connection, client: _Client, error: RemoteError) -> None:
        client.errors += 1
        last = client.errors > MAX_ERRORS_IN_A_ROW
        if last:
            error = RemoteError(error.code, error.message, action=error.action, reference=error.reference, final=True)
        connection.send(messages.encode(messages.error_frame(error)))
        if last:
            connection.close(CloseCode.FORBIDDEN, "too many errors in a row")

    # --- the shell's sockets ---

    def send(self, exam: ExamKey, connection: str, payload: bytes) -> None:
        """See `shell.Sockets`. A connection of another worker is reached through Redis."""
        local = self._by_name.get(connection)
        if local is not None:
            local.send(payload)
        else:
            self._to_other(exam, connection, b"s" + connection.encode() + b"\n" + payload)

    def close(self, exam: ExamKey, connection: str, code: int, reason: str) -> None:
        """See `shell.Sockets`."""
        local = self._by_name.get(connection)
        if local is not None:
            local.close(code, reason)
        else:
            self._to_other(exam, connection, f"c{connection}\n{code} {reason}".encode())

    def _to_other(self, exam: ExamKey, connection: str, message: bytes) -> None:
        worker = connection.partition("/")[0]
        if worker != self.worker and not connection.startswith(OTHER):
            self._spawn(self._quietly(self.broker.to_worker(worker, exam, message)))

    # --- publications ---

    def _published(self, channel: bytes, payload: bytes) -> None:
        kind = channel.split(b"}", 1)[1]
        if kind.startswith(b"ex:"):
            self.hub.published(channel, payload)
        elif kind == b"control":
            known = exam.decode(payload)
            if known.key in self.shell.exams:
                self.shell.learn(known)
        elif channel == REVOKED_CHANNEL:
            self._spawn(self._quietly(self._read_revocations()))
        elif payload == b"d":
            log.warning("an operator drains this instance")
            os.kill(os.getppid(), signal.SIGTERM)
        elif payload.startswith(b"h"):
            self.shell.hand_over(participant_of(payload[1:].decode()))
        elif payload.startswith(b"n"):
            self.shell.nudge(participant_of(payload[1:].decode()))
        else:
            name, _, rest = payload[1:].partition(b"\n")
            connection = self._by_name.get(name.decode())
            if connection is None:
                return
            if payload.startswith(b"s"):
                connection.send(rest)
            else:
                code, _, reason = rest.decode().partition(" ")
                connection.close(int(code), reason)

    def _gap(self) -> None:
        """Publications may be lost: read the exams again. Lost nudges are found by the look for waiting inboxes."""
        self.hub.read_again()
        self._spawn(self._quietly(self._read_revocations()))
        for key in self.shell.exams_owned:
            self._spawn(self._quietly(self._reload(key)))

    async def _reload(self, key: ExamKey) -> None:
        state = await self.broker.load_exam(key)
        if state is not None:
            self.shell.learn(state)

    # --- ticks and looks ---

    def _wake(self) -> None:
        """Flush soon: at once, unless much was saved within a tick; then at its end."""
        if self._flush_at is None:
            self._flush_at = self._loop.call_at(max(self._next_flush, self._loop.time()), self._flush)

    def _flush(self) -> None:
        self._take_in()
        self._flush_at = None  # only now: what is taken in is saved by this flush and wakes no other
        changed = self.shell.unsaved
        if changed:  # a heartbeat or a first report, which is claimed first, keeps nobody waiting
            # The more there is to save together, the longer is waited for more: a quiet worker answers at once,
            # and from some 300 reports a second on the batches grow to whole ticks.
            share = 1.0 if self.shell.could_not_save else min(1.0, changed / _FULL_BATCH)
            self._next_flush = self._loop.time() + self.settings.tick_seconds * share
            self._spawn(self._save())

    async def _save(self) -> None:
        started = self._loop.time()
        await self.shell.flush()
        self._saves.observe(self._loop.time() - started)

    def _check_deadlines(self) -> None:
        due = self._loop.time() + _DEADLINES_SECONDS
        self._loop.call_at(due, self._measure_lag, due)  # first: whatever happens below, there is a next time
        self.shell.check_due()

    def _measure_lag(self, due: float) -> None:
        self._lags.observe(max(0.0, self._loop.time() - due))
        self._check_deadlines()

    # --- figures ---

    def _state(self) -> bytes:
        roles = self._roles()
        state = WorkerState(
            socket.gethostname(),
            self._port,
            os.getpid(),
            roles["student"],
            roles["proctor"],
            self.draining,
            tuple(self._written_back),
        )
        return messages.encode_value(state)

    def _roles(self) -> Counter[str]:
        return Counter(c.principal.source.principal.role for c in self._by_name.values())

    def figures(self) -> Figures:
        """What this worker has counted so far."""
        assert self.listener is not None
        counted = self.listener.counters
        roles = self._roles()
        if self.subscriber.lag is not None:
            self._publications.observe(self.subscriber.lag)
            self.subscriber.lag = None
        return Figures(
            "worker",
            counters={
                "messages_total": self.messages,
                "reports_total": self.reports,
                "deliveries_total": self.hub.delivered_frames,
                "opened_total": counted["opened"],
                "errors_total": counted["errors"] + self.subscriber.errors + self.failures,
                "holes_total": self.hub.holes,
                "slowed_total": self.hub.slowed_total,
                'dropped_total{reason="conflated"}': self.hub.conflated,
                'dropped_total{reason="lagging"}': self.hub.left_out,
                "redis_gaps_total": self.subscriber.gaps,
                **{f'dropped_total{{reason="{reason}"}}': counted[reason] for reason in _DROPPED},
                **dict(labelled(counted, "closed_", "closed_total", "code")),
                **dict(labelled(counted, "refused_", "refused_total", "status")),
            },
            gauges={
                **{f'connections{{role="{role}"}}': roles[role] for role in ("student", "proctor", "bridge")},
                "exams": len(self.shell.exams_owned),
                "participants": self.shell.participants_owned,
                "unsaved": self.shell.unsaved,
                "slowed": self.hub.slowed,
                "redis_connected": int(self.broker.client.is_connected and self.subscriber.is_healthy),
            },
            histograms={
                "save_seconds": self._saves,
                "publication_seconds": self._publications,
                "delivery_seconds": self.hub.deliveries,
                "loop_lag_seconds": self._lags,
            },
        )

    async def _look(self) -> None:
        """Now and then, one worker looks for what dead workers left behind, and nudges live ones about waiting inboxes."""
        self._close_expired_proctors()
        self.shell.try_again()
        if self.broker.node_of is not None:
            self._spawn(self._quietly(self._know_move()))
        self.shell.memory.behind = await self.broker.journal_behind()
        if not await self.broker.take_look(_LOOK_PERIOD_SECONDS - 0.1):
            return
        alive: dict[str, bool] = {}
        for key, owner in await self.broker.overdue(self.clock.now() - _LOOK_PERIOD_SECONDS):
            if owner is not None and owner not in alive:
                alive[owner] = not await self.shell.is_dead(owner)
            if owner == self.worker:
                self.shell.nudge(key)
            elif owner is None or not alive[owner]:
                await self.shell.take_over(key)
            else:
                keys = exam_keys(key.exam)
                await self.broker.to_worker(owner, key.exam, b"n" + keys.member(key.student_id).encode())

    async def _know_move(self) -> None:
        """In a cluster: hear of a move now and then, for newcomers who come while its node is away."""
        await self.broker.move()

    async def _sweep(self) -> None:
        """Count silences among what this worker owns; one worker of each exam sums up and decides about incidents."""
        for key in self.shell.exams_owned:
            if self.shell.exams[key].state == "closed":
                self.shell.release(key)
            else:
                self._spawn(self._quietly(self._sweep_exam(key)))  # by itself: one may be on a node that is away

    async def _sweep_exam(self, key: ExamKey) -> None:
        counts = count(self.shell.owned_of(key), self.clock.now(), self.shell.exams[key].policy)
        total = await self.broker.count_silences(key, counts)
        if total is not None:
            event = events.SweepCounted(
                received_at=self.clock.now(),
                taking=total.taking,
                fell_silent=total.fell_silent,
                still_silent=total.still_silent,
                last_time_end=total.last_time_end,
            )
            await self.shell.exam_event(key, event)

    async def _read_revocations(self) -> None:
        """What Redis has is in force from now on, for those who are connected too."""
        self.revocations.replace(await self.broker.revocations())
        now = self.clock.now()
        for connection in list(self._by_name.values()) if self.revocations.until else ():
            if self.revocations.refuses(connection.principal.source.principal, now):
                error = RemoteError("token_invalid", "the token was revoked", final=True)
                connection.send(messages.encode(messages.error_frame(error)))
                connection.close(CloseCode.TOKEN, "the token was revoked")

    def _close_expired_proctors(self) -> None:
        now = self.clock.now()
        for connection in list(self._by_name.values()):
            principal = connection.principal.source.principal
            if principal.role == "proctor" and principal.expires_at + _PROCTOR_GRACE_SECONDS < now:
                connection.close(CloseCode.TOKEN, "the token has expired")

    def _redis_connected(self, returned: Returned) -> None:
        """After a loss, Redis may have come back empty: write back what this worker has, and claim nothing before others did.

        Another server may lack the last moments, and claims in them: then nothing that was decided since is saved before, either.
        """
        if self._was_connected:
            self._spawn(self._quietly(self.broker.renew_lease()))  # it may have run out, or be lost
            hold = Hold(returned.is_about, returned.is_anew)
            self.shell.hold(hold)
            self.shell.try_again()
            self._spawn(self._quietly(self._restore(hold, returned)))
        else:
            self._written_back.extend(returned.lives)
        self._was_connected = True

    def _redis_lost(self, _error: Exception) -> None:
        """A server is away: nothing that it might lose is forgotten until it, or another in its place, has been written to."""
        self._losses += 1
        if self.shell.memory.away_since is None:
            self.shell.memory.away_since = self.clock.now()

    async def _restore(self, hold: Hold, returned: Returned) -> None:
        losses = self._losses
        await self.shell.restore(hold, functools.partial(self._others_restore, returned))
        if losses == self._losses and self.broker.client.is_connected:
            self.shell.memory.away_since = None

    async def _others_restore(self, returned: Returned) -> None:
        """Until other workers had the time to come back too, if Redis had forgotten anything."""
        self._written_back.extend(returned.lives.difference(self._written_back))
        await self.broker.restore_revocations(self.revocations.stored())
        left = _RESTORE_SECONDS - await self.broker.memory_seconds()
        if returned.is_anew:
            left = _RESTORE_SECONDS
            await self.broker.renew_lease()  # so that others see it
        if left > 0:
            await asyncio.sleep(left)
        ends = self._loop.time() + _OTHERS_SECONDS
        while returned.is_anew and self._loop.time() < ends:
            if not await self.broker.others_lack(returned.lives):
                break
            await asyncio.sleep(_OTHERS_LOOK_SECONDS)

    # --- tasks ---

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failures += 1
            log.error("a task failed", exc_info=task.exception())

    def _every(self, seconds: float, duty: Callable[[], Coroutine[None, None, None]]) -> None:
        async def repeat() -> None:
            while True:
                await asyncio.sleep(seconds)
                try:
                    await self._quietly(duty())
                except Exception:  # a bug in one duty must not be the end of it: leases and deadlines depend on them
                    self.failures += 1
                    log.exception("a duty failed")

        self._spawn(repeat())

    async def _quietly(self, coroutine: Coroutine[None, None, None]) -> None:
        """Redis being away is no error of a duty: it comes again."""
        try:
            await coroutine
        except RedisError as error:
            log.warning("redis: %s", error)


def _descriptors_for_connections() -> int:
    """How many connections the limit of open files allows, the rest of the process left room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return (
        _MOST_CONNECTIONS
        if soft == resource.RLIM_INFINITY
        else max(1, min(_MOST_CONNECTIONS, soft - _SPARE_DESCRIPTORS))
    )


def run(
    worker: str, settings: ClusterSettings, sock: socket.socket, heartbeat: Callable[[bool], None], file: FigureFile
) -> None:
    """The life of a worker process: until SIGTERM drains it or SIGINT ends it. `heartbeat` is told whether it is ready."""
    uvloop.run(_run(worker, settings, sock, heartbeat, file))


async def _run(
    worker: str, settings: ClusterSettings, sock: socket.socket, heartbeat: Callable[[bool], None], file: FigureFile
) -> None:
    loop = asyncio.get_running_loop()
    ending: asyncio.Future[bool] = loop.create_future()

    def end(drain: bool) -> None:
        if not ending.done():
            ending.set_result(drain)
        elif not drain:
            os._exit(0)  # told twice to stop now

    loop.add_signal_handler(signal.SIGTERM, end, True)
    loop.add_signal_handler(signal.SIGINT, end, False)
    process = Worker(worker, settings)

    def beat() -> None:
        heartbeat(process.ready or process.draining)
        if process.listener is not None:
            file.write(process.figures())
        loop.call_later(1.0, beat)

    beat()
    starting = loop.create_task(process.start(sock))
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    starting.result()
    heartbeat(True)
    # Records and decisions form no cycles: what is garbage is freed at once, and the collector only looks at it in vain.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    if await ending:
        await process.drain()
    else:
        await process.stop()
