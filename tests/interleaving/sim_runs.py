"""One run of either side, and a thousand of them."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable

import sim_cluster
import sim_lambda
from sim_checks import check_journal, check_pictures, check_students
from sim_clients import HEAL_AT, Proctor, Student
from sim_world import Violation, World

from core import messages as m
from core.snapshot import newer

STUDENTS = ("s0", "s1", "s2")
Merge = Callable[[m.View | None, m.View], m.View]
Seen = Counter[str]
"""How often a run met what it is meant to meet."""
Run = Callable[[int], Seen]
_run: Run


def run_lambda(
    seed: int,
    *,
    gateway: type[sim_lambda.Gateway] = sim_lambda.Gateway,
    table: type[sim_lambda.Table] = sim_lambda.Table,
    merge: Merge = newer,
) -> Seen:
    """A run without crashes, with some or with many, by the seed. Raises `Violation`."""
    crash_share = (0.0, 0.02, 0.05)[seed % 3]
    world = World(seed, crash_share=crash_share)
    service = gateway(world, table)
    students, proctors = _clients(world, service, faults=crash_share > 0, merge=merge)
    world.run(HEAL_AT)
    world.crash_share = 0.0
    world.run(HEAL_AT + 30)
    world.slow_share = 0.0
    world.run(HEAL_AT + 145)
    _check(students, proctors, service.table)
    return Counter(steps=world.steps, crashes=world.crashes, conflicts=service.table.conflicts, runs=1)


def run_cluster(seed: int, *, redis: type[sim_cluster.Redis] = sim_cluster.Redis, merge: Merge = newer) -> Seen:
    """The same for the cluster."""
    crash_share = (0.0, 0.008, 0.025)[seed % 3]
    world = World(seed, crash_share=crash_share)
    cluster = sim_cluster.Cluster(world, redis, faults=crash_share > 0)
    students, proctors = _clients(world, cluster, faults=crash_share > 0, merge=merge)
    try:
        cluster.run(HEAL_AT)
        world.crash_share = 0.0
        cluster.heal()
        cluster.run(HEAL_AT + 30)
        world.slow_share = 0.0
        cluster.run(HEAL_AT + 145)
    finally:
        cluster.close()
    _check(students, proctors, cluster.redis)
    return Counter(steps=world.steps, crashes=world.crashes, refused=cluster.redis.refused, runs=1)


def _clients(
    world: World, service: sim_lambda.Gateway | sim_cluster.Cluster, *, faults: bool, merge: Merge
) -> tuple[list[Student], list[Proctor]]:
    """Three students, and proctors. Where publications may be lost they ask again; where none is, they see the truth without.

    Then there are more of them, who join while the last changes happen.
    """
    dice = world.random
    students = [Student(world, service, name) for name in STUDENTS]
    joins = (
        [dice.uniform(0, 40) for _ in range(dice.randrange(1, 4))]
        if faults
        else [dice.uniform(20, 66) for _ in range(5)]
    )
    proctors = [
        Proctor(world, service, f"p{n}", list(STUDENTS), joins=at, asks_again=faults, merge=merge)
        for n, at in enumerate(joins)
    ]
    return students, proctors


def _check(students: list[Student], proctors: list[Proctor], stored: sim_lambda.Table | sim_cluster.Redis) -> None:
    check_students(students, stored.records)
    check_pictures(proctors, stored.records)
    check_journal(students, proctors, stored.records, stored.journal)


def violations(run: Run, seeds: range) -> tuple[list[str], Seen]:
    """What each seed found, and what was met on the way."""
    logging.disable()  # a worker warns of each fault that is injected
    found, seen = [], Counter[str]()
    try:
        for seed in seeds:
            try:
                seen += run(seed)
            except Violation as violation:
                found.append(f"seed {seed}: {violation}")
    finally:
        logging.disable(logging.NOTSET)
    return found, seen


def all_violations(run: Run, seeds: int, processes: int = 2) -> tuple[list[str], Seen]:
    """The same for many seeds, on two cores."""
    global _run
    _run = run  # a forked process finds it here: a run that is patched can't be sent to one
    parts = [range(start, min(start + 50, seeds)) for start in range(0, seeds, 50)]
    found, seen = [], Counter[str]()
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        for part_found, part_seen in pool.map(_violations, parts):
            found += part_found
            seen += part_seen
    return found, seen


def _violations(seeds: range) -> tuple[list[str], Seen]:
    return violations(_run, seeds)


def first_violation(run: Run, seeds: int) -> str | None:
    """The first seed that finds something, in seeds from 0."""
    for seed in range(seeds):
        found, _ = violations(run, range(seed, seed + 1))
        if found:
            return found[0]
    return None
