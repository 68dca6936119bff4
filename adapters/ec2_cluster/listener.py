"""The accepting side of a worker: reads upgrades, admits or refuses, and keeps every connection that came in.

`listen` picks one of two transports by name: `picows` is the data path, `websockets` is insurance against a defect in it.

Everything runs on one event loop, and no method but `Listener.close` is awaited. Callbacks of the endpoint are synchronous; an
exception in one closes that connection with 1011 and is logged, without its text on the wire.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from base64 import b32encode
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from adapters.ec2_cluster.connection import (
    Connection,
    ConnectionSettings,
    Endpoint,
    OpenWire,
    PingedEndpoint,
    Transport,
)
from adapters.ec2_cluster.handshake import (
    Refused,
    Request,
    RequestError,
    origin_is_allowed,
    read_handshake,
    read_request,
    refusal,
    response,
)
from core.errors import CloseCode

_log = logging.getLogger(__name__)

_HEALTH_PATHS = ("/healthz", "/readyz")
_LINGER_SECONDS = 1.0
_OURS = frozenset(code for name, code in vars(CloseCode).items() if name.isupper())
_LOGGED_ERRORS_PER_MINUTE = 10


class Listener:
    """The accepting socket of one process and all connections that came through it. Made by `listen`."""

    def __init__(self, endpoint: Endpoint, settings: ConnectionSettings, open_wire: OpenWire) -> None:
        self.endpoint = endpoint
        self.settings = settings
        self.connections: dict[str, Connection] = {}
        """Open and closing connections by id; changes only between callbacks, so iterate over a copy if you close."""
        self.counters: Counter[str] = Counter()
        """What happened, by name: opened, refused_<status>, too_big, slow, dead, closed_<code>, errors."""
        self.message_bytes = settings.message_bytes
        self.send_limit_bytes = settings.send_limit_bytes
        self._open_wire = open_wire
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.AbstractServer | None = None
        self._fronts: set[_Front] = set()
        self._knocking: Counter[str] = Counter()  # fronts by address
        self._inside: Counter[str] = Counter()  # connections by address
        self._wheel = _Wheel(self)
        self._all_gone: asyncio.Future[None] | None = None
        # Random rather than the process id: two instances have the same ones, and a restarted worker must not repeat an id.
        self._id_prefix = b32encode(os.urandom(5)).decode().lower()
        self._ids = 0
        self._errors_logged = 0
        self._errors_minute = 0

    @property
    def handshakes(self) -> int:
        """Requests being read at this moment."""
        return len(self._fronts)

    def stop_accepting(self) -> None:
        """Close the listening socket of this process; open connections stay. The second call does nothing."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self, code: int = 1001, reason: str = "going away") -> None:
        """Stop accepting, close every connection, and return when all are gone (`close_seconds` at most)."""
        self.stop_accepting()
        for front in list(self._fronts):
            front.abort()
        for connection in list(self.connections.values()):
            connection.close(code, reason)
        if self.connections:
            self._all_gone = self._loop.create_future()
            await self._all_gone
        self._wheel.stop()

    async def _start(self, sock: socket.socket) -> None:
        settings = self.settings
        sock.setblocking(False)
        # Accepted sockets inherit these; the receive buffer must be set before the handshake fixes the window's scale.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if settings.socket_send_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_send_bytes)
        if settings.socket_receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.socket_receive_bytes)
        self._server = await self._loop.create_server(
            lambda: _Front(self),
            sock=sock,
            backlog=settings.backlog,
            ssl=settings.tls,
            ssl_handshake_timeout=None if settings.tls is None else settings.handshake_seconds,
        )
        self._wheel.start()

    def new_connection(self, peer: str, principal: Any) -> Connection:
        """One with an id of its own; not yet open."""
        self._ids += 1
        return Connection(self, f"{self._id_prefix}-{self._ids:x}", peer, principal)

    def opened(self, connection: Connection) -> None:
        """See `Owner`."""
        self.connections[connection.id] = connection
        self._inside[connection.peer] += 1
        self.counters["opened"] += 1
        self._wheel.add(connection)
        self.call(connection, self.endpoint.opened)

    def gone(self, connection: Connection) -> None:
        """See `Owner`."""
        del self.connections[connection.id]
        _count_down(self._inside, connection.peer)
        self.counters[f"closed_{_counted_as(connection)}"] += 1
        self._wheel.remove(connection)
        if self._all_gone is not None and not self.connections and not self._all_gone.done():
            self._all_gone.set_result(None)

    def closing(self, connection: Connection) -> None:
        """See `Owner`."""
        self._wheel.closing[connection] = self._loop.time() + self.settings.close_seconds

    def slow(self, connection: Connection) -> None:
        """See `Owner`."""
        self._wheel.slow[connection] = self._loop.time() + self.settings.slow_seconds

    def not_slow(self, connection: Connection) -> None:
        """See `Owner`."""
        self._wheel.slow.pop(connection, None)

    def may_answer_ping(self, connection: Connection) -> bool:
        """See `Owner`."""
        if not hasattr(self.endpoint, "pinged"):
            return True
        return cast(PingedEndpoint, self.endpoint).pinged(connection) and connection.is_open

    def call(self, connection: Connection, callback: Callable[..., None], *arguments: object) -> None:
        """See `Owner`."""
        try:
            callback(connection, *arguments)
        except Exception as error:
            self.failed(connection, error)

    def failed(self, connection: Connection, error: Exception) -> None:
        """See `Owner`."""
        self.report("endpoint failed", error)
        connection.close(1011, "internal error")

    def report(self, what: str, error: Exception | None) -> None:
        """Count an error of ours and log it with its traceback, a few a minute: whoever can cause one can cause thousands."""
        self.counters["errors"] += 1
        minute = int(self._loop.time() // 60)
        if minute != self._errors_minute:
            self._errors_minute, self._errors_logged = minute, 0
        self._errors_logged += 1
        if self._errors_logged <= _LOGGED_ERRORS_PER_MINUTE:
            _log.error("%s (error %d)", what, self.counters["errors"], exc_info=error)


class _Wheel:
    """One timer for all connections of a listener: pings, and the ends of slow and closing ones.

    Each connection sits in one of the wheel's slots, and each tick visits one slot, so that a round takes `ping_seconds` and
    pings are spread evenly. A visit finds `_silence` at 0 if a message came since the last one, else it pings. An answer sets it
    back to 1; a second visit without one finds 2: dead. A tick that comes late means that this process stood still: the peers'
    signs of life may lie unread in the sockets, so nobody is dead for one more round, and nobody is slow for that long.
    """

    def __init__(self, listener: Listener) -> None:
        settings = listener.settings
        self.slow: dict[Connection, float] = {}
        self.closing: dict[Connection, float] = {}
        self._loop = listener._loop
        self._pings = settings.ping_seconds > 0
        periods = [settings.slow_seconds / 4, settings.close_seconds / 4, 1.0]
        if self._pings:
            periods.append(settings.ping_seconds / 4)
        self._tick = min(periods)
        self._patience = max(settings.ping_seconds / 5, self._tick)
        self._slots: list[set[Connection]] = [
            set() for _ in range(max(1, math.ceil(settings.ping_seconds / self._tick)))
        ]
        self._round_seconds = self._tick * len(self._slots)
        self._next_slot = 0
        self._position = 0
        self._due = 0.0
        self._nobody_dead_before = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._due = self._loop.time() + self._tick
        self._timer = self._loop.call_at(self._due, self._turn)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def add(self, connection: Connection) -> None:
        connection._slot = self._next_slot
        self._slots[self._next_slot].add(connection)
        self._next_slot = (self._next_slot + 1) % len(self._slots)

    def remove(self, connection: Connection) -> None:
        self._slots[connection._slot].discard(connection)
        self.slow.pop(connection, None)
        self.closing.pop(connection, None)

    def _turn(self) -> None:
        now = self._loop.time()
        late = now - self._due
        try:
            if late > self._patience:
                self._nobody_dead_before = now + self._round_seconds
                self.slow = {connection: until + late for connection, until in self.slow.items()}
            if self._pings:
                self._visit(self._slots[self._position], now)
                self._position = (self._position + 1) % len(self._slots)
            for connection in [connection for connection, until in self.slow.items() if until <= now]:
                del self.slow[connection]
                connection._close_slow()
            for connection in [connection for connection, until in self.closing.items() if until <= now]:
                del self.closing[connection]
                connection._wire.abort()
        finally:
            self._due = now + self._tick
            self._timer = self._loop.call_at(self._due, self._turn)

    def _visit(self, slot: set[Connection], now: float) -> None:
        for connection in list(slot):
            if not connection.is_open:
                continue
            if connection._silence == 0:
                connection._silence = 1
            elif connection._silence == 1 or now < self._nobody_dead_before:
                connection._silence = 2
                connection._wire.send_ping()
            else:
                connection._close_dead()


class _Front(asyncio.Protocol):
    """A socket until its request is complete: then a transport takes it over, or it gets its answer and is closed."""

    __slots__ = ("_answered", "_buffer", "_counted", "_listener", "_peer", "_timer", "_transport")

    _transport: asyncio.Transport

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._buffer = bytearray()
        self._answered = False
        self._counted = False
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None
        if listener.settings.tls is not None:
            # A handshake of TLS that fails tells nobody: whoever has no connection when its time is over has failed.
            seconds = listener.settings.handshake_seconds + _LINGER_SECONDS
            self._timer = listener._loop.call_later(seconds, self._without_tls)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        listener = self._listener
        self._stop_timer()
        self._timer = listener._loop.call_later(listener.settings.handshake_seconds, self._timed_out)
        self._peer = _host(transport.get_extra_info("peername"))
        if len(listener._fronts) >= listener.settings.max_handshakes:
            self._refuse(503, headers=(("Retry-After", "1"),))
        elif listener._knocking[self._peer] >= listener.settings.max_handshakes_per_address:
            self._refuse(429, headers=(("Retry-After", "1"),))
        listener._fronts.add(self)
        listener._knocking[self._peer] += 1
        self._counted = True

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return
        buffer = self._buffer
        searched = max(0, len(buffer) - 3)
        buffer += data
        end = buffer.find(b"\r\n\r\n", searched)
        limit = self._listener.settings.header_bytes
        if end > limit or (end < 0 and len(buffer) > limit):
            self._refuse(431)
        elif end >= 0:
            self._complete(bytes(buffer[:end]), bytes(buffer[end + 4 :]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def abort(self) -> None:
        self._transport.abort()

    def _complete(self, head: bytes, rest: bytes) -> None:
        listener = self._listener
        try:
            request = read_request(head, listener.settings.header_count)
            if request.wants_websocket:
                self._upgrade(request, rest)
            else:
                self._answer_page(request)
        except RequestError as error:
            self._refuse(error.status, error.reason, error.headers)
        except Exception as error:
            listener.report("handshake failed", error)
            self._refuse(500)

    def _upgrade(self, request: Request, rest: bytes) -> None:
        listener, settings, transport = self._listener, self._listener.settings, self._transport
        if request.path not in settings.paths:
            raise RequestError(404)
        if len(listener.connections) >= settings.max_connections:
            raise RequestError(503, "full", (("Retry-After", "5"),))
        peer = self._peer
        if listener._inside[peer] >= settings.max_per_address:
            raise RequestError(429, "too many connections from this address", (("Retry-After", "5"),))
        handshake = read_handshake(request, peer, transport.get_extra_info("ssl_object") is not None)
        if not origin_is_allowed(handshake, settings.origins):
            raise RequestError(403, "origin not allowed: it is none of this server's origins (--origins)")
        answer = listener.endpoint.admit(handshake)
        if isinstance(answer, Refused):
            wait = () if answer.retry_after is None else (("Retry-After", str(answer.retry_after)),)
            raise RequestError(answer.status, answer.reason, wait)
        self._leave()
        self._answered = True
        transport.set_write_buffer_limits(settings.send_high_bytes, settings.send_low_bytes)
        connection = listener.new_connection(peer, answer.principal)
        listener._open_wire(connection, transport, handshake, answer.subprotocol, rest)

    def _answer_page(self, request: Request) -> None:
        if request.path in _HEALTH_PATHS:
            status, body = self._listener.endpoint.health(request.path)
            self._answer(response(status, body, head_only=request.method == "HEAD"))
        elif request.path in self._listener.settings.paths:
            raise RequestError(426, "this is a WebSocket", (("Upgrade", "websocket"),))
        else:
            raise RequestError(404)

    def _refuse(self, status: int, reason: str = "", headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._listener.counters[f"refused_{status}"] += 1
        self._answer(refusal(status, reason, headers))

    def _answer(self, answer: bytes) -> None:
        """Answer, and read on for a moment: closing over unread bytes would reset the connection and take the answer away."""
        self._answered = True
        self._buffer.clear()
        self._stop_timer()
        self._transport.write(answer)
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._timer = self._listener._loop.call_later(_LINGER_SECONDS, self.abort)
        else:
            self._transport.close()

    def _without_tls(self) -> None:
        self._listener.counters["refused_tls"] += 1

    def _timed_out(self) -> None:
        self._refuse(408)

    def _leave(self) -> None:
        self._stop_timer()
        self._listener._fronts.discard(self)
        if self._counted:
            self._counted = False
            _count_down(self._listener._knocking, self._peer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def listen(
    sock: socket.socket, endpoint: Endpoint, settings: ConnectionSettings, transport: Transport = "picows"
) -> Listener:
    """Accept WebSockets on a bound socket until `stop_accepting`; the listener owns the socket from here on."""
    # Imported here so that a machine on which one library does not load can run on the other.
    if transport == "picows":
        from adapters.ec2_cluster.transport_picows import wire_opener
    elif transport == "websockets":
        from adapters.ec2_cluster.transport_websockets import wire_opener
    else:
        raise ValueError(f"unknown transport {transport!r}: picows or websockets")
    listener = Listener(endpoint, settings, wire_opener(settings))
    await listener._start(sock)
    return listener


def _counted_as(connection: Connection) -> int | str:
    """A close code as it is counted: a peer may send any of 2,000, and each would be a figure for good."""
    code = connection._code
    return code if connection._by_us or code < 3000 or code in _OURS else "other"


def _count_down(counter: Counter[str], name: str) -> None:
    """One less; what is not there any more takes no memory."""
    counter[name] -= 1
    if counter[name] <= 0:
        del counter[name]


def _host(peername: object) -> str:
    return str(peername[0]) if isinstance(peername, tuple) else ""
