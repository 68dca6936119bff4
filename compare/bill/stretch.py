"""From a run to an exam: what a run of seconds says about hours.

What grows with time (frames, connection minutes, invocations by frames and timers, store units, bytes) is stretched to
the exam's hours; what happens to each student once (connects and what they invoke, cold starts) is not. With an
*opening* (see `usage`) the opening counts once and only the quiet rest is stretched. Everything is multiplied by the
exam's students over the run's.
"""

import math

import msgspec

from compare.bill.usage import ClusterUsage, FunctionUsage, ProcessSplit, ServerlessUsage, ServiceCalls

HOURS_PER_MONTH = 730.0
FORCED_RECONNECT_HOURS = 2.0  # API Gateway closes every connection at this age


class CostError(Exception):
    """A question that has no bill; the message is one line for the user."""


class ExamPlan(msgspec.Struct, frozen=True):
    """The exams to be paid for."""

    hours: float
    exams_per_month: float
    students: int | None = None  # that sit one exam at the same time; None: as many as in the run

    def checked(self) -> "ExamPlan":
        """Itself, or CostError when no month can hold it."""
        if self.hours <= 0:
            raise CostError("an exam needs more than 0 hours")
        if self.exams_per_month < 0:
            raise CostError("exams per month must not be negative")
        if self.students is not None and self.students < 1:
            raise CostError("an exam needs at least one student")
        if self.hours * self.exams_per_month > HOURS_PER_MONTH:
            raise CostError(
                f"{self.exams_per_month:g} exams of {self.hours:g} h, one after the other, do not fit into a month; "
                "for exams at the same time give their students together"
            )
        return self


class Growth(msgspec.Struct, frozen=True):
    """How a run becomes an exam."""

    time: float  # exam seconds for one second of the run's stretched part
    students: float

    def over_time(self, total: float, opening: float) -> float:
        """A sum of the run, of which `opening` was used in the opening, grown to the exam."""
        return (opening + (total - opening) * self.time) * self.students


def growth(
    usage: ServerlessUsage | ClusterUsage, plan: ExamPlan, opening: ServerlessUsage | ClusterUsage | None
) -> Growth:
    """The factors, or CostError when the run (after its opening) is empty."""
    begun = opening.duration_seconds if opening else 0.0
    rest = usage.duration_seconds - begun
    if rest <= 0:
        raise CostError("the run was too short to say what an exam costs")
    students = plan.students / usage.students if plan.students is not None else 1.0
    return Growth(max(0.0, plan.hours * 3600 - begun) / rest, students)


def stretch_serverless(
    usage: ServerlessUsage, plan: ExamPlan, opening: ServerlessUsage | None = None
) -> ServerlessUsage:
    """The usage of one whole exam, as if the run had lasted that long with that many students."""
    grow = growth(usage, plan, opening)
    people = (usage.students + usage.proctors) * grow.students
    forced = people * max(0, math.ceil(plan.hours / FORCED_RECONNECT_HOURS) - 1)
    connects = usage.connects * grow.students + forced
    per_connect = connects / usage.connects if usage.connects else grow.students

    def grown(field: str) -> float:
        return grow.over_time(getattr(usage, field), getattr(opening, field, 0))

    return msgspec.structs.replace(
        usage,
        duration_seconds=plan.hours * 3600,
        students=round(usage.students * grow.students),
        proctors=round(usage.proctors * grow.students),
        reports=round(grown("reports")),
        messages_in=round(grown("messages_in")),
        messages_out=round(grown("messages_out")),
        connection_minutes=grown("connection_minutes"),
        connects=round(connects),
        disconnects=round(connects),
        functions={
            name: _stretch_function(function, opening.functions.get(name) if opening else None, grow, per_connect)
            for name, function in usage.functions.items()
        },
        dynamodb_read_units=grown("dynamodb_read_units"),
        dynamodb_write_units=grown("dynamodb_write_units"),
        sqs_requests=round(grown("sqs_requests")),
        log_bytes=round(grown("log_bytes")),
        platform_log_bytes=round(grown("platform_log_bytes")),
        egress_bytes=round(grown("egress_bytes")),
        journal_entries=round(grown("journal_entries")),
    )


def stretch_cluster(usage: ClusterUsage, plan: ExamPlan, opening: ClusterUsage | None = None) -> ClusterUsage:
    """The usage of one whole exam, as if the run had lasted that long with that many students."""
    grow = growth(usage, plan, opening)

    def grown(field: str) -> float:
        return grow.over_time(getattr(usage, field), getattr(opening, field, 0))

    before = opening.cpu_seconds if opening else ProcessSplit()
    cpu = {
        kind: grow.over_time(getattr(usage.cpu_seconds, kind), getattr(before, kind))
        for kind in ProcessSplit.__struct_fields__
    }
    return msgspec.structs.replace(
        usage,
        duration_seconds=plan.hours * 3600,
        students=round(usage.students * grow.students),
        proctors=round(usage.proctors * grow.students),
        reports=round(grown("reports")),
        cpu_seconds=ProcessSplit(**cpu),
        connections=round(usage.connections * grow.students),
        connection_minutes=grown("connection_minutes"),
        connects=round(usage.connects * grow.students),
        frames_out=round(grown("frames_out")),
        ingress_bytes=round(grown("ingress_bytes")),
        egress_bytes=round(grown("egress_bytes")),
        journal_entries=round(grown("journal_entries")),
        cross_instance_bytes=round(grown("cross_instance_bytes")),
    )


def scaling_words(
    usage: ServerlessUsage | ClusterUsage, plan: ExamPlan, opening: ServerlessUsage | ClusterUsage | None
) -> str:
    """The scaling of this run in words."""
    grow = growth(usage, plan, opening)
    seconds = usage.duration_seconds
    if opening is None:
        first = f"Everything that grows with time in the {seconds:.0f} s of the run is multiplied by {grow.time:,.0f}"
        rest = "connects and cold starts are not."
    else:
        begun = opening.duration_seconds
        first = f"The opening ({begun:.0f} s: joins, tab switches, drops, warnings) counts once an exam"
        rest = f"the {seconds - begun:.0f} s after it are multiplied by {grow.time:,.0f}."
    words = f"{first}; {rest}"
    if grow.students != 1:
        words += f" All of it is multiplied by {grow.students:.3g} for {plan.students:,} students."
    return words


def _stretch_function(
    function: FunctionUsage, opening: FunctionUsage | None, grow: Growth, per_connect: float
) -> FunctionUsage:
    """Functions run by connections follow the number of connections, the others follow time."""

    def scaled(total: float, begun: float) -> float:
        return total * per_connect if function.trigger == "connection" else grow.over_time(total, begun)

    begun_calls = opening.calls if opening else ServiceCalls()
    calls = {
        name: round(scaled(getattr(function.calls, name), getattr(begun_calls, name)))
        for name in ServiceCalls.__struct_fields__
    }
    return msgspec.structs.replace(
        function,
        invocations=round(scaled(function.invocations, opening.invocations if opening else 0)),
        handler_cpu_ms=scaled(function.handler_cpu_ms, opening.handler_cpu_ms if opening else 0.0),
        handler_wall_ms=scaled(function.handler_wall_ms, opening.handler_wall_ms if opening else 0.0),
        calls=ServiceCalls(**calls),
        cold_starts=round(function.cold_starts * grow.students),
        init_cpu_ms=function.init_cpu_ms * grow.students,
    )
