"""How a client follows a cluster: nodes here say what a test has them say. `test_redis_cluster_story` has real ones."""

import asyncio
import itertools

import hiredis
import pytest
from redis.crc import key_slot
from transport_peers import until

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.broker import RedisBroker
from adapters.ec2_cluster.clock import ServiceClock
from adapters.ec2_cluster.keys import MOVE
from adapters.ec2_cluster.redis_client import RedisOutcomeUnknown, RedisReplyError, RedisUnavailable, Script
from adapters.ec2_cluster.redis_cluster import SLOTS, ClusterClient, ClusterSubscriber, slot_of
from adapters.ec2_cluster.shell import Shell

ECHO = Script("return KEYS[1]")
A, B, C = "{x00}", "{x01}", "{x02}"
"""Tags of which the slots are each another node's here."""


class Node:
    """Answers as a primary does that has what the `map` of the cluster says, unless a test says otherwise in `errors`."""

    def __init__(self, map_of_slots):
        self.map = map_of_slots
        self.state = b"ok"
        self.life = b"first"
        self.errors = {}  # by tag: what to answer; `None` closes the connection, `...` ends all answers
        self.asked = []
        self.names = {}  # stored by SET
        self._connections = set()
        self._importing = set()
        self.subscribed = {}
        self.port = 0

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for writer in list(self._connections):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader, writer):
        self._connections.add(writer)
        parser, asking = hiredis.Reader(notEnoughData=Ellipsis), False
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not ...:
                    answer = self._answer(command, asking, writer)
                    asking = command[0] == b"ASKING"
                    if answer is None:
                        return
                    if answer is ...:
                        await reader.read()  # nothing of what comes after is answered either
                        return
                    writer.write(answer)
        except ConnectionError:
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    def _answer(self, command, asking, writer):
        name, *rest = command
        if name in (b"PING", b"CLIENT", b"SCRIPT", b"ASKING", b"AUTH"):
            return b"+OK\r\n"
        if name == b"INFO":
            return encoded(b"role:master\r\nmaster_replid:" + self.life + b"\r\n")
        if command[:2] == [b"CLUSTER", b"SLOTS"]:
            return encoded(self.map.slots())
        if name == b"CLUSTER":
            return encoded(b"cluster_state:" + self.state)
        if name == b"TIME":
            self.asked.append("TIME")
            return encoded([b"1", b"5"])
        key = (rest[2] if name in (b"EVALSHA", b"EVAL") else rest[0]).decode()
        if not key.startswith("proctorwire:probe"):
            self.asked.append(f"{'asking ' if asking else ''}{name.decode()} {key}")
        tag = key[:5]
        error = self.errors.get(tag, "")
        if error is None:
            return None
        if error is ...:
            return ...
        if error and not asking:
            return f"-{error}\r\n".encode()
        owner = self.map.owner(key)
        if owner is not self and not asking:
            return f"-MOVED {slot_of(key)} 127.0.0.1:{owner.port}\r\n".encode()
        if name == b"ssubscribe":
            self.subscribed[rest[0]] = writer
            return encoded([b"ssubscribe", rest[0], len(self.subscribed)])
        if name == b"sunsubscribe":
            self.subscribed.pop(rest[0], None)
            return encoded([b"sunsubscribe", rest[0], 0])
        if name == b"SPUBLISH":
            if rest[0] in self.subscribed:
                self.subscribed[rest[0]].write(encoded([b"smessage", *rest]))
            return b":1\r\n"
        if name == b"SET":
            self.names[key] = rest[1]
            return b"+OK\r\n"
        if name == b"GET":
            return encoded(self.names.get(key))
        return encoded(key.encode())

    def give_away(self, tag):
        """Redis ends the subscriptions of a slot that it does not have any more."""
        for channel in [c for c in self.subscribed if c.startswith(tag.encode())]:
            self.subscribed.pop(channel).write(encoded([b"sunsubscribe", channel, 0]))


class Map:
    """Which node has which slots, as all nodes say; nodes have a third each at first, and then whole tags are moved."""

    def __init__(self):
        self.nodes = [Node(self) for _ in range(3)]
        self.moved = {}  # slot: node
        for number, tag in enumerate((A, B, C)):
            self.moved[slot_of(tag)] = self.nodes[number]

    def owner(self, key):
        slot = slot_of(key)
        return self.moved.get(slot) or self.nodes[slot * 3 // SLOTS]

    def slots(self):
        owners = [self.moved.get(slot) or self.nodes[slot * 3 // SLOTS] for slot in range(SLOTS)]
        ranges, start = [], 0
        for owner, run in itertools.groupby(owners):
            end = start + len(list(run)) - 1
            ranges.append([start, end, [b"127.0.0.1", owner.port, b"id"]])
            start = end + 1
        return ranges


def encoded(value):
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%s\r\n" % (len(value), value)
    return b"*%d\r\n" % len(value) + b"".join(encoded(one) for one in value)


@pytest.fixture
async def cluster():
    made = Map()
    for node in made.nodes:
        await node.start()
    yield made
    for node in made.nodes:
        await node.stop()


class Connected(ClusterClient):
    """A client, and how often it said that something may be lost."""

    def __init__(self, cluster, **options):
        self.connections = 0
        self.last = None
        options = {"command_seconds": 0.5, "connect_seconds": 0.5, **options}
        super().__init__(
            f"redis://127.0.0.1:{cluster.nodes[0].port}?cluster=1", scripts=[ECHO], on_connected=self._count, **options
        )

    def _count(self, connected):
        self.connections += 1
        self.last = connected


@pytest.fixture
async def client(cluster):
    one = Connected(cluster)
    await one.connect()
    for node in cluster.nodes:
        node.asked.clear()
    yield one
    await one.close()


@pytest.mark.parametrize(
    "key", ["123456789", "{x00}rec:north:1", "a{x7f}b", "{}whole", "{open", "no}braces{", "a{b}{c}", "{revoked}until"]
)
def test_slots_are_those_of_redis(key):
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())
    assert slot_of("123456789") == 12739  # of the Redis Cluster specification


async def test_each_command_goes_to_the_node_of_its_slot(cluster, client):
    replies = await client.pipeline(
        [("SET", A + "k", 1), ("SET", B + "k", 2), ECHO([C + "s"]), ("GET", A + "k"), ("GET", B + "k"), ("TIME",)]
    )
    assert replies == [b"OK", b"OK", b"{x02}s", b"1", b"2", [b"1", b"5"]]
    assert [node.asked for node in cluster.nodes] == [
        ["SET {x00}k", "GET {x00}k", "TIME"],
        ["SET {x01}k", "GET {x01}k"],
        ["EVALSHA {x02}s"],
    ]
    assert (client.connections, client.is_connected) == (1, True)
    assert await client.pipeline([]) == []


async def test_a_slot_that_has_moved_is_followed_once(cluster, client):
    cluster.moved[slot_of(A)] = cluster.nodes[2]
    assert await client.pipeline([("SET", A + "k", 1), ("SET", B + "k", 2), ("GET", A + "k")]) == [b"OK", b"OK", b"1"]
    assert cluster.nodes[0].asked == ["SET {x00}k", "GET {x00}k"]
    await client.execute("GET", A + "k")
    assert cluster.nodes[0].asked == ["SET {x00}k", "GET {x00}k"]
    assert client.connections == 1  # what moves takes its data along


async def test_a_slot_may_move_to_a_node_that_was_not_there(cluster, client):
    fourth = Node(cluster)
    await fourth.start()
    cluster.moved[slot_of(A)] = fourth
    assert await client.script(ECHO([A + "k"])) == b"{x00}k"
    assert fourth.asked == ["EVALSHA {x00}k"]
    assert client.is_connected
    await fourth.stop()


async def test_what_is_on_its_way_is_asked_for_where_it_arrives(cluster, client):
    cluster.nodes[0].errors[A] = f"ASK {slot_of(A)} 127.0.0.1:{cluster.nodes[1].port}"
    assert await client.pipeline([ECHO([A + "1"]), ("GET", B + "k"), ECHO([A + "2"])]) == [b"{x00}1", None, b"{x00}2"]
    assert cluster.nodes[1].asked == ["GET {x01}k", "asking EVALSHA {x00}1", "asking EVALSHA {x00}2"]
    cluster.nodes[0].errors.clear()
    await client.execute("GET", A + "k")
    assert cluster.nodes[0].asked[-1] == "GET {x00}k"  # it is still the owner


async def test_half_a_slot_is_waited_for_by_one_call_and_not_by_a_pipeline(cluster, client):
    cluster.nodes[0].errors[A] = "TRYAGAIN Multiple keys request during rehashing of slot"
    refused, fine = await client.pipeline([ECHO([A + "k"]), ECHO([B + "k"])])
    assert (refused.code, fine) == ("TRYAGAIN", b"{x01}k")
    asyncio.get_running_loop().call_later(0.1, cluster.nodes[0].errors.clear)
    assert await client.script(ECHO([A + "k"])) == b"{x00}k"


async def test_patience_has_an_end(cluster, client, monkeypatch):
    monkeypatch.setattr("adapters.ec2_cluster.redis_cluster._PATIENCE_SECONDS", 0.1)
    cluster.nodes[0].errors[A] = "CLUSTERDOWN The cluster is down"
    with pytest.raises(RedisUnavailable, match="CLUSTERDOWN"):
        await client.execute("GET", A + "k")
    cluster.nodes[0].errors[A] = "WRONGTYPE of a list"
    with pytest.raises(RedisReplyError, match="WRONGTYPE"):
        await client.execute("GET", A + "k")
    assert await client.execute("GET", B + "k") is None


async def test_a_lost_answer_is_not_asked_for_again(cluster, client):
    cluster.nodes[0].errors[A] = None
    with pytest.raises(RedisOutcomeUnknown):
        await client.execute("SET", A + "k", 1)
    assert cluster.nodes[0].asked == ["SET {x00}k"]


async def test_a_node_that_is_away_harms_no_other(cluster, client):
    await cluster.nodes[0].stop()
    await until(lambda: not client.is_connected)
    gone, there = await client.pipeline([("SET", A + "k", 1), ("SET", B + "k", 2)])
    assert type(gone) is RedisUnavailable
    assert there == b"OK"


async def test_a_node_that_comes_back_is_used_when_it_says_so_and_may_have_lost_all(cluster, client):
    node = cluster.nodes[0]
    await node.stop()
    await until(lambda: not client.is_connected)
    node.state = b"fail"
    await node.start()
    await until(lambda: client._nodes["127.0.0.1", node.port].client.is_connected)
    (reply,) = await client.pipeline([("GET", A + "k")])
    assert type(reply) is RedisUnavailable
    assert (node.asked, client.connections) == ([], 1)
    node.state = b"ok"
    assert await client.execute("GET", A + "k") is None
    assert client.connections == 2
    assert slot_of(A) in client.last.slots
    assert slot_of(B) not in client.last.slots
    assert not client.last.is_anew  # the same server as before
    await node.stop()
    await until(lambda: not client.is_connected)
    node.life = b"second"
    await node.start()
    await until(lambda: client.connections == 3)
    assert (client.last.lives, client.last.is_anew) == ({"second"}, True)


@pytest.mark.parametrize("is_lost", [True, False])
async def test_whoever_inherits_slots_of_a_lost_node_may_lack_the_last_moments(cluster, client, is_lost):
    """A node that takes them from one that lives has all of it."""
    heir = Node(cluster)
    heir.life = b"heir"
    await heir.start()
    former, cluster.nodes[0] = cluster.nodes[0], heir
    if is_lost:
        await former.stop()
        await until(lambda: not client.is_connected)
    cluster.moved[slot_of(A)] = heir
    client.look_again()
    await until(lambda: client.connections == 2)
    assert client.is_connected
    assert (client.last.lives, client.last.is_anew) == ({"heir"}, is_lost)
    assert slot_of(A) in client.last.slots
    assert slot_of(B) not in client.last.slots
    await former.stop()


async def test_what_others_take_from_a_dead_node_may_be_lost(cluster, client):
    await cluster.nodes[0].stop()
    await until(lambda: not client.is_connected)
    cluster.nodes[0] = cluster.nodes[1]
    cluster.moved[slot_of(A)] = cluster.nodes[1]
    assert await client.execute("GET", A + "k") is None
    assert (client.connections, client.is_connected) == (2, True)


async def test_exams_do_not_wait_long_for_a_node_that_has_none_of_them(cluster):
    """Who asks about a move or about another worker's lease does so for an exam that may be on another node."""
    broker = RedisBroker(f"redis://127.0.0.1:{cluster.nodes[0].port}?cluster=1", "w1", ServiceClock(), lambda _: None)
    shell = Shell("w1", broker, *[None] * 4)
    await broker.client.connect_patiently()
    node = cluster.owner(MOVE)
    lease = next(name for name in map("w:o{}".format, range(99)) if cluster.owner(name) is not node)
    assert await broker.move() is None
    assert not await shell.is_dead(lease[2:])
    loop = asyncio.get_running_loop()
    began = loop.time()
    node.errors["move"] = cluster.owner(lease).errors[lease[:5]] = ...
    assert await broker.move() is None
    with pytest.raises(RedisOutcomeUnknown, match="this worker's lease is silent"):
        await broker.is_alive(lease[2:])
    assert not await shell.is_dead(lease[2:])
    assert loop.time() - began < 1.5
    broker._known_move = (loop.time() - 61, None)
    with pytest.raises(RedisUnavailable, match="exams are being moved is away"):
        await broker.move()
    await broker.client.close()


async def test_without_a_node_the_first_connection_says_so_and_goes_on(cluster, caplog):
    await cluster.nodes[0].stop()
    client = Connected(cluster, connect_seconds=0.1, command_seconds=0.1)
    with pytest.raises(RedisUnavailable, match="not all nodes"):
        await client.connect()
    assert (client.is_connected, client.connections) == (False, 0)
    await cluster.nodes[0].start()
    await client.connect_patiently()
    assert (client.is_connected, client.connections) == (True, 1)
    await client.close()
    assert "no map of slots" in caplog.text


class Listening(ClusterSubscriber):
    """A subscriber, and what it heard."""

    def __init__(self, client):
        self.heard, self.told = [], 0
        super().__init__(
            client, lambda *message: self.heard.append(message), self._count, probe_seconds=0.2, command_seconds=0.5
        )

    def _count(self):
        self.told += 1


CHANNELS = [f"{tag}ex".encode() for tag in (A, B, C)]


@pytest.fixture
async def listening(client):
    one = Listening(client)
    await one.connect_patiently()
    await one.subscribe(*CHANNELS)
    yield one
    await one.close()


async def hears(client, listening, channel):
    await client.execute("SPUBLISH", channel, b"news")
    await until(lambda: (channel, b"news") in listening.heard)
    listening.heard.clear()


async def test_each_channel_is_subscribed_where_it_is_published(cluster, client, listening):
    for number, channel in enumerate(CHANNELS):
        assert channel in cluster.nodes[number].subscribed
        await hears(client, listening, channel)
    await until(lambda: listening.lag is not None)
    listening.lag = None
    await listening.unsubscribe(CHANNELS[0])
    assert CHANNELS[0] not in cluster.nodes[0].subscribed
    assert listening.channels == set(CHANNELS[1:])
    assert (listening.is_healthy, listening.gaps, listening.errors) == (True, 0, 0)


async def test_a_channel_whose_slot_moves_is_subscribed_there_and_that_is_a_gap(cluster, client, listening):
    cluster.moved[slot_of(A)] = cluster.nodes[1]
    cluster.nodes[0].give_away(A)
    await until(lambda: listening.told == 1)
    assert CHANNELS[0] in cluster.nodes[1].subscribed
    await hears(client, listening, CHANNELS[0])
    await hears(client, listening, CHANNELS[2])
    assert listening.gaps == 1


async def test_a_subscription_that_was_ended_though_the_slot_stayed_is_made_again(cluster, client, listening):
    cluster.nodes[0].give_away(A)
    assert CHANNELS[0] not in cluster.nodes[0].subscribed
    await until(lambda: listening.told == 1)
    await hears(client, listening, CHANNELS[0])


async def test_a_channel_that_is_not_where_it_was_thought_to_be_is_found(cluster, client, listening):
    cluster.moved[slot_of("{x07}")] = cluster.nodes[(cluster.nodes.index(cluster.owner("{x07}")) + 1) % 3]
    with pytest.raises(RedisUnavailable, match="moved"):
        await listening.subscribe(b"{x07}ex")
    await until(lambda: b"{x07}ex" in cluster.owner("{x07}").subscribed)
    await hears(client, listening, b"{x07}ex")


async def test_a_node_that_restarts_is_a_gap_and_everything_of_it_is_subscribed_again(cluster, client, listening):
    await cluster.nodes[0].stop()
    cluster.nodes[0].subscribed.clear()
    await until(lambda: not listening.is_healthy)
    await cluster.nodes[0].start()
    await until(lambda: listening.told == 1)
    await hears(client, listening, CHANNELS[0])


async def test_a_node_that_is_replaced_is_left(cluster, client, listening):
    await cluster.nodes[0].stop()
    cluster.nodes[0] = Node(cluster)
    cluster.moved[slot_of(A)] = cluster.nodes[0]
    await cluster.nodes[0].start()
    await until(lambda: listening.told >= 1)
    await hears(client, listening, CHANNELS[0])
    assert client.is_connected


async def test_a_callback_that_fails_is_counted(client, listening, caplog):
    def broken():
        raise RuntimeError("callback bug")

    listening._on_gap = broken
    listening._tell_gap()
    await until(lambda: listening.errors == 1)
    assert "callback bug" in caplog.text


@pytest.mark.parametrize(
    ("enabled", "version", "refused"), [(0, "6.2.14", False), (1, "6.2.14", True), (1, "7.2.4", False)]
)
async def test_a_cluster_that_knows_no_shards_is_refused(cluster, enabled, version, refused):
    node = cluster.nodes[0]
    text = f"cluster_enabled:{enabled}\r\nredis_version:{version}\r\n".encode()
    answer = node._answer
    node._answer = lambda command, *more: (
        encoded(text) if command[0] == b"INFO" else b"+PONG\r\n" if command[0] == b"PING" else answer(command, *more)
    )
    url = f"redis://127.0.0.1:{node.port}?protocol=2"
    if refused:
        with pytest.raises(ValueError, match=r"version 6\.2\.14; from 7 on"):
            await asyncio.to_thread(redis_sync.marked, url)
    else:
        assert await asyncio.to_thread(redis_sync.marked, url) == url + "&cluster=1" * enabled
