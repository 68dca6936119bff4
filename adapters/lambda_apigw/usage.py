"""What invocations used, as one log line in CloudWatch's embedded metric format: metrics for AWS, sums for a local run.

Written at most once in so many seconds, because a line for every invocation would cost a twentieth of the invocation.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from adapters.lambda_apigw.aws_http import Meter

NAMESPACE = "Proctorwire"
_encode = msgspec.json.Encoder().encode


class UsageLog:
    """Collects what the meter counts and writes it out now and then."""

    def __init__(self, meter: Meter, function: str, every_seconds: float) -> None:
        self._meter = meter
        self._function = function
        self._every_seconds = every_seconds
        self._invocations = 0
        self._written_at = 0.0

    def invoked(self, now: float) -> None:
        """An invocation has ended."""
        self._invocations += 1
        if now - self._written_at >= self._every_seconds:
            self._written_at = now
            sys.stdout.write(self._line(now))

    def _line(self, now: float) -> str:
        used = {"invocations": self._invocations, **self._meter.take()}
        self._invocations = 0
        described = {
            "Namespace": NAMESPACE,
            "Dimensions": [["function"]],
            "Metrics": [{"Name": name, "Unit": "Count"} for name in used],
        }
        line = {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [described]}, "function": self._function}
        return (_encode(line | used) + b"\n").decode()


def read_line(line: str) -> dict[str, float] | None:
    """What a log line says was used; None if it is another kind of line."""
    if not line.startswith('{"_aws":'):
        return None
    try:
        used: dict[str, Any] = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    return {name: value for name, value in used.items() if isinstance(value, int | float)}
