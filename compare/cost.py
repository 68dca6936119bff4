"""Usage times prices: what this exam and a month of exams would cost on AWS."""

from typing import Literal

import msgspec

from compare.usage import Basis, Mode

Confidence = Literal["quoted", "inferred", "unverified"]
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
