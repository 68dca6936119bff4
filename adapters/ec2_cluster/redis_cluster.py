"""A Redis Cluster (or Valkey's) behind the interface of `redis_client`: a connection to each primary, publications by shard.

`ClusterClient` sends each command to the node that has its slot, and follows slots that move. `ClusterSubscriber` has a
`Subscriber` on each primary, because a shard's publications are heard on its own nodes only. Which slot a key has is said by its
hash tag; all keys and channels of an exam carry the same one (see `keys`), so that a script call or a publication is a matter of
one node.

What a command came to is never guessed: a node that says it did nothing (MOVED, ASK, TRYAGAIN, CLUSTERDOWN) is asked again or
another one is, for a moment; an answer that was lost is the caller's business, as with one server.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import os
import random
import ssl
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from redis.crc import key_slot

from adapters.ec2_cluster.redis_client import (
    Argument,
    Command,
    RedisAddress,
    RedisClient,
    RedisError,
    RedisOutcomeUnknown,
    RedisReplyError,
    RedisUnavailable,
    Script,
    ScriptCall,
    Subscriber,
)

__all__ = ["ClusterClient", "ClusterSubscriber", "Connected", "slot_of"]

_log = logging.getLogger(__name__)

SLOTS = 16384
_REFRESH_SECONDS = 0.2
"""The map of slots is asked for so often at most,"""
_BROKEN_SECONDS = 0.5
"""so often while a node is missing,"""
_LOOK_SECONDS = 15.0
"""and so often in any case."""
_STATE_SECONDS = 0.05
_PATIENCE_SECONDS = 1.0
_WAITS_SECONDS = (0.01, 0.1)
_REDIRECTIONS = 4
_UNUSED_SECONDS = 30.0
_GAP_SECONDS = 0.05
_ASKING: Command = ("ASKING",)
_REDIRECTS = frozenset(("MOVED", "ASK"))
_NOT_NOW = frozenset((*_REDIRECTS, "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "LOADING"))


def slot_of(key: Argument) -> int:
    """The slot of a key or of a shard's channel: of what stands between its first braces, if anything does."""
    name = key if isinstance(key, bytes) else str(key).encode()
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start)
        if end > start + 1:
            name = name[start + 1 : end]
    return _slot_of_tag(name)


@functools.lru_cache(maxsize=4096)
def _slot_of_tag(tag: bytes) -> int:
    return key_slot(tag)


def _slot_of_command(item: Command | ScriptCall) -> int:
    """By its first key. One without keys (TIME) goes to the same node always: the nodes' clocks are not the same."""
    if isinstance(item, ScriptCall):
        return slot_of(item.keys[0])
    return slot_of(item[1]) if len(item) > 1 else 0


class _Node:
    """A primary: its address and its connection, which may be used while `is_ready`."""

    __slots__ = ("address", "client", "is_heir", "is_ready", "life", "used_at")

    def __init__(self, address: tuple[str, int], client: RedisClient, now: float) -> None:
        self.address = address
        self.client = client
        self.is_ready = False
        self.is_heir = False  # it has slots of one that was lost
        self.life: str | None = None  # of when it was last ready
        self.used_at = now


class Connected(NamedTuple):
    """What a cluster's client has a connection to, for the first time or again."""

    slots: Collection[int]
    lives: frozenset[str]
    """The replication ids of their nodes, as far as they say."""
    is_anew: bool
    """Whether these are other servers than before, or the same without the memory of what they had not written or replicated."""


class ClusterClient:
    """`RedisClient` for a cluster: the same calls, answered by whichever node has the key.

    A pipeline is split by node. `execute`, `script` and `execute_all` wait up to a second for a slot that is on its way and for
    a node that is being replaced; `pipeline` does not, and has an error in the place of each command that came to nothing.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "proctorwire",
        scripts: Sequence[Script] = (),
        on_connected: Callable[[Connected], None] | None = None,
        on_lost: Callable[[Exception], None] | None = None,
        command_seconds: float = 2.0,
        connect_seconds: float = 1.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`url` names any node, or a name that leads to one (ElastiCache's configuration endpoint).

        `on_connected` is called when all primaries are connected for the first time, and whenever from then on a node may have
        lost something: it was connected again, it took the place of another, or it got slots of one that is gone. It is told
        which slots that is about. Until it has been called, nothing else is sent to that node. `on_lost` is called after each
        loss of a connection.
        """
        self.address = RedisAddress.parse(url)
        self.tls = (tls or ssl.create_default_context(cafile=self.address.authority)) if self.address.tls else None
        self.name = name
        self.on_slots: Callable[[], None] = _nothing
        """Called after each look at the map of slots."""
        self._scripts = scripts
        self._on_connected = on_connected or _nothing
        self._on_lost = on_lost
        self._command_seconds = command_seconds
        self._connect_seconds = connect_seconds
        self._slots: list[_Node | None] = [None] * SLOTS
        self._nodes: dict[tuple[str, int], _Node] = {}
        self._owners: frozenset[_Node] = frozenset()
        self._whole: asyncio.Future[None] | None = None
        self._stale = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_broken = False

    # --- connecting ---

    @property
    def is_connected(self) -> bool:
        """Whether every primary that has slots can be used."""
        return bool(self._owners) and all(node.is_ready for node in self._owners)

    async def connect(self) -> None:
        """Start connecting and return when all primaries are; RedisUnavailable if that takes too long. It goes on after that."""
        if self._whole is None:
            self._whole = asyncio.get_running_loop().create_future()
            self._spawn(self._keep_map())
        try:
            async with asyncio.timeout(self._connect_seconds + self._command_seconds):
                await asyncio.shield(self._whole)
        except TimeoutError:
            raise RedisUnavailable(f"{self.address}: not all nodes of the cluster can be reached") from None

    async def connect_patiently(self) -> None:
        """Like `connect`, but return only when connected."""
        with contextlib.suppress(RedisUnavailable):
            await self.connect()
        assert self._whole is not None, "made by connect"
        await asyncio.shield(self._whole)

    async def close(self) -> None:
        """Close for good; calls still waiting fail with RedisOutcomeUnknown."""
        for task in list(self._tasks):
            task.cancel()
        nodes, self._nodes, self._owners, self._slots = self._nodes, {}, frozenset(), [None] * SLOTS
        for node in nodes.values():
            node.is_ready = False
            await node.client.close()

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task failed", exc_info=task.exception())

    # --- the map of slots ---

    @property
    def owners(self) -> frozenset[_Node]:
        """The primaries that have slots."""
        return self._owners

    def owner(self, key: Argument) -> _Node | None:
        """The node that has the slot of this key, as far as we know."""
        return self._slots[slot_of(key)]

    def look_again(self) -> None:
        """The map may be wrong: ask for it soon."""
        self._stale.set()

    async def _keep_map(self) -> None:
        while True:
            self._stale.clear()
            try:
                await self._refresh()
                self._is_broken = False
            except (RedisError, OSError) as error:
                if not self._is_broken:  # once an outage
                    _log.warning("no map of slots from the cluster at %s: %s", self.address, error)
                self._is_broken = True
            await asyncio.sleep(_REFRESH_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS if self.is_connected else _BROKEN_SECONDS):
                    await self._stale.wait()

    async def _refresh(self) -> None:
        """Ask any node that answers, and the address that we were given if none does."""
        ready = [node for node in self._nodes.values() if node.is_ready]
        for node in random.sample(ready, len(ready)):
            try:
                self._learn(await node.client.execute("CLUSTER", "SLOTS"), node.address[0])
                return
            except RedisError as error:
                _log.debug("no map of slots from %s: %s", node.client.address, error)
        seed = RedisClient(self.address, name=self.name, connect_seconds=self._connect_seconds, tls=self.tls)
        try:
            await seed.connect()
            self._learn(await seed.execute("CLUSTER", "SLOTS"), self.address.host)
        finally:
            await seed.close()

    def _learn(self, ranges: Iterable[Any], asked: str) -> None:
        """Read the answer to CLUSTER SLOTS of the node with the name `asked`.

        A slot that nobody has now stays with whoever had it, so that we see it when somebody else gets it.
        """
        slots = self._slots.copy()
        for first, last, (host, port, *_), *_ in ranges:
            slots[first : last + 1] = [self._node((_host(host, asked), port))] * (last + 1 - first)
        self._install(slots)
        horizon = asyncio.get_running_loop().time() - _UNUSED_SECONDS
        for node in [n for n in self._nodes.values() if n not in self._owners and n.used_at < horizon]:
            self._forget(node)
        if None in slots:
            raise RedisUnavailable(f"{slots.count(None)} of its {SLOTS} slots belong to no node")

    def _install(self, slots: list[_Node | None]) -> None:
        """Go by this map from now on."""
        before, self._slots = self._slots, slots
        self._owners = frozenset(node for node in slots if node is not None)
        for node in frozenset(before) - self._owners - {None}:
            if node is not None and not node.is_ready:
                self._forget(node)  # another has its place
        inherited: dict[_Node, set[int]] = {}
        for slot, (was, now) in enumerate(zip(before, slots, strict=True)):
            if was is not now and was is not None and not was.is_ready and now is not None:
                inherited.setdefault(now, set()).add(slot)
        for heir, of_heir in inherited.items():
            if heir.is_ready:
                self._announce(of_heir, (heir,), is_anew=True)  # what was on a node that is gone may be lost
            else:
                heir.is_heir = True
        self._see_whether_whole()
        _call(self.on_slots)

    def _node(self, address: tuple[str, int]) -> _Node:
        """The node at this address; one that is new is connected to."""
        node = self._nodes.get(address)
        now = asyncio.get_running_loop().time()
        if node is None:
            host, port = address
            client = RedisClient(
                replace(self.address, host=host, port=port),
                name=self.name,
                scripts=self._scripts,
                on_connected=lambda: self._spawn(self._admit(found)),
                on_lost=lambda error: self._lost(found, error),
                command_seconds=self._command_seconds,
                connect_seconds=self._connect_seconds,
                tls=self.tls,
            )
            node = found = self._nodes[address] = _Node(address, client, now)
            self._spawn(client.connect_patiently())
        node.used_at = now
        return node

    def _forget(self, node: _Node) -> None:
        if self._nodes.pop(node.address, None) is not None:
            node.is_ready = False
            self._spawn(node.client.close())

    async def _admit(self, node: _Node) -> None:
        """Use a node from when it says that it may be used: one that was restarted answers CLUSTERDOWN for a while."""
        while node.client.is_connected:
            try:
                if b"cluster_state:ok" in await node.client.execute("CLUSTER", "INFO"):
                    break
            except RedisReplyError as error:
                _log.error("%s does not say how it is: %s", node.client.address, error)
                await asyncio.sleep(_BROKEN_SECONDS)
            except RedisError:
                return  # with the next connection it is asked again
            await asyncio.sleep(_STATE_SECONDS)
        else:
            return
        node.is_ready = True
        if self._whole is not None and self._whole.done():
            if node in self._owners:
                is_another = node.life is not None and node.life != node.client.life
                slots = {slot for slot, owner in enumerate(self._slots) if owner is node}
                self._announce(slots, (node,), is_anew=node.is_heir or is_another)
        else:
            self._see_whether_whole()
        self.look_again()

    def _see_whether_whole(self) -> None:
        """The first time that everything can be used."""
        if self._whole is not None and not self._whole.done() and self.is_connected and None not in self._slots:
            self._whole.set_result(None)
            self._announce(range(SLOTS), self._owners, is_anew=False)

    def _announce(self, slots: Collection[int], nodes: Iterable[_Node], *, is_anew: bool) -> None:
        for node in nodes:
            node.is_heir, node.life = False, node.client.life
        lives = frozenset(node.life for node in nodes if node.life is not None)
        _call(self._on_connected, Connected(slots, lives, is_anew and bool(lives)))

    def _lost(self, node: _Node, error: Exception) -> None:
        node.is_ready = False
        self.look_again()
        if self._on_lost is not None:
            _call(self._on_lost, error)

    # --- commands ---

    async def execute(self, *command: Argument) -> Any:
        """Send one command and return its reply; an error reply is raised as RedisReplyError."""
        (reply,) = await self.execute_all((command,))
        return reply

    async def script(self, call: ScriptCall) -> Any:
        """Run a script by its SHA1, with its source if the node had forgotten it."""
        (reply,) = await self.execute_all((call,))
        return reply

    async def execute_all(self, commands: Sequence[Command | ScriptCall]) -> list[Any]:
        """Replies to commands none of which may fail; those that came to nothing are sent again for up to a second."""
        replies = await self.pipeline(commands)
        loop = asyncio.get_running_loop()
        ends = loop.time() + _PATIENCE_SECONDS
        wait, longest = _WAITS_SECONDS
        while again := [at for at, reply in enumerate(replies) if _came_to_nothing(reply)]:
            if loop.time() > ends:
                break
            self.look_again()
            await asyncio.sleep(wait)
            wait = min(longest, 2 * wait)
            for at, reply in zip(again, await self.pipeline([commands[at] for at in again]), strict=True):
                replies[at] = reply
        for reply in replies:
            if isinstance(reply, RedisReplyError) and reply.code in _NOT_NOW:
                raise RedisUnavailable(f"{self.address}: {reply}")
            if isinstance(reply, RedisError):
                raise reply
        return replies

    async def scan(self, pattern: str) -> list[bytes]:
        """The names of all keys that the pattern fits, except on nodes that are away."""
        found: list[bytes] = []
        for node in self._owners:
            if node.is_ready:
                with contextlib.suppress(RedisError):
                    found += await node.client.scan(pattern)
        return found

    async def pipeline(self, commands: Sequence[Command | ScriptCall]) -> list[Any]:
        """Send commands, those for one node in one write, and return their replies in order.

        In the place of a command that failed is its error: RedisReplyError, or RedisUnavailable if its node can't be reached.
        """
        replies: list[Any] = [None] * len(commands)
        routes: dict[tuple[_Node | None, bool], list[int]] = {}
        for at, item in enumerate(commands):
            routes.setdefault((self._slots[_slot_of_command(item)], False), []).append(at)
        for _ in range(_REDIRECTIONS):
            sending = [self._send(*route, places, commands, replies) for route, places in routes.items()]
            if len(sending) == 1:
                await sending[0]
            else:
                await asyncio.gather(*sending)
            routes = self._redirected(routes, replies)
            if not routes:
                break
        return replies

    async def _send(
        self,
        node: _Node | None,
        asking: bool,
        places: Sequence[int],
        commands: Sequence[Command | ScriptCall],
        replies: list[Any],
    ) -> None:
        """Send those commands to the node. `asking`: it does not have their slot yet, but was named for it."""
        wanted = [commands[at] for at in places]
        found: Iterable[Any]
        if node is None or not node.is_ready:
            self.look_again()
            where = self.address if node is None else node.client.address
            found = itertools.repeat(RedisUnavailable(f"not connected to {where}"), len(places))
        else:
            try:
                if asking:
                    found = (await node.client.pipeline([x for one in wanted for x in (_ASKING, one)]))[1::2]
                else:
                    found = await node.client.pipeline(wanted)
            except RedisError as error:
                found = itertools.repeat(error, len(places))
        for at, reply in zip(places, found, strict=True):
            replies[at] = reply

    def _redirected(
        self, routes: dict[tuple[_Node | None, bool], list[int]], replies: Sequence[Any]
    ) -> dict[tuple[_Node | None, bool], list[int]]:
        """Where to send what was sent to a node that does not have it."""
        again: dict[tuple[_Node | None, bool], list[int]] = {}
        slots: list[_Node | None] | None = None
        for (asked, _), places in routes.items():
            for at in places:
                reply = replies[at]
                if isinstance(reply, RedisReplyError) and reply.code in _REDIRECTS:
                    assert asked is not None, "it answered"
                    slot, node = self._named(reply, asked.address[0])
                    again.setdefault((node, reply.code == "ASK"), []).append(at)
                    if reply.code == "MOVED":
                        slots = slots or self._slots.copy()
                        slots[slot] = node
        if slots is not None:
            self._install(slots)
            self.look_again()
        return again

    def moved(self, error: RedisReplyError, asked: str) -> None:
        """A subscriber was told that a slot has moved."""
        slot, node = self._named(error, asked)
        slots = self._slots.copy()
        slots[slot] = node
        self.look_again()
        self._install(slots)

    def _named(self, error: RedisReplyError, asked: str) -> tuple[int, _Node]:
        """The slot and the node in `MOVED 3999 host:port`, answered by the node with the name `asked`."""
        _, slot, place = str(error).split(" ")[:3]
        host, _, port = place.rpartition(":")
        return int(slot), self._node((_host(host.encode(), asked), int(port)))


class _ShardSubscriber(Subscriber):
    """The publications of the shards that are on one node."""

    _SUBSCRIBE, _UNSUBSCRIBE, _MESSAGE, _PUBLISH = b"ssubscribe", b"sunsubscribe", b"smessage", "SPUBLISH"
    _CHANNELS_PER_COMMAND = 1  # those of one command must have the same slot

    def __init__(
        self,
        cluster: ClusterClient,
        node: _Node,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[], None],
        **options: float,
    ) -> None:
        super().__init__(cluster, on_message, on_gap, url=node.client.address, **options)  # type: ignore[arg-type]
        self._cluster = cluster
        self._node = node

    def take(self, channels: Collection[bytes]) -> None:
        """Want these channels, and say that there was a gap once they are confirmed."""
        self._was_up = True  # whatever comes with the first connection was somewhere else before
        self._wanted.update(channels)

    def keep(self, channels: Collection[bytes]) -> None:
        """Want no others: they are another node's, which has told Redis's clients so by itself."""
        self._wanted.intersection_update(channels)

    async def _watch(self, link: Any) -> None:
        """A probe needs a channel whose slot this node has."""
        for number in itertools.count():
            channel = f"proctorwire:probe:{{{number}}}:{os.urandom(8).hex()}"
            if self._cluster.owner(channel) is self._node:
                self._probe_channel = channel.encode()
                break
            if number == 8 * SLOTS:
                link.fail(RedisUnavailable("this node has no slots"))
                return
        await super()._watch(link)

    def _refused(self, error: RedisReplyError) -> None:
        """A channel whose slot has moved is taken to the other node; anything else is the end of the connection."""
        if error.code != "MOVED" or not self._unconfirmed:
            assert self._link is not None, "it answered"
            self._link.fail(error)
            return
        _, channel, waiter = self._unconfirmed.popleft()
        if waiter is not None and not waiter.done():
            waiter.set_result(None)  # who waits sees that the channel is not among ours
        self._moved_away(channel)
        self._cluster.moved(error, self.address.host)

    def _unasked(self, kind: bytes, channel: bytes) -> None:
        """Redis ends subscriptions to what it gives away."""
        if kind == self._UNSUBSCRIBE:
            self._moved_away(channel)

    def _moved_away(self, channel: bytes) -> None:
        if channel == self._probe_channel and self._link is not None:
            self._link.fail(RedisUnavailable("the slot of the probe has moved"))
        self._wanted.discard(channel)
        self._cluster.look_again()


class ClusterSubscriber:
    """`Subscriber` for a cluster: one on each primary, and the channels where their slots are.

    A channel whose slot moves is subscribed where it is now, and then `on_gap` is called, as it is after reconnections.
    """

    def __init__(
        self,
        client: ClusterClient,
        on_message: Callable[[bytes, bytes], None],
        on_gap: Callable[[], None],
        **options: float,
    ) -> None:
        """`options` are `probe_seconds`, `connect_seconds` and `command_seconds` of `Subscriber`."""
        self._client = client
        self._on_message = on_message
        self._on_gap = on_gap
        self._options = options
        self._wanted: set[bytes] = set()
        self._parts: dict[_Node, _ShardSubscriber] = {}
        self._ended: deque[_ShardSubscriber] = deque(maxlen=1000)
        self._tasks: set[asyncio.Task[None]] = set()
        self._telling: asyncio.TimerHandle | None = None
        self._has_connected = False
        self.gaps = 0
        """How often `on_gap` was called."""
        self._own_errors = 0

    # --- what it looks like ---

    @property
    def is_healthy(self) -> bool:
        """Whether the last probes of all nodes were heard in time."""
        return bool(self._parts) and all(part.is_healthy for part in self._parts.values())

    @property
    def channels(self) -> frozenset[bytes]:
        """The channels wanted, confirmed or not."""
        return frozenset(self._wanted)

    @property
    def lag(self) -> float | None:
        """Seconds from publishing to hearing it, the longest of the nodes' last probes; set it to None when noted."""
        return max((part.lag for part in self._parts.values() if part.lag is not None), default=None)

    @lag.setter
    def lag(self, lag: None) -> None:
        for part in self._parts.values():
            part.lag = lag

    @property
    def errors(self) -> int:
        """Exceptions from the callbacks so far."""
        return self._own_errors + sum(part.errors for part in (*self._parts.values(), *self._ended))

    # --- what it does ---

    async def connect_patiently(self) -> None:
        """Return when every primary is listened to."""
        self._client.on_slots = self._follow
        self._follow()
        while not self.is_healthy:  # noqa: ASYNC110 - it happens once, at the start
            await asyncio.sleep(_STATE_SECONDS)
        self._has_connected = True

    async def subscribe(self, *channels: bytes) -> None:
        """Return when every channel is confirmed: whatever is published from now on arrives.

        RedisUnavailable if a node can't be reached or does not have the slot any more; the channels stay wanted.
        """
        self._wanted.update(channels)
        of_parts = self._by_part(channels)
        await asyncio.gather(*(part.subscribe(*found) for part, found in of_parts.items()))
        if any(not part.channels.issuperset(found) for part, found in of_parts.items()):
            raise RedisUnavailable("a slot has moved: its channels are subscribed where it is now")

    async def unsubscribe(self, *channels: bytes) -> None:
        """Forget the channels at once and return when that is confirmed, or there is no connection."""
        self._wanted.difference_update(channels)
        for part in self._parts.values():
            await part.unsubscribe(*part.channels.intersection(channels))

    async def close(self) -> None:
        """Close for good."""
        self._client.on_slots = _nothing
        if self._telling is not None:
            self._telling.cancel()
        for task in list(self._tasks):
            task.cancel()
        for part in self._parts.values():
            await part.close()

    def _by_part(self, channels: Iterable[bytes]) -> dict[_ShardSubscriber, list[bytes]]:
        found: dict[_ShardSubscriber, list[bytes]] = {}
        for channel in channels:
            node = self._client.owner(channel)
            part = None if node is None else self._parts.get(node)
            if part is None:
                raise RedisUnavailable(f"no connection to the node of {channel.decode()}")
            found.setdefault(part, []).append(channel)
        return found

    def _follow(self) -> None:
        """Have every channel where its slot is."""
        owners = self._client.owners
        for gone in self._parts.keys() - owners:
            ended = self._parts.pop(gone)
            self._ended.append(ended)
            self._spawn(ended.close())
        places: dict[_Node, set[bytes]] = {node: set() for node in owners}
        for channel in self._wanted:
            owner = self._client.owner(channel)
            if owner is not None:
                places[owner].add(channel)
        for node, channels in places.items():
            part = self._parts.get(node)
            if part is None:
                part = _ShardSubscriber(self._client, node, self._on_message, self._tell_gap, **self._options)
                self._parts[node] = part
                if self._has_connected:
                    part.take(channels)
                self._spawn(part.connect_patiently())
                continue
            part.keep(channels)
            fresh = channels - part.channels
            if fresh:
                self._spawn(self._bring(part, fresh))

    async def _bring(self, part: _ShardSubscriber, channels: Collection[bytes]) -> None:
        """Subscribe channels that were another node's. Without a connection they come with the next, and so does the gap."""
        part.take(channels)
        with contextlib.suppress(RedisError):
            await part.subscribe(*channels)
            self._tell_gap()

    def _tell_gap(self) -> None:
        """Many slots that move at a time are one gap."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_GAP_SECONDS, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self.gaps += 1
        try:
            self._on_gap()
        except Exception:
            self._own_errors += 1
            _log.exception("subscriber callback failed")

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _came_to_nothing(reply: object) -> bool:
    """Whether the command was not carried out, and may be later."""
    if isinstance(reply, RedisReplyError):
        return reply.code in _NOT_NOW
    return isinstance(reply, RedisUnavailable) and not isinstance(reply, RedisOutcomeUnknown)


def _host(named: bytes | None, asked: str) -> str:
    """A node's name; one that does not know its own (empty, `?` or nil) has the name by which it was asked."""
    return named.decode() if named not in (None, b"", b"?") and named is not None else asked


def _nothing(*_: object) -> None:
    """Nobody wants to know."""


def _call(callback: Callable[..., None], *arguments: object) -> None:
    """A failing callback must not end what it is told about."""
    try:
        callback(*arguments)
    except Exception:
        _log.exception("callback failed")
