"""The guesses that a bill rests on, each with what speaks for it; change one and see how far the answer moves.

What was measured is not in here: that comes with a run's usage, or with the calibration of the workload model.
"""

from typing import Literal

import msgspec

from compare.bill.standing import CACHE, CLUSTER, SERVERLESS, Habits, Standing
from compare.bill.usage import Basis

FreeTier = Literal["none", "legacy", "credit"]
"""`legacy`: an account younger than 12 months that was opened before 15 July 2025. `credit`: one opened since. Both keep what is
free for ever; so does any account, but `none` is what a school with other things in its account should reckon with."""

Listener = Literal["tls", "tcp"]
"""Where TLS ends: at the load balancer, or, behind a TCP listener, on the instances."""


class ServiceLatency(msgspec.Struct, frozen=True):
    """How long one call keeps a handler waiting on AWS, and how sure that is."""

    call: str  # a field of ServiceCalls
    name: str
    ms: float
    low_ms: float
    high_ms: float
    source: str
    basis: Basis


SERVICE_LATENCIES = (
    ServiceLatency(
        "dynamodb_read",
        "DynamoDB read",
        ms=10.0,
        low_ms=3.0,
        high_ms=20.0,
        source="about 10 ms for a call with keep-alive, measured from Lambda in 2019 (theburningmonk.com)",
        basis="modelled",
    ),
    ServiceLatency(
        "dynamodb_write",
        "DynamoDB write",
        ms=10.0,
        low_ms=3.0,
        high_ms=20.0,
        source="about 10 ms for a call with keep-alive, measured from Lambda in 2019 (theburningmonk.com)",
        basis="modelled",
    ),
    ServiceLatency(
        "dynamodb_transact",
        "DynamoDB transaction",
        ms=15.0,
        low_ms=5.0,
        high_ms=40.0,
        source="no published figure; a write and a half",
        basis="assumed",
    ),
    ServiceLatency(
        "post_to_connection",
        "PostToConnection",
        ms=10.0,
        low_ms=5.0,
        high_ms=50.0,
        source="no trustworthy published figure; range 5 to 50 ms",
        basis="assumed",
    ),
    ServiceLatency(
        "sqs",
        "SQS send",
        ms=10.0,
        low_ms=5.0,
        high_ms=30.0,
        source="no published figure for the call itself",
        basis="assumed",
    ),
)


class CpuFactor(msgspec.Struct, frozen=True):
    """CPU time on one vCPU of a family for one second of the machine that measured."""

    used: float
    low: float
    high: float


CPU_FACTORS: dict[str, CpuFactor] = {
    "t3a": CpuFactor(2.5, 1.5, 4.0),
    "t3": CpuFactor(2.3, 1.4, 3.7),
    "t4g": CpuFactor(2.0, 1.2, 3.2),
    "m7g": CpuFactor(1.5, 1.0, 2.4),
    "c7g": CpuFactor(1.5, 1.0, 2.4),
    "c7i": CpuFactor(1.4, 0.9, 2.2),
    "c7a": CpuFactor(1.0, 0.7, 1.6),
}
"""Assumed, all of them: nobody measured. A t3a vCPU is a hyperthread of an EPYC of 2017, a c7a's a whole core of one of 2022."""

UNKNOWN_FAMILY = CpuFactor(2.5, 1.5, 4.0)


class Assumptions(msgspec.Struct, frozen=True):
    """All guesses of a bill."""

    latencies: tuple[ServiceLatency, ...] = SERVICE_LATENCIES
    lambda_cpu_factor: float = 1.0  # CPU time on Lambda's vCPU for one second of this machine's
    ec2_cpu_factor: float | None = None  # the same on the instance's vCPU; None: that of the family in CPU_FACTORS
    cpu_headroom: float = 0.5  # share of the vCPUs left free at the busiest part of the run
    memory_share: float = 0.75  # share of an instance's memory for our processes
    instance_type: str = "t3a.small"
    min_instances: int = 1
    spare_instances: int = 0  # on top of what the load needs, so that losing as many harms nobody
    listener: Listener = "tls"
    tls_handshake_cpu_ms: float = 1.5  # of this machine, for one connection behind a TCP listener
    load_balancer_addresses: int = 2  # public addresses of the load balancer, one per zone
    cache_node: str = "cache.t4g.micro"
    cache_nodes: int = 2  # primary and replica; none with a single instance
    disk_gb: float = 8.0  # on each instance
    start_stop_hours: float = 1.0  # an instance runs this much longer than its exam
    cluster_log_gb: float = 0.1  # a month
    platform_log_bytes: float = (
        0.0  # that Lambda itself writes for one invocation: the template has it write warnings only
    )
    serverless_standing: Standing = SERVERLESS
    cluster_standing: Standing = CLUSTER
    cache_standing: Standing = CACHE  # besides, with several instances
    habits: Habits = Habits()
    log_months: float = 1.0  # kept
    journal_entry_bytes: float = 1024.0
    journal_months: float = 12.0  # kept
    frame_overhead_bytes: float = 80.0  # TLS record, TCP and IP headers of one frame to a client
    connect_round_up_minutes: float = 0.5  # a started minute is taken to be billed as a whole one
    messages_per_connect: float = 0.0  # AWS's pages do not list a connect among the messages
    retried_share: float = (
        0.0  # of message invocations: repeated by AWS or a client after a failure that the run did not have
    )
    gone_share: float = 0.0  # of messages to clients: answered 410 and paid for all the same
    free_tier: FreeTier = "none"
    credit_usd: float = 200.0  # of an account opened since 15 July 2025, once
    credit_months: float = 12.0  # until it expires; the credit is spread over them

    def cpu_factor(self, family: str) -> CpuFactor:
        """The factor of an instance family, with its range."""
        if self.ec2_cpu_factor is None:
            return CPU_FACTORS.get(family, UNKNOWN_FAMILY)
        spread = CPU_FACTORS.get(family, UNKNOWN_FAMILY)
        scale = self.ec2_cpu_factor / spread.used
        return CpuFactor(self.ec2_cpu_factor, spread.low * scale, spread.high * scale)
