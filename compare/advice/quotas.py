"""AWS's limits that an exam runs into: which, what it needs, whether it can be raised, and what to ask for."""

import math
from typing import Literal

import msgspec

from compare.bill.prices import Confidence
from compare.model.calibration import Calibration
from compare.model.units import Events, Exam, events

ARRIVAL_PEAK = 2.0  # the busiest second of an arrival against its mean, assumed
WRITES_PER_PARTITION = 1_000.0


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One limit, and what the exam needs of it."""

    deployment: Literal["serverless", "cluster"]
    name: str
    allowed: float
    needed: float
    unit: str
    raisable: bool
    advice: str  # what to do when it is crossed
    source: str
    confidence: Confidence = "quoted"

    @property
    def crossed(self) -> bool:
        """Whether the exam needs more than is allowed."""
        return self.needed > self.allowed


GATEWAY = "Amazon API Gateway quotas for WebSocket APIs"
LAMBDA = "AWS Lambda quotas and scaling behaviour"


def limits(
    exam: Exam, calibration: Calibration, instances: int, vcpus: int, concurrency: float = 1_000.0
) -> tuple[Limit, ...]:
    """Every limit that matters, crossed or not; `concurrency` is the account's for Lambda."""
    steady = events(exam, calibration)
    frames = steady.frames_in / steady.seconds
    posts = (steady.publications + steady.acks) / steady.seconds
    joining = ARRIVAL_PEAK * exam.students / (exam.arrival_minutes * 60)
    busy = calibration.serverless.assumed_busy_ms / 1000
    # a connection invokes the authorizer and $connect, and its first report the message function
    invocations = frames + 3 * joining
    needed = invocations * busy + joining * 0.1
    cut = exam.hours > 2
    return (
        Limit(
            "serverless",
            "New WebSocket connections a second (L-9ED1E49A)",
            500,
            joining,
            "connections/s",
            True,
            f"ask for {_round_up(joining * 1.5):,.0f}/s, or let students in over a longer time",
            GATEWAY,
        ),
        Limit(
            "serverless",
            "API Gateway requests a second, all APIs and @connections posts together (L-8A5B8E43)",
            10_000,
            frames + posts + joining * 3,
            "requests/s",
            True,
            f"ask for {_round_up((frames + posts + joining * 3) * 1.5):,.0f}/s",
            "Amazon API Gateway account throttling; quota code from memory",
            "inferred",
        ),
        Limit(
            "serverless",
            "API Gateway burst, which nobody raises",
            5_000,
            (frames + posts) * 0.5 + joining,
            "requests at once",
            False,
            "spread the students' reports: half a second of them is taken as a burst",
            "Amazon API Gateway account throttling; half a second assumed",
            "inferred",
        ),
        Limit(
            "serverless",
            "Lambda concurrent executions (L-B99A9384)",
            concurrency,
            needed,
            "executions",
            True,
            f"ask for {_round_up(needed * 1.5):,.0f}; new accounts were seen with 10",
            LAMBDA,
        ),
        Limit(
            "serverless",
            "Lambda invocations a second, ten for each concurrent execution",
            10 * concurrency,
            invocations,
            "invocations/s",
            True,
            f"ask for a concurrency of {_round_up(invocations / 10 * 1.5):,.0f}",
            LAMBDA,
        ),
        Limit(
            "serverless",
            "Environments that a function gains in 10 s",
            1_000,
            joining * 10 * busy,
            "environments",
            False,
            "let students in over a longer time",
            LAMBDA,
        ),
        Limit(
            "serverless",
            "DynamoDB write units a second on one key",
            WRITES_PER_PARTITION,
            _writes_a_second(steady, calibration) / exam.exams,
            "units/s",
            False,
            f"shard each exam's key {math.ceil(_writes_a_second(steady, calibration) / exam.exams / 700)} ways",
            "Amazon DynamoDB developer guide, partitions",
        ),
        Limit(
            "serverless",
            "Age of a WebSocket connection",
            2.0,
            exam.hours if cut else 0.0,
            "hours",
            False,
            "every student is cut and reconnects; it is in the bill, and proctors do not see it",
            GATEWAY,
        ),
        Limit(
            "cluster",
            "vCPUs of standard instances (L-1216C47A)",
            32,
            float(instances * vcpus),
            "vCPUs",
            True,
            f"ask for {_round_up(instances * vcpus * 1.5):,.0f}; new accounts may have 5",
            "from memory, no page found",
            "unverified",
        ),
    )


def _writes_a_second(happened: Events, calibration: Calibration) -> float:
    known = calibration.serverless
    return (
        known.dot(
            "write_units", {"change": happened.changes, "same": happened.sames, "join": happened.student_connects}
        )
        / happened.seconds
    )


def _round_up(value: float) -> float:
    """To two digits."""
    if value <= 10:
        return float(math.ceil(value))
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step
