"""Which deployment a school should take, by how much, and what would flip the answer.

Pure functions of an `Exam`, prices, coefficients and assumptions. The candidates are serverless and the cluster in its three ways
of keeping servers; the headline compares serverless with the way that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from compare.advice.quotas import Limit, limits
from compare.bill.alternatives import Alternative, alternatives
from compare.bill.assumptions import Assumptions
from compare.bill.cost import CostError, ExamPlan, cheapest_type, cluster_cost, serverless_cost
from compare.bill.lines import Bill, Capacity, CostLine, ModeCost, Sensitivity, Variant, break_even
from compare.bill.prices import PriceError, Prices
from compare.bill.stretch import HOURS_PER_MONTH, stretch_serverless
from compare.bill.usage import Basis, Mode
from compare.model.calibration import Calibration
from compare.model.latency import cluster_way, serverless_way
from compare.model.units import MOST_STUDENTS, Exam, cluster_usage, serverless_usage

Servers = Literal["always on", "scheduled", "scale to zero"]
NAMES: dict[Mode, str] = {"lambda": "serverless", "ec2": "the cluster"}
STEPS = 48


class Case(msgspec.Struct, frozen=True):
    """All that an answer depends on."""

    exam: Exam
    exams_per_month: float
    prices: Prices
    calibration: Calibration
    given: Assumptions
    servers: Servers = "scheduled"

    @property
    def plan(self) -> ExamPlan:
        """The month."""
        return ExamPlan(hours=self.exam.hours, exams_per_month=self.exams_per_month)


class Priced(msgspec.Struct, frozen=True):
    """Both deployments of a case."""

    serverless: ModeCost
    cluster: ModeCost

    def months(self) -> dict[Variant, float]:
        """USD of the month, of every way."""
        return {
            bill.variant: bill.usd for bill in (self.serverless.month, self.cluster.month, *self.cluster.other_months)
        }

    def gap(self, servers: Servers) -> float:
        """How much more serverless costs than the cluster; below zero if it is the cheaper one."""
        months = self.months()
        return months["pay per use"] - months[servers]


class Flip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number at which the answer changes."""

    what: str
    now: float
    at: float | None  # None: it does not change anywhere between `low` and `high`
    low: float
    high: float
    cheaper_above: Mode  # beyond `at`; everywhere if there is no `at`
    unit: str = ""


class GuessEffect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one guess does to the answer."""

    name: str
    low: float
    used: float
    high: float
    unit: str
    gap_low_usd: float  # serverless minus cluster at the low end
    gap_high_usd: float
    flips: bool
    source: str


class WayCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the answer."""

    name: str
    usd: float
    variant: Variant
    usual_ms: float  # modelled
    p95_ms: float  # modelled
    what: str
    basis: Basis = "modelled"


class Advice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The answer."""

    region: str
    exam: Exam
    exams_per_month: float
    servers: Servers
    cheaper: Mode
    saves_usd: float
    saves_percent: float
    ways: tuple[WayCost, ...]
    capacity: Capacity
    redundant_usd: float | None  # the cluster with two instances and Redis outside of them, if it has one now
    flips: tuple[Flip, ...]
    break_even_range: tuple[
        float | None, float | None
    ]  # exams a month, every guess in favour of one side, then of the other
    guesses: tuple[GuessEffect, ...]
    limits: tuple[Limit, ...]  # crossed ones only
    alternatives: tuple[Alternative, ...]
    largest: dict[str, tuple[CostLine, ...]]  # the three largest lines of either bill
    calibration: str
    price_date: str
    assumptions: tuple[str, ...]


def price(case: Case) -> Priced:
    """Both bills. Raises CostError and PriceError."""
    whole, opening = cluster_usage(case.exam, case.calibration)
    return Priced(
        as_modelled(
            serverless_cost(serverless_usage(case.exam, case.calibration), case.plan, case.prices, None, case.given)
        ),
        as_modelled(cluster_cost(whole, case.plan, case.prices, opening, case.given)),
    )


def as_modelled(cost: ModeCost) -> ModeCost:
    """The same cost, with every quantity marked as what it is when no run stands behind it."""

    def marked(bill: Bill) -> Bill:
        return msgspec.structs.replace(
            bill,
            lines=tuple(
                line if line.basis == "assumed" else msgspec.structs.replace(line, basis="modelled")
                for line in bill.lines
            ),
        )

    return msgspec.structs.replace(
        cost,
        exam=marked(cost.exam),
        month=marked(cost.month),
        other_months=tuple(marked(bill) for bill in cost.other_months),
        scaling="Computed from the exam's description with measured coefficients; no run of this size stands behind it.",
    )


def best_type(case: Case) -> Case:
    """The case with the instance type that makes the cluster cheapest, kept in the way that was asked for.

    Types with less than 1 GiB leave the operating system no room and are passed over.
    """
    whole, opening = cluster_usage(case.exam, case.calibration)
    large_enough = [name for name in case.prices.instance_types() if case.prices.instance(name).memory_gib >= 1]
    found = cheapest_type(whole, case.plan, case.prices, opening, case.given, large_enough, case.servers)
    return msgspec.structs.replace(case, given=msgspec.structs.replace(case.given, instance_type=found[0][0]))


def advise(case: Case, concurrency: float = 1_000.0) -> Advice:
    """The whole answer. Raises CostError and PriceError."""
    priced = price(case)
    months = priced.months()
    chosen = months[case.servers]
    dear, cheap = max(chosen, months["pay per use"]), min(chosen, months["pay per use"])
    cheaper: Mode = "lambda" if months["pay per use"] <= chosen else "ec2"
    size = priced.cluster.capacity
    assert size is not None  # cluster_cost always says it
    instance = case.prices.instance(case.given.instance_type)
    guesses = _guesses(case, priced)
    exam = stretch_serverless(serverless_usage(case.exam, case.calibration), case.plan)
    return Advice(
        region=case.prices.region,
        exam=case.exam,
        exams_per_month=case.exams_per_month,
        servers=case.servers,
        cheaper=cheaper,
        saves_usd=dear - cheap,
        saves_percent=100 * (dear - cheap) / dear if dear else 0.0,
        ways=_ways(case, priced, size),
        capacity=size,
        redundant_usd=_redundant(case) if size.instances == 1 else None,
        flips=flips(case),
        break_even_range=_break_even_range(case),
        guesses=guesses,
        limits=tuple(
            limit
            for limit in limits(case.exam, case.calibration, size.instances, instance.vcpu, concurrency)
            if limit.crossed
        ),
        alternatives=alternatives(exam, priced.serverless.month, case.exams_per_month, case.prices),
        largest={
            "serverless": _largest(priced.serverless.month),
            "cluster": _largest(
                next(b for b in (priced.cluster.month, *priced.cluster.other_months) if b.variant == case.servers)
            ),
        },
        calibration=case.calibration.source,
        price_date=case.prices.as_of,
        assumptions=(*priced.serverless.assumptions, *priced.cluster.assumptions),
    )


def _ways(case: Case, priced: Priced, size: Capacity) -> tuple[WayCost, ...]:
    busy = size.vcpu_needed / size.vcpu_available
    through_lambda = serverless_way(case.calibration, case.given, case.exam.proctors_per_exam)
    through_ec2 = cluster_way(case.calibration, case.given, busy, size.instances)
    servers = f"{size.instances} x {size.instance_type}"
    words: dict[Variant, tuple[str, str]] = {
        "pay per use": ("Serverless", "API Gateway, Lambda, DynamoDB"),
        "always on": ("Cluster, always on", servers),
        "scheduled": ("Cluster, scheduled", f"{servers}, started for exams"),
        "scale to zero": ("Cluster, to zero", f"{servers}, load balancer too"),
    }
    return tuple(
        WayCost(
            words[variant][0],
            usd,
            variant,
            (through_lambda if variant == "pay per use" else through_ec2).usual_ms,
            (through_lambda if variant == "pay per use" else through_ec2).p95_ms,
            words[variant][1],
        )
        for variant, usd in priced.months().items()
    )


def _largest(bill: Bill) -> tuple[CostLine, ...]:
    return tuple(sorted(bill.lines, key=lambda line: -line.usd)[:3])


def _redundant(case: Case) -> float:
    given = msgspec.structs.replace(case.given, min_instances=2)
    return price(msgspec.structs.replace(case, given=given)).months()[case.servers]


# What would flip the answer


def flips(case: Case) -> tuple[Flip, ...]:
    """Exams a month, students and interval at which the other deployment becomes the cheaper one."""
    most = max(1.0, HOURS_PER_MONTH / (case.exam.hours + 1))
    students = float(min(MOST_STUDENTS, max(20_000, case.exam.students * 10)))
    shortest, longest = 1.0, 120.0
    return (
        _flip("exams a month", case.exams_per_month, 0.0, most, case, _with_exams),
        _flip("students", float(case.exam.students), 10.0, students, case, _with_students, logarithmic=True),
        _flip("interval", case.exam.interval, shortest, longest, case, _with_interval, logarithmic=True, unit="s"),
    )


def _with_exams(case: Case, exams: float) -> Case:
    return msgspec.structs.replace(case, exams_per_month=exams)


def _with_students(case: Case, students: float) -> Case:
    exam = msgspec.structs.replace(case.exam, students=max(case.exam.exams, round(students)))
    return msgspec.structs.replace(case, exam=exam)


def _with_interval(case: Case, interval: float) -> Case:
    return msgspec.structs.replace(case, exam=msgspec.structs.replace(case.exam, interval=interval))


def _flip(
    what: str,
    now: float,
    low: float,
    high: float,
    case: Case,
    changed: Callable[[Case, float], Case],
    *,
    logarithmic: bool = False,
    unit: str = "",
) -> Flip:
    """The crossing nearest to where we are, found on a grid and then halved down."""

    def gap(value: float) -> float:
        return gap_of(changed(case, value))

    if logarithmic:
        grid = [low * (high / low) ** (step / STEPS) for step in range(STEPS + 1)]
    else:
        grid = [low + (high - low) * step / STEPS for step in range(STEPS + 1)]
    gaps = [gap(value) for value in grid]
    crossings = []
    for (left, one), (right, two) in zip(
        zip(grid, gaps, strict=True), list(zip(grid, gaps, strict=True))[1:], strict=False
    ):
        if one * two < 0:
            crossings.append((_halve(gap, left, right, one), "ec2" if one < 0 else "lambda"))
    if not crossings:
        return Flip(what, now, None, low, high, "ec2" if gaps[-1] > 0 else "lambda", unit)
    at, above = min(crossings, key=lambda pair: abs(pair[0] - now))
    return Flip(what, now, at, low, high, "ec2" if above == "ec2" else "lambda", unit)


def _halve(gap: Callable[[float], float], left: float, right: float, at_left: float) -> float:
    for _ in range(18):
        middle = (left + right) / 2
        value = gap(middle)
        if (value < 0) == (at_left < 0):
            left = middle
        else:
            right = middle
    return (left + right) / 2


def gap_of(case: Case) -> float:
    """Serverless minus cluster, USD a month. Where no server is large enough the cluster counts as very dear."""
    try:
        return price_month(case, "pay per use") - price_month(case, case.servers)
    except CostError:
        return -1e9


def price_month(case: Case, variant: Variant) -> float:
    """One month's bill alone: less work than all of them."""
    plan = case.plan
    if variant == "pay per use":
        usage = serverless_usage(case.exam, case.calibration)
        return serverless_cost(usage, plan, case.prices, None, case.given, only_month=True).month.usd
    whole, opening = cluster_usage(case.exam, case.calibration)
    return cluster_cost(whole, plan, case.prices, opening, case.given, only_month=variant).month.usd


def _guesses(case: Case, priced: Priced) -> tuple[GuessEffect, ...]:
    """Each guess at its ends, the most important first."""
    months = priced.months()
    serverless, cluster = months["pay per use"], months[case.servers]
    now = serverless - cluster
    found: list[tuple[Sensitivity | _Guess, float, float]] = [
        (guess, guess.usd_low - cluster, guess.usd_high - cluster) for guess in priced.serverless.sensitivity
    ]
    for guess, change in _cluster_guesses(case):
        low = serverless - price_month(change(guess.low), case.servers)
        high = serverless - price_month(change(guess.high), case.servers)
        found.append((guess, low, high))
    effects = [
        GuessEffect(
            guess.name,
            guess.low,
            guess.used,
            guess.high,
            guess.unit,
            low,
            high,
            min(low * now, high * now) < 0,
            guess.source,
        )
        for guess, low, high in found
    ]
    return tuple(sorted(effects, key=lambda effect: -abs(effect.gap_high_usd - effect.gap_low_usd)))


class _Guess(msgspec.Struct, frozen=True):
    name: str
    unit: str
    low: float
    used: float
    high: float
    source: str


def _cluster_guesses(case: Case) -> list[tuple[_Guess, Callable[[float], Case]]]:
    family = case.given.instance_type.partition(".")[0]
    factor = case.given.cpu_factor(family)

    def given(**changes: float) -> Case:
        return msgspec.structs.replace(case, given=msgspec.structs.replace(case.given, **changes))

    return [
        (
            _Guess(
                f"CPU time on a vCPU of {case.given.instance_type}",
                "x",
                factor.low,
                factor.used,
                factor.high,
                "nobody measured",
            ),
            lambda value: given(ec2_cpu_factor=value),
        ),
        (
            _Guess("Share of the vCPUs left free", "", 0.3, case.given.cpu_headroom, 0.7, "a rule of thumb"),
            lambda value: given(cpu_headroom=value),
        ),
    ]


def _break_even_range(case: Case) -> tuple[float | None, float | None]:
    """Exams a month at the break-even, with every guess in the cluster's favour, and with every guess in the serverless side's."""
    low = [msgspec.structs.replace(latency, ms=latency.low_ms) for latency in case.given.latencies]
    high = [msgspec.structs.replace(latency, ms=latency.high_ms) for latency in case.given.latencies]
    factor = case.given.cpu_factor(case.given.instance_type.partition(".")[0])
    replace = msgspec.structs.replace
    for_cluster = replace(case.given, latencies=tuple(high), lambda_cpu_factor=2.0, ec2_cpu_factor=factor.low)
    for_serverless = replace(case.given, latencies=tuple(low), lambda_cpu_factor=0.5, ec2_cpu_factor=factor.high)
    return (_meeting(replace(case, given=for_cluster)), _meeting(replace(case, given=for_serverless)))


def _meeting(case: Case) -> float | None:
    try:
        priced = price(case)
    except (CostError, PriceError):
        return None
    curve = next(curve for curve in priced.cluster.curves if curve.variant == case.servers)
    return break_even(priced.serverless.curves[0], curve).exams_per_month
