"""A thousand seeds of either side find nothing; with any one rule broken, they do.

To look into a seed: `run_lambda(236)` or `run_cluster(236)` of `sim_runs` runs it again, the same.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import sim_move
from sim_breaks import CLUSTER, LAMBDA
from sim_failover import Forgetful, Hasty, run_failover
from sim_move import run_move
from sim_runs import all_violations, first_violation, run_cluster, run_lambda
from sim_world import Crashed, Loop, Process, World

from adapters.ec2_cluster.owned import Owned
from adapters.ec2_cluster.shell import Shell
from core.participant import ParticipantKey, new_participant

SEEDS = 1_000

# Coverage is measured elsewhere: the unit tests reach these lines, and here its tracing takes three quarters of the time.
pytestmark = pytest.mark.no_cover


def test_a_thousand_seeds_of_the_serverless_side():
    found, seen = all_violations(run_lambda, SEEDS)
    assert found == []
    assert seen["runs"] == SEEDS
    # the seeds met what they are meant to meet
    assert seen["crashes"] > 2 * SEEDS
    assert seen["conflicts"] > 2 * SEEDS


def test_a_thousand_seeds_of_the_cluster():
    found, seen = all_violations(run_cluster, SEEDS)
    assert found == []
    assert seen["runs"] == SEEDS
    assert seen["crashes"] > SEEDS / 2
    assert seen["refused"] > SEEDS / 2


def test_a_failover_that_loses_the_last_second_loses_nothing_that_was_acknowledged():
    found, seen = all_violations(run_failover, 100)
    assert found == []
    assert seen["runs"] == 100


def test_a_failover_breaks_the_journal_if_a_former_owner_need_not_wait_for_the_others():
    assert first_violation(functools.partial(run_failover, cluster=Hasty), 100) is not None


def test_a_failover_would_lose_it_if_workers_wrote_nothing_back():
    assert first_violation(functools.partial(run_failover, cluster=Forgetful), 100) is not None


def test_a_move_between_both_sides_with_crashes_at_every_step():
    seeds = 100
    found, seen = all_violations(run_move, seeds)
    assert found == []
    # the seeds met what they are meant to meet
    assert seen["claims"] > seeds
    assert seen["releases"] > seeds / 2
    assert seen["restarts"] > seeds / 2


def test_a_refused_save_of_a_former_claim_does_not_release_the_acks_of_a_newer_one():
    run_move(824)  # met it once; by now such a claim is rare, so the step itself is looked at too
    key = ParticipantKey("school", "quiz", "ann")
    shell: Any = Shell("w1", *[None] * 5)  # type: ignore[arg-type]  # none of them has a part in it
    former, newer = (Owned(key, new_participant(key, "ec2"), epoch) for epoch in (1, 2))
    shell._owned[key] = shell._dirty[key] = newer
    shell._drop(key, former)
    assert (shell._owned, shell._dirty) == ({key: newer}, {key: newer})


@pytest.mark.parametrize(
    ("target", "name", "broken"),
    [
        (sim_move.migration, "was_told", lambda session, policy: False),  # a page that hangs is told again for ever
        (sim_move.Bridge, "_settle", lambda *_: None),  # a claim whose answer was lost stays between the sides
        (
            sim_move.migration,
            "granted",
            lambda stored, live, now, policy: sim_move.handed_over(stored, "ec2", now, policy),
        ),
    ],
    ids=["told again", "not settled", "from the older copy"],
)
def test_breaking_a_rule_of_the_move_is_found(monkeypatch, target, name, broken):
    monkeypatch.setattr(target, name, broken)
    assert first_violation(run_move, 30) is not None


@pytest.mark.parametrize("rule", LAMBDA)
def test_breaking_a_rule_of_the_serverless_side_is_found(rule):
    assert first_violation(LAMBDA[rule], SEEDS) is not None


@pytest.mark.parametrize("rule", CLUSTER)
def test_breaking_a_rule_of_the_cluster_is_found(rule):
    assert first_violation(CLUSTER[rule], SEEDS) is not None


@pytest.mark.parametrize("run", [run_lambda, run_cluster])
def test_a_seed_is_the_same_run_each_time(run):
    assert run(7) == run(7) != run(8)


# --- the world itself -------------------------------------------------------------------------------------------------------


def test_synchronous_fibers_hold_still_at_each_io_and_others_run():
    world, told = World(1, crash_share=0.0), []

    def work(name):
        for n in range(3):
            world.io()
            told.append((name, n))

    for name in "ab":
        world.start(Process(name), lambda name=name: work(name))
    assert told == []
    world.run(world.now + 60)
    assert sorted(told) == [(name, n) for name in "ab" for n in range(3)]
    assert told != sorted(told)


def test_coroutines_hold_still_at_each_io_and_sleep_in_virtual_time():
    import asyncio

    world, told = World(1, crash_share=0.0), []
    process = Process("p")
    loop = Loop(world, process)

    async def work(name):
        await world.aio(process)
        await asyncio.sleep(5)
        told.append((name, world.now))

    began = world.now
    asyncio._set_running_loop(loop)
    try:
        for name in "ab":
            loop.create_task(work(name))
        world.run(began + 60)
    finally:
        asyncio._set_running_loop(None)
    assert {name for name, _ in told} == {"a", "b"}
    assert all(5 < at - began < 10 for _, at in told)


def test_a_crash_ends_a_fiber_at_an_io_and_all_of_its_process():
    world, ended = World(1, crash_share=1.0), []
    process = Process("p")

    def work():
        try:
            world.io()
        except Exception:
            pytest.fail("no product code may catch a crash")
        except Crashed:
            ended.append("crashed")
            raise

    world.start(process, work, ended.append)
    assert ended == ["crashed", False]
    assert process.is_dead
    world.start(process, work, ended.append)
    assert ended[2:] == ["crashed", False]
    assert world.crashes == 1
