"""CPU credits of a burstable instance, hour by hour, in unlimited mode.

One credit is one vCPU for one minute. An instance earns so many an hour and keeps at most what it earns in 24 hours. What it uses
beyond its balance it *borrows*; borrowed credits are paid back by what it earns later. They are charged once more is borrowed than
24 hours earn, and when the instance ends (Amazon EC2 User Guide, "Unlimited mode for burstable performance instances").
"""

from collections.abc import Iterable, Sequence

import msgspec

from compare.bill.prices import InstanceType

MINUTES = 60.0
FULL_HOURS = 24.0


class CreditUse(msgspec.Struct, frozen=True):
    """What one instance's life did to its credits."""

    charged_vcpu_hours: float
    lowest_balance: float  # credits; below zero: borrowed
    borrowed_hours: int  # in which it lived on borrowed credits
    balances: tuple[float, ...]  # at the end of each hour


def simulate(
    instance: InstanceType, vcpus_used: Sequence[float], *, ends_after: float | None = None, balance: float = 0.0
) -> CreditUse:
    """Run an instance for hours of which each uses this many vCPUs on average.

    With `ends_after` it is terminated after as many hours, the last of which may be a part of one; else it goes on living. No hour
    uses more than the instance's vCPUs.
    """
    if instance.credits_per_hour is None:
        raise ValueError(f"{instance.type} has no CPU credits")
    earned = instance.credits_per_hour
    most = earned * FULL_HOURS
    charged, lowest, borrowed = 0.0, balance, 0
    balances = []
    for hour, used in enumerate(vcpus_used):
        alive = 1.0 if ends_after is None else min(1.0, ends_after - hour)
        balance = min(most, balance + earned * alive - min(used, instance.vcpu) * MINUTES)
        if balance < -most:
            charged += -most - balance
            balance = -most
        borrowed += balance < 0
        lowest = min(lowest, balance)
        balances.append(balance)
    if ends_after is not None and balance < 0:
        charged -= balance
    return CreditUse(charged / MINUTES, lowest, borrowed, tuple(balances))


def timetable(hours: float, exams: float, exam_hours: float, vcpus: float) -> list[float]:
    """vCPUs used in each hour of a stretch of `hours` in which exams begin at equal distances; the last may be a part of one."""
    used = [0.0] * round(hours)
    whole, part = divmod(exams, 1.0)
    weights = [1.0] * int(whole) + ([part] if part > 1e-9 else [])
    gap = hours / max(1.0, exams)
    for number, weight in enumerate(weights):
        for hour, share in _hours(number * gap, number * gap + exam_hours):
            if hour < len(used):
                used[hour] += share * vcpus * weight
    return used


def one_run(lead: float, exam_hours: float, tail: float, vcpus: float) -> list[float]:
    """vCPUs used in each hour of an instance that is started for one exam and ended after it; the last may be a part of one."""
    used = [0.0] * -int(-(lead + exam_hours + tail) // 1)
    for hour, share in _hours(lead, lead + exam_hours):
        used[hour] += share * vcpus
    return used


def _hours(start: float, end: float) -> Iterable[tuple[int, float]]:
    """The hours that a stretch touches, with the share of each that it takes."""
    hour = int(start)
    while hour < end:
        yield hour, min(end, hour + 1.0) - max(start, float(hour))
        hour += 1
