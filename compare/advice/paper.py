"""The published study beside this project: its example, its stress test, its bill, its exam of 10,000.

E. C. Nugroho, "A Horizontally Scalable WebSocket Architecture for Cost-Effective Online Examination Proctoring System on AWS Cloud
Infrastructure" moved a proctoring service from API Gateway to a cluster of t3a.small instances. Its figures are quoted here as they
stand; everything beside them is measured, modelled or assumed by us and says which.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import msgspec

from compare.advice.choice import Case, Priced, as_modelled, price
from compare.advice.plan import Day, DayResult, rates, simulate
from compare.bill.assumptions import Assumptions
from compare.bill.cost import ExamPlan, serverless_cost
from compare.bill.lines import CostLine
from compare.bill.prices import Prices
from compare.bill.usage import ClusterUsage
from compare.model.calibration import Calibration, ClusterCoefficients
from compare.model.units import Exam, serverless_usage
from compare.run.result import LatencySummary, Result

REGION = "ap-southeast-1"
INSTANCE = "t3a.small"

# Section I: 1,000 students, 3 hours, a message every 5 seconds
EXAMPLE = Exam(
    students=1_000,
    hours=3.0,
    interval=5.0,
    client="paper",
    acks="none",
    proctors_per_exam=1,
    changes_per_hour=120.0,
)
EXAMPLE_MESSAGES = 2_160_000.0
EXAMPLE_MINUTES = 180_000.0
FREE_MESSAGES, FREE_MINUTES = 1_000_000.0, 750_000.0

# Table 1: 1,000 students, 2 instances, a message every 5 seconds, 30 minutes
TABLE_1 = {
    "message": (45.0, 78.0, 92.0, 115.0),
    "round_trip": (89.0, 125.0, 148.0, 187.0),
    "cpu": (65.0, 72.0, 78.0, 82.0),
    "memory": (58.0, 67.0, 73.0, 79.0),
}
TABLE_1_STUDENTS, TABLE_1_INSTANCES, TABLE_1_INTERVAL = 1_000, 2, 5.0

# Table 2: one month
GATEWAY_BEFORE, GATEWAY_AFTER = 1_345.74, 133.61
EC2_BEFORE, EC2_AFTER = 402.75, 695.77
TOTAL_BEFORE, TOTAL_AFTER = 8_352.35, 6_505.84

# Figures 8 and 9: the exam of 10,000 students, the surge at six, the end at twelve
BIG_STUDENTS, BIG_INSTANCES = 10_000, 12
BIG_UPDATES_A_SECOND = 2_000.0
ROOM = 30  # students whom one proctor sees, assumed


Four: TypeAlias = tuple[float | None, float | None, float | None, float | None]
"""Average, 90th, 95th and 99th percentile, where known."""


class Percent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A percentage of Table 2, as printed and as it comes out of its own dollars."""

    what: str
    printed: float
    computed: float
    words: str


class ExampleBill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part a."""

    messages: float
    minutes: float
    messages_usd: float
    minutes_usd: float
    after_free_tier_usd: float
    counted: tuple[CostLine, ...]  # what the paper's arithmetic has, on our serverless side
    left_out: tuple[CostLine, ...]
    whole_usd: float
    passed_on_usd: float  # every message handed on to one proctor, as in its Figure 6


class StressRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of Table 1: theirs, and ours where it was measured."""

    name: str
    unit: str
    theirs: tuple[float, float, float, float]  # average, 90th, 95th, 99th percentile
    ours: Four
    basis: str
    words: str


class StressTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part b."""

    minutes: float
    rows: tuple[StressRow, ...]
    lost: int
    their_cpu_ms_a_message: float  # 65 % of four vCPUs for 200 messages a second
    our_cpu_ms_a_message: float  # on a t3a vCPU, with the assumed factor
    where: str
    problems: tuple[str, ...]


class MonthBill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part c."""

    percents: tuple[Percent, ...]
    websocket_usd: float  # of the old API Gateway bill
    sittings: float  # of 10,000 students and 3 hours that explain it
    messages: float
    others_usd: float  # of the saving: not in the two columns that the table names
    handlers_usd: float  # modelled: Lambda, DynamoDB and logs of that workload on our serverless side
    serverless_usd: float
    serverless_gateway_usd: float
    cluster_always_on_usd: float
    cluster_scheduled_usd: float
    cluster_instances: int
    relaxed_serverless_usd: float  # the same with a frame every 15 s
    lines: dict[str, tuple[CostLine, ...]]


class BigExam(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Part d."""

    their_instances: int
    our_instances: int
    steady_instances: int
    with_redundancy: int
    updates_a_second: float
    students_an_instance: float  # ours, at the scaler's aim
    their_students_an_instance: float
    day: DayResult
    their_cpu: DayResult  # the same day with the CPU that Table 1 says a message took
    their_busy_percent: float  # of twelve instances, with that CPU


def example_bill(prices: Prices, calibration: Calibration) -> ExampleBill:
    """The paper's own arithmetic, and the bill that such an exam really brings. Raises PriceError."""
    message, minute = prices.price("apigateway", "websocket-message"), prices.price("apigateway", "websocket-minute")
    cost = as_modelled(serverless_cost(serverless_usage(EXAMPLE, calibration), ExamPlan(3.0, 1.0), prices))
    names = ("Messages from clients", "Connection minutes")
    return ExampleBill(
        messages=EXAMPLE.students * EXAMPLE.hours * 3600 / EXAMPLE.interval,
        minutes=EXAMPLE.students * EXAMPLE.hours * 60,
        messages_usd=message.cost(EXAMPLE_MESSAGES),
        minutes_usd=minute.cost(EXAMPLE_MINUTES),
        after_free_tier_usd=message.cost(EXAMPLE_MESSAGES - FREE_MESSAGES)
        + minute.cost(max(0.0, EXAMPLE_MINUTES - FREE_MINUTES)),
        counted=tuple(line for line in cost.exam.lines if line.name in names),
        left_out=tuple(line for line in cost.exam.lines if line.name not in names and line.usd > 0),
        whole_usd=cost.exam.usd,
        passed_on_usd=message.cost(EXAMPLE_MESSAGES),
    )


def stress_test(result: Result, minutes: float, prices: Prices, given: Assumptions) -> StressTest:
    """Table 1 beside a run of two instances; percentiles of CPU and memory are over the seconds of the run."""
    run = result.modes["ec2"]
    usage = run.usage
    assert isinstance(usage, ClusterUsage)  # it was run on this machine
    instance = prices.instance(INSTANCE)
    factor = given.cpu_factor(instance.family).used
    vcpus = float(instance.vcpu * TABLE_1_INSTANCES)
    cpu = 100 * usage.cpu_seconds.total * factor / usage.duration_seconds / vcpus
    gibibytes = instance.memory_gib * 2**30 * TABLE_1_INSTANCES
    memory = 100 * usage.memory_bytes.total / gibibytes

    def shares(found: LatencySummary | None, average: float, scale: float) -> Four:
        """Percentages; a result without samples has the average alone."""
        if found is None:
            return average, None, None, None
        return average, found.p90 * scale, found.p95 * scale, found.p99 * scale

    cores = run.cpu.cores if run.cpu else None
    kept = run.memory.each_second if run.memory else None

    def row(name: str, key: str, found: LatencySummary, words: str) -> StressRow:
        ours = (found.avg, found.p90, found.p95, found.p99) if found.count else (None, None, None, None)
        return StressRow(name, "ms", TABLE_1[key], ours, run.latency_ms.basis, words)

    a_second = TABLE_1_STUDENTS / TABLE_1_INTERVAL
    frames = usage.students * usage.duration_seconds / result.workload.interval_s
    return StressTest(
        minutes=minutes,
        rows=(
            row(
                "Message latency",
                "message",
                run.latency_ms.message,
                "send to the server's receipt; no network between here",
            ),
            row(
                "Round-trip time",
                "round_trip",
                run.latency_ms.round_trip,
                "send to ack; saved first, on a tick of 50 ms",
            ),
            StressRow(
                "CPU utilisation",
                "%",
                TABLE_1["cpu"],
                shares(cores, cpu, 100 * factor / vcpus),
                "modelled",
                f"CPU time measured here, times {factor:g} for a t3a vCPU (assumed); of four vCPUs, Redis and journal with it",
            ),
            StressRow(
                "Memory usage",
                "%",
                TABLE_1["memory"],
                shares(kept, memory if kept is None else 100 * kept.avg / gibibytes, 100 / gibibytes),
                "measured",
                "of the processes, without the operating system; of 2 x 2 GiB",
            ),
        ),
        lost=run.lost,
        their_cpu_ms_a_message=1000 * TABLE_1["cpu"][0] / 100 * vcpus / a_second,
        our_cpu_ms_a_message=1000 * usage.cpu_seconds.total * factor / frames,
        where=run.where,
        problems=run.problems[:3],
    )


def month_bill(prices: Prices, calibration: Calibration, given: Assumptions) -> MonthBill:
    """Table 2 recomputed, a workload that explains it, and the same workload on both of ours."""
    websocket = GATEWAY_BEFORE - GATEWAY_AFTER
    message, minute = prices.price("apigateway", "websocket-message"), prices.price("apigateway", "websocket-minute")
    sitting_messages = 2 * BIG_STUDENTS * 3 * 3600 / 5.0  # in, and on to one proctor
    sitting_minutes = BIG_STUDENTS * 180.0

    def usd(sittings: float) -> float:
        return message.cost(sittings * sitting_messages) + minute.cost(sittings * sitting_minutes)

    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if usd(middle) < websocket else (low, middle)
    sittings = (low + high) / 2
    exam = Exam(
        students=BIG_STUDENTS,
        hours=3.0,
        exams=math.ceil(BIG_STUDENTS / ROOM),
        proctors_per_exam=1,
        interval=5.0,
        changes_per_hour=120.0,
        arrival_minutes=20.0,
    )
    case = Case(
        exam, sittings, prices, calibration, msgspec.structs.replace(given, instance_type=INSTANCE, min_instances=2)
    )
    priced = price(case)
    relaxed = price(msgspec.structs.replace(case, exam=msgspec.structs.replace(exam, interval=15.0)))
    gateway = ("Messages", "Connection minutes")
    return MonthBill(
        percents=_percents(),
        websocket_usd=websocket,
        sittings=sittings,
        messages=sittings * sitting_messages,
        others_usd=(TOTAL_BEFORE - TOTAL_AFTER) - (GATEWAY_BEFORE - GATEWAY_AFTER) + (EC2_AFTER - EC2_BEFORE),
        handlers_usd=_handlers_usd(case),
        serverless_usd=priced.serverless.month.usd,
        serverless_gateway_usd=sum(line.usd for line in priced.serverless.month.lines if line.name.startswith(gateway)),
        cluster_always_on_usd=priced.months()["always on"],
        cluster_scheduled_usd=priced.months()["scheduled"],
        cluster_instances=_instances(priced),
        relaxed_serverless_usd=relaxed.serverless.month.usd,
        lines={"serverless": priced.serverless.month.lines, "cluster": priced.cluster.month.lines},
    )


def _instances(priced: Priced) -> int:
    size = priced.cluster.capacity
    assert size is not None  # cluster_cost always says it
    return size.instances


def _handlers_usd(case: Case) -> float:
    """Lambda, DynamoDB and logs if every message is Figure 4 in full, as theirs were."""
    exam = msgspec.structs.replace(case.exam, client="paper", acks="none")
    month = price(msgspec.structs.replace(case, exam=exam)).serverless.month
    return sum(line.usd for line in month.lines if line.name.startswith(("Lambda", "DynamoDB", "Log ")))


def _percents() -> tuple[Percent, ...]:
    def fall(before: float, after: float) -> float:
        return 100 * (after - before) / before

    return (
        Percent(
            "API Gateway", -90.1, fall(GATEWAY_BEFORE, GATEWAY_AFTER), "all that is left are other endpoints, it says"
        ),
        Percent("EC2", 72.7, fall(EC2_BEFORE, EC2_AFTER), "72.755: rounded it is 72.8"),
        Percent(
            "Total",
            -22.1,
            fall(TOTAL_BEFORE, TOTAL_AFTER),
            "of everything the school system runs on, not of the monitoring alone",
        ),
    )


def big_day(prices: Prices, calibration: Calibration, given: Assumptions) -> Day:
    """The day of Figures 8 and 9."""
    exam = Exam(
        students=BIG_STUDENTS,
        hours=6.0,
        exams=math.ceil(BIG_STUDENTS / ROOM),
        proctors_per_exam=1,
        interval=5.0,
        changes_per_hour=120.0,
        arrival_minutes=20.0,
    )
    return Day(exam, calibration, prices, msgspec.structs.replace(given, instance_type=INSTANCE))


def big_exam(prices: Prices, calibration: Calibration, given: Assumptions) -> BigExam:
    """10,000 students, the surge at six, on t3a.small behind a scaler that starts from one instance, as theirs."""
    day = big_day(prices, calibration, given)
    ours = simulate(day)
    each = rates(day)
    instance = prices.instance(INSTANCE)
    an_instance = (instance.vcpu * day.target_cpu - each.idle_cpu) / each.cpu
    # what a message took in their Table 1, in CPU time of the machine that our coefficients are of
    theirs_ms = 1000 * TABLE_1["cpu"][0] / 100 * instance.vcpu * TABLE_1_INSTANCES * TABLE_1_INTERVAL / TABLE_1_STUDENTS
    slow = msgspec.structs.replace(calibration, cluster=_as_slow(calibration, theirs_ms, day))
    theirs = simulate(msgspec.structs.replace(day, calibration=slow))
    return BigExam(
        their_instances=BIG_INSTANCES,
        our_instances=ours.most_instances,
        steady_instances=ours.steady_instances,
        with_redundancy=max(2, ours.most_instances + 1),
        updates_a_second=BIG_STUDENTS / day.exam.interval,
        students_an_instance=an_instance,
        their_students_an_instance=BIG_STUDENTS / BIG_INSTANCES,
        day=ours,
        their_cpu=theirs,
        their_busy_percent=theirs_ms / 1000 * BIG_UPDATES_A_SECOND / (BIG_INSTANCES * instance.vcpu) * 100,
    )


def _as_slow(calibration: Calibration, ms_on_instance: float, day: Day) -> ClusterCoefficients:
    factor = day.given.cpu_factor("t3a").used
    workers = dict(calibration.cluster.cpu_ms["workers"])
    workers["change"] = workers["same"] = ms_on_instance / factor
    workers["frame_out"] = 0.0
    return msgspec.structs.replace(calibration.cluster, cpu_ms=calibration.cluster.cpu_ms | {"workers": workers})
