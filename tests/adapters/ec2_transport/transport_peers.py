"""What the tests put at the other ends: a WebSocket client that can do everything wrong, an endpoint that remembers, a Redis to
break, and a proxy that swallows."""

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
from pathlib import Path

from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.handshake import Accepted

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # for that key, from RFC 6455 section 1.3
UPGRADE = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
SECONDS = 8.0


async def until(condition, seconds=SECONDS):
    """Wait for a condition, and fail where it was asked for."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, "did not happen"
        await asyncio.sleep(0.005)
    return value


def listening_socket():
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


class Recorder:
    """An endpoint that echoes, and remembers what it was told."""

    def __init__(self):
        self.handshakes, self.connections, self.messages, self.closes = [], [], [], []
        self.too_bigs = self.writables = 0
        self.answer = Accepted("someone")
        self.health_answer = (200, b"ok\n")

    def admit(self, handshake):
        self.handshakes.append(handshake)
        return self.answer

    def opened(self, connection):
        self.connections.append(connection)

    def received(self, connection, payload):
        self.messages.append(payload)
        connection.send(payload)

    def too_big(self, connection):
        self.too_bigs += 1

    def writable(self, connection):
        self.writables += 1

    def closed(self, connection, code, reason, by_us):
        self.closes.append((code, reason, by_us))

    def health(self, path):
        return self.health_answer


class Served:
    """A listener, its endpoint and its port."""

    def __init__(self, listener, endpoint, port):
        self.listener, self.endpoint, self.port = listener, endpoint, port
        self._peers = []

    async def raw(self, receive_buffer=0):
        """A connected peer that has said nothing."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock)
        peer = Peer(reader, writer)
        self._peers.append(peer)
        return peer

    async def peer(self, path="/", receive_buffer=0, **headers):
        """A peer with an open WebSocket."""
        peer = await self.raw(receive_buffer)
        status, answer = await peer.request(path, **headers)
        assert status == 101, answer
        assert answer["sec-websocket-accept"] == ACCEPT
        peer.answer = answer
        return peer

    async def stop(self):
        for peer in self._peers:
            peer.drop()
        await self.listener.close()
        assert not self.listener.connections
        assert len(self.endpoint.closes) == len(self.endpoint.connections), "closed exactly once for every opened"


class Peer:
    """The other end of a socket, frame by frame."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def request(self, path="/", method="GET", body=b"", **headers):
        """Send a request (`Some_Header=None` leaves it out) and return status and headers; `body` gets the rest."""
        fields = {**UPGRADE, **{name.replace("_", "-"): value for name, value in headers.items()}}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        self.send("\r\n".join([f"{method} {path} HTTP/1.1", *lines]).encode("latin-1") + b"\r\n\r\n" + body)
        return await self.response()

    async def response(self):
        async with asyncio.timeout(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])}
            self.body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            status = int(head[0].split(" ")[1])
            if status != 101:
                assert headers["connection"] == "close"
                self.writer.write_eof()
            return status, headers

    def frame(self, opcode, payload=b"", *, fin=True, rsv=0):
        self.send(frame(opcode, payload, fin=fin, rsv=rsv))

    def text(self, payload):
        self.frame(TEXT, payload)

    async def next(self):
        """The next frame: (opcode, payload)."""
        async with asyncio.timeout(SECONDS):
            first, second = await self.reader.readexactly(2)
            size = second & 127
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            assert first & 0xF0 == 0x80, "whole and plain frames are all we send"
            assert not second & 128, "a server does not mask"
            return first & 15, await self.reader.readexactly(size)

    async def closed(self):
        """Answer the close frame that comes after whatever else comes, and return its code and reason."""
        while True:
            opcode, payload = await self.next()
            if opcode == CLOSE:
                self.frame(CLOSE, payload)
                await self.ended()
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def ended(self):
        """Wait until the server has closed the socket."""
        async with asyncio.timeout(SECONDS):
            with contextlib.suppress(ConnectionError):
                while await self.reader.read(65536):
                    pass

    def drop(self):
        self.writer.transport.abort()


def frame(opcode, payload=b"", *, fin=True, rsv=0):
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if len(payload) < 126:
        head = bytes((first, 0x80 | len(payload)))
    elif len(payload) < 65536:
        head = bytes((first, 0x80 | 126)) + struct.pack("!H", len(payload))
    else:
        head = bytes((first, 0x80 | 127)) + struct.pack("!Q", len(payload))
    mask = os.urandom(4)
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return head + mask + masked


class RedisServer:
    """A redis-server that can be stopped, and started again on the same socket with or without its data."""

    def __init__(self):
        self._home = tempfile.TemporaryDirectory(prefix="pw-test-")
        self.path = Path(self._home.name) / "redis.sock"
        self.start()

    @property
    def url(self):
        return self.server.url

    def start(self):
        self.server = EmbeddedRedis.start(Path(self._home.name))

    def restart(self):
        self.server.stop()
        self.start()

    def stop(self):
        self.server.stop()
        self._home.cleanup()


class Black:
    """A proxy on a Unix socket. While `silent`, it accepts and reads, passes nothing on and closes nothing."""

    def __init__(self, target):
        self._home = tempfile.TemporaryDirectory(prefix="pw-proxy-")
        self._target = str(target)
        self.path = f"{self._home.name}/proxy.sock"
        self.url = f"unix://{self.path}"
        self.silent = False
        self.accepted = 0
        self._tasks = set()

    async def start(self):
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader, writer):
        self.accepted += 1
        there, back = await asyncio.open_unix_connection(self._target)
        self._tasks.add(asyncio.current_task())
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        finally:
            writer.transport.abort()
            back.transport.abort()

    async def _pump(self, source, sink):
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self.silent:
                    sink.write(data)
        sink.transport.abort()

    async def stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._home.cleanup()
