"""What a run used, in the units AWS bills by, and what the local machine measured beside them.

Everything is counted since the start of the gateway. Prices are not known here. Durations are those of this machine
and must not be presented as AWS's.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec


class FunctionUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Invocations of one function. Milliseconds are totals unless the name says otherwise."""

    memory_mb: int
    invocations: int
    invocations_running: int
    #: Invocations that were the first of their environment.
    cold_starts: int
    #: Environments started; more than `cold_starts` when one was ready only after another had become free.
    environments_started: int
    environments_now: int
    environments_killed: int
    #: Import of the module and everything at its top level, in the environment's process; its CPU time.
    init_ms: float
    init_cpu_ms: float
    #: From the start of the process until it could take an invocation: interpreter, import, construction.
    boot_ms: float
    #: Handler only, in the environment's process; the CPU time of all its threads.
    wall_ms: float
    cpu_ms: float
    #: Quantiles over the invocations (of the last 20,000): p50, p90, p95, p99, max.
    wall_ms_quantiles: dict[str, float]
    cpu_ms_quantiles: dict[str, float]
    #: Waiting because the cap was reached (AWS would have started another environment), and how many did.
    queue_ms: float
    queued: int
    #: Waiting for an environment to start, or for one that became free before it.
    cold_wait_ms: float
    throttles: int
    #: The handler raised, or its process died; `timeouts` apart.
    errors: int
    timeouts: int
    #: Peak resident memory of any environment of this function.
    max_memory_mb: float
    #: Bytes the function wrote, and bytes of the START, END and REPORT lines Lambda adds; both are ingested logs.
    log_bytes: int
    platform_log_bytes: int


class QueueUsage(msgspec.Struct, frozen=True, kw_only=True):
    """SQS requests made by one event source mapping."""

    receive_requests: int
    empty_receives: int
    delete_requests: int
    messages: int
    batches: int
    batch_failures: int
    item_failures: int
    poll_errors: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of everything counted. `*_units` are messages in steps of 32 KiB, as they are billed."""

    seconds: float
    messages_in: int
    messages_in_units: int
    bytes_in: int
    #: Frames with a body a function made: posted by `@connections` or sent as a route response.
    messages_out: int
    messages_out_units: int
    #: Payload to clients, and the same with WebSocket, TCP and IP headers (14 to 20 + 40 bytes a frame, estimated).
    bytes_out: int
    bytes_out_with_overhead: int
    #: "Forbidden", "Internal server error" and throttling frames, made by API Gateway itself.
    error_frames: dict[str, int]
    connects: int
    #: Refused upgrades by HTTP status.
    connects_refused: dict[str, int]
    connections_now: int
    connection_seconds: float
    connection_minutes: float
    #: The same if every connection is rounded up to whole minutes; AWS does not say whether it rounds.
    connection_minutes_rounded_up: int
    disconnects: int
    disconnects_lost: int
    #: Close codes that ended connections, by code.
    close_codes: dict[str, int]
    #: `@connections` calls by HTTP status: POST, then GET and DELETE.
    posts: dict[str, int]
    other_management_calls: dict[str, int]
    throttled_messages: int
    functions: dict[str, FunctionUsage]
    queues: dict[str, QueueUsage]
    schedule_invocations: int
    #: The gateway's own process, without the functions.
    gateway_cpu_seconds: float
    gateway_memory_mb: float


def quantiles(samples: Collection[float]) -> dict[str, float]:
    """p50, p90, p95, p99 and max of the samples; all zero when there are none."""
    ordered = sorted(samples) or [0.0]
    last = len(ordered) - 1
    return {f"p{p}": ordered[round(last * p / 100)] for p in (50, 90, 95, 99)} | {"max": ordered[-1]}
