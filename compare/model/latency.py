"""How long an update takes on AWS, hop by hop: modelled, from published measurements, with a range for each hop.

Nothing here was measured on AWS by us. A hop has a usual time and a low and a high one; the middle of a way is the sum of the usual
times, and its 95th percentile adds the distances to the high ones as independent errors (the root of their squares).
"""

import math

import msgspec

from compare.bill.assumptions import Assumptions
from compare.bill.cost import VCPU_MEMORY_MB
from compare.bill.usage import Basis
from compare.model.calibration import Calibration
from compare.model.units import DIRECT_WATCHERS

TICK_MS = 50.0


class Hop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a way, in milliseconds."""

    name: str
    low: float
    usual: float
    high: float
    basis: Basis
    source: str


class Way(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From a student's page to a proctor's dashboard."""

    deployment: str
    hops: tuple[Hop, ...]

    @property
    def low_ms(self) -> float:
        """Everything goes well."""
        return math.fsum(hop.low for hop in self.hops)

    @property
    def usual_ms(self) -> float:
        """Half of the updates."""
        return math.fsum(hop.usual for hop in self.hops)

    @property
    def p95_ms(self) -> float:
        """95 of 100 updates."""
        return self.usual_ms + math.sqrt(math.fsum((hop.high - hop.usual) ** 2 for hop in self.hops))


NETWORK = Hop(
    "client to region, one way", 3.0, 15.0, 60.0, "assumed", "depends on the school's line; no figure of use was found"
)


TOGETHER = Hop(
    "waits to be published together",
    0.0,
    600.0,
    1_300.0,
    "modelled",
    "a window of one second of the queue, for what more than three proctors watch",
)


def serverless_way(calibration: Calibration, given: Assumptions, proctors: int = 1) -> Way:
    """Through API Gateway and Lambda, to each of so many proctors."""
    known = calibration.serverless
    waits = {latency.call: latency for latency in given.latencies}
    change = known.per["change"]
    cpu = change["cpu_ms"] * max(1.0, VCPU_MEMORY_MB / known.memory_mb) * given.lambda_cpu_factor
    read, write, post = waits["dynamodb_read"], waits["dynamodb_write"], waits["post_to_connection"]
    reads = change.get("dynamodb_read", 0.0)
    writes = change.get("dynamodb_write", 0.0) + change.get("dynamodb_transact", 0.0)
    return Way(
        "Serverless",
        (
            NETWORK,
            Hop(
                "API Gateway to a warm function",
                7.0,
                15.0,
                30.0,
                "modelled",
                "6.9 to 9.9 ms with X-Ray and a small function (codetalkio on GitHub); 10 to 30 ms in a blog",
            ),
            Hop(
                "decide, on this share of a vCPU",
                cpu * 0.5,
                cpu,
                cpu * 2.5,
                "modelled",
                f"{change['cpu_ms']:.2f} ms of CPU measured here, {known.memory_mb} MB on Lambda",
            ),
            Hop(
                f"DynamoDB, {reads:.1f} reads",
                read.low_ms * reads,
                read.ms * reads,
                read.high_ms * reads,
                "modelled",
                read.source,
            ),
            Hop(
                f"DynamoDB, {writes:.1f} writes",
                write.low_ms * writes,
                write.ms * writes,
                write.high_ms * writes,
                "modelled",
                write.source,
            ),
            *([TOGETHER] if proctors > DIRECT_WATCHERS else []),
            Hop("PostToConnection", post.low_ms, post.ms, post.high_ms, "assumed", post.source),
            NETWORK,
        ),
    )


def cluster_way(calibration: Calibration, given: Assumptions, busy: float = 0.3, instances: int = 1) -> Way:
    """Through the cluster. `busy` is the workers' share of CPU time in use; what waits in a queue grows as it nears one."""
    known = calibration.cluster
    factor = given.cpu_factor(given.instance_type.partition(".")[0])
    work = known.cpu_ms["workers"].get("change", 0.0) + known.cpu_ms["workers"].get("frame_out", 0.0)
    queue = 1.0 / max(0.05, 1.0 - min(busy, 0.95))
    outside = instances > 1
    return Way(
        "Cluster",
        (
            NETWORK,
            Hop(
                "load balancer",
                0.01,
                0.1,
                1.0,
                "modelled",
                "10 to 100 us in a blog of 2017; another zone adds 0.5 to 1.5 ms",
            ),
            Hop(
                "worker: read, decide, send",
                work * factor.low * queue,
                work * factor.used * queue,
                work * factor.high * queue * 3,
                "modelled",
                f"{work:.2f} ms of CPU measured here, {busy:.0%} busy",
            ),
            Hop(
                "tick that saves and publishes",
                0.0,
                TICK_MS / 2,
                TICK_MS,
                "modelled",
                "50 ms; the first change after quiet goes at once",
            ),
            Hop(
                "Redis, " + ("of its own" if outside else "on the instance"),
                0.2 if outside else 0.05,
                0.7 if outside else 0.2,
                3.0 if outside else 1.0,
                "modelled",
                "0.34 ms on average inside a zone, 1.8 at most (cachee.ai, 2026-03); 0.5 to 1.5 ms between zones",
            ),
            NETWORK,
        ),
    )
