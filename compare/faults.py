"""What stands between a scenario and a fault: a network that can fall silent, and a clock that is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_CHUNK = 64 * 1024

_WRONG_CLOCK = """
import time
_true = time.time
time.time = lambda: _true() + {offset!r}
"""


class Proxy:
    """A way to a server that can turn into a black hole: connections stay open and carry nothing. Made by `to_unix`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def to_unix(cls, path: str) -> Proxy:
        """A port on 127.0.0.1 that leads to a Unix socket."""
        self = cls(path)
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        """Where it listens, as the URL of a Redis."""
        assert self._server is not None  # set by `to_unix`
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

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
            there, back = await asyncio.open_unix_connection(self._path)
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
