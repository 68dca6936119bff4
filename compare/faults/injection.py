"""What stands between a scenario and a fault: a network that can fall silent, and a clock that is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CHUNK = 64 * 1024

_WRONG_CLOCK = """
import time
_true = time.time
time.time = lambda: _true() + {offset!r}
"""


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Proxy:
    """A way to a server that can turn into a black hole: connections stay open and carry nothing. Made by `to_...`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def to_unix(cls, path: str) -> Proxy:
        """A port on 127.0.0.1 that leads to a Unix socket."""
        return await cls(lambda: asyncio.open_unix_connection(path))._listening()

    @classmethod
    async def to_port(cls, port: int) -> Proxy:
        """A port on 127.0.0.1 that leads to another one."""
        return await cls(lambda: asyncio.open_connection("127.0.0.1", port))._listening()

    async def _listening(self) -> Proxy:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    @property
    def address(self) -> str:
        """Where it listens."""
        assert self._server is not None  # set by `_listening`
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """Carry nothing, in either direction; what was under way arrives afterwards, as over a real network."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    async def close(self) -> None:
        """End it, with all its connections."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # a server's callback runs in one
        self._tasks.add(task)
        try:
            await self._open.wait()
            there, back = await self._connect()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._carry(reader, back))
                    group.create_task(self._carry(there, writer))
            finally:
                back.close()
        except* OSError:
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has closed: close the other")


def wrong_clock(folder: Path, offset: float) -> Mapping[str, str]:
    """The environment of a Python process whose wall clock is off by so many seconds; its monotonic clock is right."""
    place = folder / "wrong-clock"
    place.mkdir()
    (place / "sitecustomize.py").write_text(_WRONG_CLOCK.format(offset=offset))
    paths = [str(place), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@contextlib.asynccontextmanager
async def journal_table() -> AsyncIterator[tuple[str, Proxy, Mapping[str, str]]]:
    """An emulated DynamoDB with a table for the journal: its `journal` setting, the way to it, and the environment for that.

    This process gets the same environment for the time, because it reads the journal, but goes there directly.
    """
    from adapters.lambda_apigw.local.ministack import MiniStack
    from adapters.lambda_apigw.resources import tables

    region = "ap-southeast-1"
    async with MiniStack(region=region) as server:
        proxy = await Proxy.to_port(urlsplit(server.endpoint_url).port or 0)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": region}
        ours = {**keys, "AWS_ENDPOINT_URL_DYNAMODB": server.endpoint_url}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        try:
            await asyncio.to_thread(_make_table, tables()[1])
            yield (
                f"dynamodb:{tables()[1]['TableName']}?region={region}",
                proxy,
                {**keys, "AWS_ENDPOINT_URL_DYNAMODB": f"http://{proxy.address}"},
            )
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            await proxy.close()


def _make_table(table: dict[str, Any]) -> None:
    import boto3

    client = boto3.client("dynamodb", region_name=os.environ["AWS_REGION"])
    try:
        client.create_table(**table)
    finally:
        client.close()
