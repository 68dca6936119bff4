import asyncio
import logging
import time

import pytest
from transport_peers import until

from adapters.ec2_cluster.redis_client import (
    RedisAddress,
    RedisClient,
    RedisOutcomeUnknown,
    RedisReplyError,
    RedisUnavailable,
    Script,
    Subscriber,
)

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


class Listening:
    """A subscriber, and what it heard."""

    def __init__(self, client, **options):
        self.heard, self.gaps = [], 0
        options = {"probe_seconds": 0.2, "command_seconds": 0.5, **options}
        self.subscriber = Subscriber(client, lambda *message: self.heard.append(message), self._gap, **options)

    def _gap(self):
        self.gaps += 1


@pytest.fixture
async def client(redis):
    one = RedisClient(redis.url, scripts=[ADD])
    await one.connect()
    yield one
    await one.close()


@pytest.fixture
async def listening(client):
    one = Listening(client)
    await one.subscriber.connect()
    yield one
    await one.subscriber.close()


async def test_replies_are_plain_values(client):
    assert await client.execute("SET", "k", 1) == b"OK"
    assert await client.execute(b"GET", "k") == b"1"
    assert await client.execute("GET", "none") is None
    assert await client.execute("RPUSH", "list", "a", b"\xff", 1.5) == 3
    assert await client.execute("LRANGE", "list", 0, -1) == [b"a", b"\xff", b"1.5"]


async def test_an_error_reply_is_raised_with_its_code(client):
    await client.execute("SET", "k", "v")
    with pytest.raises(RedisReplyError, match="WRONGTYPE") as caught:
        await client.execute("LPUSH", "k", 1)
    assert caught.value.code == "WRONGTYPE"
    assert client.is_connected


async def test_a_pipeline_returns_errors_in_their_place(client):
    replies = await client.pipeline([("SET", "k", "v"), ("LPUSH", "k", 1), ADD(["n"], [5]), ("GET", "k")])
    assert [type(reply) for reply in replies] == [bytes, RedisReplyError, int, bytes]
    assert replies[2:] == [5, b"v"]
    assert await client.pipeline([]) == []


async def test_calls_of_many_tasks_get_their_own_replies(client):
    async def echo(number):
        return await client.pipeline([("ECHO", number), ("ECHO", -number)])

    replies = await asyncio.gather(*(echo(number) for number in range(200)))
    assert replies == [[b"%d" % number, b"%d" % -number] for number in range(200)]


async def test_a_cancelled_call_does_not_shift_the_replies(client):
    call = asyncio.ensure_future(client.execute("ECHO", "lost"))
    await asyncio.sleep(0)
    call.cancel()
    assert await client.execute("ECHO", "mine") == b"mine"


async def test_a_forgotten_script_is_sent_again(client):
    assert await client.script(ADD(["n"], [1])) == 1
    await client.execute("SCRIPT", "FLUSH")
    assert await client.script(ADD(["n"], [1])) == 2
    await client.execute("SCRIPT", "FLUSH")
    assert await client.pipeline([("ECHO", "x"), ADD(["n"], [1]), ADD(["m"], [7])]) == [b"x", 3, 7]
    with pytest.raises(RedisReplyError, match="not an integer"):
        await client.script(ADD(["n"], ["x"]))


async def test_scripts_are_known_after_a_restart(redis, client):
    await until(lambda: client.is_connected)
    redis.restart()
    await until(lambda: not client.is_connected)
    await until(lambda: client.is_connected)
    assert await client.execute("SCRIPT", "EXISTS", ADD.sha) == [1]


async def test_without_a_server_the_first_connect_says_why_and_goes_on(redis, caplog):
    redis.server.stop()
    told = []
    client = RedisClient(
        redis.url, on_connected=lambda: told.append("connected"), on_lost=lambda error: told.append("lost")
    )
    with pytest.raises(RedisUnavailable, match="redis"):
        await client.connect()
    with pytest.raises(RedisUnavailable):
        await client.execute("PING")
    redis.start()
    await until(lambda: client.is_connected)
    assert await client.execute("PING") == b"PONG"
    await client.close()
    assert told == ["connected", "lost"]
    assert "no connection to Redis" in caplog.text


async def test_a_restart_fails_what_waits_and_is_reconnected_with_the_data(redis, client):
    told = []
    watcher = RedisClient(
        redis.url, on_connected=lambda: told.append("connected"), on_lost=lambda error: told.append("lost")
    )
    await watcher.connect()
    await client.execute("SET", "k", "kept")
    blocked = asyncio.ensure_future(client.execute("BLPOP", "never", 0))
    await until(lambda: client._waiting)
    redis.restart()
    with pytest.raises(RedisOutcomeUnknown):
        await blocked
    await until(lambda: client.is_connected)
    assert await client.execute("GET", "k") == b"kept"
    await until(lambda: told == ["connected", "lost", "connected"])
    await watcher.close()


async def test_a_callback_that_fails_does_not_end_the_client(redis, caplog):
    def broken(*_):
        raise RuntimeError("callback bug")

    client = RedisClient(redis.url, on_connected=broken, on_lost=broken)
    await client.connect()
    assert await client.execute("PING") == b"PONG"
    await client.close()
    assert len([record for record in caplog.records if record.message == "callback failed"]) == 2


async def test_a_silent_connection_is_given_up_at_the_deadline(black_box):
    client = RedisClient(black_box.url, command_seconds=0.2, connect_seconds=0.2)
    await client.connect()
    black_box.silent = True
    started = time.monotonic()
    calls = [asyncio.ensure_future(client.execute("PING")) for _ in range(3)]
    for call in calls:
        with pytest.raises(RedisOutcomeUnknown, match="no answer"):
            await call
    assert time.monotonic() - started < 1.0
    assert not client.is_connected
    black_box.silent = False
    await until(lambda: client.is_connected)
    assert await client.execute("PING") == b"PONG"
    await client.close()


async def test_a_silent_server_is_no_connection(black_box):
    black_box.silent = True
    client = RedisClient(black_box.url, connect_seconds=0.1)
    with pytest.raises(RedisUnavailable, match="no answer in"):
        await client.connect()
    await client.close()


async def test_standing_still_ourselves_is_not_the_servers_silence(redis):
    client = RedisClient(redis.url, command_seconds=0.2)
    await client.connect()
    call = asyncio.ensure_future(client.execute("PING"))
    await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251  # the loop stands still, the answer waits in the socket
    assert await call == b"PONG"
    await client.close()


async def test_a_replica_is_given_up_for_another_look(redis, client):
    lost = []
    client._on_lost = lost.append
    await client.execute("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(RedisReplyError) as caught:
        await client.execute("SET", "k", "v")
    assert caught.value.code == "READONLY"
    await until(lambda: len(lost) == 1)
    await until(lambda: client.is_connected)


async def test_a_password_is_asked_for_and_never_told(redis, client, caplog):
    caplog.set_level(logging.DEBUG)
    await client.execute("CONFIG", "SET", "requirepass", "s3cret!")
    path = redis.path
    wrong = RedisClient(f"unix://:wr0ng@{path}")
    with pytest.raises(RedisUnavailable, match="WRONGPASS"):
        await wrong.connect()
    await wrong.close()
    right = RedisClient(f"unix://:s3cret!@{path}?db=3")
    await right.connect()
    await right.execute("SET", "k", "v")
    assert b"db=3" in await right.execute("CLIENT", "INFO")
    assert "s3cret" not in f"{right.address!r} {right.address}"
    await right.close()
    assert "s3cret" not in caplog.text
    assert "wr0ng" not in caplog.text
    await client.execute("CONFIG", "SET", "requirepass", "")


@pytest.mark.parametrize(
    ("url", "shown", "user", "password"),
    [
        ("redis://", "redis://localhost:6379/0", None, None),
        ("redis://cache.example:7000/2", "redis://cache.example:7000/2", None, None),
        ("rediss://me:p%40ss@cache.example", "rediss://cache.example:6379/0", "me", "p@ss"),
        ("redis://:only@[::1]:1", "redis://::1:1/0", None, "only"),
        ("unix:///run/redis.sock?db=4", "unix:///run/redis.sock", None, None),
    ],
)
def test_urls(url, shown, user, password):
    address = RedisAddress.parse(url)
    assert (str(address), address.user, address.password) == (shown, user, password)


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://x", "redis://x/y", "redis://x:port", "unix://"])
def test_what_is_no_url_is_said(url):
    with pytest.raises(ValueError, match="not a Redis URL"):
        RedisAddress.parse(url)


async def test_what_is_published_after_subscribe_arrives(client, listening):
    await listening.subscriber.subscribe(b"a", b"b")
    assert await client.execute("PUBLISH", "a", b"\xff1") == 1
    await client.execute("PUBLISH", "b", "2")
    await client.execute("PUBLISH", "other", "3")
    await until(lambda: listening.heard == [(b"a", b"\xff1"), (b"b", b"2")])
    await listening.subscriber.unsubscribe(b"a")
    assert await client.execute("PUBLISH", "a", "4") == 0
    assert listening.subscriber.channels == {b"b"}
    assert listening.gaps == 0


async def test_an_unsubscribed_channel_is_quiet_at_once(client, listening):
    await listening.subscriber.subscribe(b"a")
    leaving = asyncio.ensure_future(listening.subscriber.unsubscribe(b"a"))
    await asyncio.sleep(0)  # it has been asked
    await client.execute("PUBLISH", "a", "late")
    await leaving
    assert listening.heard == []


async def test_racing_subscribe_and_unsubscribe_end_as_asked_last(client, listening):
    await asyncio.gather(
        listening.subscriber.subscribe(b"a", b"b"),
        listening.subscriber.unsubscribe(b"a"),
        listening.subscriber.subscribe(b"a"),
        listening.subscriber.unsubscribe(b"b"),
    )
    assert await client.execute("PUBSUB", "NUMSUB", "a", "b") == [b"a", 1, b"b", 0]


async def test_a_killed_subscription_is_a_gap_and_everything_is_subscribed_again(client, listening):
    channels = [b"c%d" % number for number in range(1200)]
    await listening.subscriber.subscribe(*channels)
    assert await client.execute("CLIENT", "KILL", "TYPE", "pubsub") == 1
    await until(lambda: listening.gaps == 1)
    assert await client.execute("PUBLISH", "c1199", "after") == 1
    await until(lambda: listening.heard == [(b"c1199", b"after")])
    assert listening.subscriber.is_healthy
    assert listening.subscriber.gaps == 1


async def test_a_subscriber_that_redis_cut_for_being_slow_hears_of_it(client, listening):
    await client.execute("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
    await listening.subscriber.subscribe(b"a")
    listening.subscriber._link._transport.pause_reading()
    while await client.execute("PUBLISH", "a", b"x" * 100_000):
        pass
    listening.subscriber._link._transport.resume_reading()
    await until(lambda: listening.gaps == 1)


async def test_without_a_connection_a_channel_is_wanted_and_comes_with_the_gap(redis, client, listening):
    await listening.subscriber.subscribe(b"a")
    redis.server.stop()
    await until(lambda: not listening.subscriber.is_healthy)
    with pytest.raises(RedisUnavailable):
        await listening.subscriber.subscribe(b"b")
    await listening.subscriber.unsubscribe(b"a")
    redis.start()
    await until(lambda: listening.gaps == 1 and client.is_connected)
    assert await client.execute("PUBSUB", "NUMSUB", "a", "b") == [b"a", 0, b"b", 1]


async def test_a_black_hole_is_found_by_the_probe(redis, client, black_box):
    listening = Listening(client, url=black_box.url, connect_seconds=0.2)
    await listening.subscriber.connect()
    await listening.subscriber.subscribe(b"a")
    await until(lambda: listening.subscriber.is_healthy)
    black_box.silent = True
    await client.execute("PUBLISH", "a", "swallowed")
    await until(lambda: not listening.subscriber.is_healthy)
    with pytest.raises(RedisUnavailable):
        await listening.subscriber.subscribe(b"b")
    black_box.silent = False
    await until(lambda: listening.gaps >= 1)
    await client.execute("PUBLISH", "a", "heard")
    await until(lambda: listening.heard == [(b"a", b"heard")])
    await listening.subscriber.close()


async def test_a_node_that_is_not_published_to_is_found_by_the_probe(redis, client, listening, black_box):
    # The connection is alive and answers: only the publications go elsewhere, as after a failover.
    await until(lambda: listening.subscriber.is_healthy)
    there = listening.subscriber._link
    await client.execute("CONFIG", "SET", "requirepass", "")
    listening.subscriber._client = RedisClient(redis.url + "?db=1")  # not connected: nothing is published
    await until(lambda: there.lost.done())
    assert "probe not heard" in str(there.lost.result())
    listening.subscriber._client = client
    await until(lambda: listening.gaps >= 1)


async def test_a_subscriber_outlives_the_command_connection(client, listening):
    await client.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
    await until(lambda: client.is_connected)
    await listening.subscriber.subscribe(b"a")
    probes = []
    listening.subscriber._hear, hear = (
        lambda payload: (probes.append(payload), hear(payload)),
        listening.subscriber._hear,
    )
    await until(lambda: len(probes) >= 3)
    assert listening.gaps == 0


async def test_a_callback_that_fails_is_counted_and_the_next_message_arrives(client, caplog):
    heard = []

    def picky(channel, payload):
        if payload == b"bad":
            raise RuntimeError("cannot read this")
        heard.append(payload)

    subscriber = Subscriber(client, picky, lambda: None)
    await subscriber.connect()
    await subscriber.subscribe(b"a")
    for payload in ("bad", "good"):
        await client.execute("PUBLISH", "a", payload)
    await until(lambda: heard == [b"good"])
    assert subscriber.errors == 1
    assert "cannot read this" in caplog.text
    await subscriber.close()


async def test_bytes_that_are_not_redis_are_given_up(tmp_path, caplog):
    async def babble(reader, writer):
        await reader.read(10)
        writer.write(b"+PONG\r\n+OK\r\n$0\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(babble, str(tmp_path / "s"))
    client = RedisClient(f"unix://{tmp_path}/s")
    await client.connect()
    with pytest.raises(RedisUnavailable):
        await client.execute("PING")
    await client.close()
    server.close()
    assert "Redis connection given up" in caplog.text
