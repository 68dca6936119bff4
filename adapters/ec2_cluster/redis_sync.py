"""redis-py's clients, for processes that are no workers: of one server or of a Redis Cluster, which differ in a few calls only.

An operator gives one URL and says nothing about what is behind it. `marked` asks its server once and says `cluster=1` in the URL
that the processes of an instance are given; `connect` makes the client for a URL, and asks nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import redis
from redis.cluster import RedisCluster
from redis.commands.core import Script
from redis.exceptions import AskError, NoPermissionError, RedisClusterException, TryAgainError

from adapters.ec2_cluster.broker import script_source

ERRORS = (redis.RedisError, RedisClusterException)
"""What calls raise when Redis can't be reached or does not do what was asked."""
_ASK_SECONDS = 3.0
_ANSWER_SECONDS = 2.0
_MARK = "cluster=1"
_SHARDED_SINCE = 7


def marked(url: str) -> str:
    """The URL, which says `cluster=1` if its server is a node of a Redis Cluster. Raises `ERRORS`, OSError or ValueError.

    A user who may not ask (`INFO`) has a single server, unless the URL says so already. A cluster of before Redis 7 is refused: it
    sends every publication to every node.
    """
    plain, is_cluster = _unmarked(url)
    with redis.Redis.from_url(plain, socket_connect_timeout=_ASK_SECONDS, socket_timeout=_ASK_SECONDS) as client:
        client.ping()
        with contextlib.suppress(NoPermissionError):
            is_cluster = cast(Any, client.info("cluster")).get("cluster_enabled") == 1
            version = str(cast(Any, client.info("server")).get("redis_version"))
            if is_cluster and int(version.partition(".")[0]) < _SHARDED_SINCE:
                raise ValueError(
                    f"it is a Redis Cluster of version {version}; from {_SHARDED_SINCE} on one can be used"
                )
    if not is_cluster:
        return plain
    return f"{plain}{'&' if '?' in plain else '?'}{_MARK}"


def advice(error: Exception) -> str:
    """What to look at when a Redis can't be used for this reason, to be put behind it; empty if the reason says it."""
    if isinstance(error, NoPermissionError):
        return "; give its user what docs/operations.md lists"
    if isinstance(error, redis.AuthenticationError):
        return "; check its user and password"
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
        return "; check its address, port and firewall, and write rediss:// if it takes TLS only"
    return ""


def connect(url: str, **options: Any) -> redis.Redis:
    """A client for a URL as `marked` returns it. Raises ValueError if it is none, and of a cluster that can't be reached `ERRORS`.

    A cluster's is no `redis.Redis`, but has its commands: those that differ are below.
    """
    plain, is_cluster = _unmarked(url)
    if is_cluster:
        timeouts = {"socket_timeout": _ANSWER_SECONDS, "socket_connect_timeout": _ANSWER_SECONDS}
        return cast(redis.Redis, RedisCluster.from_url(plain, **{**timeouts, **options}))
    return redis.Redis.from_url(plain, **options)


def _unmarked(url: str) -> tuple[str, bool]:
    """The URL as redis-py reads it, and whether it is said to be a cluster's."""
    address, _, query = url.partition("?")
    options = query.split("&") if query else []
    for option in options:
        if option.startswith("cluster=") and option != _MARK:
            raise ValueError(f"{option} is no option: write {_MARK}, or leave it out and the server is asked")
    rest = "&".join(option for option in options if option != _MARK)
    return f"{address}?{rest}" if rest else address, _MARK in options


def is_cluster(client: redis.Redis) -> bool:
    """Whether the client is one of a cluster."""
    return isinstance(client, RedisCluster)


def script(client: redis.Redis, name: str) -> Script:
    """One of the Lua scripts, to be called through this client."""
    return client.register_script(script_source(name, sharded=is_cluster(client)))


@contextlib.contextmanager
def calling(client: redis.Redis) -> Iterator[redis.Redis]:
    """What scripts are called with, many at a time: a pipeline, which a cluster's client does not have for scripts."""
    if is_cluster(client):
        yield client
    else:
        with client.pipeline(transaction=False) as pipe:
            yield pipe
            pipe.execute()


def publish(client: redis.Redis, channel: bytes, payload: str | bytes) -> None:
    """Publish where workers subscribe."""
    if is_cluster(client):
        client.spublish(channel, payload)
    else:
        client.publish(channel, payload)


def count_listeners(client: redis.Redis, channel: bytes) -> int:
    """How many connections are subscribed to a channel."""
    if is_cluster(client):
        node = cast(Any, client).get_node_from_key(channel)
        found = cast(Any, client).pubsub_shardnumsub(channel, target_nodes=node)
    else:
        found = client.pubsub_numsub(channel)
    return int(cast(Any, found)[0][1])


def server_time(client: redis.Redis) -> float:
    """Redis time; a cluster's is that of the node with the first slot, as it is for workers."""
    if is_cluster(client):
        node = cast(Any, client).nodes_manager.get_node_from_slot(0)
        seconds, micros = cast(Any, client).time(target_nodes=node)
    else:
        seconds, micros = cast(Any, client.time())
    return float(seconds) + float(micros) / 1e6


def values(client: redis.Redis, keys: Sequence[str | bytes]) -> list[bytes | None]:
    """What is stored under each key, wherever its slot is."""
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.get(key)
        return cast(list[bytes | None], pipe.execute())


def by_server(client: redis.Redis, keys: Iterable[str]) -> list[tuple[redis.Redis, list[str]]]:
    """Keys with the client of the one server that has them, for calls that redis-py can't route: see `where_answered`."""
    if not is_cluster(client):
        return [(client, list(keys))]
    cluster, found = cast(Any, client), dict[Any, list[str]]()
    for key in keys:
        found.setdefault(cluster.get_node_from_key(key), []).append(key)
    return [(cluster.get_redis_connection(node), names) for node, names in found.items()]


def where_answered(client: redis.Redis, replies: Iterable[Any]) -> list[Any]:
    """Replies of such calls without those of slots that are on their way, which are found by the next. Other errors are raised."""
    found, has_moved = [], False
    for reply in replies:
        if isinstance(reply, (AskError, TryAgainError)):  # MovedError is an AskError
            has_moved = True
        elif isinstance(reply, Exception):
            raise reply
        else:
            found.append(reply)
    if has_moved:
        cast(Any, client).nodes_manager.initialize()
    return found
