"""The rehearsal of a move with a real Redis Cluster of three nodes under the cluster's side, as the user of the manual."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from redis_nodes import PRIMARIES, RedisNodes

from adapters.ec2_cluster.keys import CLAIMS, MOVE, TURN, exam_keys
from core.participant import ExamKey
from deploy.cli import deploy
from deploy.migration_rehearsal import QUIZ, SCHOOL, Outcome, Rehearsal

PASSWORD = "only-for-this-test"
WITH_REPLICA = 0
MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"


def documented_rules() -> str:
    """The access list that the operations manual tells to use with a cluster."""
    found = [
        re.search(line, MANUAL.read_text(), re.MULTILINE) for line in (r"^user proctorwire (.+)$", r"^(\+cluster\|.+)$")
    ]
    return " ".join(match[1] for match in found if match).replace(">SECRET", ">" + PASSWORD)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    users = tmp_path_factory.mktemp("nodes") / "users.acl"
    users.write_text(f"user default on nopass ~* &* +@all\nuser proctorwire {documented_rules()}\n")
    options = {"cluster-require-full-coverage": "no", "aclfile": str(users)}
    with RedisNodes(replicas_of=(WITH_REPLICA,), options=options) as running:
        yield running


def records_of(quiz_id: str) -> str:
    return exam_keys(ExamKey(SCHOOL, quiz_id)).records


def test_a_class_moves_there_and_back_while_slots_do_and_a_node_dies_and_nobody_notices(nodes):
    """Exams and the keys of the move are on different nodes, and go to others; then a replica takes the place of the exam's."""
    home = nodes.owner(records_of(QUIZ))
    assert home != WITH_REPLICA
    assert len({nodes.owner(key) for key in (MOVE, CLAIMS)} | {home}) == PRIMARIES
    other = next(name for n in range(99) if nodes.owner(records_of(name := f"late-{n}")) != home)
    told: list[str] = []

    async def play() -> Outcome:
        url = nodes.url(1, f"proctorwire:{PASSWORD}")
        rehearsal = Rehearsal(10, told.append, interval=1.0, slot_seconds=0.5, redis_url=url, is_timed=False)

        async def slots_move() -> None:
            await asyncio.to_thread(nodes.migrate, records_of(QUIZ), WITH_REPLICA)
            for key in (CLAIMS, TURN):
                await asyncio.to_thread(nodes.migrate, key, (nodes.owner(key) + 1) % PRIMARIES)

        async def node_dies() -> None:
            await asyncio.to_thread(nodes.kill, WITH_REPLICA)

        async with rehearsal.playing():
            await rehearsal.start()
            await rehearsal.shift(60, during=slots_move)
            await rehearsal.shift(0, "rollback", during=node_dies)
            await rehearsal.shift(100, during=lambda: rehearsal.harm("transit-command"))
            await rehearsal.begin_another(other)
            await rehearsal.finish()
            await rehearsal.settle()
            await rehearsal.close_exam()
            return rehearsal.outcome()

    outcome = asyncio.run(play())
    assert nodes.owner(records_of(QUIZ)) == PRIMARIES, "the replica"
    assert (outcome.lost, outcome.duplicates, outcome.false_offline, outcome.taken_back) == (0, 0, 0, "")
    assert any("commands from both sides reached" in line for line in told)
    alive = [node for node, process in enumerate(nodes.processes) if process.poll() is None]
    denied = [entry for node in alive for entry in nodes.ask(node, "ACL", "LOG")]
    assert denied == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--redis", "URL"], "keys; give an empty one, which nobody else uses"),
        (["--redis", "URL", "--fault", "redis"], "a Redis that was given with --redis is not killed"),
        (["--redis", "redis://127.0.0.1:1"], "--redis can't be used"),
        (["--redis", "http://nowhere"], "--redis can't be used"),
    ],
)
def test_a_redis_that_a_rehearsal_can_not_have_is_refused(nodes, arguments, says):
    nodes.ask(nodes.owner("somebody's"), "SET", "somebody's", "1")
    given = [nodes.url(1) if each == "URL" else each for each in arguments]
    refused = CliRunner().invoke(deploy, ["migrate", "rehearse", "--students", "4", *given])
    assert refused.exit_code in (1, 2)
    assert says in refused.output
