"""What each kind of frame costs, measured: the coefficients of the workload model, and how they are got from runs.

A run leaves sums: so much CPU time, so many store units, for so many joins, changes, heartbeats. How many of each there were is
known from the run's schedule. Several runs, each in its two parts (the opening and the rest), give several equations for one
coefficient each kind; they are solved by least squares with coefficients not below zero, held near the old ones where the runs
say nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["join", "change", "same", "watch", "post", "sweep", "check", "connect", "disconnect"]

SCHEMA = "proctorwire.compare.calibration/1"
_PULL = 0.002  # how strongly a coefficient is held near its old value, unless told otherwise


class CalibrationError(Exception):
    """A calibration that can't be read or made; the message is one line for the user."""


class Residual(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How well the coefficients give back what was measured."""

    quantity: str
    worst_percent: float  # of the largest measured sum
    runs: int


class ServerlessCoefficients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of API Gateway, Lambda and DynamoDB."""

    memory_mb: int
    init_cpu_ms: float
    per: dict[Kind, dict[str, float]]  # cpu_ms, dynamodb_read/write/transact calls, read_units, write_units
    functions: dict[str, dict[str, float]]  # of one invocation: cpu_ms and calls
    bytes: dict[str, float]  # to clients: ack, update, joined, snapshot_view
    read_units_per_view: float
    log_bytes_per_environment_minute: float
    assumed_busy_ms: float  # of an invocation on AWS: how many environments there are follows from it

    def dot(self, what: str, counts: Mapping[Kind, float]) -> float:
        """The sum of one quantity over kinds of events."""
        return math.fsum(count * self.per.get(kind, {}).get(what, 0.0) for kind, count in counts.items())


class ClusterCoefficients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the WebSocket cluster."""

    cpu_ms: dict[str, dict[str, float]]  # by process, then by kind of event
    connection_bytes: float
    idle_bytes: dict[str, float]  # by process, of one instance
    bytes: dict[str, float]  # ack, update, joined, snapshot_view, report_in, beat_in, redis_change, redis_same
    entries_per_student: float


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All coefficients, and where they are from."""

    schema: str = SCHEMA
    date: str
    how: str
    machine: str
    provisional: bool  # measured in passing on a busy machine: good for a first answer
    runs: tuple[str, ...] = ()
    residuals: tuple[Residual, ...] = ()
    held_out: tuple[Residual, ...] = ()  # the same for runs of another size that the coefficients were not made from
    speed_ms: float = 0.0  # of 1,000 reports on that machine, see `speed`; 0: not taken
    serverless: ServerlessCoefficients
    cluster: ClusterCoefficients

    @property
    def source(self) -> str:
        """A line that says how far to trust what was computed with these."""
        kind = "provisional coefficients" if self.provisional else "coefficients"
        return f"{kind} measured {self.date[:10]} on {self.machine}"


@cache
def shipped() -> Calibration:
    """The coefficients in this package."""
    return decode(resources.files("compare.model").joinpath("calibration.json").read_bytes())


def load(file: Path | None) -> Calibration:
    """The coefficients of a file that `compare calibrate` wrote, or those in this package."""
    if file is None:
        return shipped()
    try:
        return decode(file.read_bytes())
    except OSError as exc:
        raise CalibrationError(f"can't read the calibration {file} ({exc.strerror})") from exc


def decode(data: bytes) -> Calibration:
    """Read what `encode` wrote; one clear line for anything else."""
    try:
        found = msgspec.json.decode(data, type=Calibration)
    except msgspec.DecodeError as exc:
        raise CalibrationError(f"not a calibration: {exc}") from exc
    if found.schema != SCHEMA:
        raise CalibrationError(f"this calibration has the schema {found.schema!r}; this version reads {SCHEMA!r}")
    return found


def encode(calibration: Calibration) -> bytes:
    """Indented JSON."""
    return msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n"


class Equation(msgspec.Struct, frozen=True):
    """A measured sum, and how many events of each kind went into it."""

    counts: Mapping[str, float]
    value: float


def solve(equations: Sequence[Equation], before: Mapping[str, float], pull: float = _PULL) -> dict[str, float]:
    """Coefficients, none below zero, whose sums come closest to the values; `before` gives the kinds and where they are held.

    Errors are shares of a value, and large values weigh more. Coordinate descent: one coefficient after the other is set to its
    best value until none moves.
    """
    rows = [(equation.counts, equation.value) for equation in equations if equation.value > 0]
    found = dict(before)
    if not rows:
        return found
    largest = max(value for _, value in rows)
    for _ in range(400):
        moved = 0.0
        for kind, held in before.items():
            scale = max(held, 1e-9)
            top, bottom = pull / scale, pull / scale**2
            for counts, value in rows:
                here = counts.get(kind, 0.0) / value
                if here:
                    rest = 1.0 - math.fsum(n * found.get(k, 0.0) for k, n in counts.items() if k != kind) / value
                    weight = value / largest
                    top += weight * here * rest
                    bottom += weight * here * here
            best = max(0.0, top / bottom)
            moved = max(moved, abs(best - found[kind]) / scale)
            found[kind] = best
        if moved < 1e-6:
            break
    return found


def worst_percent(equations: Iterable[Equation], coefficients: Mapping[str, float]) -> float:
    """The largest distance between a value and what the coefficients say, in percent of the largest value."""
    rows = [equation for equation in equations if equation.value > 0]
    largest = max((equation.value for equation in rows), default=1.0)
    return max(
        (
            abs(math.fsum(n * coefficients.get(kind, 0.0) for kind, n in row.counts.items()) - row.value)
            / largest
            * 100
            for row in rows
        ),
        default=0.0,
    )
