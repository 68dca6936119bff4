"""One open WebSocket: from frames to complete text messages, and back, with every limit on the way.

Decides what a well-formed message is, when a connection is too slow, dead or over a limit, and tells an `Endpoint` about
connections and messages. It knows no exam and no Redis. Connections come in through `listener`; two transports move the frames
behind the same classes.

Everything runs on one event loop, and nothing is awaited. Callbacks of the endpoint are synchronous; an exception in one closes
that connection with 1011 and is logged, without its text on the wire.
"""

from __future__ import annotations

import asyncio
import codecs
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from adapters.ec2_cluster.handshake import Accepted, Handshake, Refused

Transport = Literal["picows", "websockets"]

CLOSE_SLOW = 4108
"""Close code of a consumer that did not keep up: it may come back, after a pause."""

TEXT, BINARY, CONTINUATION = 0x1, 0x2, 0x0
CLOSE, PING, PONG = 0x8, 0x9, 0xA
_OPCODES = frozenset((TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG))


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


class Owner(Protocol):
    """What a connection needs from the listener it came through."""

    endpoint: Endpoint
    settings: ConnectionSettings
    counters: Counter[str]
    message_bytes: int
    send_limit_bytes: int

    def opened(self, connection: Connection) -> None:
        """The 101 answer is out."""

    def closing(self, connection: Connection) -> None:
        """Either side has closed: the socket is cut if that takes longer than `close_seconds`."""

    def gone(self, connection: Connection) -> None:
        """The socket is gone."""

    def slow(self, connection: Connection) -> None:
        """Too much waits to be sent: closed with 4108 if that lasts longer than `slow_seconds`."""

    def not_slow(self, connection: Connection) -> None:
        """It has caught up."""

    def may_answer_ping(self, connection: Connection) -> bool:
        """Whether the endpoint wants a ping answered, and the connection is still open."""

    def call(self, connection: Connection, callback: Callable[..., None], *arguments: object) -> None:
        """A callback of the endpoint about this connection; an exception closes it with 1011."""

    def failed(self, connection: Connection, error: Exception) -> None:
        """A callback about this connection raised: log it and close with 1011."""


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

    def __init__(self, listener: Owner, connection_id: str, peer: str, principal: Any) -> None:
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
        self._listener.closing(self)

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
            if not self._listener.may_answer_ping(self):
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
                self._listener.call(self, cast(BinaryEndpoint, self._listener.endpoint).received_binary, message)

    def _deliver(self, payload: bytes) -> None:
        listener = self._listener
        try:
            if len(payload) > listener.message_bytes:
                listener.counters["too_big"] += 1
                listener.endpoint.too_big(self)
            else:
                listener.endpoint.received(self, payload)
        except Exception as error:
            listener.failed(self, error)

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
        self._listener.closing(self)

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke a rule: close, and cut it off soon if it does not answer."""
        self.close(code, reason)

    def _failed_by_transport(self, code: int, reason: str) -> None:
        """The transport saw the peer break a rule, and has sent a close frame itself."""
        if self.is_open:
            self.is_open = False
            self._parts = self._decoder = None
            self._code, self._reason, self._by_us = code, reason, True
            self._listener.closing(self)

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
        self._listener.slow(self)

    def _resumed(self) -> None:
        self.is_slow = False
        self._listener.not_slow(self)
        if self.is_open:
            self._listener.call(self, self._listener.endpoint.writable)

    def _gone(self) -> None:
        self.is_open = False
        self._listener.gone(self)
        self._listener.call(self, self._listener.endpoint.closed, self._code, self._reason, self._by_us)


OpenWire = Callable[[Connection, asyncio.Transport, Handshake, str | None, bytes], None]
"""Take over a socket: answer the handshake, tell the listener that the connection is open, read frames from the bytes given on."""


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
