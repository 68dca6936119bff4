"""What holds while parts of a cluster die, drain or come back: real processes, a real Redis, real sockets."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from deployments import QUICK, ClusterDeployment
from wire_clients import Dashboard, Page

from adapters.ec2_cluster.keys import exam_keys
from adapters.ec2_cluster.local import LocalCluster

_numbers = itertools.count(1)


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    async with LocalCluster(instances=2, workers=2, drain_seconds=1.0) as running:
        yield running


@pytest.fixture
async def exam(cluster: LocalCluster) -> AsyncIterator[ClusterDeployment]:
    deployment = ClusterDeployment(cluster, f"quiz-{next(_numbers)}")
    yield deployment
    for client in deployment.clients:
        await client.close()


async def eventually(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
        await asyncio.sleep(0.02)
    return value


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def owner_of(cluster: LocalCluster, exam: ClusterDeployment, student: str) -> str:
    """The worker that owns a participant, as Redis has it."""
    with redis.Redis.from_url(cluster.redis_url) as client:
        value = client.hget(exam_keys(exam.exam).owners, student)
    assert isinstance(value, bytes)
    return value.split()[0].decode()


async def test_a_student_on_one_instance_and_a_proctor_on_the_other_see_each_other(exam: ClusterDeployment) -> None:
    proctor = Dashboard(exam, instance=1)
    exam.clients.append(proctor)
    await proctor.connect()
    await proctor.watch()
    page = await exam.page("s1")
    await page.reported(question_answered=1)
    await proctor.sees("s1", label="active", question_answered=1)
    await proctor.order("message", "m1", student_ids=["s1"], text="five minutes left")
    await page.frame("lmsQuizCommand", command_id="m1")
    await page.send("lmsQuizCommandReceipt", command_id="m1", outcome="delivered")
    await proctor.status_of("m1", "s1", "delivered")


async def test_two_tabs_on_two_instances_are_one_student(cluster: LocalCluster, exam: ClusterDeployment) -> None:
    proctor = await exam.dashboard()
    first = await exam.page("s1", tab_id="first")
    await first.reported(question_answered=1)
    second = Page(exam, "s1", tab_id="second")
    second.url = exam.url(1)
    exam.clients.append(second)
    await second.connect()
    await second.reported(question_answered=2)
    await proctor.sees("s1", flags=["several_pages"], question_answered=2)
    owner = owner_of(cluster, exam, "s1")
    await first.reported(question_answered=3)  # decided by the other tab's worker, acked through Redis
    await proctor.sees("s1", question_answered=3)
    assert owner_of(cluster, exam, "s1") == owner
    await first.close(4000)
    await proctor.sees("s1", label="active", flags=[])


async def test_a_killed_worker_harms_nobody(cluster: LocalCluster, exam: ClusterDeployment) -> None:
    pages = [await exam.page(f"s{n}", tab_id=f"tab-{n}") for n in range(12)]
    for page in pages:
        await page.reported(question_answered=1)
    proctor = await exam.dashboard(instance=1)
    victims = sorted(cluster.pids()["worker"])[:2]  # both workers of the first instance
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    for page in pages:
        await page.closed()
        await eventually(lambda: len(cluster.pids()["worker"]) == 4, "restarted workers")
        await connect_again(page)
        await page.reported(question_answered=2)
        await proctor.sees(page.student, label="active", question_answered=2)
    assert {label for _, label in proctor.labels} == {"active"}
    assert not set(victims) & set(cluster.pids()["worker"])


async def connect_again(page: Page) -> None:
    """Connect, as a page does, until somebody answers."""
    while True:
        try:
            await page.connect()
            return
        except (
            OSError,
            EOFError,
            Exception,
        ):  # refused, reset or closed during the handshake: the worker is restarting
            await asyncio.sleep(0.05)


async def test_a_student_who_went_with_a_dead_worker_is_offline_in_the_end(
    cluster: LocalCluster, exam: ClusterDeployment
) -> None:
    await exam.open_exam(QUICK)
    page = await exam.page("s1")
    await page.reported(next_ms=1000)
    proctor = Dashboard(exam, instance=1)
    exam.clients.append(proctor)
    await proctor.connect()
    await proctor.watch()
    for victim in sorted(cluster.pids()["worker"])[:2]:
        os.kill(victim, signal.SIGKILL)
    await page.closed()
    await proctor.sees("s1", label="offline")
    assert [label for _, label in proctor.labels] == ["active", "reconnecting", "offline"]


async def test_a_command_to_a_student_of_a_dead_worker_is_kept(cluster: LocalCluster, exam: ClusterDeployment) -> None:
    page = await exam.page("s1")
    await page.reported()
    proctor = Dashboard(exam, instance=1)
    exam.clients.append(proctor)
    await proctor.connect()
    await proctor.watch()
    for victim in sorted(cluster.pids()["worker"])[:2]:
        os.kill(victim, signal.SIGKILL)
    await page.closed()
    await proctor.order("warn", "w1", student_ids=["s1"], text="look up")
    await proctor.frame("ack", command_id="w1")
    await connect_again(page)
    await page.reported()
    await page.frame("lmsQuizCommand", command_id="w1")


async def test_a_drained_instance_sends_everybody_elsewhere_and_nobody_is_shown_gone(
    cluster: LocalCluster, exam: ClusterDeployment
) -> None:
    proctor = Dashboard(exam, instance=1)
    exam.clients.append(proctor)
    await proctor.connect()
    await proctor.watch()
    pages = [await exam.page(f"s{n}", tab_id=f"tab-{n}") for n in range(6)]
    for page in pages:
        await page.reported()
        await proctor.sees(page.student, label="active")
    os.kill(cluster.ready[0].supervisor_pid, signal.SIGTERM)
    for page in pages:
        told = await page.frame("reconnect", reason="drain")
        assert 0 <= told["after_ms"] <= 1000
        assert await page.closed() == 4200
        page.url = exam.url(1)
        await page.connect()
        await page.reported(question_answered=5)
        await proctor.sees(page.student, question_answered=5)
    assert {label for _, label in proctor.labels} == {"active"}


async def test_redis_back_with_empty_memory_is_written_to_again(cluster: LocalCluster, exam: ClusterDeployment) -> None:
    proctor = await exam.dashboard()
    page = await exam.page("s1")
    await page.reported(question_answered=1)
    await proctor.sees("s1", question_answered=1)
    with redis.Redis.from_url(cluster.redis_url) as client:
        client.flushall()
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub")
    await page.reported(question_answered=2)
    await proctor.sees("s1", label="active", question_answered=2)
    fresh = await exam.dashboard("second")
    await fresh.sees("s1", label="active", question_answered=2)


async def test_a_lost_subscription_is_noticed_and_the_picture_repaired(
    cluster: LocalCluster, exam: ClusterDeployment
) -> None:
    proctor = await exam.dashboard()
    page = await exam.page("s1")
    await page.reported()
    await proctor.sees("s1", label="active")
    with redis.Redis.from_url(cluster.redis_url) as client:
        client.client_kill_filter(_type="pubsub")
    await page.reported("away")
    await proctor.sees("s1", label="away")


async def test_a_killed_journal_process_loses_nothing(cluster: LocalCluster, exam: ClusterDeployment) -> None:
    page = await exam.page("s1")
    await page.reported()
    for pid in cluster.pids()["journal"]:
        os.kill(pid, signal.SIGKILL)
    await page.reported("away")
    await page.reported("active")

    def labels() -> list[str]:
        return [entry.after for entry in cluster.journal(exam.exam) if entry.kind == "label"]

    await eventually(lambda: labels() == ["active", "away", "active"], "whole journal")


async def test_a_silent_worker_is_killed_and_replaced(cluster: LocalCluster, exam: ClusterDeployment) -> None:
    stopped = cluster.pids()["worker"][0]
    os.kill(stopped, signal.SIGSTOP)
    workers = await eventually(
        lambda: (found := cluster.pids()["worker"]) and stopped not in found and len(found) == 4 and found,
        "replacement",
        20,
    )
    assert stopped not in workers


async def test_stopping_leaves_no_process_behind(tmp_path: Path) -> None:
    cluster = LocalCluster(instances=1, workers=2)
    await cluster.start()
    pids = [pid for role in cluster.pids().values() for pid in role]
    assert len(pids) == 5
    started = time.monotonic()
    await cluster.stop()
    assert time.monotonic() - started < 3
    assert not [pid for pid in pids if is_running(pid)]


async def test_workers_end_with_a_killed_supervisor() -> None:
    async with LocalCluster(instances=1, workers=2) as cluster:
        pids = cluster.pids()
        os.kill(pids["supervisor"][0], signal.SIGKILL)
        children = [*pids["worker"], *pids["journal"]]
        await eventually(
            lambda: not [p for p in children if Path(f"/proc/{p}/cmdline").exists()], "end of the children"
        )


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compare.proctorwire", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
    )


SECRET = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        ((), {}, "no token secret"),
        (("--token-secret", "short"), {}, "shorter than 32 bytes"),
        (("--token-secret", SECRET, "--workers", "0"), {}, "workers is 0"),
        (("--token-secret", SECRET, "--workers", "two"), {}, "'two' is not a valid integer"),
        ((), {"PROCTORWIRE_TOKEN_SECRET": SECRET, "PROCTORWIRE_WORKERS": "two"}, "workers"),
        (("--token-secret", SECRET, "--port", "70000"), {}, "port is 70000"),
        (("--token-secret", SECRET, "--port", "0", "--data-dir", "/proc/nowhere"), {}, "data_dir"),
        (("--token-secret", SECRET, "--port", "0", "--redis", "http://nonsense"), {}, "redis"),
        (("--token-secret", SECRET, "--port", "0", "--redis", "redis://127.0.0.1:1"), {}, "redis"),
    ],
)
def test_bad_settings_are_one_clear_line(
    arguments: tuple[str, ...], environment: dict[str, str], complaint: str
) -> None:
    done = serve(*arguments, **environment)
    assert done.returncode == 2, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--token-secret", SECRET, "--port", str(port))
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
