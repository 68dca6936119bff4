"""From a school's words to billable units, without a run: students, hours, interval, changes, proctors.

What follows from the protocol is counted exactly (frames, acks, fan-out, connection minutes). What only running code can tell
(CPU time, calls and store units of each kind of frame, bytes, memory) comes from the measured coefficients of a `Calibration`.
The two usage records are those that a run of the whole exam would have left, so bills are made of them in the same way.
"""

import math
from typing import Literal

import msgspec

from compare.bill.stretch import FORCED_RECONNECT_HOURS, CostError
from compare.bill.usage import ClusterUsage, FunctionUsage, ProcessSplit, ServerlessUsage, ServiceCalls
from compare.model.calibration import Calibration, Kind

AckPolicy = Literal["all", "changes", "none"]
"""Which frames of a page the server answers: every one, those that say something new, or none."""

ClientKind = Literal["proctorwire", "paper"]
"""`paper`: Figure 4 in full every interval and no heartbeat. `proctorwire`: a report when something changed, else a heartbeat."""

MOST_STUDENTS = 5_000_000
PAGE_BYTES = 96 * 1024
STEP_BYTES = 32 * 1024
SWEEP_SECONDS = 10.0
WATCH_AGAIN_SECONDS = 60.0
DIRECT_WATCHERS = 3  # what more proctors watch is published together, through a queue
TOGETHER_SECONDS = 1.3  # as often as that function was seen to run for a window of one second
VIEWS_CPU_MS = 0.5  # of one such run, without its posts
MERGING_SECONDS = 0.025  # a tick is 50 ms, and the first change after quiet goes at once: half of a tick merges
FULL_FIGURE_4_BYTES = 465.0
SHOWN_BYTES = 700.0  # of one view in an update, for the steps of 32 KiB


class Exam(msgspec.Struct, frozen=True):
    """The exams of a school, one sitting: all students that are connected at the same time."""

    students: int
    hours: float = 2.0
    exams: int = 1  # at the same time; the students are split among them
    proctors_per_exam: int = 2  # each sees every student of the exam
    interval: float = 15.0  # seconds between a page's frames
    changes_per_hour: float = 60.0  # of a student: another question, an answer, away and back
    switches_per_hour: float = 2.0  # of these: away or back, which the journal keeps
    client: ClientKind = "proctorwire"
    acks: AckPolicy = "changes"
    drops_per_hour: float = 0.2  # of a student's connection, who comes back
    arrival_minutes: float = 10.0  # in which all join
    instances: int = 1
    workers: int = 2  # on each instance

    def checked(self) -> "Exam":
        """Itself, or CostError in one line that names the option."""
        limits = (
            ("--students", self.students, 1, MOST_STUDENTS),
            ("--hours", self.hours, 0.05, 24),
            ("--exams", self.exams, 1, 10_000),
            ("--proctors-per-exam", self.proctors_per_exam, 0, 1_000),
            ("--interval", self.interval, 0.5, 120),
            ("--changes", self.changes_per_hour, 0, 7_200),
            ("--drops", self.drops_per_hour, 0, 60),
            ("--arrival", self.arrival_minutes, 0.1, 600),
        )
        for option, value, least, most in limits:
            if not (math.isfinite(value) and least <= value <= most):
                raise CostError(f"{option}: {value:g} is out of range; give {least:g} to {most:,.0f}")
        if self.exams > self.students:
            raise CostError(f"--exams: {self.exams} exams for {self.students} students leave some empty; give fewer")
        return self

    @property
    def proctors(self) -> int:
        """Proctors of all exams together."""
        return self.exams * self.proctors_per_exam


class Events(msgspec.Struct, frozen=True):
    """What happens in a stretch of an exam, as counts. A run has them from its schedule, the model from an `Exam`."""

    seconds: float
    students: float
    student_seconds: float  # connected students, summed over time
    student_connects: float
    proctor_connects: float
    disconnects: float
    changes: float  # reports that proctors see something new in, those of joins not among them
    sames: float  # heartbeats, and reports that say nothing new
    acks: float
    watches: float  # a proctor's frame that asks for a snapshot
    snapshot_views: float  # students in those snapshots
    publications: float  # of one change to one proctor, before any are put together
    exams: float = 1.0
    entries: float = 0.0  # that the journal keeps

    @property
    def connects(self) -> float:
        """Of students and proctors."""
        return self.student_connects + self.proctor_connects

    @property
    def frames_in(self) -> float:
        """From pages and dashboards."""
        return self.student_connects + self.changes + self.sames + self.watches


def events(exam: Exam, calibration: Calibration, seconds: float | None = None, *, arriving: bool = False) -> Events:
    """What happens in the exam, or in its first part with everybody joining in it (`arriving`)."""
    exam = exam.checked()
    whole = exam.hours * 3600
    length = whole if seconds is None else min(seconds, whole)
    here = exam.students * (0.5 if arriving else 1.0)  # in the first part half are there on average
    hours = length / 3600
    ticks = here * length / exam.interval
    changes = here * exam.changes_per_hour * hours
    if exam.client == "paper":
        changes = min(changes, ticks)  # one that is over at the next tick was never seen
    sames = max(0.0, ticks - changes)
    drops = here * exam.drops_per_hour * hours
    joins = exam.students + drops
    acks = {"all": joins + changes + sames, "changes": joins + changes, "none": 0.0}[exam.acks]
    watches = exam.proctors * (1 + length / WATCH_AGAIN_SECONDS)
    per_exam = exam.students / exam.exams
    return Events(
        seconds=length,
        students=exam.students,
        student_seconds=here * length,
        student_connects=joins,
        proctor_connects=float(exam.proctors),
        disconnects=(0.0 if arriving else exam.students) + drops,
        changes=changes,
        sames=sames,
        acks=acks,
        watches=watches,
        snapshot_views=watches * per_exam,
        # joins and drops change a label as well, and so do returns
        publications=(changes + joins + drops) * exam.proctors_per_exam,
        exams=exam.exams,
        entries=calibration.cluster.entries_per_student * exam.students
        + (exam.switches_per_hour * hours * here)
        + 2 * drops,
    )


def frames_to_proctors(happened: Events, workers: int) -> float:
    """Frames of the cluster, whose workers each put together what they save within a tick of an exam."""
    watchers = max(1.0, happened.proctor_connects)
    rate = happened.publications / happened.seconds / watchers / workers
    return happened.publications / (1 + rate * MERGING_SECONDS)


def serverless_usage(exam: Exam, calibration: Calibration) -> ServerlessUsage:
    """Units of the whole exam on API Gateway and Lambda. The forced cut after two hours is added by `stretch`."""
    happened = events(exam, calibration)
    known = calibration.serverless
    snapshot_bytes = happened.snapshot_views * known.bytes["snapshot_view"]
    per_watch = snapshot_bytes / happened.watches if happened.watches else 0.0
    snapshot_steps = happened.watches * _steps(per_watch)
    joined = happened.student_connects if exam.client == "proctorwire" else 0.0  # the frame that answers a first report
    runs, shown = _published(exam, happened)
    updates = shown + happened.acks + joined
    direct = (0.0 if runs else shown) + happened.acks + joined
    posts = direct + happened.watches * math.ceil(max(1.0, per_watch) / PAGE_BYTES)
    sweeps = happened.exams * happened.seconds / SWEEP_SECONDS
    checks = happened.student_seconds / SWEEP_SECONDS
    message: dict[Kind, float] = {
        "join": happened.student_connects,
        "change": happened.changes,
        "same": happened.sames,
        "watch": happened.watches,
    }
    functions = {
        name: _connection_function(
            calibration, name, happened.disconnects if name == "disconnect" else happened.connects
        )
        for name in ("authorizer", "connect", "disconnect")
    }
    queued = happened.publications / exam.proctors_per_exam if runs else 0.0
    if runs:
        functions["views"] = FunctionUsage(
            trigger="message",
            memory_mb=known.memory_mb,
            invocations=round(runs),
            handler_cpu_ms=runs * VIEWS_CPU_MS + shown * known.per["post"].get("cpu_ms", 0.0),
            calls=ServiceCalls(dynamodb_read=round(runs), post_to_connection=round(shown)),
            cold_starts=1,
            init_cpu_ms=known.init_cpu_ms,
        )
    functions["message"] = FunctionUsage(
        trigger="message",
        memory_mb=known.memory_mb,
        invocations=round(happened.frames_in),
        handler_cpu_ms=known.dot("cpu_ms", message) + posts * known.per["post"].get("cpu_ms", 0.0),
        calls=msgspec.structs.replace(_calls(known.per, message, posts), sqs=round(queued)),
        cold_starts=_environments(exam, happened, calibration),
        init_cpu_ms=_environments(exam, happened, calibration) * known.init_cpu_ms,
    )
    swept: dict[Kind, float] = {"sweep": sweeps, "check": checks}
    functions["sweep"] = FunctionUsage(
        trigger="timer",
        memory_mb=known.memory_mb,
        invocations=round(sweeps),
        handler_cpu_ms=known.dot("cpu_ms", swept),
        calls=msgspec.structs.replace(_calls(known.per, swept, 0.0), sqs=round(sweeps)),
        cold_starts=1,
        init_cpu_ms=known.init_cpu_ms,
    )
    units: dict[Kind, float] = {**message, **swept, "connect": happened.connects, "disconnect": happened.disconnects}
    view_reads = happened.snapshot_views * known.read_units_per_view
    return ServerlessUsage(
        duration_seconds=happened.seconds,
        students=exam.students,
        proctors=exam.proctors,
        reports=round(happened.student_connects + happened.changes + (happened.sames if exam.client == "paper" else 0)),
        messages_in=round(happened.frames_in),
        messages_out=round(updates + snapshot_steps),
        connection_minutes=_connection_minutes(exam),
        connects=round(happened.connects),
        disconnects=round(happened.disconnects),
        functions=functions,
        dynamodb_read_units=known.dot("read_units", units) + view_reads,
        dynamodb_write_units=known.dot("write_units", units),
        sqs_requests=round(3 * sweeps + queued + 2 * runs),
        log_bytes=round(
            known.log_bytes_per_environment_minute * functions["message"].cold_starts * happened.seconds / 60
        ),
        egress_bytes=round(
            happened.acks * known.bytes["ack"]
            + happened.publications * known.bytes["update"]
            + joined * known.bytes["joined"]
            + snapshot_bytes
        ),
        journal_entries=round(happened.entries),
    )


def _published(exam: Exam, happened: Events) -> tuple[float, float]:
    """Runs of the function that publishes together (none where every change goes out directly), and frames to proctors."""
    if exam.proctors_per_exam <= DIRECT_WATCHERS:
        return 0.0, happened.publications
    rate = happened.publications / exam.proctors_per_exam / exam.exams / happened.seconds
    runs = exam.exams * happened.seconds * rate / (1 + rate * TOGETHER_SECONDS)
    each = happened.publications / exam.proctors_per_exam / runs if runs else 0.0
    return runs, runs * exam.proctors_per_exam * _steps(each * SHOWN_BYTES)


def cluster_usage(exam: Exam, calibration: Calibration) -> tuple[ClusterUsage, ClusterUsage]:
    """Units of the whole exam on the cluster, and of its opening, in which everybody joins."""
    whole = _cluster_part(exam, calibration, events(exam, calibration))
    seconds = min(exam.arrival_minutes * 60, 0.9 * exam.hours * 3600)
    first = events(exam, calibration, seconds, arriving=True)
    return whole, _cluster_part(exam, calibration, first)


def _cluster_part(exam: Exam, calibration: Calibration, happened: Events) -> ClusterUsage:
    known = calibration.cluster
    joined = happened.student_connects if exam.client == "proctorwire" else 0.0
    out = frames_to_proctors(happened, exam.instances * exam.workers) + happened.acks + happened.watches + joined
    counts = {
        "connect": happened.connects,
        "change": happened.changes,
        "same": happened.sames,
        "frame_out": out,
        "view": happened.snapshot_views,
        "entry": happened.entries,
        "second": happened.seconds * exam.instances,
        "worker_second": happened.seconds * exam.instances * exam.workers,
    }
    cpu = {
        kind: math.fsum(count * known.cpu_ms[kind].get(name, 0.0) for name, count in counts.items()) / 1000
        for kind in ProcessSplit.__struct_fields__
    }
    connections = exam.students + exam.proctors
    idle = {kind: value * exam.instances for kind, value in known.idle_bytes.items()}
    report_bytes = FULL_FIGURE_4_BYTES if exam.client == "paper" else known.bytes["report_in"]
    same_bytes = FULL_FIGURE_4_BYTES if exam.client == "paper" else known.bytes["beat_in"]
    return ClusterUsage(
        duration_seconds=happened.seconds,
        students=exam.students,
        proctors=exam.proctors,
        reports=round(happened.student_connects + happened.changes + (happened.sames if exam.client == "paper" else 0)),
        cpu_seconds=ProcessSplit(**cpu),
        memory_bytes=ProcessSplit(**(idle | {"workers": idle["workers"] + connections * known.connection_bytes})),
        memory_idle_bytes=ProcessSplit(**idle),
        connections=connections,
        connection_minutes=_connection_minutes(exam) * happened.seconds / (exam.hours * 3600),
        connects=round(happened.connects),
        frames_out=round(out),
        ingress_bytes=round(
            happened.student_connects * FULL_FIGURE_4_BYTES
            + happened.changes * report_bytes
            + happened.sames * same_bytes
        ),
        egress_bytes=round(
            happened.acks * known.bytes["ack"]
            + happened.publications * known.bytes["update"]
            + joined * known.bytes["joined"]
            + happened.snapshot_views * known.bytes["snapshot_view"]
        ),
        journal_entries=round(happened.entries),
        cross_instance_bytes=round(
            happened.changes * known.bytes["redis_change"] + happened.sames * known.bytes["redis_same"]
        ),
        instances=exam.instances,
        workers=exam.workers,
    )


def forced_cuts(exam: Exam) -> int:
    """How often API Gateway cuts each connection during the exam."""
    return max(0, math.ceil(exam.hours / FORCED_RECONNECT_HOURS) - 1)


def _connection_minutes(exam: Exam) -> float:
    """Students are there from a moment in the arrival on, proctors all the time."""
    minutes = exam.hours * 60
    return exam.students * (minutes - min(exam.arrival_minutes, minutes) / 2) + exam.proctors * minutes


def _steps(total_bytes: float) -> float:
    """32 KiB steps of a snapshot that goes out in pages, each rounded up by itself."""
    pages, rest = divmod(max(1.0, total_bytes), PAGE_BYTES)
    return pages * math.ceil(PAGE_BYTES / STEP_BYTES) + math.ceil(rest / STEP_BYTES)


def _connection_function(
    calibration: Calibration, name: Literal["authorizer", "connect", "disconnect"], count: float
) -> FunctionUsage:
    known = calibration.serverless
    each = known.functions[name]
    calls = {call: round(each.get(call, 0.0) * count) for call in ServiceCalls.__struct_fields__}
    return FunctionUsage(
        trigger="connection",
        memory_mb=known.memory_mb,
        invocations=round(count),
        handler_cpu_ms=each["cpu_ms"] * count,
        calls=ServiceCalls(**calls),
        cold_starts=max(1, round(count / 100)),
        init_cpu_ms=max(1, round(count / 100)) * known.init_cpu_ms,
    )


def _calls(per: dict[Kind, dict[str, float]], counts: dict[Kind, float], posts: float) -> ServiceCalls:
    summed = {
        call: math.fsum(count * per[kind].get(call, 0.0) for kind, count in counts.items())
        for call in ("dynamodb_read", "dynamodb_write", "dynamodb_transact")
    }
    return ServiceCalls(
        dynamodb_read=round(summed["dynamodb_read"]),
        dynamodb_write=round(summed["dynamodb_write"]),
        dynamodb_transact=round(summed["dynamodb_transact"]),
        post_to_connection=round(posts),
    )


def _environments(exam: Exam, happened: Events, calibration: Calibration) -> int:
    """Execution environments that the messages keep busy at the same time, with a third more for bursts; each starts cold once."""
    per_second = happened.frames_in / happened.seconds
    return max(1, math.ceil(1.33 * per_second * calibration.serverless.assumed_busy_ms / 1000))
