"""The faults, one function each, and the scenarios that `chaos` plays."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import signal
import socket
import time
from urllib.parse import urlsplit

import redis

from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.keys import exam_keys
from compare.faults.injection import Proxy
from compare.faults.processes import descriptors, stopped, until
from compare.faults.rig import HEAL_SECONDS, Rig, Scenario
from compare.run.workload import SCHOOL
from core.identity import Principal, issue
from core.participant import ExamKey


async def _worker_killed(rig: Rig) -> None:
    os.kill(rig.a_worker(), signal.SIGKILL)
    rig.order_in_every_exam()
    rig.healed()


async def _worker_stopped(rig: Rig) -> None:
    victim = rig.a_worker()
    os.kill(victim, signal.SIGSTOP)
    rig.order_in_every_exam()
    await rig.gone(victim)  # the supervisor sees to it


async def _loop_stalled(rig: Rig) -> None:
    victim = rig.a_worker()
    with stopped(victim):
        await asyncio.sleep(3.0)


async def _lease_lapsed(rig: Rig) -> None:
    """Longer than a worker's lease, shorter than its supervisor's patience: others take over, and then it is back."""
    victim = rig.a_worker()
    with stopped(victim):
        await asyncio.sleep(3.3)
        rig.order_in_every_exam()
        await asyncio.sleep(0.7)


async def _journal_killed(rig: Rig) -> None:
    for pid in rig.cluster.pids()["journal"]:
        os.kill(pid, signal.SIGKILL)
    rig.healed()


async def _journal_stopped(rig: Rig) -> None:
    victims = rig.cluster.pids()["journal"]
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)
    for pid in victims:
        await rig.gone(pid)


async def _instance_killed(rig: Rig) -> None:
    """As when its machine is gone: nobody says goodbye."""
    supervisor = rig.cluster.ready[0].supervisor_pid
    os.kill(supervisor, signal.SIGSTOP)  # so that it restarts nothing
    for pid in (*rig.workers_of(0), supervisor):
        os.kill(pid, signal.SIGKILL)
    rig.order_in_every_exam()
    rig.healed()


async def _instance_stopped(rig: Rig) -> None:
    """As when its machine is frozen for a while."""
    pids = [rig.cluster.ready[0].supervisor_pid, *rig.workers_of(0)]
    with stopped(*pids):
        await asyncio.sleep(4.0)
        rig.order_in_every_exam()
        await asyncio.sleep(4.0)


async def _supervisor_killed(rig: Rig) -> None:
    os.kill(rig.cluster.ready[0].supervisor_pid, signal.SIGKILL)
    rig.healed()


async def _drained(rig: Rig) -> None:
    os.kill(rig.cluster.ready[0].supervisor_pid, signal.SIGTERM)
    rig.order_in_every_exam()
    await rig.gone(rig.cluster.ready[0].supervisor_pid, 30.0)
    for proctor in rig.crowd.recording.proctors:
        for seen in proctor.seen:
            if seen.view.label == "reconnecting":
                rig.broke("offline", f"{seen.view.student_id} was shown reconnecting in a drain")


async def _redis_killed(rig: Rig) -> None:
    await _kill_redis(rig)
    await _restart_redis(rig)


async def _redis_emptied(rig: Rig) -> None:
    """The journal is a second behind, so that Redis takes with it what it has confirmed and nobody has carried on."""
    with stopped(*rig.cluster.pids()["journal"]):
        await asyncio.sleep(1.0)
        rig.order_in_every_exam()
        await asyncio.sleep(0.2)
        await _kill_redis(rig)
        for child in rig.server.directory.iterdir():
            if child.is_dir():
                shutil.rmtree(child)
        await _restart_redis(rig)


async def _kill_redis(rig: Rig) -> None:
    os.kill(rig.server.pid, signal.SIGKILL)
    rig.server.stop()
    await asyncio.sleep(2.0)


async def _restart_redis(rig: Rig) -> None:
    rig.server = await asyncio.to_thread(EmbeddedRedis.start, rig.server.directory, binary=rig.server.binary)


async def _redis_fails_over(rig: Rig) -> None:
    """A replica takes the primary's place that lacks the last second, in which pages changed workers."""
    primary, socket_path = rig.server, rig.server.directory / "redis.sock"
    port = _free_port()
    rig.redis().config_set("port", port)
    way = await Proxy.to_port(port)
    replica = await asyncio.to_thread(EmbeddedRedis.start, binary=primary.binary)
    try:
        client = redis.Redis.from_url(replica.url)
        client.config_set("appendonly", "no")  # its file would be written anew first
        client.replicaof(*way.address.split(":"))
        await until(lambda: client.info("replication")["master_link_status"] == "up", "replica")
        with way.black_hole():
            rig.order_in_every_exam()
            students = [student.plan.student_id for student in rig.crowd.recording.students]
            for student_id in rig.rng.sample(students, len(students) // 2):
                rig.crowd.page(student_id).cut()
                await asyncio.sleep(1.0 / len(students))
            await asyncio.sleep(0.5)
            lost = rig.redis().info("replication")["master_repl_offset"]
            os.kill(primary.pid, signal.SIGKILL)
            primary.stop()
            client.replicaof("NO", "ONE")  # what the network still carries finds nobody
            lost -= client.info("replication")["master_repl_offset"]
            client.close()
        if lost <= 0:
            raise RuntimeError("the replica lacks nothing: this was no test of a failover")
        await asyncio.sleep(1.0)  # until it is found out and replaced
        await way.close()
    except BaseException:
        replica.stop()
        raise
    socket_path.unlink()
    socket_path.symlink_to(replica.directory / "redis.sock")
    rig.server = replica


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


async def _redis_paused(rig: Rig) -> None:
    rig.redis().client_pause(4_000, all=True)
    rig.order_in_every_exam()
    await asyncio.sleep(4.0)


async def _redis_stopped(rig: Rig) -> None:
    with stopped(rig.server.pid):
        rig.order_in_every_exam()
        await asyncio.sleep(5.0)


async def _black_hole(rig: Rig) -> None:
    """Connections to Redis stay open and carry nothing, new ones get no answer."""
    assert rig.proxy is not None
    with rig.proxy.black_hole():
        rig.order_in_every_exam()
        await asyncio.sleep(8.0)


async def _pubsub_killed(rig: Rig) -> None:
    rig.redis().client_kill_filter(_type="pubsub")
    rig.healed()


async def _output_buffer(rig: Rig) -> None:
    """A worker stands still while more is published than Redis keeps for it: it is cut off, and must notice."""
    quiz_id = rig.rng.choice(rig.crowd.recording.schedule.quiz_ids)
    client, channel = rig.redis(), exam_keys(ExamKey(SCHOOL, quiz_id)).channel
    client.config_set("client-output-buffer-limit", "pubsub 1mb 512kb 1")
    before = int(client.info("stats").get("client_output_buffer_limit_disconnections", 0))
    with stopped(*rig.cluster.pids()["worker"][:2]):
        for number in itertools.count(1):
            client.publish(channel, b"chaos %d\n\n" % number + b"\n" * 60_000)  # a publication that shows nothing
            if number % 20 == 0:
                await asyncio.sleep(0.01)
                cut = int(client.info("stats").get("client_output_buffer_limit_disconnections", 0)) - before
                if cut or number >= 400:
                    break
    client.config_set("client-output-buffer-limit", "pubsub 64mb 16mb 30")


async def _table_away(rig: Rig) -> None:
    """The journal's table does not answer. Exams must not notice; entries wait."""
    assert rig.proxy is not None
    with rig.proxy.black_hole():
        await asyncio.sleep(30.0)
        rig.order_in_every_exam()
        await asyncio.sleep(30.0)


async def _ledger_locked(rig: Rig) -> None:
    import sqlite3

    database = sqlite3.connect(rig.cluster.journal_place, timeout=10, isolation_level=None)
    try:
        database.execute("BEGIN EXCLUSIVE")
        rig.order_in_every_exam()
        await asyncio.sleep(6.0)
        database.execute("ROLLBACK")
    finally:
        database.close()


async def _stalled_proctor(rig: Rig) -> None:
    """A dashboard that asks for everything and reads nothing."""
    recording = rig.crowd.recording
    quiz_id = recording.schedule.quiz_ids[0]
    token = issue(Principal("proctor", SCHOOL, "stalled", (quiz_id,), time.time() + 3600), rig.cluster.token_secret)
    _, writer = await open_websocket(rig.cluster.urls[0], token, receive_bytes=4096)
    try:
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)  # of open_connection
        transport.pause_reading()
        ask = masked(b'{"action":"lmsQuizMonitoringProctor","data":{"quiz_id":"%s"}}' % quiz_id.encode())
        for _ in range(120):
            writer.write(ask)
            await asyncio.sleep(0.05)
    except OSError:
        pass  # cut off, as it should be
    finally:
        writer.transport.abort()


async def _slow_headers(rig: Rig) -> None:
    """Three hundred requests that never end; somebody else still gets in at once."""
    address = urlsplit(rig.cluster.urls[0])
    slow: list[asyncio.StreamWriter] = []
    try:
        for _ in range(300):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(b"GET /ws HTTP/1.1\r\n")
            slow.append(writer)
        for _ in range(20):
            for writer in slow:
                with contextlib.suppress(OSError):
                    writer.write(b"x")
            await asyncio.sleep(0.2)
        quiz_id = rig.crowd.recording.schedule.quiz_ids[0]
        token = issue(Principal("proctor", SCHOOL, "late", (quiz_id,), time.time() + 3600), rig.cluster.token_secret)
        before = time.monotonic()
        _, writer = await open_websocket(rig.cluster.urls[0], token)
        writer.transport.abort()
        if time.monotonic() - before > HEAL_SECONDS:
            rig.broke("views", f"a new connection waited {time.monotonic() - before:.1f} s behind slow ones")
    finally:
        for writer in slow:
            writer.transport.abort()


async def _descriptors(rig: Rig) -> None:
    """A worker may open no more files: whoever is in stays in, others are served later."""
    victim = rig.a_worker()
    used = descriptors(victim)
    limits = resource.prlimit(victim, resource.RLIMIT_NOFILE)
    resource.prlimit(victim, resource.RLIMIT_NOFILE, (used + 5, limits[1]))
    crowding: list[asyncio.StreamWriter] = []
    try:
        for number in range(60):
            address = urlsplit(rig.cluster.urls[number % 2])
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    _, writer = await asyncio.open_connection(address.hostname, address.port)
                    crowding.append(writer)
        await asyncio.sleep(2.0)
    finally:
        for writer in crowding:
            writer.transport.abort()
        resource.prlimit(victim, resource.RLIMIT_NOFILE, limits)


async def _nothing(rig: Rig) -> None:
    rig.order_in_every_exam()
    await asyncio.sleep(3.0)


SCENARIOS = (
    Scenario("worker-killed", "SIGKILL of a worker", _worker_killed, quick=True),
    Scenario("worker-stopped", "SIGSTOP of a worker, until its supervisor kills it", _worker_stopped),
    Scenario("loop-stalled", "an event loop stands still for 3 s", _loop_stalled),
    Scenario(
        "lease-lapsed", "a worker stands still for 4 s, past its lease, and comes back", _lease_lapsed, quick=True
    ),
    Scenario("journal-killed", "SIGKILL of the journal processes", _journal_killed),
    Scenario("journal-stopped", "SIGSTOP of the journal processes, until they are killed", _journal_stopped),
    Scenario("instance-killed", "SIGKILL of all processes of an instance", _instance_killed, lost_instances=1),
    Scenario("instance-stopped", "SIGSTOP of an instance for 8 s", _instance_stopped),
    Scenario("supervisor-killed", "SIGKILL of a supervisor", _supervisor_killed, lost_instances=1),
    Scenario("drained", "SIGTERM of an instance: a drain", _drained, lost_instances=1),
    Scenario("redis-killed", "SIGKILL of Redis, back after 2 s on its files", _redis_killed),
    Scenario(
        "redis-emptied",
        "SIGKILL of Redis, back after 2 s with empty memory",
        _redis_emptied,
        quick=True,
        empties_redis=True,
    ),
    Scenario("redis-failover", "SIGKILL of Redis; a replica a second behind takes over", _redis_fails_over),
    Scenario("redis-paused", "CLIENT PAUSE for 4 s", _redis_paused),
    Scenario("redis-stopped", "SIGSTOP of Redis for 5 s", _redis_stopped),
    Scenario("black-hole", "the network to Redis carries nothing for 8 s", _black_hole, proxied=True),
    Scenario("pubsub-killed", "CLIENT KILL TYPE pubsub", _pubsub_killed, quick=True),
    Scenario("output-buffer", "subscribers are cut off by their output buffers", _output_buffer),
    Scenario("dynamodb-away", "DynamoDB does not answer for 60 s", _table_away, interval=2.0, table=True),
    Scenario("ledger-locked", "the journal's file is locked for 6 s", _ledger_locked),
    Scenario("stalled-proctor", "a proctor who asks and never reads", _stalled_proctor),
    Scenario("slow-headers", "300 handshakes that never end", _slow_headers),
    Scenario("descriptors", "a worker runs out of file descriptors", _descriptors),
    Scenario("clock-ahead", "an instance's clock is 60 s ahead", _nothing, clock_offset=60.0),
    Scenario("clock-behind", "an instance's clock is 60 s behind", _nothing, clock_offset=-60.0),
)


# --- sockets of our own ---------------------------------------------------------------------------------------------------


async def open_websocket(
    url: str, token: str, receive_bytes: int = 0
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket of which only the opening is ours: what comes is bytes."""
    address = urlsplit(url)
    sock = socket.socket()
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address.hostname or "", address.port or 80))
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(
        f"GET {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: proctorwire, bearer.{token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def masked(payload: bytes) -> bytes:
    """A text frame of a client, its mask zero."""
    assert len(payload) < 126  # one byte of length is enough for what we send
    return bytes((0x81, 0x80 | len(payload), 0, 0, 0, 0)) + payload
