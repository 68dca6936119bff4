"""Two groups of results side by side: what changed, and whether it is more than noise.

Every figure is compared as a mean over the runs of either side, with the 95 % confidence interval of the difference (Welch: the
sides need not be equally noisy). With one run on a side nothing is known of its noise; then the difference is shown and nothing is
claimed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from compare.bill.usage import ClusterUsage, Mode, ServerlessUsage
from compare.run.result import ModeResult, Result, ResultError, decode_result

Direction = Literal["worse", "better", "same", "unknown"]

# the 97.5th percentile of Student's t for 1 to 30 degrees of freedom
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One figure on both sides."""

    mode: Mode
    name: str
    unit: str
    basis: str
    before: float
    after: float
    percent: float | None  # of the figure before; None if that was zero
    low: float | None  # of the difference's interval; None with a single run on a side
    high: float | None
    direction: Direction


class Difference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All figures that both sides have."""

    runs_before: int
    runs_after: int
    rows: tuple[Row, ...]
    options: tuple[tuple[str, str, str], ...]  # of the workload that differ: name, before, after

    @property
    def worse(self) -> tuple[Row, ...]:
        """The figures that got worse by more than noise."""
        return tuple(row for row in self.rows if row.direction == "worse")


class Figure(msgspec.Struct, frozen=True):
    """How to read one figure from a mode's result. All of them are better when they are lower."""

    name: str
    unit: str
    basis: Callable[[ModeResult], str]
    read: Callable[[ModeResult], float | None]


def load_side(path: Path) -> list[Result]:
    """A result file, or all `result.json` below a folder. Raises ResultError in one line."""
    if path.is_dir():
        files = sorted(path.rglob("result.json"))
        if not files:
            raise ResultError(f"there is no result.json below {path}")
    else:
        files = [path]
    found = []
    for file in files:
        try:
            found.append(decode_result(file.read_bytes()))
        except OSError as exc:
            raise ResultError(f"can't read {file} ({exc.strerror})") from exc
        except ResultError as exc:
            raise ResultError(f"{file}: {exc}") from exc
    return found


def difference(before: Sequence[Result], after: Sequence[Result]) -> Difference:
    """What changed from one side to the other."""
    modes = [mode for mode in before[0].modes if all(mode in result.modes for result in (*before, *after))]
    if not modes:
        raise ResultError("the two sides have no deployment in common")
    rows = [row for mode in modes for row in _rows(mode, before, after)]
    return Difference(len(before), len(after), tuple(rows), tuple(_options(before[0], after[0])))


def _rows(mode: Mode, before: Sequence[Result], after: Sequence[Result]) -> Iterator[Row]:
    for figure in FIGURES:
        one = [figure.read(result.modes[mode]) for result in before]
        two = [figure.read(result.modes[mode]) for result in after]
        left = [value for value in one if value is not None]
        right = [value for value in two if value is not None]
        if len(left) == len(one) and len(right) == len(two) and (any(left) or any(right)):
            yield compared(mode, figure.name, figure.unit, figure.basis(before[0].modes[mode]), left, right)


def compared(mode: Mode, name: str, unit: str, basis: str, left: Sequence[float], right: Sequence[float]) -> Row:
    """One row: means, the interval of their difference, and what it says."""
    before, after = math.fsum(left) / len(left), math.fsum(right) / len(right)
    interval = welch(left, right)
    percent = 100 * (after - before) / before if before else None
    direction: Direction = "unknown"
    if interval is not None:
        low, high = interval
        direction = "worse" if low > 0 else "better" if high < 0 else "same"
    return Row(
        mode, name, unit, basis, before, after, percent, interval and interval[0], interval and interval[1], direction
    )


def welch(left: Sequence[float], right: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of mean(right) - mean(left); None with fewer than two values on a side."""
    if len(left) < 2 or len(right) < 2:
        return None

    def spread(values: Sequence[float]) -> float:
        mean = math.fsum(values) / len(values)
        return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)

    one, two = spread(left), spread(right)
    shift = math.fsum(right) / len(right) - math.fsum(left) / len(left)
    together = one + two
    if together == 0:
        return shift, shift
    freedom = together**2 / (one**2 / (len(left) - 1) + two**2 / (len(right) - 1))
    reach = _T[min(len(_T), max(1, math.floor(freedom))) - 1] * math.sqrt(together)
    return shift - reach, shift + reach


def _options(before: Result, after: Result) -> Iterator[tuple[str, str, str]]:
    for name in before.workload.__struct_fields__:
        one, two = getattr(before.workload, name), getattr(after.workload, name)
        if one != two:
            yield name, str(one), str(two)


def _latency(series: str, statistic: str) -> Callable[[ModeResult], float | None]:
    def read(found: ModeResult) -> float | None:
        times = getattr(found.latency_ms, series)
        return float(getattr(times, statistic)) if times.count else None

    return read


def _a_report(field: str, kind: type[ServerlessUsage] | type[ClusterUsage]) -> Callable[[ModeResult], float | None]:
    def read(found: ModeResult) -> float | None:
        usage = found.usage
        if not isinstance(usage, kind) or not usage.reports:
            return None
        return float(getattr(usage, field)) / usage.reports

    return read


def _times(found: ModeResult) -> str:
    return found.latency_ms.basis


def _always(word: str) -> Callable[[ModeResult], str]:
    return lambda _found: word


FIGURES = (
    Figure("delivery p50", "ms", _times, _latency("delivery", "p50")),
    Figure("delivery p95", "ms", _times, _latency("delivery", "p95")),
    Figure("delivery p99", "ms", _times, _latency("delivery", "p99")),
    Figure("round trip p50", "ms", _times, _latency("round_trip", "p50")),
    Figure("round trip p95", "ms", _times, _latency("round_trip", "p95")),
    Figure("message p95", "ms", _times, _latency("message", "p95")),
    Figure("lost", "", _always("measured"), lambda found: float(found.lost)),
    Figure("duplicates", "", _always("measured"), lambda found: float(found.duplicates)),
    Figure("wrongly offline", "", _always("measured"), lambda found: float(found.false_offline)),
    Figure(
        "CPU of 1,000 reports",
        "s",
        _always("measured"),
        lambda found: found.cpu.per_1000_reports_s if found.cpu else None,
    ),
    Figure("memory", "MB", _always("measured"), lambda found: found.memory.total_bytes / 1e6 if found.memory else None),
    Figure("messages in, a report", "", _always("measured"), _a_report("messages_in", ServerlessUsage)),
    Figure("messages out, a report", "", _always("measured"), _a_report("messages_out", ServerlessUsage)),
    Figure("write units, a report", "", _always("emulated"), _a_report("dynamodb_write_units", ServerlessUsage)),
    Figure("read units, a report", "", _always("emulated"), _a_report("dynamodb_read_units", ServerlessUsage)),
    Figure("frames out, a report", "", _always("measured"), _a_report("frames_out", ClusterUsage)),
    Figure("bytes out, a report", "B", _always("measured"), _a_report("egress_bytes", ClusterUsage)),
    Figure("month", "USD", _always("modelled"), lambda found: found.cost.month.usd if found.cost else None),
)
