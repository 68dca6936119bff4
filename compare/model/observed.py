"""What happened in a run, counted from its schedule and its usage: the other half of the equations of a calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

import msgspec

from compare.bill.usage import ClusterUsage, FunctionUsage, ProcessSplit, ServerlessUsage, ServiceCalls
from compare.model.calibration import (
    Calibration,
    CalibrationError,
    ClusterCoefficients,
    Equation,
    Kind,
    Residual,
    ServerlessCoefficients,
    solve,
    worst_percent,
)
from compare.model.units import SWEEP_SECONDS, WATCH_AGAIN_SECONDS, Events
from compare.run.result import Result, WorkloadOptions
from compare.run.workload import Plan, Schedule, schedule

MESSAGE_KINDS: tuple[Kind, ...] = ("join", "change", "same", "watch", "post")
CONNECTION_FUNCTIONS = ("authorizer", "connect", "disconnect")
CALLS = ("dynamodb_read", "dynamodb_write", "dynamodb_transact")


class Part(msgspec.Struct, frozen=True):
    """One stretch of a run: what happened in it, and what it used."""

    run: str
    happened: Events
    client: str
    used: ServerlessUsage | ClusterUsage


def parts(results: Sequence[Result]) -> list[Part]:
    """The opening and the rest of every run against a deployment on this machine."""
    found = []
    for result in results:
        the_schedule = _schedule_of(result.workload)
        for mode, run in result.modes.items():
            remote = result.workload.lambda_url if mode == "lambda" else result.workload.ec2_url
            if remote or run.usage is None or run.opening_usage is None:
                continue
            name = f"{mode} {result.workload.students} students, {result.workload.interval_s:g} s, {result.workload.client}"
            middle = run.opening_usage.duration_seconds
            for used, begin, end in (
                (run.opening_usage, 0.0, middle),
                (_difference(run.usage, run.opening_usage), middle, run.usage.duration_seconds),
            ):
                happened = _happened(the_schedule, result.workload.client, begin, end, used)
                found.append(Part(name, happened, result.workload.client, used))
    return found


def calibrate(results: Sequence[Result], before: Calibration, *, provisional: bool) -> Calibration:
    """New coefficients from these runs; those of a deployment that none of them has stay. Raises CalibrationError."""
    if any(result.partial for result in results):
        raise CalibrationError("a run was stopped before its end; its figures do not say what a whole one uses")
    found = parts(results)
    if not found:
        raise CalibrationError("no run against a deployment on this machine is among the results")
    serverless = [part for part in found if isinstance(part.used, ServerlessUsage)]
    cluster = [part for part in found if isinstance(part.used, ClusterUsage)]
    fitted = before
    residuals: list[Residual] = []
    if serverless:
        fitted = msgspec.structs.replace(fitted, serverless=_serverless(serverless, before.serverless, residuals))
    if cluster:
        # both send the same acks, views and snapshots
        sizes = before.cluster.bytes | fitted.serverless.bytes
        near = msgspec.structs.replace(before.cluster, bytes=sizes)
        fitted = msgspec.structs.replace(fitted, cluster=_cluster(cluster, near, residuals))
    environment = results[-1].environment
    return msgspec.structs.replace(
        fitted,
        date=max(datetime.fromisoformat(result.environment.date) for result in results).date().isoformat(),
        how=(
            f"least squares over the two parts of {len(found) // 2} runs of `compare run`; the deployments on this machine, "
            "serverless with an emulated API Gateway and DynamoDB"
        ),
        machine=f"{environment.cpu}, {environment.cores} cores, Python {environment.python}",
        provisional=provisional,
        runs=tuple(dict.fromkeys(part.run for part in found)),
        residuals=tuple(residuals),
        held_out=(),  # of other coefficients
    )


def _serverless(
    found: Sequence[Part], before: ServerlessCoefficients, residuals: list[Residual]
) -> ServerlessCoefficients:
    per: dict[Kind, dict[str, float]] = {kind: dict(values) for kind, values in before.per.items()}

    def fit(
        quantity: str,
        kinds: Sequence[Kind],
        value: Callable[[ServerlessUsage], float],
        counts: Callable[[Part], Mapping[str, float]],
    ) -> None:
        equations = [Equation(counts(part), value(_serverless_of(part))) for part in found]
        held: dict[str, float] = {kind: before.per.get(kind, {}).get(quantity, 0.0) for kind in kinds}
        # the code says how many calls a frame makes, give or take; how long they take only a run can
        solved = solve(equations, held) if quantity == "cpu_ms" else solve(equations, held, pull=0.02)
        for kind, number in solved.items():
            per.setdefault(kind, {})[quantity] = number  # type: ignore[arg-type]  # solve keeps the keys it was given
        residuals.append(Residual(f"serverless {quantity}", worst_percent(equations, solved), len(found) // 2))

    fit("cpu_ms", MESSAGE_KINDS, lambda used: _message(used).handler_cpu_ms, _message_counts)
    for call in CALLS:
        fit(call, MESSAGE_KINDS[:-1], partial(_message_calls, call), _message_counts)
    swept: tuple[Kind, ...] = ("sweep", "check")
    for call in CALLS:
        fit_sweep = [Equation(_sweep_counts(part), _sweep_calls(part, call)) for part in found]
        for kind, number in solve(fit_sweep, {kind: before.per[kind].get(call, 0.0) for kind in swept}).items():
            per[kind][call] = number  # type: ignore[index]
    sweeping = [Equation(_sweep_counts(part), _sweep(part).handler_cpu_ms) for part in found]
    for kind, number in solve(sweeping, {kind: before.per[kind].get("cpu_ms", 0.0) for kind in swept}).items():
        per[kind]["cpu_ms"] = number  # type: ignore[index]
    unit_kinds: tuple[Kind, ...] = ("connect", "disconnect", "join", "change", "same", "watch", "sweep", "check")
    fit("read_units", unit_kinds, lambda used: used.dynamodb_read_units, _unit_counts)
    functions = {name: _each(found, name, before) for name in CONNECTION_FUNCTIONS}
    per["connect"] |= {call: functions["connect"].get(call, 0.0) for call in CALLS}
    per["disconnect"] |= {call: functions["disconnect"].get(call, 0.0) for call in CALLS}
    written = [Equation(_write_counts(part), _serverless_of(part).dynamodb_write_units) for part in found]
    of_call = solve(written, {"dynamodb_write": 1.0, "dynamodb_transact": 4.0})
    residuals.append(Residual("serverless write_units", worst_percent(written, of_call), len(found) // 2))
    for kind in unit_kinds:
        per[kind]["write_units"] = sum(each * per[kind].get(call, 0.0) for call, each in of_call.items())
    posted = [Equation(_byte_counts(part), part.used.egress_bytes) for part in found]
    sizes = solve(posted, before.bytes, pull=0.01)
    residuals.append(Residual("serverless bytes to clients", worst_percent(posted, sizes), len(found) // 2))
    cold = sum(_message(part.used).cold_starts for part in found if isinstance(part.used, ServerlessUsage))
    starting = sum(_message(part.used).init_cpu_ms for part in found if isinstance(part.used, ServerlessUsage))
    return msgspec.structs.replace(
        before,
        memory_mb=_message(_serverless_of(found[-1])).memory_mb,
        init_cpu_ms=starting / cold if cold else before.init_cpu_ms,
        per=per,
        functions=functions,
        bytes=sizes,
    )


def _cluster(found: Sequence[Part], before: ClusterCoefficients, residuals: list[Residual]) -> ClusterCoefficients:
    cpu = {}
    for process in ProcessSplit.__struct_fields__:
        equations = [
            Equation(_cluster_counts(part), 1000 * getattr(_cluster_of(part).cpu_seconds, process)) for part in found
        ]
        cpu[process] = solve(equations, before.cpu_ms[process])
    together = [Equation(_cluster_counts(part), 1000 * _cluster_of(part).cpu_seconds.total) for part in found]
    summed = {kind: sum(values.get(kind, 0.0) for values in cpu.values()) for kind in _cluster_counts(found[0])}
    residuals.append(Residual("cluster cpu_ms", worst_percent(together, summed), len(found) // 2))
    out = [Equation(_byte_counts(part), part.used.egress_bytes) for part in found]
    # held near the serverless side's, whose frames have one view each: how many share a frame here, only a run can say
    sizes = before.bytes | solve(out, {kind: before.bytes[kind] for kind in _byte_counts(found[0])}, pull=0.01)
    residuals.append(Residual("cluster bytes to clients", worst_percent(out, sizes), len(found) // 2))
    into = [
        Equation(_ingress_counts(part), _cluster_of(part).ingress_bytes)
        for part in found
        if part.client == "proctorwire"
    ]
    if into:
        sizes |= solve(into, {name: before.bytes[name] for name in ("report_in", "beat_in")})
    # the second part of a run holds its highest memory, and its first the reading before anybody came
    wholes = [_cluster_of(part) for part in found if part.happened.student_connects < part.happened.students / 2]
    idle = {
        process: sum(
            getattr(used.memory_idle_bytes, process) / used.instances for used in wholes if used.memory_idle_bytes
        )
        / max(1, len(wholes))
        for process in ProcessSplit.__struct_fields__
    }
    grown = [
        (used.memory_bytes.total - used.memory_idle_bytes.total) / used.connections
        for used in wholes
        if used.memory_idle_bytes and used.connections >= 500
    ]
    kept = [used.journal_entries / used.students for used in wholes if used.journal_entries]
    return msgspec.structs.replace(
        before,
        cpu_ms=cpu,
        bytes=sizes,
        idle_bytes=idle if wholes else before.idle_bytes,
        connection_bytes=max(grown) if grown else before.connection_bytes,
        entries_per_student=sum(kept) / len(kept) if kept else before.entries_per_student,
    )


# Counts for the equations


def _message_counts(part: Part) -> dict[str, float]:
    happened = part.happened
    return {
        "join": happened.student_connects,
        "change": happened.changes,
        "same": happened.sames,
        "watch": happened.watches,
        "post": _message(_serverless_of(part)).calls.post_to_connection,
    }


def _sweep_counts(part: Part) -> dict[str, float]:
    return {"sweep": _sweep(part).invocations, "check": part.happened.student_seconds / SWEEP_SECONDS}


def _unit_counts(part: Part) -> dict[str, float]:
    happened = part.happened
    return (
        _message_counts(part) | _sweep_counts(part) | {"connect": happened.connects, "disconnect": happened.disconnects}
    )


def _write_counts(part: Part) -> dict[str, float]:
    functions = _serverless_of(part).functions.values()
    return {call: float(sum(getattr(f.calls, call) for f in functions)) for call in CALLS[1:]}


def _byte_counts(part: Part) -> dict[str, float]:
    happened = part.happened
    return {
        "ack": happened.acks,
        "update": happened.publications,
        "joined": happened.student_connects if part.client == "proctorwire" else 0.0,
        "snapshot_view": happened.snapshot_views,
    }


def _ingress_counts(part: Part) -> dict[str, float]:
    happened = part.happened
    # a join is a whole Figure 4: about half as much again as a report
    return {"report_in": happened.changes + 1.5 * happened.student_connects, "beat_in": happened.sames}


def _cluster_counts(part: Part) -> dict[str, float]:
    happened, used = part.happened, _cluster_of(part)
    return {
        "connect": happened.connects,
        "change": happened.changes,
        "same": happened.sames,
        "frame_out": used.frames_out,
        "view": happened.snapshot_views,
        "entry": happened.entries,
        "second": happened.seconds * used.instances,
        "worker_second": happened.seconds * used.instances * used.workers,
    }


def _serverless_of(part: Part) -> ServerlessUsage:
    assert isinstance(part.used, ServerlessUsage)  # the callers chose them
    return part.used


def _cluster_of(part: Part) -> ClusterUsage:
    assert isinstance(part.used, ClusterUsage)  # the callers chose them
    return part.used


def _message(used: ServerlessUsage) -> FunctionUsage:
    return used.functions.get("message", _NOTHING)


def _message_calls(call: str, used: ServerlessUsage) -> float:
    return float(getattr(_message(used).calls, call))


def _sweep(part: Part) -> FunctionUsage:
    return _serverless_of(part).functions.get("sweep", _NOTHING)


def _sweep_calls(part: Part, call: str) -> float:
    return float(getattr(_sweep(part).calls, call))


_NOTHING = FunctionUsage("timer", 128, 0, 0.0)


def _each(found: Sequence[Part], name: str, before: ServerlessCoefficients) -> dict[str, float]:
    """One invocation of a function that connections run."""
    functions = [
        part.used.functions[name]
        for part in found
        if isinstance(part.used, ServerlessUsage) and name in part.used.functions
    ]
    count = sum(function.invocations for function in functions)
    if not count:
        return before.functions[name]
    each = {"cpu_ms": sum(function.handler_cpu_ms for function in functions) / count}
    for call in ServiceCalls.__struct_fields__:
        total = sum(getattr(function.calls, call) for function in functions)
        if total:
            each[call] = total / count
    return each


# Reading a run


def _schedule_of(workload: WorkloadOptions) -> Schedule:
    return schedule(
        Plan(
            students=workload.students,
            exams=workload.exams,
            proctors_per_exam=workload.proctors_per_exam,
            interval=workload.interval_s,
            duration=workload.duration_s,
            seed=workload.seed,
        )
    )


class _Tally(msgspec.Struct):
    student_connects: float = 0.0
    disconnects: float = 0.0
    student_seconds: float = 0.0
    changes: float = 0.0
    sames: float = 0.0
    labels: float = 0.0  # changes of what proctors see, other than by a report
    entries: float = 0.0


def _happened(
    the_schedule: Schedule, client: str, begin: float, end: float, used: ServerlessUsage | ClusterUsage
) -> Events:
    """Count the part of a schedule between two moments; reports are taken as the clients counted them."""
    tally = _Tally()
    for student in the_schedule.students:
        _student(student.steps, begin, end, tally)
    plan = the_schedule.plan
    per_exam = plan.students / plan.exams
    proctors = watches = views = 0.0
    for proctor in the_schedule.proctors:
        for at, whether_full in _watches(proctor.steps, end):
            if begin <= at < end:
                watches += 1
                views += per_exam * whether_full
        proctors += sum(1 for step in proctor.steps if step.act in ("watch", "return") and begin <= step.at < end)
    if client == "paper":
        changes = tally.changes
        sames = max(0.0, used.reports - tally.student_connects - changes)
        acks = 0.0
    else:
        changes = max(0.0, used.reports - tally.student_connects)
        sames = tally.sames
        acks = float(used.reports)
    return Events(
        seconds=end - begin,
        students=plan.students,
        student_seconds=tally.student_seconds,
        student_connects=tally.student_connects,
        proctor_connects=proctors,
        disconnects=tally.disconnects,
        changes=changes,
        sames=sames,
        acks=acks,
        watches=watches,
        snapshot_views=views,
        publications=(changes + tally.student_connects + tally.labels) * plan.proctors_per_exam,
        exams=plan.exams,
        entries=tally.entries,
    )


def _student(steps: Sequence[object], begin: float, end: float, tally: _Tally) -> None:
    """One page's part in the tally."""
    connected_at: float | None = None
    active, dirty = True, False
    for step in steps:
        at, act = step.at, step.act  # type: ignore[attr-defined]  # a StudentStep
        counts = begin <= at < end
        if act in ("join", "return"):
            connected_at, dirty = at, False
            tally.student_connects += counts
            tally.entries += counts
        elif act in ("drop", "leave"):
            if connected_at is not None:
                tally.student_seconds += max(0.0, min(at, end) - max(connected_at, begin))
            connected_at = None
            tally.disconnects += counts
            tally.labels += counts
            tally.entries += 2 * counts
        elif act in ("away", "back"):
            active = act == "back"
            tally.changes += counts
            tally.entries += counts
            dirty = False
        elif act == "submit":
            tally.changes += counts
            tally.entries += counts
        elif act == "tick" and connected_at is not None:
            dirty |= step.progressed and active  # type: ignore[attr-defined]
            if dirty:
                tally.changes += counts
                dirty = False
            elif active:
                tally.sames += counts
    if connected_at is not None:
        tally.student_seconds += max(0.0, end - max(connected_at, begin))


def _watches(steps: Sequence[object], end: float) -> Iterator[tuple[float, bool]]:
    """When a dashboard asks for a snapshot, and whether the students are there by then."""
    since: float | None = None
    for step in [*steps, None]:
        until = end if step is None else step.at  # type: ignore[attr-defined]
        if since is not None:
            again = since + WATCH_AGAIN_SECONDS
            while again < until:
                yield again, True
                again += WATCH_AGAIN_SECONDS
        if step is None:
            return
        act = step.act  # type: ignore[attr-defined]
        if act in ("watch", "return"):
            yield step.at, act == "return"  # type: ignore[attr-defined]
            since = step.at  # type: ignore[attr-defined]
        elif act == "drop":
            since = None


def _difference(
    whole: ServerlessUsage | ClusterUsage, first: ServerlessUsage | ClusterUsage
) -> ServerlessUsage | ClusterUsage:
    """What was used after the opening. Highest memory, connections and numbers of people stay those of the whole."""
    if isinstance(whole, ServerlessUsage) and isinstance(first, ServerlessUsage):
        added: tuple[str, ...] = ("duration_seconds", "reports", "messages_in", "messages_out", "connection_minutes")
        added += ("connects", "disconnects", "dynamodb_read_units", "dynamodb_write_units")
        added += ("sqs_requests", "log_bytes", "egress_bytes")
        functions = {
            name: _function_difference(function, first.functions[name]) if name in first.functions else function
            for name, function in whole.functions.items()
        }
        return msgspec.structs.replace(
            whole, functions=functions, **{name: getattr(whole, name) - getattr(first, name) for name in added}
        )
    assert isinstance(whole, ClusterUsage)  # both are of the same kind
    assert isinstance(first, ClusterUsage)
    sums = (
        "duration_seconds",
        "reports",
        "connection_minutes",
        "connects",
        "frames_out",
        "ingress_bytes",
        "egress_bytes",
    )
    cpu = {
        name: getattr(whole.cpu_seconds, name) - getattr(first.cpu_seconds, name)
        for name in ProcessSplit.__struct_fields__
    }
    return msgspec.structs.replace(
        whole, cpu_seconds=ProcessSplit(**cpu), **{name: getattr(whole, name) - getattr(first, name) for name in sums}
    )


def _function_difference(whole: FunctionUsage, first: FunctionUsage) -> FunctionUsage:
    calls = {name: getattr(whole.calls, name) - getattr(first.calls, name) for name in ServiceCalls.__struct_fields__}
    return msgspec.structs.replace(
        whole,
        invocations=whole.invocations - first.invocations,
        handler_cpu_ms=whole.handler_cpu_ms - first.handler_cpu_ms,
        cold_starts=whole.cold_starts - first.cold_starts,
        init_cpu_ms=whole.init_cpu_ms - first.init_cpu_ms,
        calls=ServiceCalls(**calls),
    )
