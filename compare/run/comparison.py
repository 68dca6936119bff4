"""One exam through one deployment after the other, and what came of it as a `Result`.

A run ends when every scheduled consequence was seen or its time has passed; it waits for conditions, not for times. Whoever sets
the `stop` event ends it within three seconds: what was measured until then is kept and marked as partial.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct

from compare.bill.cost import CostError, ExamPlan, cluster_cost, serverless_cost
from compare.bill.prices import PriceError, Prices, load_prices
from compare.bill.usage import Basis, ClusterUsage, Mode, ProcessSplit, ServerlessUsage, Usage
from compare.run.crowd import Crowd, signing_key
from compare.run.measure import Findings, Journal, Rules, clock_offset, is_complete, judge_run, truths, unsettled
from compare.run.meter import Samples
from compare.run.recording import Generator, Recording
from compare.run.result import (
    Cpu,
    Latencies,
    LatencySummary,
    Memory,
    ModeResult,
    OfflineDetection,
    Result,
    WorkloadOptions,
    distribution,
    environment_here,
    judge,
    summarise,
)
from compare.run.target import ClusterTarget, Load, RemoteTarget, ServerlessTarget, Target, TargetError
from compare.run.trace import Row, TraceError, read_trace, schedule_of, trace_seconds
from compare.run.truth import Truth
from compare.run.workload import SCHOOL, ClientKind, Plan, Schedule, WorkloadError, schedule
from core.identity import MIN_SECRET_BYTES
from core.journal import Entry
from core.participant import ExamKey

Phase = Literal["starting", "running", "settling", "reading", "done"]
_Value = TypeVar("_Value")

_LOOK_SECONDS = 0.2
_JOIN_SECONDS = 20.0
_JOURNAL_SECONDS = 8.0
_MAX_PROBLEMS = 20
_LATE_MS = 50.0  # a load generator whose clock stands still this long spoils the tails


class BadInput(Exception):
    """Something the user can mend. One line: the option, what is wrong, what to do."""


class Options(Struct, frozen=True, kw_only=True):
    """What to run, and against what. `WorkloadOptions` in the result are made of these."""

    students: int = 100
    exams: int = 4
    proctors_per_exam: int = 1
    interval: float = 5.0
    duration: float = 30.0
    seed: int = 1
    mode: Literal["both", "lambda", "ec2"] = "both"
    client: ClientKind = "proctorwire"
    instances: int = 1
    workers: int = 2
    region: str = "ap-southeast-1"
    exams_per_month: float = 20.0
    hours: float = 3.0
    transport: Literal["picows", "websockets"] = "picows"
    lambda_url: str | None = None
    ec2_url: str | None = None
    token_secret: str | None = None
    trace: str | None = None  # a recording to replay; students and duration are then what it has

    @property
    def modes(self) -> tuple[Mode, ...]:
        """In the order they are run."""
        return ("lambda", "ec2") if self.mode == "both" else (self.mode,)


class Progress(Protocol):
    """Who is told how far a run is."""

    def update(self, mode: Mode, phase: Phase, done: float, total: float, note: str) -> None:
        """`done` and `total` are seconds of the schedule."""


class Silence:
    """Nobody is told."""

    def update(self, mode: Mode, phase: Phase, done: float, total: float, note: str) -> None:
        """Do nothing."""


class ModeRun(Struct, frozen=True):
    """What a run against one deployment left behind."""

    recording: Recording
    findings: Findings
    result: ModeResult


class Comparison(Struct, frozen=True):
    """The result, and what it was made of."""

    result: Result
    runs: dict[Mode, ModeRun]


def checked(options: Options) -> tuple[Plan, ExamPlan, Prices]:
    """The plans and prices that the options ask for. Raises `BadInput`, naming the option, before anything is started."""
    for option, value, most in (("--instances", options.instances, 16), ("--workers", options.workers, 64)):
        if not 1 <= value <= most:
            raise BadInput(f"{option}: {value} is out of range; give a number from 1 to {most}")
    if (options.lambda_url or options.ec2_url) and not options.token_secret:
        raise BadInput("--token-secret: missing; give the secret that the deployment signs its tokens with")
    if options.token_secret is not None and len(signing_key(options.token_secret)[1].encode()) < MIN_SECRET_BYTES:
        raise BadInput(f"--token-secret: shorter than {MIN_SECRET_BYTES} bytes; RFC 7518 section 3.2 asks for more")
    try:
        plan = Plan(
            students=options.students,
            exams=options.exams,
            proctors_per_exam=options.proctors_per_exam,
            interval=options.interval,
            duration=options.duration,
            seed=options.seed,
            run_id=secrets.token_hex(4),
        ).checked()
        exam = ExamPlan(hours=options.hours, exams_per_month=options.exams_per_month).checked()
        prices = load_prices(options.region)
    except WorkloadError as exc:
        raise BadInput(str(exc)) from exc
    except CostError as exc:
        raise BadInput(f"--hours, --exams-per-month: {exc}") from exc
    except PriceError as exc:
        raise BadInput(f"--region: {exc}") from exc
    return plan, exam, prices


def recorded(path: Path) -> list[Row]:
    """The rows of a recording. Raises `BadInput`, naming the row."""
    try:
        with path.open(newline="") as lines:
            return read_trace(lines)
    except (OSError, UnicodeDecodeError) as exc:
        raise BadInput(f"--trace: can't read {path} ({getattr(exc, 'strerror', None) or 'not text'})") from exc
    except TraceError as exc:
        raise BadInput(f"--trace: {path}: {exc}") from exc


def traced(options: Options, *, keep_duration: bool = False, keep_hours: bool = False) -> Options:
    """The options with what their recording says: students, and duration and hours unless they are to be kept."""
    if options.trace is None:
        return options
    rows = recorded(Path(options.trace))
    seconds = max(2.0, trace_seconds(rows))
    length = min(options.duration, seconds) if keep_duration else seconds
    students = len({row.student for row in rows if row.at - rows[0].at <= length})
    return msgspec.structs.replace(
        options,
        students=students,
        exams=min(options.exams, students),
        duration=length,
        hours=options.hours if keep_hours else max(0.05, round(seconds / 3600, 3)),
    )


def _replayed(trace: str, plan: Plan) -> Schedule:
    try:
        return schedule_of(recorded(Path(trace)), plan)
    except WorkloadError as exc:
        raise BadInput(str(exc)) from exc


def targets_for(options: Options) -> list[Target]:
    """A target for each mode, not started yet."""
    secret, fresh = options.token_secret or "", secrets.token_hex(MIN_SECRET_BYTES)
    made: list[Target] = []
    for mode in options.modes:
        url = options.lambda_url if mode == "lambda" else options.ec2_url
        if url is not None:
            made.append(RemoteTarget(mode, url, secret))
        elif mode == "lambda":
            made.append(ServerlessTarget(fresh, options.region))
        else:
            made.append(ClusterTarget(fresh, options.instances, options.workers, options.transport))
    return made


async def compare(options: Options) -> Result:
    """Run the exam through each deployment that the options name. Raises `BadInput`; then nothing is left running."""
    return (await compare_and_keep(options)).result


async def compare_and_keep(
    options: Options,
    targets: Sequence[Target] | None = None,
    stop: asyncio.Event | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """The same, with targets, a way to stop and a listener of one's own, and all that was recorded."""
    plan, exam, prices = checked(options)
    the_schedule = schedule(plan) if options.trace is None else _replayed(options.trace, plan)
    stop = stop or asyncio.Event()
    runs: dict[Mode, ModeRun] = {}
    for target in targets_for(options) if targets is None else targets:
        if stop.is_set():
            break
        run = await run_mode(target, the_schedule, options.client, exam, prices, stop, progress or Silence())
        if run is not None:
            runs[target.name] = run
    results: dict[Mode, ModeResult] = {mode: run.result for mode, run in runs.items()}
    result = Result(
        workload=_workload(options),
        environment=environment_here(),
        modes=results,
        verdict=judge(results) if results else None,
        partial=stop.is_set() or len(results) < len(options.modes),
    )
    return Comparison(result, runs)


async def run_mode(
    target: Target,
    the_schedule: Schedule,
    client: ClientKind,
    exam: ExamPlan,
    prices: Prices,
    stop: asyncio.Event,
    progress: Progress,
) -> ModeRun | None:
    """Run the exam through one target, and stop it. None if it was stopped before the exam began. Raises `BadInput`."""
    plan = the_schedule.plan
    progress.update(target.name, "starting", 0.0, plan.duration, "")
    try:
        starting = await _unless(stop, target.start())
        if starting is None:
            return None
        starting.result()
        crowd = Crowd(the_schedule, client, target.urls, target.token_secret)
        async with crowd:
            usages = await _exam_takes_place(crowd, target, stop, progress)
        if usages is None:
            return None
        progress.update(target.name, "reading", plan.duration, plan.duration, "journal")
        recording = crowd.recording
        offset = 0.0 if target.is_local else clock_offset(recording)
        rules = Rules(target.name, target.policy, offset)
        truth: Mapping[str, Truth] = {}
        journal = None
        if target.is_local and not stop.is_set():
            truth = truths(recording, rules)
            journal = await _read_journal(target, recording, rules, truth, stop)
        await target.stop()  # before the sums: whoever interrupts waits for processes, not for arithmetic
        findings = judge_run(recording, rules, truth or truths(recording, rules), journal)
        result = _mode_result(target, recording, rules, findings, usages, journal, exam, prices)
        progress.update(target.name, "done", plan.duration, plan.duration, "")
        return ModeRun(recording, findings, result)
    except TargetError as exc:
        raise BadInput(str(exc)) from exc
    finally:
        await target.stop()


class _Usages(Struct):
    opening: Usage | None = None
    whole: Usage | None = None


async def _exam_takes_place(crowd: Crowd, target: Target, stop: asyncio.Event, progress: Progress) -> _Usages | None:
    """Play the schedule until its last consequence was seen, and take the usage at the two moments that count."""
    recording, the_schedule = crowd.recording, crowd.recording.schedule
    duration = the_schedule.plan.duration
    rules = Rules(target.name, target.policy)
    started = asyncio.Event()
    playing = asyncio.create_task(crowd.play(started))
    usages = _Usages()
    try:
        joined = asyncio.create_task(started.wait())
        await asyncio.wait({joined, playing}, timeout=_JOIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        joined.cancel()
        if not started.is_set():
            if playing.done():
                playing.result()
            why = f": {recording.problems[0]}" if recording.problems else ""
            raise TargetError(
                f"{target.where}: the proctors got no picture of their exams within {_JOIN_SECONDS:g} s{why}"
            )
        while not stop.is_set():
            now = crowd.clock() - recording.started_at
            if usages.opening is None and now >= the_schedule.opening_ends:
                usages.opening = await _usage(crowd, target, stop)
            if usages.whole is None and now >= duration:
                usages.whole = await _usage(crowd, target, stop)
            note = f"{recording.traffic.open_now} sockets, {recording.traffic.reports} reports"
            if now < duration:
                progress.update(target.name, "running", now, duration, note)
            else:
                left = next(iter(unsettled(recording, rules, crowd.clock())), None)
                if left is None or playing.done():
                    break
                progress.update(target.name, "settling", duration, duration, left)
            if playing.done() and playing.exception() is not None:
                playing.result()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
        if usages.whole is None:
            with contextlib.suppress(TimeoutError, OSError):
                usages.whole = await asyncio.wait_for(target.usage(_load(crowd)), 1.0)
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        await crowd.stop()
    return usages if usages.whole is not None else None


async def _usage(crowd: Crowd, target: Target, stop: asyncio.Event) -> Usage | None:
    """The usage now; None if somebody said stop."""
    asking = await _unless(stop, target.usage(_load(crowd)))
    return asking.result() if asking is not None else None


def _load(crowd: Crowd) -> Load:
    recording, now = crowd.recording, crowd.clock()
    return Load(
        now - recording.started_at,
        len(recording.students),
        len(recording.proctors),
        recording.traffic.connection_minutes(now),
        recording.traffic,
    )


async def _read_journal(
    target: Target, recording: Recording, rules: Rules, truth: Mapping[str, Truth], stop: asyncio.Event
) -> Journal | None:
    """The journal of the run once it is complete, or what there is of it when its time has passed; None if stopped.

    What happened after the last client was gone is not part of the run.
    """
    assert recording.stopped_at is not None  # the crowd is gone
    stopped_at = recording.stopped_at

    async def read() -> dict[str, list[Entry]]:
        keys = [ExamKey(SCHOOL, quiz_id) for quiz_id in recording.schedule.quiz_ids]
        return {key.quiz_id: [e for e in await target.journal(key) if e.at <= stopped_at] for key in keys}

    loop = asyncio.get_running_loop()
    begun = loop.time()
    while (reading := await _unless(stop, read())) is not None:
        waited = loop.time() - begun
        journal = Journal(reading.result(), stopped_at + waited)
        if waited >= _JOURNAL_SECONDS or is_complete(journal, truth, rules):
            return journal
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_SECONDS)
    return None


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, _Value]) -> asyncio.Future[_Value] | None:
    """Do the work, and return it done; None if it was given up, or not begun, because somebody said stop."""
    if stop.is_set():
        work.close()
        return None
    working = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    return None if working.cancelled() else working


# --- the result -----------------------------------------------------------------------------------------------------------


def _mode_result(
    target: Target,
    recording: Recording,
    rules: Rules,
    findings: Findings,
    usages: _Usages,
    journal: Journal | None,
    exam: ExamPlan,
    prices: Prices,
) -> ModeResult:
    """All that is known of this mode, in the result's form."""
    assert usages.whole is not None  # a run without usage is no run
    basis: Basis = "emulated" if target.is_local and target.name == "lambda" else "measured"
    usage, opening = _with_journal(usages, journal, recording.started_at)
    problems = [
        *findings.false_offline,
        *findings.duplicates,
        *findings.lost,
        *findings.late,
        *_about_the_run(target, recording, journal),
        *recording.problems,
    ]
    memory, samples = dict(target.memory()), target.samples()
    cost = None
    if target.is_local:
        try:
            cost = (
                serverless_cost(usage, exam, prices, opening if isinstance(opening, ServerlessUsage) else None)
                if isinstance(usage, ServerlessUsage)
                else cluster_cost(usage, exam, prices, opening if isinstance(opening, ClusterUsage) else None)
            )
        except (CostError, PriceError) as exc:
            problems.append(f"no cost: {exc}")
    return ModeResult(
        where=target.where,
        latency_ms=Latencies(
            basis, summarise(findings.message), summarise(findings.round_trip), summarise(findings.delivery)
        ),
        delivery_distribution=distribution(findings.delivery, basis),
        counts_basis=basis,
        sent=findings.sent,
        delivered=findings.delivered,
        lost=len(findings.lost),
        duplicates=len(findings.duplicates),
        false_offline=len(findings.false_offline),
        offline_detection_s=OfflineDetection(
            basis, summarise(findings.detection), len(findings.late), rules.offline_seconds
        ),
        cpu=_cpu(usage, basis, samples),
        memory=Memory(basis, sum(memory.values()), memory, _summed(samples.memory_bytes)),
        usage=usage,
        opening_usage=opening,
        cost=cost,
        generator=recording.generator,
        problems=tuple(problems[:_MAX_PROBLEMS]),
    )


def _with_journal(usages: _Usages, journal: Journal | None, started_at: float) -> tuple[Usage, Usage | None]:
    """Usage of the whole run and of its opening, with the journal's lines: they are counted by when they happened.

    Lines after the counted stretch are consequences of what happened once (somebody is offline now), so they go to the opening.
    """
    assert usages.whole is not None  # a run without usage is no run
    moments = [entry.at - started_at for entries in journal.entries.values() for entry in entries] if journal else []
    whole = msgspec.structs.replace(usages.whole, journal_entries=len(moments))
    if usages.opening is None or usages.opening is usages.whole:
        return whole, None
    begins, ends = usages.opening.duration_seconds, usages.whole.duration_seconds
    once = sum(at <= begins or at > ends for at in moments)
    return whole, msgspec.structs.replace(usages.opening, journal_entries=once)


def generator_words(generator: Generator) -> str:
    """How the load generator fared, for a reader who wants to know whether it was the bottleneck."""
    return (
        f"{generator.cpu_seconds:.1f} s of CPU in {generator.wall_seconds:.0f} s; its event loop was up to "
        f"{generator.lag_ms_p99:.0f} ms late in 99 of 100 looks, {generator.lag_ms_max:.0f} ms at worst"
    )


def _about_the_run(target: Target, recording: Recording, journal: Journal | None) -> list[str]:
    """What a reader must know of how this was measured."""
    notes: list[str] = []
    generator = recording.generator
    if generator is not None and generator.lag_ms_p99 > _LATE_MS:
        notes.append(f"the latencies include delays of the load generator itself: {generator_words(generator)}")
    if not target.is_local:
        notes.append(f"{target.where} tells nothing of its processes and its journal: no cost, and fewer checks")
    elif journal is None:
        notes.append("interrupted before the journal was read: fewer checks")
    if recording.client == "paper":
        notes.append("pages of the paper get no ack: no round trip; the message latency is that of the reports shown")
    incidents = sorted({text for proctor in recording.proctors for _, text in proctor.incidents})
    notes += [f"incident: {text}" for text in incidents[:3]]
    return notes


def _summed(values: Sequence[float]) -> LatencySummary | None:
    return summarise(values) if values else None


def _cpu(usage: Usage, basis: Basis, samples: Samples) -> Cpu:
    """Processor time of what would run on AWS; the emulator's own is not counted."""
    by_process: dict[str, float]
    if isinstance(usage, ClusterUsage):
        by_process = _by_role(usage.cpu_seconds)
    else:
        by_process = {name: f.handler_cpu_ms / 1000 for name, f in usage.functions.items()}
        by_process["cold starts"] = sum(f.init_cpu_ms for f in usage.functions.values()) / 1000
    total = sum(by_process.values())
    per_1000 = total * 1000 / usage.reports if usage.reports else 0.0
    return Cpu(basis, total, per_1000, by_process, _summed(samples.cpu_cores))


def _by_role(split: ProcessSplit) -> dict[str, float]:
    return {name: getattr(split, name) for name in split.__struct_fields__}


def _workload(options: Options) -> WorkloadOptions:
    """The options as they go into the result: no token, and no query of a URL, which may hold one."""
    return WorkloadOptions(
        students=options.students,
        exams=options.exams,
        proctors_per_exam=options.proctors_per_exam,
        interval_s=options.interval,
        duration_s=options.duration,
        seed=options.seed,
        mode=options.mode,
        client=options.client,
        instances=options.instances,
        workers=options.workers,
        region=options.region,
        exams_per_month=options.exams_per_month,
        hours=options.hours,
        transport=options.transport,
        lambda_url=options.lambda_url and options.lambda_url.partition("?")[0],
        ec2_url=options.ec2_url and options.ec2_url.partition("?")[0],
        trace=options.trace and Path(options.trace).name,
    )
