"""One socket: from the bytes of an HTTP upgrade to complete text messages, and back, with every limit on the way.

Decides what a well-formed message is, when a connection is too slow, dead or over a limit, and tells an `Endpoint` about
connections and messages. It knows no exam and no Redis. Two transports move the frames behind the same classes: `picows` is the
data path, `websockets` is insurance against a defect in it; `listen(..., transport=...)` picks one by name.

Everything runs on one event loop and no method but `Listener.close` is awaited. Callbacks of the endpoint are synchronous; an
exception in one closes that connection with 1011 and is logged, without its text on the wire.
"""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from adapters.ec2_cluster.handshake import Accepted, Handshake, Refused

__all__ = [
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

Transport = Literal["picows", "websockets"]

CLOSE_SLOW = 4108
"""Close code of a consumer that did not keep up: it may come back, after a pause."""


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
    """Silence after which a protocol ping is sent; after twice that the connection is dead. 0: no pings."""
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


class Connection:
    """One open WebSocket, as the endpoint sees it."""

    __slots__ = ()

    id: str
    """Short, unique over all processes and restarts."""
    principal: object
    """What `admit` returned; the endpoint may replace it."""
    connected_at: float
    """The endpoint's to set, on its own clock; 0.0 until then."""
    peer: str
    """The address of the other end, without its port."""

    @property
    def is_open(self) -> bool:
        """Whether a message can still be sent: False from the moment either side closes."""
        raise NotImplementedError

    @property
    def is_slow(self) -> bool:
        """Whether too much waits to be sent: send nothing that can wait until `writable`."""
        raise NotImplementedError

    @property
    def buffered_bytes(self) -> int:
        """Bytes in user space that the kernel has not taken yet."""
        raise NotImplementedError

    def send(self, payload: bytes) -> None:
        """Send one text message. Never blocks; does nothing on a connection that is not open.

        Over `send_limit_bytes` waiting, this message included, the connection is closed with 4108.
        """
        raise NotImplementedError

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame behind what already waits, then close the socket. Never blocks; the first call counts.

        From here on nothing is received; `closed` follows when the socket is gone, after `close_seconds` at the latest.
        """
        raise NotImplementedError


class Listener:
    """The accepting socket of one process and all connections that came through it."""

    connections: Mapping[str, Connection]
    """Open and closing connections by id; changes only between callbacks."""
    counters: Counter[str]
    """What happened, by name: opened, refused_<status>, handshake_timeout, too_big, slow, dead, closed_<code>, errors."""

    def stop_accepting(self) -> None:
        """Close the listening socket of this process; open connections stay. The second call does nothing."""
        raise NotImplementedError

    async def close(self, code: int = 1001, reason: str = "going away") -> None:
        """Stop accepting, close every connection, and return when all are gone (`close_seconds` at most)."""
        raise NotImplementedError


async def listen(
    sock: socket.socket, endpoint: Endpoint, settings: ConnectionSettings, transport: Transport = "picows"
) -> Listener:
    """Accept WebSockets on a bound socket until `stop_accepting`; the listener owns the socket from here on."""
    raise NotImplementedError
