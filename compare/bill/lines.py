"""What a bill is: cost lines, the variants of a month, and where two months meet."""

import itertools
import math
from typing import Literal

import msgspec

from compare.bill.prices import Confidence, Price
from compare.bill.usage import Basis, Mode

Variant = Literal["pay per use", "always on", "scheduled", "scale to zero"]


class CostLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a bill: quantity x unit price = USD, and where both came from."""

    name: str
    quantity: float
    unit: str
    unit_price_usd: float  # with tiers: the average over the quantity
    usd: float
    source: str  # of the price
    confidence: Confidence  # of the price
    basis: Basis  # of the quantity
    note: str = ""  # how the quantity came about


def priced_line(
    name: str, quantity: float, price: Price, basis: Basis, note: str = "", usd: float | None = None
) -> CostLine:
    """One line; `usd` is given where several lines share the tiers of one price."""
    total = price.cost(quantity) if usd is None else usd
    return CostLine(
        name=name,
        quantity=float(quantity),
        unit=price.unit,
        unit_price_usd=total / quantity if quantity else price.first_usd,
        usd=total,
        source=price.source,
        confidence=price.confidence,
        basis=basis,
        note=note,
    )


class Bill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cost lines and their sum."""

    variant: Variant
    lines: tuple[CostLine, ...]

    @property
    def usd(self) -> float:
        """The sum of the lines."""
        return sum(line.usd for line in self.lines)


class Sensitivity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the month's bill moves when one guess is wrong."""

    name: str
    unit: str
    low: float
    used: float
    high: float
    usd_low: float
    usd_high: float
    source: str


class Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many instances the exam needs, and what decided it."""

    instance_type: str
    instances: int
    decided_by: Literal["cpu", "memory", "minimum"]
    vcpu_needed: float  # on the instance type, without headroom
    vcpu_available: float  # of all instances
    memory_needed_bytes: float
    memory_available_bytes: float
    cpu_ms_per_1000_reports: float  # measured on this machine
    cpu_factor: float  # CPU time on an instance's vCPU for one second of this machine's, assumed


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The month's bill against the number of exams in it."""

    variant: Variant
    points: tuple[tuple[float, float], ...]  # exams a month, USD


class ModeCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The money side of one deployment."""

    region: str
    students: int
    hours: float
    exams_per_month: float
    exam: Bill  # one exam by itself: what exists only because of it
    month: Bill  # the variant that the verdict speaks of
    other_months: tuple[Bill, ...]  # the other variants of the month
    curves: tuple[Curve, ...]
    sensitivity: tuple[Sensitivity, ...]
    scaling: str  # how the run was stretched to an exam, in words
    assumptions: tuple[str, ...]  # in words
    capacity: Capacity | None = None


class BreakEven(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where two monthly bills meet."""

    variant: Variant  # of the cluster
    exams_per_month: float | None  # None: one of them is cheaper for any number of exams
    cheaper_above: Mode | None  # beyond that number; for any number if there is no meeting point


class Verdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answer in numbers and in sentences."""

    cheaper: Mode | None  # None: only one mode was run
    saves_usd: float
    saves_percent: float  # of the dearer bill
    break_even: tuple[BreakEven, ...]
    money: str
    latency: str
    losses: str


def break_even(serverless: Curve, cluster: Curve) -> BreakEven:
    """The number of exams a month at which the two bills are equal, if there is one between none and a full month."""
    gaps = [(exams, a - b) for (exams, a), (_, b) in zip(serverless.points, cluster.points, strict=True)]
    for (left, gap), (right, next_gap) in itertools.pairwise(gaps):
        if gap * next_gap < 0 or (next_gap == 0 and gap != 0):
            meeting = left + (right - left) * gap / (gap - next_gap)
            return BreakEven(cluster.variant, meeting, "ec2" if gap < 0 else "lambda")
    return BreakEven(cluster.variant, None, "ec2" if gaps[-1][1] > 0 else "lambda")


def break_even_sentence(meeting: BreakEven) -> str:
    """Where the answer flips, for a reader."""
    above, below = "the cluster", "serverless"
    if meeting.cheaper_above == "lambda":
        above, below = below, above
    servers = "servers that are always on"
    if meeting.variant == "scheduled":
        servers = "servers that run for exams only"
    elif meeting.variant == "scale to zero":
        servers = "everything removed between exams"
    if meeting.exams_per_month is None:
        return f"With {servers}, {above} is cheaper for any number of exams that fits into a month."
    last = math.floor(meeting.exams_per_month)
    if last == 0:
        return f"With {servers}, {above} is cheaper from the first exam of a month on."
    exams = "1 exam" if last == 1 else f"{last} exams"
    return (
        f"With {servers}, {below} is cheaper up to {exams} a month, and {above} from {last + 1} on "
        f"(the two meet at {meeting.exams_per_month:.1f})."
    )
