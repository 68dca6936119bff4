"""A lean Redis client: one connection for commands, one for publications, and no silence about failures.

`RedisClient` pipelines commands over one connection; every call has a deadline and is never repeated behind the caller's back.
`Subscriber` receives publications, proves by a probe that they still arrive, and says `on_gap` whenever some may be lost.
Both reconnect on their own. What a gap or a lost answer means for the records is the caller's business.

redis-py stays for administration: its pub/sub reconnects without telling, does not notice a connection that carries nothing
any more, and costs twenty times as much for each publication.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
import os
import random
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

__all__ = [
    "Argument",
    "Command",
    "RedisAddress",
    "RedisClient",
    "RedisError",
    "RedisOutcomeUnknown",
    "RedisReplyError",
    "RedisUnavailable",
    "Script",
    "ScriptCall",
    "Subscriber",
]

_log = logging.getLogger(__name__)

Argument = str | bytes | int | float
Command = Sequence[Argument]

_NOTHING: Any = object()
_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 0.5  # a cluster has some dozens of workers: no herd that would need more
_SETTLED_SECONDS = 1.0
# The node is a replica now, or not ready: the name may lead to another node by the next connection.
_WRONG_NODE = frozenset(("READONLY", "MASTERDOWN", "LOADING"))


class RedisError(Exception):
    """Anything that went wrong with Redis.

    RedisError
    +-- RedisUnavailable        not connected: the command was not sent
    |   +-- RedisOutcomeUnknown the command was sent and no answer came: it may or may not have been carried out
    +-- RedisReplyError         Redis answered with an error
    """


class RedisUnavailable(RedisError):
    """No connection, so nothing was sent."""


class RedisOutcomeUnknown(RedisUnavailable):
    """Sent, and then the deadline passed or the connection broke: it may or may not have been carried out."""


class RedisReplyError(RedisError):
    """An error reply; `code` is its first word (`NOSCRIPT`, `WRONGTYPE`, `READONLY`, ...)."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message.partition(" ")[0]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where and as whom to connect. Its text never holds the password."""

    path: str | None
    host: str
    port: int
    db: int
    user: str | None
    password: str | None = field(repr=False)
    tls: bool
    authority: str | None = None
    """A PEM file of the authorities to trust, instead of the system's: `?ssl_ca_certs=`, as redis-py has it."""
    is_cluster: bool = False
    """Whether it is a node of a Redis Cluster, of which the others are asked for: `?cluster=1`."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `unix://path[?db=1]`, `redis://[user:password@]host[:port][/db]` or `rediss://`; ValueError says what is wrong."""
        parts = urlsplit(url)
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password is not None else None
        try:
            if parts.scheme == "unix":
                db = int(parse_qs(parts.query).get("db", ["0"])[0])
                path = unquote(parts.netloc.rpartition("@")[2] + parts.path)
                if not path:
                    raise ValueError("no path")
                return cls(path, "", 0, db, user, password, False)
            if parts.scheme in ("redis", "rediss"):
                db = int(parts.path.strip("/") or 0)
                query = parse_qs(parts.query)
                return cls(
                    None,
                    parts.hostname or "localhost",
                    parts.port or 6379,
                    db,
                    user,
                    password,
                    parts.scheme == "rediss",
                    query.get("ssl_ca_certs", [None])[0],
                    query.get("cluster") == ["1"],
                )
        except ValueError as error:
            raise ValueError(f"not a Redis URL: {error}") from None
        raise ValueError("not a Redis URL: it starts with redis://, rediss:// or unix://")

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"


class Script:
    """A Lua script, known to Redis by its SHA1."""

    __slots__ = ("sha", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: Sequence[Argument], args: Sequence[Argument] = ()) -> ScriptCall:
        """A call of this script, to be given to `RedisClient.script` or to be put among the commands of a pipeline."""
        return ScriptCall(self, keys, args)


class ScriptCall:
    """One call of a script with its keys and arguments."""

    __slots__ = ("args", "keys", "script")

    def __init__(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> None:
        self.script = script
        self.keys = keys
        self.args = args

    def by_sha(self) -> bytes:
        """The command on the wire for a Redis that knows the script."""
        return _pack(("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args))

    def by_source(self) -> bytes:
        """The command on the wire for a Redis that does not."""
        return _pack(("EVAL", self.script.source, len(self.keys), *self.keys, *self.args))


class _Link(asyncio.Protocol):
    """One connection to Redis: bytes out, replies in, and `lost` once it is over, for whatever reason."""

    def __init__(self, on_reply: Callable[[Any], None]) -> None:
        self.on_reply = on_reply
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are stream transports, but of no such class

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING and not self.lost.done():
                self.on_reply(reply)
        except Exception as error:  # not RESP, or replies that nobody asked for: nothing after it can be trusted
            _log.exception("Redis connection given up")
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionResetError("closed by Redis"))

    def write(self, data: bytes) -> None:
        assert self._transport is not None, "links are handed out connected"
        self._transport.write(data)

    def fail(self, error: Exception) -> None:
        """Give the connection up; the first reason counts."""
        if not self.lost.done():
            self.lost.set_result(error)
        if self._transport is not None:
            self._transport.abort()


class _Reconnecting(ABC):
    """Keeps one link open: connect, be told, wait until it is lost, try again with full jitter."""

    def __init__(self, address: RedisAddress, tls: ssl.SSLContext | None, connect_seconds: float) -> None:
        self.address = address
        self.tls = (tls or ssl.create_default_context(cafile=address.authority)) if address.tls else None
        self._connect_seconds = connect_seconds
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    async def connect(self) -> None:
        """Start connecting and return when connected; RedisUnavailable if the first attempt fails.

        After that, and also after the error, connections are made again until `close`.
        """
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._first = loop.create_future()
            self._task = loop.create_task(self._run(self._first))
        assert self._first is not None, "set with the task"
        await asyncio.shield(self._first)

    async def connect_patiently(self) -> None:
        """Like `connect`, but return only when connected, however many attempts that takes."""
        with contextlib.suppress(RedisUnavailable):
            await self.connect()
        while self._link is None:  # noqa: ASYNC110 - it happens once, at the start
            await asyncio.sleep(_FIRST_WAIT_SECONDS)

    async def close(self) -> None:
        """Close for good; calls still waiting fail with RedisOutcomeUnknown."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, first: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                link = await self._open()
            except Exception as error:
                # Whatever it is, we go on; what is not the network's fault leaves its traceback.
                ours = None if isinstance(error, (OSError, RedisError)) else error
                if failures == 0 or ours is not None:  # once an outage: each worker tries twice a second
                    _log.warning("no connection to Redis at %s: %s", self.address, _reason(error), exc_info=ours)
                if not first.done():
                    first.set_exception(RedisUnavailable(f"{self.address}: {_reason(error)}"))
                    first.exception()  # seen: nobody may be waiting
            else:
                since = loop.time()
                if not first.done():
                    first.set_result(None)
                await self._hold(link)
                if loop.time() - since > _SETTLED_SECONDS:
                    failures = 0
            await asyncio.sleep(random.uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**failures)))  # noqa: S311
            failures = min(failures + 1, 10)

    async def _hold(self, link: _Link) -> None:
        """Until the link is lost, or we are closed."""
        why: Exception = RedisUnavailable("closed by us")
        self._link = link
        try:
            self._up(link)
            why = await asyncio.shield(link.lost)
            _log.warning("connection to Redis at %s lost: %s", self.address, _reason(why))
        finally:
            self._link = None
            link.fail(why)
            self._down(why)

    async def _open(self) -> _Link:
        """A connection that has been greeted; OSError (which TimeoutError is) or RedisError."""
        loop, address = asyncio.get_running_loop(), self.address
        greeting: asyncio.Future[list[Any]] = loop.create_future()
        required, optional = self._greeting()
        replies: list[Any] = []

        def on_reply(reply: Any) -> None:
            replies.append(reply)
            if len(replies) == len(required) + len(optional) and not greeting.done():
                greeting.set_result(replies)

        def on_lost(lost: asyncio.Future[Exception]) -> None:
            if not greeting.done():
                greeting.set_exception(RedisUnavailable(_reason(lost.result())))

        link = _Link(on_reply)
        try:
            async with asyncio.timeout(self._connect_seconds):
                if address.path is not None:
                    await loop.create_unix_connection(lambda: link, address.path)
                else:
                    await loop.create_connection(lambda: link, address.host, address.port, ssl=self.tls)
                link.write(b"".join(itertools.chain(required, optional)))
                link.lost.add_done_callback(on_lost)
                await greeting
        except TimeoutError:
            link.fail(TimeoutError())
            raise TimeoutError(f"no answer in {self._connect_seconds:g} s") from None
        except BaseException as error:
            link.fail(RedisUnavailable(_reason(error)))
            raise
        for reply in replies[: len(required)]:
            if isinstance(reply, hiredis.ReplyError):
                link.fail(RedisUnavailable("refused"))
                raise RedisReplyError(str(reply))
        self._greeted(replies[len(required) :])
        return link

    def _greeted(self, optional: Sequence[Any]) -> None:  # noqa: B027 - most have no use for it
        """The answers to what an access list may forbid."""

    def _greeting(self) -> tuple[list[bytes], list[bytes]]:
        """Commands that must succeed on a new connection, and those that an access list may forbid."""
        required: list[Command] = []
        if self.address.password is not None:
            user = () if self.address.user is None else (self.address.user,)
            required.append(("AUTH", *user, self.address.password))
        if self.address.db:
            required.append(("SELECT", self.address.db))
        return [_pack(command) for command in required], []

    @abstractmethod
    def _up(self, link: _Link) -> None:
        """The link is open."""

    @abstractmethod
    def _down(self, error: Exception) -> None:
        """The link, open or on its way, is lost."""


class _Waiting:
    """Replies somebody waits for."""

    __slots__ = ("deadline", "future", "replies", "wanted")

    def __init__(self, future: asyncio.Future[list[Any]], wanted: int, deadline: float) -> None:
        self.future = future
        self.wanted = wanted
        self.deadline = deadline
        self.replies: list[Any] = []


class RedisClient(_Reconnecting):
    """One connection for commands. Replies are bytes, ints, lists and None, as in RESP2.

    A call that gets no answer within `command_seconds` gives the connection up, and with it every call behind that one: replies
    come in order, so they would have waited too.
    """

    def __init__(
        self,
        url: str | RedisAddress,
        *,
        name: str = "proctorwire",
        scripts: Sequence[Script] = (),
        on_connected: Callable[[], None] | None = None,
        on_lost: Callable[[Exception], None] | None = None,
        command_seconds: float = 2.0,
        connect_seconds: float = 1.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`url`: `unix://path[?db=1]`, `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.

        `scripts` are loaded on every new connection before anything else. `on_connected` is called after each connection,
        the first one too; `on_lost` after each loss. Both are synchronous and may start tasks that use this client.
        """
        super().__init__(_address(url), tls, connect_seconds)
        self.name = name
        self.life: str | None = None
        """The server's replication id, another one after each restart and each failover; None if it does not say."""
        self._scripts = scripts
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._command_seconds = command_seconds
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_connected(self) -> bool:
        """Whether a command would be sent now."""
        return self._link is not None

    async def execute(self, *command: Argument) -> Any:
        """Send one command and return its reply; an error reply is raised as RedisReplyError."""
        (reply,) = await self._send(_pack(command), 1)
        if isinstance(reply, hiredis.ReplyError):
            raise self._reply_error(reply)
        return reply

    async def pipeline(self, commands: Sequence[Command | ScriptCall]) -> list[Any]:
        """Send commands in one write and return their replies in order.

        Error replies are *returned*, as RedisReplyError in their place: one refused command does not hide the others' results.
        A script that Redis had forgotten is sent again with its source, after the rest of the pipeline.
        """
        if not commands:
            return []
        data = b"".join(item.by_sha() if isinstance(item, ScriptCall) else _pack(item) for item in commands)
        replies = await self._send(data, len(commands))
        forgotten: list[int] = []
        for at, reply in enumerate(replies):
            if isinstance(reply, hiredis.ReplyError):
                error = self._reply_error(reply)
                replies[at] = error
                if error.code == "NOSCRIPT" and isinstance(commands[at], ScriptCall):
                    forgotten.append(at)
        if forgotten:
            calls = [call for at in forgotten if isinstance(call := commands[at], ScriptCall)]
            again = await self._send(b"".join(call.by_source() for call in calls), len(calls))
            for at, reply in zip(forgotten, again, strict=True):
                replies[at] = self._reply_error(reply) if isinstance(reply, hiredis.ReplyError) else reply
        return replies

    async def execute_all(self, commands: Sequence[Command | ScriptCall]) -> list[Any]:
        """Replies to commands none of which may fail: the first error reply is raised, after all were carried out."""
        replies = await self.pipeline(commands)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    async def script(self, call: ScriptCall) -> Any:
        """Run a script by its SHA1, with its source if Redis had forgotten it."""
        (reply,) = await self.execute_all((call,))
        return reply

    async def scan(self, pattern: str) -> list[bytes]:
        """The names of all keys that the pattern fits."""
        found, cursor = set[bytes](), b"0"
        while True:
            cursor, names = await self.execute("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            found.update(names)
            if cursor == b"0":
                return sorted(found)

    def _send(self, data: bytes, wanted: int) -> asyncio.Future[list[Any]]:
        link = self._link
        if link is None or link.lost.done():
            raise RedisUnavailable(f"not connected to {self.address}")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop.create_future(), wanted, loop.time() + self._command_seconds)
        self._waiting.append(waiting)
        if self._timer is None:
            self._timer = loop.call_at(waiting.deadline, self._check_deadline, waiting.deadline)
        link.write(data)
        return waiting.future

    def _replied(self, reply: Any) -> None:
        waiting = self._waiting[0]
        waiting.replies.append(reply)
        if len(waiting.replies) == waiting.wanted:
            self._waiting.popleft()
            if not waiting.future.done():  # its caller may have been cancelled
                waiting.future.set_result(waiting.replies)

    def _check_deadline(self, due: float) -> None:
        """One timer for all calls: the first one waiting has the earliest deadline."""
        loop, self._timer = asyncio.get_running_loop(), None
        if not self._waiting:
            return
        now, deadline = loop.time(), self._waiting[0].deadline
        if deadline > now:
            self._timer = loop.call_at(deadline, self._check_deadline, deadline)
        elif now - due > self._command_seconds / 4:
            # We stood still ourselves: the answer may lie in the socket, and timers run before it is read.
            self._timer = loop.call_later(_FIRST_WAIT_SECONDS, self._check_deadline, now + _FIRST_WAIT_SECONDS)
        elif self._link is not None:
            self._link.fail(TimeoutError(f"no answer in {self._command_seconds:g} s"))

    def _reply_error(self, reply: Exception) -> RedisReplyError:
        error = RedisReplyError(str(reply))
        if error.code in _WRONG_NODE and self._link is not None:
            self._link.fail(error)
        return error

    def _greeting(self) -> tuple[list[bytes], list[bytes]]:
        required, optional = super()._greeting()
        required += [_pack(("PING",)), *(_pack(("SCRIPT", "LOAD", script.source)) for script in self._scripts)]
        optional += [_pack(("CLIENT", "SETNAME", self.name)), _pack(("INFO", "replication"))]
        return required, optional

    def _greeted(self, optional: Sequence[Any]) -> None:
        info = optional[-1]
        _, found, rest = info.partition(b"master_replid:") if isinstance(info, bytes) else (b"", b"", b"")
        self.life = rest.split(b"\r", 1)[0].decode() if found else None

    def _up(self, link: _Link) -> None:
        link.on_reply = self._replied
        if self._on_connected is not None:
            _call(self._on_connected)

    def _down(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in waiting:
            if not one.future.done():
                one.future.set_exception(RedisOutcomeUnknown(f"{self.address}: {_reason(error)}"))
        if self._on_lost is not None:
            _call(self._on_lost, error)


class Publishing(Protocol):
    """What a subscriber publishes its probe through: everybody's way."""

    name: str
    address: RedisAddress
    tls: ssl.SSLContext | None

    async def execute(self, *command: Argument) -> Any:
        """Send one command and return its reply."""


class Subscriber(_Reconnecting):
    """One connection for publications, with a probe that proves they arrive.

    A connection can look alive and carry nothing: a silent network, or a node that is no longer the one published to. So every
    `probe_seconds` it publishes to a channel of its own, through the command connection as everybody does, and reconnects if it
    does not hear that within `probe_seconds`.
    """

    _SUBSCRIBE, _UNSUBSCRIBE, _MESSAGE, _PUBLISH = b"subscribe", b"unsubscribe", b"message", "PUBLISH"
    _CHANNELS_PER_COMMAND = 512

    def __init__(
        self,
        client: Publishing,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[], None],
        *,
        probe_seconds: float = 2.0,
        connect_seconds: float = 1.0,
        command_seconds: float = 2.0,
        probe_channel: str = "",
        url: str | RedisAddress | None = None,
    ) -> None:
        """Connects to the same Redis as `client`, through which it publishes its probe; `url` only if the way there differs.

        `on_message(channel, payload)` is called for each publication. `on_gap()` is called after every reconnection, when all
        channels are subscribed again: whatever was published in between is lost, so read again what it would have told.
        An exception in either is logged and counted in `errors`.
        """
        super().__init__(client.address if url is None else _address(url), client.tls, connect_seconds)
        self._client = client
        self._on_message = on_message
        self._on_gap = on_gap
        self._probe_seconds = probe_seconds
        self._command_seconds = command_seconds
        self._probe_channel = (probe_channel or f"proctorwire:probe:{os.urandom(8).hex()}").encode()
        self._wanted: set[bytes] = set()
        self._unconfirmed: deque[tuple[bytes, bytes, asyncio.Future[None] | None]] = deque()
        self._probed: tuple[bytes, asyncio.Future[None]] | None = None
        self._guard: asyncio.Task[None] | None = None
        self._was_up = False
        self._healthy = False
        self.gaps = 0
        """Reconnections so far."""
        self.lag: float | None = None
        """Seconds from publishing to hearing it, as last probed; whoever takes note of it sets it to None."""
        self.errors = 0
        """Exceptions from the callbacks so far."""

    @property
    def is_healthy(self) -> bool:
        """Whether the last probe was heard in time."""
        return self._healthy

    @property
    def channels(self) -> frozenset[bytes]:
        """The channels wanted, confirmed or not."""
        return frozenset(self._wanted)

    async def subscribe(self, *channels: bytes) -> None:
        """Return when Redis has confirmed every channel: whatever is published from now on arrives.

        RedisUnavailable if there is no connection or that takes longer than `command_seconds`; the channels stay wanted and are
        subscribed with the next connection, after which `on_gap` is called.
        """
        self._wanted.update(channels)
        if self._link is None:
            raise RedisUnavailable(f"not connected to {self.address}")
        await self._confirmed(self._ask(self._SUBSCRIBE, channels))

    async def unsubscribe(self, *channels: bytes) -> None:
        """Forget the channels at once and return when Redis has confirmed, or there is no connection."""
        self._wanted.difference_update(channels)
        if self._link is not None:
            await self._confirmed(self._ask(self._UNSUBSCRIBE, channels))

    async def close(self) -> None:
        """Close for good."""
        await super().close()
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.wait([self._guard])

    def _ask(self, verb: bytes, channels: Sequence[bytes]) -> asyncio.Future[None] | None:
        """Send in batches; the future is done with the last confirmation, for Redis confirms in order."""
        if not channels or self._link is None:
            return None
        last: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asked = []
        for at in range(0, len(channels), self._CHANNELS_PER_COMMAND):
            batch = channels[at : at + self._CHANNELS_PER_COMMAND]
            self._unconfirmed.extend((verb, channel, None) for channel in batch)
            asked.append(_pack((verb, *batch)))
        self._link.write(b"".join(asked))
        verb, channel, _ = self._unconfirmed.pop()
        self._unconfirmed.append((verb, channel, last))
        return last

    async def _confirmed(self, last: asyncio.Future[None] | None) -> None:
        if last is None:
            return
        try:
            async with asyncio.timeout(self._command_seconds):
                await last
        except TimeoutError:
            raise RedisOutcomeUnknown(f"{self.address}: no confirmation in {self._command_seconds:g} s") from None

    def _replied(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._refused(RedisReplyError(str(reply)))
            return
        kind, channel, payload = reply
        if kind == self._MESSAGE:
            if channel in self._wanted:
                self._call(self._on_message, channel, payload)
            elif channel == self._probe_channel:
                self._hear(payload)
        elif self._unconfirmed and self._unconfirmed[0][:2] == (kind, channel):
            _, _, waiter = self._unconfirmed.popleft()
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        else:
            self._unasked(kind, channel)

    def _refused(self, error: RedisReplyError) -> None:
        """Redis does not do what was asked: nothing can be said of this connection any more."""
        raise error

    def _unasked(self, kind: bytes, channel: bytes) -> None:
        """Something was confirmed that was not next."""
        raise RedisReplyError(f"ERR {kind!r} of {channel!r} confirmed, and not asked for")

    def _hear(self, payload: bytes) -> None:
        if self._probed is not None and self._probed[0] == payload and not self._probed[1].done():
            self._probed[1].set_result(None)

    def _call(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:
            self.errors += 1
            if self.errors <= 10 or self.errors % 1000 == 0:  # enough to find the bug, not enough to fill a disk
                _log.exception("subscriber callback failed (%d so far)", self.errors)

    def _greeting(self) -> tuple[list[bytes], list[bytes]]:
        required, optional = super()._greeting()
        required.append(_pack(("PING",)))
        optional.append(_pack(("CLIENT", "SETNAME", self._client.name + ":subscriber")))
        return required, optional

    def _up(self, link: _Link) -> None:
        link.on_reply = self._replied
        self._guard = asyncio.get_running_loop().create_task(self._watch(link))

    def _down(self, error: Exception) -> None:
        self._healthy = False
        if self._guard is not None:
            self._guard.cancel()
        unconfirmed, self._unconfirmed = self._unconfirmed, deque()
        for _, _, waiter in unconfirmed:
            if waiter is not None and not waiter.done():
                waiter.set_exception(RedisOutcomeUnknown(f"{self.address}: {_reason(error)}"))
                waiter.exception()  # seen: its caller may be gone

    async def _watch(self, link: _Link) -> None:
        """Subscribe to everything, say that there was a gap, then probe until a probe is not heard."""
        try:
            await self._confirmed(self._ask(self._SUBSCRIBE, [self._probe_channel, *self._wanted]))
            if self._was_up:
                self.gaps += 1
                self._call(self._on_gap)
            self._was_up = self._healthy = True
            for number in itertools.count():
                await asyncio.sleep(self._probe_seconds)
                self._healthy = await self._probe(str(number).encode())
        except RedisError as error:
            link.fail(error)

    async def _probe(self, payload: bytes) -> bool:
        """Whether our own publication came back; RedisUnavailable if it should have."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        heard: asyncio.Future[None] = loop.create_future()
        self._probed = (payload, heard)
        publishing = loop.create_task(self._publish(payload))
        try:
            async with asyncio.timeout(self._probe_seconds):
                await heard
        except TimeoutError:
            if loop.time() - started > 1.5 * self._probe_seconds:
                return False  # we stood still ourselves: it may lie in the socket
            raise RedisUnavailable(f"probe not heard in {self._probe_seconds:g} s") from None
        finally:
            publishing.cancel()
        self.lag = loop.time() - started
        return True

    async def _publish(self, payload: bytes) -> None:
        """Until it is out: the command connection may be reconnecting, which is no fault of ours."""
        while True:
            try:
                await self._client.execute(self._PUBLISH, self._probe_channel, payload)
            except RedisError as error:
                _log.debug("probe not published: %s", error)
                await asyncio.sleep(self._probe_seconds / 20)
            else:
                return


def _address(url: str | RedisAddress) -> RedisAddress:
    return url if isinstance(url, RedisAddress) else RedisAddress.parse(url)


def _pack(command: Iterable[Argument]) -> bytes:
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # takes floats, and says it does not
    return packed


def _call(callback: Callable[..., None], *arguments: object) -> None:
    """A failing callback must not end the connection that it is told about."""
    try:
        callback(*arguments)
    except Exception:
        _log.exception("callback failed")


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
