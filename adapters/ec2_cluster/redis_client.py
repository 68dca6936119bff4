"""A lean Redis client: one connection for commands, one for publications, and no silence about failures.

`RedisClient` pipelines commands over one connection; every call has a deadline and is never repeated behind the caller's back.
`Subscriber` receives publications, proves by a probe that they still arrive, and says `on_gap` whenever some may be lost.
Both reconnect on their own. What a gap or a lost answer means for the records is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "Argument",
    "Command",
    "RedisClient",
    "RedisError",
    "RedisOutcomeUnknown",
    "RedisReplyError",
    "RedisUnavailable",
    "Script",
    "Subscriber",
]

Argument = str | bytes | int | float
Command = Sequence[Argument]


class RedisError(Exception):
    """Anything that went wrong with Redis.

    RedisError
    +-- RedisUnavailable        not connected: the command was not sent
    |   +-- RedisOutcomeUnknown the command was sent and no answer came: it may or may not have been carried out
    +-- RedisReplyError         Redis answered with an error
    """


class RedisUnavailable(RedisError):  # noqa: N818
    """No connection, so nothing was sent."""


class RedisOutcomeUnknown(RedisUnavailable):
    """Sent, and then the deadline passed or the connection broke: it may or may not have been carried out."""


class RedisReplyError(RedisError):
    """An error reply; `code` is its first word (`NOSCRIPT`, `WRONGTYPE`, `READONLY`, ...)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


class Script:
    """A Lua script, known to Redis by its SHA1."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = ""

    def __call__(self, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> ScriptCall:
        """A call of this script, to be given to `RedisClient.script` or to be put among the commands of a pipeline."""
        raise NotImplementedError


class ScriptCall:
    """One call of a script with its keys and arguments."""

    __slots__ = ("args", "keys", "script")


class RedisClient:
    """One connection for commands. Replies are bytes, ints, lists and None, as in RESP2."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "proctorwire",
        scripts: Sequence[Script] = (),
        on_connected: Callable[[], None] | None = None,
        on_lost: Callable[[Exception], None] | None = None,
        command_seconds: float = 2.0,
        connect_seconds: float = 1.0,
    ) -> None:
        """`url`: `unix://path[?db=1]`, `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.

        `scripts` are loaded on every new connection before anything else. `on_connected` is called after each connection,
        the first one too; `on_lost` after each loss.
        """

    @property
    def is_connected(self) -> bool:
        """Whether a command would be sent now."""
        raise NotImplementedError

    async def connect(self) -> None:
        """Start connecting and return when connected; RedisUnavailable if `connect_seconds` pass first.

        After that, and also after the error, the client reconnects by itself until `close`.
        """
        raise NotImplementedError

    async def execute(self, *command: Argument) -> Any:
        """Send one command and return its reply; an error reply is raised as RedisReplyError."""
        raise NotImplementedError

    async def pipeline(self, commands: Sequence[Command | ScriptCall]) -> list[Any]:
        """Send commands in one write and return their replies in order.

        Error replies are *returned*, as RedisReplyError in their place: one refused command does not hide the others' results.
        A script that Redis had forgotten is sent again with its source, after the rest of the pipeline.
        """
        raise NotImplementedError

    async def script(self, call: ScriptCall) -> Any:
        """Run a script by its SHA1, with its source if Redis had forgotten it."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close for good; calls still waiting fail with RedisOutcomeUnknown."""
        raise NotImplementedError


class Subscriber:
    """One connection for publications, with a probe that proves they arrive."""

    def __init__(
        self,
        client: RedisClient,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[], None],
        *,
        probe_seconds: float = 2.0,
        connect_seconds: float = 1.0,
        command_seconds: float = 2.0,
    ) -> None:
        """Connects to the same Redis as `client`, through which it publishes its probe.

        `on_message(channel, payload)` is called for each publication. `on_gap()` is called after every reconnection, when all
        channels are subscribed again: whatever was published in between is lost, so read again what it would have told.
        """

    @property
    def is_healthy(self) -> bool:
        """Whether the last probe was heard in time."""
        raise NotImplementedError

    @property
    def channels(self) -> frozenset[bytes]:
        """The channels wanted, confirmed or not."""
        raise NotImplementedError

    async def connect(self) -> None:
        """Start connecting and return when connected; RedisUnavailable if `connect_seconds` pass first."""
        raise NotImplementedError

    async def subscribe(self, *channels: bytes) -> None:
        """Return when Redis has confirmed every channel: whatever is published from now on arrives.

        RedisUnavailable if that takes longer than `command_seconds`; the channels stay wanted and are subscribed with the next
        connection, after which `on_gap` is called.
        """
        raise NotImplementedError

    async def unsubscribe(self, *channels: bytes) -> None:
        """Forget the channels at once and return when Redis has confirmed, or there is no connection."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close for good."""
        raise NotImplementedError
