"""Faults on purpose, and a machine that judges: real processes, a real Redis, students and proctors who never stop.

A scenario brings one fault over two instances of two workers while students report about once a second, then heals it. What the
clients saw, the journal, and the processes themselves are judged against five invariants:

views     every proctor shows every student as their page is, at the latest two seconds after the fault has healed
journal   every acknowledged change of label, and every acknowledged command, is in the journal exactly once
offline   nobody who is there is ever shown or journalled as offline
leaks     no connection, subscription or process is left over
memory    no worker grows without bound

The seed fixes who does what when, and whom the fault hits. The schedule of processes and packets is the machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.local import LocalCluster
from compare.faults.injection import Proxy, journal_table, wrong_clock
from compare.faults.invariants import (
    is_behind,
    judge_journal,
    judge_leaks,
    judge_memory,
    judge_views,
    undelivered,
    watchers,
)
from compare.faults.processes import descriptors, is_running, memory_bytes, until
from compare.faults.rig import HEAL_SECONDS, Rig, Scenario, Verdict
from compare.run.crowd import Crowd
from compare.run.workload import Plan, ProctorPlan, ProctorStep, Schedule, StudentPlan, StudentStep
from core.policy import Policy

_EXAM_SECONDS = 240.0
_WARM_SECONDS = 2.0
_AFTER_SECONDS = 3.0
_SETTLE_SECONDS = 20.0


async def play(
    scenario: Scenario, seed: int, students: int = 40, within: float = HEAL_SECONDS, settle: float = _SETTLE_SECONDS
) -> Verdict:
    """Bring one fault over a cluster, and judge. `within`: how soon after the healing views must be right.

    `settle`: how long to wait at the end until everything is acknowledged, shown and carried.
    """
    with tempfile.TemporaryDirectory(prefix="pw-chaos-") as folder:
        server = EmbeddedRedis.start(Path(folder) / "redis")
        rig: Rig | None = None
        proxy: Proxy | None = None
        redis_url, journal = server.url, ""
        environments: Sequence[Mapping[str, str]] = ()
        try:
            async with contextlib.AsyncExitStack() as around:
                if scenario.proxied:
                    proxy = await Proxy.to_unix(server.url.removeprefix("unix://"))
                    redis_url = f"redis://{proxy.address}"
                if scenario.clock_offset:
                    environments = (wrong_clock(Path(folder), scenario.clock_offset),)
                if scenario.table:
                    journal, proxy, environment = await around.enter_async_context(journal_table())
                    environments = (environment, environment)
                cluster = LocalCluster(
                    instances=2,
                    workers=2,
                    redis_url=redis_url,
                    drain_seconds=2.0,
                    journal=journal,
                    environments=environments,
                )
                async with cluster:
                    pids = [pid for found in cluster.pids().values() for pid in found]
                    schedule = steady_schedule(seed, students, scenario.interval)
                    async with Crowd(schedule, "proctorwire", cluster.urls, cluster.token_secret) as crowd:
                        rig = Rig(cluster, server, crowd, random.Random(seed))  # noqa: S311 - replays, guards nothing
                        rig.proxy = proxy
                        verdict = await _play(scenario, seed, rig, within, settle)
                    pids += [pid for found in cluster.pids().values() for pid in found]
                left = [pid for pid in set(pids) if is_running(pid)]
                if left:
                    verdict.breaks("leaks", f"processes left: {left}")
                return verdict
        finally:
            if rig is not None:
                server = rig.server
                rig.close()
            if proxy is not None:
                await proxy.close()
            server.stop()


async def _play(scenario: Scenario, seed: int, rig: Rig, within: float, settle: float) -> Verdict:
    crowd, recording, cluster = rig.crowd, rig.crowd.recording, rig.cluster
    verdict = Verdict(scenario.name, scenario.what, seed)
    before = {pid: (descriptors(pid), memory_bytes(pid)) for pid in cluster.pids()["worker"]}
    crowd.roam(cluster.urls)
    playing = asyncio.create_task(crowd.play())
    try:
        await until(lambda: all(s.reports and s.reports[0].acked_at for s in recording.students), "everybody's join")
        await asyncio.sleep(_WARM_SECONDS)
        started_at = crowd.clock()
        await scenario.fault(rig)
        healed_at = rig.healed_at or crowd.clock()
        await asyncio.sleep(_AFTER_SECONDS)
        with contextlib.suppress(TimeoutError):  # what got lost on its way is sent again with a later frame of the page
            await until(
                lambda: not any(undelivered(recording)), "acknowledged commands", 2 * Policy().command_again_seconds
            )
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    await _settled(rig, settle)
    settled_at = crowd.clock()
    judge_memory(rig, before, verdict)
    await crowd.stop()
    for invariant, what in rig.verdict_notes:
        verdict.breaks(invariant, what)
    await judge_leaks(rig, scenario, before, verdict)
    judge_views(rig, started_at, healed_at, settled_at, within, verdict)
    await judge_journal(rig, settle, verdict)
    verdict.problems = list(recording.problems)
    return verdict


def steady_schedule(seed: int, students: int, interval: float) -> Schedule:
    """Everybody joins within a second and reports about once an interval; each looks away now and then."""
    rng = random.Random(seed)  # noqa: S311 - replays, guards nothing
    exams = 4
    quiz_ids = tuple(f"chaos-{number}" for number in range(exams))
    plans = []
    for number in range(students):
        steps = [StudentStep(rng.uniform(0.01, 1.0), "join")]
        at, away = 1.5, False
        while at < _EXAM_SECONDS:
            if rng.random() < 0.2:
                away = not away
                steps.append(StudentStep(at, "away" if away else "back"))
            else:
                steps.append(StudentStep(at, "tick", progressed=True))
            at += interval * rng.uniform(0.5, 1.5)
        plans.append(
            StudentPlan(
                f"s{number}", f"a{number}", f"Student {number}", quiz_ids[number % exams], "stays", tuple(steps)
            )
        )
    proctors = tuple(
        ProctorPlan(f"p{number}", quiz_ids[number % exams], (ProctorStep(0.0, "watch"),)) for number in range(2 * exams)
    )
    plan = Plan(students, exams, 2, interval, _EXAM_SECONDS, seed, "chaos")
    return Schedule(plan, quiz_ids, tuple(plans), proctors, _EXAM_SECONDS / 2, _EXAM_SECONDS)


async def _settled(rig: Rig, seconds: float) -> None:
    """Wait until nothing is under way: outboxes are empty and every proctor shows what the pages last said."""
    recording = rig.crowd.recording

    def quiet() -> bool:
        return not any(student.waiting for student in recording.students) and not any(
            is_behind(student, proctor) for student in recording.students for proctor in watchers(rig, student)
        )

    with contextlib.suppress(TimeoutError):
        await until(quiet, "quiet", seconds)
