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
import itertools
import os
import random
import resource
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import redis
from msgspec import Struct, field

from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.keys import all_partitions, exam_keys
from adapters.ec2_cluster.local import LocalCluster
from compare.faults.injection import Proxy, journal_table, wrong_clock
from compare.run.crowd import Crowd
from compare.run.recording import Order, ProctorLog, Recording, Report, StudentLog
from compare.run.workload import SCHOOL, Plan, ProctorPlan, ProctorStep, Schedule, StudentPlan, StudentStep
from core.identity import Principal, issue
from core.journal import Entry
from core.participant import ExamKey
from core.policy import Policy

HEAL_SECONDS = 2.0
"""How long after the healing a proctor may still be shown something old."""
_EXAM_SECONDS = 240.0
_WARM_SECONDS = 2.0
_AFTER_SECONDS = 3.0
_SETTLE_SECONDS = 20.0
_LEAK_SECONDS = 10.0
_MEMORY_BYTES = 48 * 2**20
_SPARE_DESCRIPTORS = 3  # a log file, a socket that is just being closed

INVARIANTS = ("views", "journal", "offline", "leaks", "memory")


class Verdict(Struct):
    """What a scenario came to. `broken` has, for each invariant that did not hold, what was seen, the first few in words."""

    scenario: str
    what: str
    seed: int
    recovery: float = 0.0
    """Seconds from the healing until every proctor was shown everything made before it."""
    worst: float = 0.0
    """Seconds that the slowest report needed to every proctor, counted from the healing if it was made before."""
    broken: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether every invariant did."""
        return not self.broken

    def breaks(self, invariant: str, what: str) -> None:
        """Write down what contradicts an invariant."""
        self.broken.setdefault(invariant, []).append(what)


class Rig:
    """What a fault can reach: the processes, Redis, the way to it, the clients. `rng` decides whom it hits."""

    def __init__(self, cluster: LocalCluster, server: EmbeddedRedis, crowd: Crowd, rng: random.Random) -> None:
        self.cluster = cluster
        self.server = server
        self.crowd = crowd
        self.rng = rng
        self.proxy: Proxy | None = None
        self.healed_at: float | None = None
        self.verdict_notes: list[tuple[str, str]] = []
        self._admin = redis.Redis.from_url(server.url)

    # --- for faults ---

    def healed(self) -> None:
        """The fault is over from this moment; without this, from the moment that the fault's function returns."""
        self.healed_at = self.crowd.clock()

    def a_worker(self) -> int:
        """One of the workers."""
        return self.rng.choice(sorted(self.cluster.pids()["worker"]))

    def workers_of(self, instance: int) -> list[int]:
        """All processes below a supervisor."""
        return children(self.cluster.ready[instance].supervisor_pid)

    def redis(self) -> redis.Redis:
        """A client past any proxy."""
        return self._admin

    def broke(self, invariant: str, what: str) -> None:
        """The fault itself saw an invariant broken."""
        self.verdict_notes.append((invariant, what))

    def order_in_every_exam(self) -> None:
        """The first proctor of each exam warns one of its students."""
        for quiz_id in self.crowd.recording.schedule.quiz_ids:
            there = [s.plan.student_id for s in self.crowd.recording.students if s.plan.quiz_id == quiz_id]
            self.crowd.order(quiz_id, self.rng.choice(there))

    async def gone(self, pid: int, seconds: float = 20.0) -> None:
        """Wait until a process has ended."""
        await until(lambda: not is_running(pid), f"the end of process {pid}", seconds)

    async def whole(self, workers: int = 4) -> None:
        """Wait until all workers run (again)."""
        await until(lambda: len(self.cluster.pids()["worker"]) >= workers, "all workers", 30.0)

    def close(self) -> None:
        """Give up the connection to Redis."""
        self._admin.close()


Fault: TypeAlias = Callable[[Rig], Awaitable[None]]


class Scenario(Struct, frozen=True):
    """One fault. `quick`: part of the half that CI runs."""

    name: str
    what: str
    fault: Fault
    quick: bool = False
    proxied: bool = False
    table: bool = False
    clock_offset: float = 0.0
    interval: float = 1.0
    lost_instances: int = 0
    empties_redis: bool = False


# --- the faults -----------------------------------------------------------------------------------------------------------


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


# --- a scenario -----------------------------------------------------------------------------------------------------------


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
                lambda: not any(_undelivered(recording)), "acknowledged commands", 2 * Policy().command_again_seconds
            )
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
    await _settled(rig, settle)
    settled_at = crowd.clock()
    _judge_memory(rig, before, verdict)
    await crowd.stop()
    for invariant, what in rig.verdict_notes:
        verdict.breaks(invariant, what)
    await _judge_leaks(rig, scenario, before, verdict)
    _judge_views(rig, started_at, healed_at, settled_at, within, verdict)
    await _judge_journal(rig, settle, verdict)
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
            is_behind(student, proctor) for student in recording.students for proctor in _watchers(rig, student)
        )

    with contextlib.suppress(TimeoutError):
        await until(quiet, "quiet", seconds)


def _watchers(rig: Rig, student: StudentLog) -> list[ProctorLog]:
    return rig.crowd.recording.proctors_of(student.plan.quiz_id)


def is_behind(student: StudentLog, proctor: ProctorLog) -> bool:
    """Whether this dashboard does not show what the page said last."""
    view, last = proctor.views.get(student.plan.student_id), changed_reports(student)[-1]
    return view is None or view.seq < last.seq or view.label != last.state.status


def changed_reports(student: StudentLog) -> list[Report]:
    """The reports that a proctor must be shown."""
    return [report for report in student.reports if report.changed]


# --- judging --------------------------------------------------------------------------------------------------------------


def _judge_views(
    rig: Rig, started_at: float, healed_at: float, settled_at: float, within: float, verdict: Verdict
) -> None:
    for student in rig.crowd.recording.students:
        name = student.plan.student_id
        for proctor in _watchers(rig, student):
            seen = [s for s in proctor.seen if s.news and s.view.student_id == name]
            who = f"{proctor.plan.proctor_id} of {name}"
            reached = iter(seen)
            shown = next(reached, None)
            for report in changed_reports(student):
                while shown is not None and shown.view.seq < report.seq:
                    shown = next(reached, None)
                if shown is None:
                    verdict.breaks("views", f"{who}: report {report.seq} was never shown")
                    break
                made_at = report.created_at
                base = max(made_at, healed_at) if made_at >= started_at - within else made_at
                late = shown.at - base
                verdict.worst = max(verdict.worst, late)
                if made_at <= healed_at:
                    verdict.recovery = max(verdict.recovery, shown.at - healed_at)
                if late > within:
                    verdict.breaks("views", f"{who}: report {report.seq} came {late:.2f} s late")
            for one, then in itertools.pairwise([*seen, None]):
                assert one is not None  # only the last is
                until_then = settled_at if then is None else then.at
                if one.view.label == "reconnecting" and until_then - max(one.at, healed_at) > within:
                    verdict.breaks("views", f"{who}: reconnecting for {until_then - max(one.at, healed_at):.1f} s")
                if one.view.label == "offline":
                    verdict.breaks("offline", f"{who}: shown offline")
            if is_behind(student, proctor):
                view = proctor.views.get(name)
                verdict.breaks("views", f"{who}: in the end {view and (view.seq, view.label)}")


async def _judge_journal(rig: Rig, seconds: float, verdict: Verdict) -> None:
    """Once all outboxes are empty every report was acknowledged, so the journal must tell the same story."""
    recording = rig.crowd.recording

    async def story_is_whole() -> list[str]:
        missing: list[str] = []
        for quiz_id in recording.schedule.quiz_ids:
            entries = await asyncio.to_thread(rig.cluster.journal, ExamKey(SCHOOL, quiz_id))
            by_student: dict[str, list[Entry]] = {}
            for entry in entries:
                by_student.setdefault(entry.student_id, []).append(entry)
            for student in recording.students:
                if student.plan.quiz_id == quiz_id:
                    missing += contradictions(student, by_student.get(student.plan.student_id, []))
            for proctor in recording.proctors_of(quiz_id):
                for order in proctor.orders:
                    kept = [
                        e
                        for e in by_student.get(order.student_id, [])
                        if e.kind == "command" and e.reference == order.command_id and e.after == "accepted"
                    ]
                    if order.acked_at is not None and len(kept) != 1:
                        missing.append(f"{order.command_id} for {order.student_id} is there {len(kept)} times")
        return missing

    deadline = time.monotonic() + seconds
    while (found := await story_is_whole()) and time.monotonic() < deadline:  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0.2)
    for what in found:
        verdict.breaks("journal", what)
    for order in _undelivered(recording):
        verdict.breaks("journal", f"{order.command_id} was acknowledged and never reached {order.student_id}")


def _undelivered(recording: Recording) -> Iterator[Order]:
    """Commands that were acknowledged and have not come to the student's page."""
    for student in recording.students:
        got = {command.command_id for command in student.commands}
        for proctor in recording.proctors_of(student.plan.quiz_id):
            for order in proctor.orders:
                if order.student_id == student.plan.student_id and order.acked_at and order.command_id not in got:
                    yield order


def contradictions(student: StudentLog, entries: Sequence[Entry]) -> Iterator[str]:
    """Where the journal does not tell what a page had acknowledged, in words; the page stayed, and its outbox is empty."""
    name = student.plan.student_id
    labels = [entry for entry in entries if entry.kind == "label"]
    for entry in labels:
        if entry.after == "offline":
            yield f"{name} is offline in the journal"
    acked = [report for report in student.reports if report.acked_at is not None]
    if len(acked) != len(student.reports):
        yield f"{name}: {len(student.reports) - len(acked)} reports were never acknowledged"
    told = [status for status, _ in itertools.groupby(report.state.status for report in acked)]
    kept = [label for label, _ in itertools.groupby(e.after for e in labels if e.after in ("active", "away"))]
    if told != kept:
        at = next((i for i, (a, b) in enumerate(zip(told, kept, strict=False)) if a != b), min(len(told), len(kept)))
        yield f"{name}: change {at + 1} of {len(told)} is not as reported; the journal has {len(kept)}"
    for one, then in itertools.pairwise(labels):
        if then.before != one.after:
            yield f"{name}: after {one.after} comes a change from {then.before} to {then.after} (version {then.version})"


def _judge_memory(rig: Rig, before: dict[int, tuple[int, int]], verdict: Verdict) -> None:
    for pid in rig.cluster.pids()["worker"]:
        if pid in before and (grown := memory_bytes(pid) - before[pid][1]) > _MEMORY_BYTES:
            verdict.breaks("memory", f"a worker grew by {grown / 2**20:.0f} MiB")


async def _judge_leaks(rig: Rig, scenario: Scenario, before: dict[int, tuple[int, int]], verdict: Verdict) -> None:
    """All clients are gone: what workers and Redis still hold is theirs, or leaked."""
    workers = rig.cluster.pids()["worker"]

    def held() -> list[str]:
        return [
            f"a worker holds {descriptors(pid)} files, {before[pid][0]} at the start"
            for pid in workers
            if pid in before and descriptors(pid) > before[pid][0] + _SPARE_DESCRIPTORS
        ]

    with contextlib.suppress(TimeoutError):
        await until(lambda: not held(), "closed connections", _LEAK_SECONDS)
    for what in held():
        verdict.breaks("leaks", what)
    expected = 4 - 2 * scenario.lost_instances
    if len(workers) != expected:
        verdict.breaks("leaks", f"{len(workers)} workers run, {expected} expected")
    client = rig.redis()

    def subscribers() -> int:
        return len(client.client_list(_type="pubsub"))

    with contextlib.suppress(TimeoutError):
        await until(lambda: subscribers() == len(workers), "one subscriber a worker", _LEAK_SECONDS)
    if subscribers() != len(workers):
        verdict.breaks("leaks", f"{subscribers()} subscribers for {len(workers)} workers")
    listening = [channel for channel in client.pubsub_channels() if b"}w:" in channel]
    if len(listening) != len(workers) * len(all_partitions()):
        verdict.breaks("leaks", f"{len(listening)} channels of workers, for {len(workers)} workers")


# --- small tools ----------------------------------------------------------------------------------------------------------


async def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until the condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:.0f} s")
        await asyncio.sleep(0.02)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def memory_bytes(pid: int) -> int:
    """The resident memory of a process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


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
