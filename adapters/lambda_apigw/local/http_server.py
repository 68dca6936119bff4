"""A small HTTP/1.1 server for the two local endpoints: keep-alive, pipelining, Content-Length bodies, nothing else.

The handler is a plain function: it may not wait, so an answer costs no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import msgspec


class Request(msgspec.Struct, frozen=True):
    """One request; `target` is the path and query as on the wire, header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Response(msgspec.Struct, frozen=True):
    """One answer. `error_type` becomes the `x-amzn-ErrorType` header, from which AWS SDKs take the exception."""

    status: int
    body: bytes = b""
    error_type: str = ""
    request_id: str = ""

    def encode(self) -> bytes:
        """The bytes of the answer."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        if self.body or self.status != 204:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        if self.request_id:
            lines.append(f"x-amzn-RequestId: {self.request_id}")
        if self.error_type:
            lines.append(f"x-amzn-ErrorType: {self.error_type}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Handler = Callable[[Request], Response]

_MAX_HEAD = 64 * 1024
_MAX_BODY = 16 * 1024 * 1024


class HttpProtocol(asyncio.Protocol):
    """One HTTP connection. What cannot be parsed is answered 400 and the connection closed."""

    def __init__(self, handler: Handler, open_connections: set[HttpProtocol]) -> None:
        self._handler = handler
        self._open = open_connections
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._head: tuple[str, str, dict[str, str], int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        assert isinstance(transport, asyncio.Transport)  # a TCP server makes no other
        self._transport = transport
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._open.discard(self)

    def close(self) -> None:
        """Close at once."""
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._buffer += data
        while self._transport and not self._transport.is_closing():
            if self._head is None:
                end = self._buffer.find(b"\r\n\r\n")
                if end < 0:
                    if len(self._buffer) > _MAX_HEAD:
                        self._refuse(431)
                    return
                try:
                    self._head = _parse_head(self._buffer[:end].decode("latin-1"))
                except ValueError:
                    self._refuse(400)
                    return
                del self._buffer[: end + 4]
                if self._head[2].get("expect", "").lower() == "100-continue":
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            method, target, headers, length = self._head
            if length > _MAX_BODY:
                self._refuse(413)
                return
            if len(self._buffer) < length:
                return
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._head = None
            self._transport.write(self._handler(Request(method, target, headers, body)).encode())
            if headers.get("connection", "").lower() == "close":
                self._transport.close()

    def _refuse(self, status: int) -> None:
        assert self._transport  # only called while a request is being read
        self._transport.write(Response(status).encode())
        self._transport.close()


def _parse_head(head: str) -> tuple[str, str, dict[str, str], int]:
    request_line, *lines = head.split("\r\n")
    method, target, version = request_line.split(" ")
    if not version.startswith("HTTP/1.") or not target.startswith("/"):
        raise ValueError(request_line)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(line)
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise ValueError("chunked bodies are not supported")
    length = int(headers.get("content-length", "0"))
    if length < 0:
        raise ValueError("negative length")
    return method, target, headers, length


class HttpServer:
    """Serves one handler on one port until closed."""

    def __init__(self, server: asyncio.Server, open_connections: set[HttpProtocol]) -> None:
        self._server = server
        self._open = open_connections

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @classmethod
    async def start(cls, handler: Handler, host: str, port: int) -> HttpServer:
        """Listen. Raises OSError if the port is taken."""
        loop = asyncio.get_running_loop()
        open_connections: set[HttpProtocol] = set()
        server = await loop.create_server(lambda: HttpProtocol(handler, open_connections), host, port)
        return cls(server, open_connections)

    async def close(self) -> None:
        """Stop listening and close what is open."""
        self._server.close()
        for connection in list(self._open):
            connection.close()
        await self._server.wait_closed()
