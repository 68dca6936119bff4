"""How far coefficients are off for a run that they were not made from: the test that a calibration has to pass.

Whatever the run used in all is put beside what the coefficients say of what happened in it: CPU time, frames, bytes and store
units. An error is the distance in percent of what was measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from compare.bill.usage import ClusterUsage, ServerlessUsage
from compare.model.calibration import Calibration, ClusterCoefficients, Residual, ServerlessCoefficients
from compare.model.observed import parts
from compare.model.units import SWEEP_SECONDS, Events, frames_to_proctors
from compare.run.result import Result

CLOSE_PERCENT = 15.0
"""Coefficients that miss a held-out run by more are provisional."""

_JOIN_BYTES = 465  # of a first report, a whole Figure 4


def held_out(results: Sequence[Result], known: Calibration) -> tuple[Residual, ...]:
    """The error of each quantity, over all parts of these runs."""
    expected: defaultdict[str, float] = defaultdict(float)
    measured: defaultdict[str, float] = defaultdict(float)
    for part in parts(results):
        if isinstance(part.used, ServerlessUsage):
            says, used = _serverless(part.happened, known.serverless), _used_serverless(part.used)
        else:
            says, used = _cluster(part.happened, known.cluster, part.used), _used_cluster(part.used)
        for name, value in used.items():
            expected[name] += says[name]
            measured[name] += value
    return tuple(
        Residual(name, 100 * abs(expected[name] - value) / value, len(results))
        for name, value in measured.items()
        if value
    )


def examined(fitted: Calibration, results: Sequence[Result]) -> Calibration:
    """With the errors for these runs; one that is too large makes the coefficients provisional."""
    errors = held_out(results, fitted)
    too_far = any(error.worst_percent > CLOSE_PERCENT for error in errors)
    return msgspec.structs.replace(fitted, held_out=errors, provisional=fitted.provisional or too_far)


def _serverless(happened: Events, known: ServerlessCoefficients) -> dict[str, float]:
    message = {
        "join": happened.student_connects,
        "change": happened.changes,
        "same": happened.sames,
        "watch": happened.watches,
    }
    swept = {
        "sweep": happened.exams * happened.seconds / SWEEP_SECONDS,
        "check": happened.student_seconds / SWEEP_SECONDS,
    }
    units = {**message, **swept, "connect": happened.connects, "disconnect": happened.disconnects}
    out = happened.publications + happened.acks + happened.student_connects + happened.watches
    return {
        "serverless cpu_ms": known.dot("cpu_ms", {**message, "post": out}),  # type: ignore[dict-item]  # Kinds, all of them
        "serverless read_units": known.dot("read_units", units),  # type: ignore[arg-type]
        "serverless write_units": known.dot("write_units", units),  # type: ignore[arg-type]
        "serverless frames in": happened.frames_in,
        "serverless frames out": out,
        "serverless bytes to clients": _dot(_sizes(happened), known.bytes),
    }


def _used_serverless(used: ServerlessUsage) -> dict[str, float]:
    return {
        "serverless cpu_ms": used.functions["message"].handler_cpu_ms,
        "serverless read_units": used.dynamodb_read_units,
        "serverless write_units": used.dynamodb_write_units,
        "serverless frames in": used.messages_in,
        "serverless frames out": used.messages_out,
        "serverless bytes to clients": used.egress_bytes,
    }


def _cluster(happened: Events, known: ClusterCoefficients, used: ClusterUsage) -> dict[str, float]:
    workers = used.instances * used.workers
    out = frames_to_proctors(happened, workers) + happened.acks + happened.student_connects + happened.watches
    counts = {
        "connect": happened.connects,
        "change": happened.changes,
        "same": happened.sames,
        "frame_out": out,
        "view": happened.snapshot_views,
        "entry": happened.entries,
        "second": happened.seconds * used.instances,
        "worker_second": happened.seconds * workers,
    }
    into = _dot({"report_in": happened.changes, "beat_in": happened.sames}, known.bytes)
    return {
        "cluster cpu_ms": sum(_dot(counts, values) for values in known.cpu_ms.values()),
        "cluster frames out": out,
        "cluster bytes from clients": happened.student_connects * _JOIN_BYTES + into,
        "cluster bytes to clients": _dot(_sizes(happened), known.bytes),
    }


def _used_cluster(used: ClusterUsage) -> dict[str, float]:
    return {
        "cluster cpu_ms": used.cpu_seconds.total * 1000,
        "cluster frames out": used.frames_out,
        "cluster bytes from clients": used.ingress_bytes,
        "cluster bytes to clients": used.egress_bytes,
    }


def _sizes(happened: Events) -> dict[str, float]:
    return {
        "ack": happened.acks,
        "update": happened.publications,
        "joined": happened.student_connects,
        "snapshot_view": happened.snapshot_views,
    }


def _dot(counts: Mapping[str, float], coefficients: Mapping[str, float]) -> float:
    return sum(number * coefficients.get(kind, 0.0) for kind, number in counts.items())
