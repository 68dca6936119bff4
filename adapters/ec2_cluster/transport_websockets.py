"""Insurance: the frames of the `websockets` library, without its tasks, behind the same connections.

Its sans-I/O protocol checks more than picows does (reserved bits, order of fragments, close codes) and answers pings and closes
by itself; what it leaves out, UTF-8 and our limits, comes from `Connection`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as Frames

from adapters.ec2_cluster.connection import Connection, ConnectionSettings, OpenWire
from adapters.ec2_cluster.handshake import Handshake, switching_protocols

_silent = logging.getLogger(__name__ + ".frames")
_silent.disabled = True  # a peer must not be able to flood the log


def wire_opener(settings: ConnectionSettings) -> OpenWire:
    """The `OpenWire` of this transport."""

    def open_wire(
        connection: Connection, transport: asyncio.Transport, handshake: Handshake, subprotocol: str | None, rest: bytes
    ) -> None:
        wire = WebsocketsWire(connection, transport, settings.message_limit_bytes)
        transport.set_protocol(wire)
        transport.write(switching_protocols(handshake, subprotocol))
        connection._listener.opened(connection)
        if rest:
            wire.data_received(rest)

    return open_wire


class WebsocketsWire(asyncio.Protocol):
    """The frames of one connection."""

    __slots__ = ("_connection", "_frames", "_transport")

    def __init__(self, connection: Connection, transport: asyncio.Transport, limit: int) -> None:
        self._connection = connection
        self._transport = transport
        self._frames = Frames(SERVER, state=OPEN, max_size=limit, logger=_silent)
        connection._wire = self

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        frames, connection = self._frames, self._connection
        frames.receive_data(data)
        for frame in cast("list[Frame]", frames.events_received()):
            if frame.opcode is Opcode.TEXT and frame.fin and connection._parts is None:
                connection._silence = 0
                connection._message(bytes(frame.data))
            elif frame.opcode is Opcode.PING:  # answered already
                connection._silence = min(connection._silence, 1)
                connection._listener.may_answer_ping(connection)  # too late to say no, but a flood is cut off
            else:
                connection._frame(frame.opcode, frame.fin, False, bytes(frame.data))
        if frames.parser_exc is not None and frames.close_sent is not None:
            connection._failed_by_transport(frames.close_sent.code, frames.close_sent.reason)
        self._flush()
        if connection.is_open and self.buffered_bytes() > connection._listener.send_limit_bytes:
            connection._close_slow()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._connection._gone()

    def pause_writing(self) -> None:
        """More than `send_high_bytes` wait."""
        self._connection._paused()

    def resume_writing(self) -> None:
        """Less than `send_low_bytes` wait."""
        self._connection._resumed()

    def send_text(self, payload: bytes) -> None:
        """Queue one text message as one frame."""
        if self._frames.state is OPEN:
            self._frames.send_text(payload)
            self._flush()

    def send_binary(self, payload: bytes) -> None:
        """Queue one binary message as one frame."""
        if self._frames.state is OPEN:
            self._frames.send_binary(payload)
            self._flush()

    def send_ping(self) -> None:
        """Queue an empty ping."""
        if self._frames.state is OPEN:
            self._frames.send_ping(b"")
            self._flush()

    def send_pong(self, payload: bytes) -> None:
        """Queue the answer to a ping."""
        if self._frames.state is OPEN:
            self._frames.send_pong(payload)
            self._flush()

    def send_close(self, code: int, reason: bytes) -> None:
        """Queue a close frame; nothing can be sent after it."""
        if self._frames.state is OPEN:
            self._frames.send_close(code, reason.decode())
            self._flush()

    def buffered_bytes(self) -> int:
        """Bytes the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def finish(self) -> None:
        """Close the socket once everything queued is out."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close the socket now."""
        self._transport.abort()

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
