"""A Redis Cluster of three primaries and a replica, over TLS, as a user who may do little: exams while its nodes change."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import certificates
import pytest
from click.testing import CliRunner
from deployments import ClusterDeployment
from redis_nodes import PRIMARIES, RedisNodes
from wire_clients import Dashboard, Page

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.keys import exam_keys, partition_keys
from adapters.ec2_cluster.local import LocalCluster
from adapters.ec2_cluster.redis_cluster import slot_of
from adapters.ec2_cluster.web import RedisPorts, connect
from compare.proctorwire import main
from core.events import CommandIssued
from core.participant import ExamKey, ParticipantKey
from core.revocation import Revocation
from core.roster import RosterLine
from core.routing import CommandToSome

PASSWORD = "only-for-this-test"
OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def documented_rules() -> str:
    """The access list that the operations manual tells to use with a cluster."""
    manual = OPERATIONS.read_text()
    found = [re.search(pattern, manual, re.MULTILINE) for pattern in (r"^user proctorwire (.+)$", r"^(\+cluster\|.+)$")]
    assert all(found)
    return " ".join(match[1] for match in found if match).replace(">SECRET", ">" + PASSWORD)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisNodes]:
    folder = tmp_path_factory.mktemp("nodes")
    users = folder / "users.acl"
    users.write_text(f"user default on nopass ~* &* +@all\nuser proctorwire {documented_rules()}\n")
    # The other nodes go on while one is away, as an operator would have it.
    options = {"cluster-require-full-coverage": "no", "aclfile": str(users)}
    with RedisNodes(replicas_of=(0,), certificate=certificates.for_localhost(folder), options=options) as running:
        yield running


@pytest.fixture(scope="module")
def url(nodes: RedisNodes) -> str:
    return nodes.url(1, f"proctorwire:{PASSWORD}")


@pytest.fixture
async def cluster(url: str) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(instances=2, workers=1, redis_url=url) as running:
        yield running


def exam_on(nodes: RedisNodes, node: int, name: str) -> str:
    """A quiz id of which the data lie on this node."""
    owners = nodes.owners()
    return next(
        quiz_id
        for quiz_id in (f"{name}-{number}" for number in range(1000))
        if owners[slot_of(exam_keys(ExamKey("north", quiz_id)).records)] == node
    )


def refused_commands(nodes: RedisNodes) -> list[str]:
    """What the user was not permitted to do."""
    found = []
    for number, process in enumerate(nodes.processes):
        if process.poll() is None:
            found += [f"{denied['reason']} {denied['object']}" for denied in nodes.ask(number, "ACL", "LOG")]
    return found


async def come_back(page: Page, url: str) -> None:
    page.url = url
    await page.closed()
    await page.until_let_in()


def test_the_http_api_reads_and_writes_wherever_the_slot_is(nodes: RedisNodes, url: str) -> None:
    ports = RedisPorts(connect(redis_sync.marked(url)))
    assert abs(ports.now() - time.time()) < 5
    ports.check()
    for node in range(PRIMARIES):
        exam = ExamKey("north", exam_on(nodes, node, "api"))
        lines = [RosterLine(f"s{number}", f"Student {number}") for number in range(3)]
        assert ports.enroll(exam, lines).added == 3
        assert [student_id for student_id, _ in ports.participants(exam)] == ["s0", "s1", "s2"]
        order = CommandIssued(
            received_at=ports.now(), command_id="c1", command="warn", expires_at=ports.now() + 60, issued_by="lms"
        )
        ports.command(CommandToSome((ParticipantKey(*exam, "s0"), ParticipantKey(*exam, "s1")), order))
        partition = partition_keys(exam_keys(exam).tag)
        assert nodes.ask(node, "SCARD", partition.inboxes) == 2
        assert ports.remove(exam, "s2") == "removed"
        assert not ports.is_watched(exam)
        assert ports.purge(exam, 5).items > 0
        assert list(ports.participants(exam)) == []
        assert nodes.ask(node, "SCARD", partition.inboxes) == 0
    whose = Revocation("north", "student", "nobody", "")
    ports.revoke(whose, 1)
    ports.allow(whose)


async def test_nobody_notices_that_slots_move_and_nodes_die(nodes: RedisNodes, url: str, cluster: LocalCluster) -> None:
    exams = [ClusterDeployment(cluster, exam_on(nodes, node, "story")) for node in range(PRIMARIES)]
    pages = [Page(exam, "s1") for exam in exams]
    proctors = [Dashboard(exam, instance=1) for exam in exams]
    for page, proctor in zip(pages, proctors, strict=True):
        await proctor.connect()
        await proctor.watch()
        await page.connect()
        await page.reported(question_answered=1)
        await proctor.sees("s1", question_answered=1)
        await proctor.order("warn", "c1", student_ids=["s1"], text="look up")
        await page.frame("lmsQuizCommand", command_id="c1")

    # The worker of the first instance dies: its students go on at the second.
    os.kill(
        next(pid for pid in cluster.pids()["worker"] if is_child(pid, cluster.ready[0].supervisor_pid)), signal.SIGKILL
    )
    for page, proctor, exam in zip(pages, proctors, exams, strict=True):
        await come_back(page, exam.url(1))
        await page.reported(question_answered=2)
        await proctor.sees("s1", label="active", question_answered=2)

    # A node falls silent, with its connections open: exams on the others do not wait for it, and newcomers there neither.
    os.kill(nodes.processes[1].pid, signal.SIGSTOP)
    waiting = await pages[1].report(question_answered=2)
    newcomers = [Page(exams[other], "s2") for other in (0, 2)]
    pages += newcomers
    for page in newcomers:
        page.url = exams[0].url(1)  # the worker of the first instance starts when all nodes are there
    await asyncio.sleep(0.1)  # its save is on its way
    began = time.monotonic()
    for page, proctor in ((pages[0], proctors[0]), (pages[2], proctors[2])):
        await page.reported(question_number_current=3)
        await proctor.sees("s1", question_number_current=3)
    for page, proctor in zip(newcomers, (proctors[0], proctors[2]), strict=True):
        await page.connect()
        await page.reported(question_answered=1)
        await proctor.sees("s2", label="active")
    assert time.monotonic() - began < 1.5  # a silent node is given up after two seconds
    assert pages[1].count("ack", seq=waiting) == 0
    os.kill(nodes.processes[1].pid, signal.SIGCONT)
    await pages[1].frame("ack", seq=waiting)

    # A slot moves while reports come in: each is acked, and shown.
    moved, page, proctor = exams[1], pages[1], proctors[1]
    keys = exam_keys(moved.exam)
    moving = asyncio.create_task(asyncio.to_thread(nodes.migrate, keys.records, 2, lambda: time.sleep(0.02)))
    reports = 0
    while not moving.done() or reports < 10:
        reports += 1
        await page.reported(question_answered=2 + reports)
        await asyncio.sleep(0.06)  # more than 20 a second would be dropped
    assert await moving >= 3
    assert nodes.owner(keys.records) == 2
    await proctor.sees("s1", label="active", question_answered=2 + reports)
    await proctor.order("warn", "c2", student_ids=["s1"], text="thank you")
    await page.frame("lmsQuizCommand", command_id="c2")

    # A primary dies: exams on other nodes do not notice, and its own go on with its replica, where nothing acked is missing.
    await pages[0].reported("away")
    await proctors[0].sees("s1", label="away")
    nodes.kill(0)
    waiting = await pages[0].report("active", question_answered=7)
    for other in (1, 2):
        await pages[other].reported(question_number_current=9)
        await proctors[other].sees("s1", question_number_current=9)
    assert pages[0].count("ack", seq=waiting) == 0
    await pages[0].frame("ack", seq=waiting)
    assert nodes.owner(exam_keys(exams[0].exam).records) == PRIMARIES
    await proctors[0].sees("s1", label="active", question_answered=7)
    await proctors[0].order("warn", "c3", student_ids=["s1"], text="once more")
    await pages[0].frame("lmsQuizCommand", command_id="c3")

    # A node without a replica comes back empty: the owners write back what was on it, and nothing else is touched.
    nodes.kill(2)
    nodes.start_empty(2)
    await pages[2].reported(question_answered=8)
    fresh = Dashboard(exams[2], "fresh", instance=0)
    await fresh.connect()
    await fresh.watch()
    await fresh.sees("s1", label="active", question_answered=8)
    assert [label for student, label in proctors[2].labels if student == "s1"] == ["active"]

    for exam, count in zip(exams, (2, 2, 1), strict=True):
        await exam.until_journalled("command", count)
    labels = [entry.after for entry in await exams[0].journal() if entry.kind == "label"]
    assert labels[-2:] == ["away", "active"]
    assert [label for _, label in proctors[1].labels] == ["active"]
    for arguments in (("workers",), ("exams",), ("revoke", "--school", "north", "--quiz", exams[2].quiz_id)):
        done = await asyncio.to_thread(CliRunner().invoke, main, ["admin", "--redis", url, *arguments])
        assert done.exit_code == 0, done.output
    assert await pages[2].closed() == 4001
    for client in (*pages, *proctors, fresh):
        await client.close()
    assert refused_commands(nodes) == []


def is_child(pid: int, parent: int) -> bool:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == parent
