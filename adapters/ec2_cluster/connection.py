"""One socket: from the bytes of an HTTP upgrade to complete text messages, and back, with every limit on the way.

Decides what a well-formed message is, when a connection is too slow, dead or over a limit, and tells an `Endpoint` about
connections and messages. It knows no exam and no Redis. Two transports move the frames behind the same classes: `picows` is the
data path, `websockets` is insurance against a defect in it; `listen(..., transport=...)` picks one by name.

Everything runs on one event loop, and no method but `Listener.close` is awaited. Callbacks of the endpoint are synchronous; an
exception in one closes that connection with 1011 and is logged, without its text on the wire.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import math
import os
import socket
import ssl
from base64 import b32encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from adapters.ec2_cluster.handshake import (
    Accepted,
    Handshake,
    Refused,
    Request,
    RequestError,
    origin_is_allowed,
    read_handshake,
    read_request,
    refusal,
    response,
)

__all__ = [
    "CLOSE_SLOW",
    "Accepted",
    "Connection",
    "ConnectionSettings",
    "Endpoint",
    "Handshake",
    "Listener",
    "Refused",
    "Transport",
    "listen",
]

_log = logging.getLogger(__name__)

Transport = Literal["picows", "websockets"]

CLOSE_SLOW = 4108
"""Close code of a consumer that did not keep up: it may come back, after a pause."""

TEXT, BINARY, CONTINUATION = 0x1, 0x2, 0x0
CLOSE, PING, PONG = 0x8, 0x9, 0xA
_OPCODES = frozenset((TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG))

_HEALTH_PATHS = ("/healthz", "/readyz")
_LINGER_SECONDS = 1.0
_LOGGED_ERRORS_PER_MINUTE = 10


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Limits and periods of every connection of a listener. The defaults are the production limits."""

    paths: tuple[str, ...] = ("/", "/ws")
    """Where a WebSocket may be opened; an upgrade anywhere else is a 404."""
    origins: tuple[str, ...] = ()
    """Origins allowed besides the host's own; `"*"` allows any. A request without `Origin` (no browser) passes."""
    header_bytes: int = 8 * 1024
    header_count: int = 64
    handshake_seconds: float = 5.0
    max_handshakes: int = 1024
    """Requests being read at once; one more is answered 503 with `Retry-After`."""
    max_connections: int = 50_000
    """Open connections; one more is answered 503 with `Retry-After`."""
    max_per_address: int = 20_000
    """Open connections from one address; one more is answered 429. Generous, because an exam hall is one address."""
    max_handshakes_per_address: int = 256
    """Requests being read at once from one address, so that nobody alone can keep the others waiting."""
    message_bytes: int = 8 * 1024
    """A longer message is not delivered: the endpoint gets `too_big` and the socket stays."""
    message_limit_bytes: int = 32 * 1024
    """A longer message closes the connection with 1009."""
    max_fragments: int = 16
    """Frames of one message, empty ones included; more close the connection with 1008."""
    send_high_bytes: int = 64 * 1024
    """With more than this waiting in user space a connection `is_slow`, until less than `send_low_bytes` wait."""
    send_low_bytes: int = 16 * 1024
    send_limit_bytes: int = 256 * 1024
    """With more than this waiting the connection is closed with 4108."""
    slow_seconds: float = 10.0
    """A connection slow for this long is closed with 4108."""
    ping_seconds: float = 25.0
    """How often a silent connection is pinged; one that lets two periods pass without a sign of life is dead. 0: never."""
    close_seconds: float = 5.0
    """How long a close may take, the peer's answer and unsent data included, before the socket is cut."""
    socket_send_bytes: int = 128 * 1024
    """SO_SNDBUF of accepted sockets, so that a stalled reader cannot fill megabytes of kernel memory. 0: the kernel's choice."""
    socket_receive_bytes: int = 64 * 1024
    """SO_RCVBUF of accepted sockets; it also bounds the read buffer that a flood of frames can grow. 0: the kernel's choice."""
    backlog: int = 1024
    tls: ssl.SSLContext | None = None
    binary: bool = False
    """For conformance tests: deliver binary messages to the endpoint's `received_binary` instead of closing with 1003."""


class Endpoint(Protocol):
    """What a listener tells its owner. All synchronous, all on the listener's loop, none called from inside `send` or `close`."""

    def admit(self, handshake: Handshake) -> Accepted | Refused:
        """Decide who may open a WebSocket; called before any answer went out."""

    def opened(self, connection: Connection) -> None:
        """The 101 answer is out: the first call for this connection; it may send at once."""

    def received(self, connection: Connection, payload: bytes) -> None:
        """One complete text message of at most `message_bytes`, its UTF-8 checked."""

    def too_big(self, connection: Connection) -> None:
        """A message over `message_bytes` and within `message_limit_bytes` came and was dropped; the socket stays."""

    def writable(self, connection: Connection) -> None:
        """A connection that was slow has drained below `send_low_bytes`: `is_slow` is False again."""

    def closed(self, connection: Connection, code: int, reason: str, by_us: bool) -> None:
        """The socket is gone; exactly once for every `opened`, the last call for this connection.

        `code` and `reason` are those of whoever closed first: ours if `by_us`, else the peer's, 1005 for a close without code
        and 1006 for a socket that went away without one.
        """

    def health(self, path: str) -> tuple[int, bytes]:
        """Status and body for `GET /healthz` and `GET /readyz`."""


class PingedEndpoint(Endpoint, Protocol):
    """An endpoint that wants to decide which pings are answered; without `pinged`, all are."""

    def pinged(self, connection: Connection) -> bool:
        """A ping came: whether to answer it. May send and close."""


class BinaryEndpoint(Endpoint, Protocol):
    """An endpoint that also takes binary messages (`ConnectionSettings.binary`)."""

    def received_binary(self, connection: Connection, payload: bytes) -> None:
        """One complete binary message."""


class Wire(Protocol):
    """What a transport does for a connection. Every method returns at once; none fails on a socket that is gone."""

    def send_text(self, payload: bytes) -> None:
        """Queue one text message as one frame."""

    def send_binary(self, payload: bytes) -> None:
        """Queue one binary message as one frame."""

    def send_ping(self) -> None:
        """Queue an empty ping."""

    def send_pong(self, payload: bytes) -> None:
        """Queue the answer to a ping."""

    def send_close(self, code: int, reason: bytes) -> None:
        """Queue a close frame; nothing can be sent after it."""

    def buffered_bytes(self) -> int:
        """Bytes the kernel has not taken yet."""

    def finish(self) -> None:
        """Close the socket once everything queued is out."""

    def abort(self) -> None:
        """Close the socket now."""


class Connection:
    """One open WebSocket, as the endpoint sees it: it reads these attributes, and sets only the two marked as its own."""

    __slots__ = (
        "_by_us",
        "_code",
        "_decoder",
        "_listener",
        "_parts",
        "_reason",
        "_silence",
        "_size",
        "_slot",
        "_wire",
        "connected_at",
        "id",
        "is_open",
        "is_slow",
        "peer",
        "principal",
    )

    _wire: Wire

    def __init__(self, listener: Listener, connection_id: str, peer: str, principal: Any) -> None:
        self.id = connection_id
        """Short, unique over all processes and restarts."""
        self.peer = peer
        """The address of the other end, without its port."""
        self.principal = principal
        """What `admit` returned; the endpoint may replace it."""
        self.connected_at = 0.0
        """For the endpoint to set, on its own clock."""
        self.is_open = True
        """Whether a message can still be sent: False from the moment either side closes."""
        self.is_slow = False
        """Whether too much waits to be sent: send nothing that can wait until `writable`."""
        self._listener = listener
        self._parts: list[bytes] | None = None  # of a message whose last frame has not come
        self._decoder: codecs.IncrementalDecoder | None = None  # of those parts; None for binary ones
        self._size = 0
        self._silence = 0  # see _Wheel
        self._slot = 0
        self._code = 1006
        self._reason = ""
        self._by_us = False

    @property
    def buffered_bytes(self) -> int:
        """Bytes in user space that the kernel has not taken yet."""
        return self._wire.buffered_bytes()

    def send(self, payload: bytes) -> None:
        """Send one text message. Never blocks; does nothing on a connection that is not open.

        Over `send_limit_bytes` waiting, this message included, the connection is closed with 4108.
        """
        if self.is_open:
            self._wire.send_text(payload)
            if self._wire.buffered_bytes() > self._listener.send_limit_bytes:
                self._close_slow()

    def send_binary(self, payload: bytes) -> None:
        """Like `send`, for one binary message; only conformance tests have a use for it."""
        if self.is_open:
            self._wire.send_binary(payload)
            if self._wire.buffered_bytes() > self._listener.send_limit_bytes:
                self._close_slow()

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame behind what already waits, then close the socket. Never blocks; the first call counts.

        From here on nothing is received; `closed` follows when the socket is gone, after `close_seconds` at the latest.
        """
        if not self.is_open:
            return
        self.is_open = False
        self._parts = self._decoder = None
        self._code, self._reason, self._by_us = code, reason, True
        self._wire.send_close(code, _cut(reason))
        self._listener._closing(self)

    # The rest is for the transports and the listener.

    def _message(self, payload: bytes) -> None:
        """An unfragmented text frame: almost every frame there is."""
        if not self.is_open:
            return
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                self._fail(1007, "invalid UTF-8")
                return
        self._deliver(payload)

    def _frame(self, opcode: int, fin: bool, rsv: bool, payload: bytes) -> None:
        """Any other frame, or one that breaks the rules of RFC 6455 section 5."""
        if rsv:
            self._fail(1002, "reserved bit")
        elif opcode not in _OPCODES:
            self._fail(1002, "reserved opcode")
        elif opcode == CLOSE:
            self._peer_closed(payload)
        elif not self.is_open:
            pass
        elif opcode == PING:
            self._silence = min(self._silence, 1)
            if not self._listener._may_answer_ping(self):
                return
            self._wire.send_pong(payload)
            if self._wire.buffered_bytes() > self._listener.send_limit_bytes:
                self._close_slow()
        elif opcode == PONG:
            self._silence = min(self._silence, 1)
        elif (opcode == CONTINUATION) == (self._parts is None):
            self._fail(1002, "unexpected continuation" if self._parts is None else "continuation expected")
        elif opcode == BINARY and not self._listener.settings.binary:
            self._fail(1003, "text only")
        else:
            self._silence = 0
            self._part(opcode, fin, payload)

    def _part(self, opcode: int, fin: bool, payload: bytes) -> None:
        settings = self._listener.settings
        if self._parts is None:
            self._parts, self._size = [], 0
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        is_text = self._decoder is not None
        self._parts.append(payload)
        self._size += len(payload)
        if self._size > settings.message_limit_bytes:
            self._fail(1009, "message too big")
        elif len(self._parts) > settings.max_fragments:
            self._fail(1008, "too many fragments")
        elif self._decoder is not None and not _decodes(self._decoder, payload, fin):
            self._fail(1007, "invalid UTF-8")
        elif fin:
            message = b"".join(self._parts)
            self._parts = self._decoder = None
            if is_text:
                self._deliver(message)
            else:
                self._listener._call(self, cast(BinaryEndpoint, self._listener.endpoint).received_binary, message)

    def _deliver(self, payload: bytes) -> None:
        listener = self._listener
        try:
            if len(payload) > listener.message_bytes:
                listener.counters["too_big"] += 1
                listener.endpoint.too_big(self)
            else:
                listener.endpoint.received(self, payload)
        except Exception as error:
            listener._failed(self, error)

    def _peer_closed(self, payload: bytes) -> None:
        if not self.is_open:  # the answer to ours
            self._wire.finish()
            return
        code, reason = 1005, ""
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) == 1 or not _may_be_sent(code):
                self._fail(1002, "invalid close code")
                return
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                self._fail(1007, "invalid UTF-8")
                return
        self.is_open = False
        self._parts = self._decoder = None
        self._code, self._reason = code, reason
        self._wire.send_close(1000 if code == 1005 else code, b"")
        self._wire.finish()
        self._listener._closing(self)

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke a rule: close, and cut it off soon if it does not answer."""
        self.close(code, reason)

    def _failed_by_transport(self, code: int, reason: str) -> None:
        """The transport saw the peer break a rule, and has sent a close frame itself."""
        if self.is_open:
            self.is_open = False
            self._parts = self._decoder = None
            self._code, self._reason, self._by_us = code, reason, True
            self._listener._closing(self)

    def _close_slow(self) -> None:
        if self.is_open:
            self._listener.counters["slow"] += 1
            self.close(CLOSE_SLOW, "slow")

    def _close_dead(self) -> None:
        if self.is_open:
            self._listener.counters["dead"] += 1
            self.close(1001, "no sign of life")
        self._wire.abort()

    def _paused(self) -> None:
        self.is_slow = True
        self._listener._slow(self)

    def _resumed(self) -> None:
        self.is_slow = False
        self._listener._not_slow(self)
        if self.is_open:
            self._listener._call(self, self._listener.endpoint.writable)

    def _gone(self) -> None:
        self.is_open = False
        self._listener._gone(self)
        self._listener._call(self, self._listener.endpoint.closed, self._code, self._reason, self._by_us)


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

    def _connection(self, peer: str, principal: Any) -> Connection:
        self._ids += 1
        return Connection(self, f"{self._id_prefix}-{self._ids:x}", peer, principal)

    def _opened(self, connection: Connection) -> None:
        self.connections[connection.id] = connection
        self._inside[connection.peer] += 1
        self.counters["opened"] += 1
        self._wheel.add(connection)
        self._call(connection, self.endpoint.opened)

    def _gone(self, connection: Connection) -> None:
        del self.connections[connection.id]
        _count_down(self._inside, connection.peer)
        self.counters[f"closed_{connection._code}"] += 1
        self._wheel.remove(connection)
        if self._all_gone is not None and not self.connections and not self._all_gone.done():
            self._all_gone.set_result(None)

    def _closing(self, connection: Connection) -> None:
        self._wheel.closing[connection] = self._loop.time() + self.settings.close_seconds

    def _slow(self, connection: Connection) -> None:
        self._wheel.slow[connection] = self._loop.time() + self.settings.slow_seconds

    def _not_slow(self, connection: Connection) -> None:
        self._wheel.slow.pop(connection, None)

    def _may_answer_ping(self, connection: Connection) -> bool:
        if not hasattr(self.endpoint, "pinged"):
            return True
        return cast(PingedEndpoint, self.endpoint).pinged(connection) and connection.is_open

    def _call(self, connection: Connection, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(connection, *arguments)
        except Exception as error:
            self._failed(connection, error)

    def _failed(self, connection: Connection, error: Exception) -> None:
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        listener = self._listener
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
            raise RequestError(403, "origin not allowed")
        answer = listener.endpoint.admit(handshake)
        if isinstance(answer, Refused):
            wait = () if answer.retry_after is None else (("Retry-After", str(answer.retry_after)),)
            raise RequestError(answer.status, answer.reason, wait)
        self._leave()
        self._answered = True
        transport.set_write_buffer_limits(settings.send_high_bytes, settings.send_low_bytes)
        connection = listener._connection(peer, answer.principal)
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


OpenWire = Callable[[Connection, asyncio.Transport, Handshake, str | None, bytes], None]
"""Take over a socket: answer the handshake, tell the listener that the connection is open, read frames from the bytes given on."""


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


def _decodes(decoder: codecs.IncrementalDecoder, payload: bytes, final: bool) -> bool:
    try:
        decoder.decode(payload, final)
    except UnicodeDecodeError:
        return False
    return True


def _may_be_sent(code: int) -> bool:
    """Whether a peer may use this close code (RFC 6455 section 7.4, and the registry since)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def _cut(reason: str) -> bytes:
    """A control frame holds 125 bytes, 2 of them the code; not in the middle of a character."""
    return reason.encode()[:123].decode(errors="ignore").encode()


def _count_down(counter: Counter[str], name: str) -> None:
    """One less; what is not there any more takes no memory."""
    counter[name] -= 1
    if counter[name] <= 0:
        del counter[name]


def _host(peername: object) -> str:
    return str(peername[0]) if isinstance(peername, tuple) else ""
