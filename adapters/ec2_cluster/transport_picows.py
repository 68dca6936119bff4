"""The data path: picows parses and writes frames, and nothing else.

picows checks no reserved bits, no UTF-8 and no order of fragments, so every frame that is not one whole plain text message goes
through `Connection._frame`. It reads the upgrade by itself; ours has been read and admitted already, so it gets the least
request that makes it answer. Constructed directly, because its `ws_create_server` would accept sockets on its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
)
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # left out of the stub

from adapters.ec2_cluster.connection import Connection, ConnectionSettings, OpenWire
from adapters.ec2_cluster.handshake import Handshake, canonical_request

_TEXT = WSMsgType.TEXT
_BINARY = WSMsgType.BINARY
_COPIED_BYTES = 8 * 1024
_HEADER_ROOM = 14  # the longest frame header, which picows writes in front of a message in place
_NO_HEADERS = WSUpgradeResponse.create_101_response().headers


def wire_opener(settings: ConnectionSettings) -> OpenWire:
    """The `OpenWire` of this transport. RuntimeError if the installed picows is not built as we know it."""
    silent = _Silent()

    def make_protocol(answer: Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener]) -> Any:
        return WSProtocol(
            None,  # host and port, path: of a client
            None,
            False,  # is_client_side
            answer,
            silent,
            True,  # disconnect_on_exception
            None,  # websocket_handshake_timeout: ours is over
            False,  # enable_auto_ping, its timeouts and strategy: our wheel pings
            0,
            0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # enable_auto_pong: it would answer pings whose reserved bits are set
            settings.message_limit_bytes,
            None,  # extra_headers
            1024,  # read_buffer_init_size
        )

    try:
        make_protocol(
            lambda request: WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(), WSListener())
        )
    except TypeError as error:  # better now than at each connection
        raise RuntimeError(f"this version of picows is not known here, use --transport websockets: {error}") from error

    def open_wire(
        connection: Connection, transport: asyncio.Transport, handshake: Handshake, subprotocol: str | None, rest: bytes
    ) -> None:
        wire = PicowsWire(connection)
        headers = {} if subprotocol is None else {"Sec-WebSocket-Protocol": subprotocol}
        answer = WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), wire)
        protocol = make_protocol(lambda request: answer)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        _feed(protocol, canonical_request(handshake))
        if rest:
            _feed(protocol, rest)

    return open_wire


def _feed(protocol: Any, data: bytes) -> None:
    """Give bytes to a buffered protocol as the event loop does."""
    view = memoryview(data)
    while view:
        room = protocol.get_buffer(len(view))
        count = min(len(room), len(view))
        room[:count] = view[:count]
        protocol.buffer_updated(count)
        view = view[count:]


class PicowsWire(WSListener):
    """The frames of one connection."""

    __slots__ = ("_connection", "_transport", "buffered_bytes")

    _transport: WSTransport
    buffered_bytes: Callable[[], int]
    """Bytes the kernel has not taken yet: the socket's own method, since it is asked at each send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection._wire = self

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is answered."""
        self._transport = transport
        self.buffered_bytes = transport.underlying_transport.get_write_buffer_size
        # The headers of the handshake would stay for as long as the connection.
        transport.request.headers = _NO_HEADERS
        transport.response.headers = _NO_HEADERS
        self._connection._listener.opened(self._connection)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame, its payload unmasked."""
        connection = self._connection
        if transport.is_close_frame_sent:
            self._closed_by_picows(transport)
        kind = frame.msg_type
        rsv = frame.rsv1 or frame.rsv2 or frame.rsv3
        if kind is _TEXT and frame.fin and connection._parts is None and not rsv:
            connection._silence = 0
            connection._message(frame.get_payload_as_bytes())
        else:
            connection._frame(kind.value, bool(frame.fin), bool(rsv), frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        if transport.is_close_frame_sent:
            self._closed_by_picows(transport)
        self._connection._gone()

    def _closed_by_picows(self, transport: WSTransport) -> None:
        """It closes by itself over a frame that it will not read, and for a moment goes on reading."""
        if self._connection.is_open:
            sent = transport.close_handshake.sent
            assert sent is not None, "a close frame was sent"
            self._connection._failed_by_transport(sent.code.value, sent.reason)

    def pause_writing(self) -> None:
        """More than `send_high_bytes` wait."""
        self._connection._paused()

    def resume_writing(self) -> None:
        """Less than `send_low_bytes` wait."""
        self._connection._resumed()

    def send_text(self, payload: bytes) -> None:
        """Queue one text message as one frame."""
        if len(payload) <= _COPIED_BYTES:
            self._transport.send(_TEXT, payload)
        else:
            self._send_large(_TEXT, payload)

    def send_binary(self, payload: bytes) -> None:
        """Queue one binary message as one frame."""
        self._send_large(_BINARY, payload)

    def _send_large(self, kind: WSMsgType, payload: bytes) -> None:
        """`send` would queue a view of its one header buffer, which the next `send` overwrites while the socket is full."""
        frame = bytearray(_HEADER_ROOM)
        frame += payload
        self._transport.send_reuse_external_bytearray(kind, frame, _HEADER_ROOM)

    def send_ping(self) -> None:
        """Queue an empty ping."""
        self._transport.send_ping()

    def send_pong(self, payload: bytes) -> None:
        """Queue the answer to a ping."""
        self._transport.send_pong(payload)

    def send_close(self, code: int, reason: bytes) -> None:
        """Queue a close frame; nothing can be sent after it."""
        self._transport.send_close(code, reason)  # type: ignore[arg-type]  # any integer is taken

    def finish(self) -> None:
        """Close the socket once everything queued is out."""
        self._transport.disconnect()

    def abort(self) -> None:
        """Close the socket now."""
        self._transport.disconnect(False)


class _Silent:
    """A logger that says nothing: picows logs every connection, and every broken frame as an error, which a peer could flood."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return False

    def log(self, *arguments: object, **options: object) -> None:
        pass

    debug = info = warning = error = exception = log
