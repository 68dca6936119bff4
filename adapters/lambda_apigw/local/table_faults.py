"""A faulty way to the table: requests to DynamoDB that are throttled, or carried out without an answer, reproducibly.

Sits between the functions and whatever serves DynamoDB's API over HTTP. Sources: "Error handling with DynamoDB" for the throttling
error; that an answer may get lost is what makes clients repeat a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from urllib.parse import urlsplit

from adapters.lambda_apigw.local.settings import Faults

_THROTTLED = (
    b'{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",'
    b'"message":"The level of configured provisioned throughput for the table was exceeded."}'
)


class TableFaults:
    """Forwards to `endpoint_url`, and does harm on the way. `counted` says how often."""

    def __init__(self, endpoint_url: str, faults: Faults) -> None:
        server = urlsplit(endpoint_url)
        self._host, self._port = server.hostname or "127.0.0.1", server.port or 80
        self._faults = faults
        self.throttled_share = faults.table_throttled
        """The share of requests that are refused; it may change at any time."""
        self._rng = random.Random(faults.seed)  # noqa: S311  reproducible faults
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.counted: Counter[str] = Counter()

    async def start(self, host: str) -> str:
        """Listen on any free port; the URL. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, host, 0)
        return f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop at once."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while request := await _message(reader):
                if self._rng.random() < self.throttled_share:
                    self.counted["throttled"] += 1
                    head = f"HTTP/1.1 400 Bad Request\r\ncontent-length: {len(_THROTTLED)}\r\n\r\n"
                    writer.write(head.encode() + _THROTTLED)
                    continue
                answer = await self._forward(request)
                if self._rng.random() < self._faults.table_answer_lost:
                    self.counted["answer_lost"] += 1
                    break
                writer.write(answer)
        writer.close()

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            return await _message(reader)
        finally:
            writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer, as it came; empty at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
        if line == b"transfer-encoding: chunked":
            return head + await _chunks(reader)
    return head


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return body
