"""The result of a comparison as it is written to `result.json`, and nothing that isn't.

Everything a report shows is in here, so that a report can be made again from the file alone. Figures come in groups,
and each group carries its basis (see `usage`): a latency against the emulated gateway says "emulated" wherever it goes.
"""

import math
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec

from compare.bill.cost import compare_costs
from compare.bill.lines import ModeCost, Verdict
from compare.bill.usage import Basis, ClusterUsage, Mode, ServerlessUsage
from compare.run.recording import Generator

SCHEMA = "proctorwire.compare.result/1"
MODE_NAMES: dict[Mode, str] = {"lambda": "serverless", "ec2": "the cluster"}


class ResultError(Exception):
    """A result file that can't be read; the message is one line for the user."""


class LatencySummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The usual statistics of a series of times; all zero when it is empty (count 0)."""

    avg: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    count: int


class Latencies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Milliseconds from a student's send: to the server's receipt, to the ack, and to the proctor's receipt."""

    basis: Basis
    message: LatencySummary
    round_trip: LatencySummary
    delivery: LatencySummary


class Distribution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The delivery latency as (milliseconds, share of deliveries at or below), rising in both."""

    basis: Basis
    points: tuple[tuple[float, float], ...]


class OfflineDetection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds from a connection's loss until proctors saw *offline*."""

    basis: Basis
    summary: LatencySummary  # in seconds
    late: int  # how many took longer than the rule allows
    limit_s: float  # what the rule allows, with this deployment's tolerance


class Cpu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """CPU time of the server side, in seconds."""

    basis: Basis
    total_s: float
    per_1000_reports_s: float
    by_process: dict[str, float]
    cores: LatencySummary | None = None  # busy, over the seconds of the run


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Highest memory of the server side, in bytes."""

    basis: Basis
    total_bytes: float
    by_process: dict[str, float]
    each_second: LatencySummary | None = None  # of all together, in bytes, over the seconds of the run


class ModeResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one deployment did with the exam."""

    where: str  # "emulated on this machine", "this machine", or the host of a real deployment
    latency_ms: Latencies
    delivery_distribution: Distribution
    counts_basis: Basis
    sent: int  # reports that clients sent
    delivered: int  # of them, seen by every proctor of the exam (it or a later state)
    lost: int  # not seen within the limit, and label changes missing in the journal
    duplicates: int  # shown or journalled twice
    false_offline: int  # shown offline against the truth
    offline_detection_s: OfflineDetection
    cpu: Cpu | None = None  # None here and below: a real deployment does not tell
    memory: Memory | None = None
    usage: ServerlessUsage | ClusterUsage | None = None
    opening_usage: ServerlessUsage | ClusterUsage | None = None  # at the end of the opening, see `usage`
    cost: ModeCost | None = None
    generator: Generator | None = None  # how the load generator fared
    problems: tuple[str, ...] = ()  # the first few losses, duplicates and errors, in words


class WorkloadOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options the run was started with; together with the seed they fix the schedule."""

    students: int
    exams: int
    proctors_per_exam: int
    interval_s: float
    duration_s: float
    seed: int
    mode: str
    client: str
    instances: int
    workers: int
    region: str
    exams_per_month: float
    hours: float
    transport: str | None = None
    lambda_url: str | None = None  # without token
    ec2_url: str | None = None  # without token
    trace: str | None = None  # the file that was replayed, without its folder


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine everything local was measured on."""

    date: str  # ISO 8601, UTC
    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    versions: dict[str, str]


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One comparison."""

    schema: str = SCHEMA
    workload: WorkloadOptions
    environment: Environment
    modes: dict[Mode, ModeResult]
    verdict: Verdict | None
    partial: bool = False  # stopped before its end: figures cover what there was

    @property
    def anything_lost(self) -> bool:
        """Whether any mode lost, doubled or wrongly declared something."""
        return any(mode.lost or mode.duplicates or mode.false_offline for mode in self.modes.values())


def summarise(samples: Iterable[float]) -> LatencySummary:
    """Average, nearest-rank percentiles, maximum and count."""
    ordered = sorted(samples)
    if not ordered:
        return LatencySummary(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)

    def percentile(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    average = math.fsum(ordered) / len(ordered)
    return LatencySummary(
        avg=average,
        p50=percentile(0.50),
        p90=percentile(0.90),
        p95=percentile(0.95),
        p99=percentile(0.99),
        max=ordered[-1],
        count=len(ordered),
    )


def distribution(samples: Iterable[float], basis: Basis, points: int = 100) -> Distribution:
    """The cumulative distribution in about `points` steps, with its tail: 99.5 %, 99.9 % and the maximum are in it."""
    ordered = sorted(samples)
    count = len(ordered)
    if not count:
        return Distribution(basis, ())
    shares = {step / points for step in range(1, points + 1)} | {0.995, 0.999}
    ranks = sorted({max(1, math.ceil(share * count)) for share in shares} | {1})
    return Distribution(basis, tuple((ordered[rank - 1], rank / count) for rank in ranks))


def judge(modes: Mapping[Mode, ModeResult]) -> Verdict:
    """The verdict over what was run. With one mode, or without costs, it names no cheaper one."""
    serverless, cluster = modes.get("lambda"), modes.get("ec2")
    latency = " ".join(_latency_sentence(mode, result) for mode, result in modes.items())
    if serverless is None or cluster is None or serverless.cost is None or cluster.cost is None:
        known = [(MODE_NAMES[mode], result.cost) for mode, result in modes.items() if result.cost is not None]
        money = " ".join(
            f"A month of {cost.exams_per_month:g} exams costs ${cost.month.usd:,.2f} with {name}."
            for name, cost in known
        )
        return Verdict(None, 0.0, 0.0, (), money or "No cost was worked out.", latency, _loss_sentence(modes))
    money_verdict = compare_costs(serverless.cost, cluster.cost)
    return Verdict(
        cheaper=money_verdict.cheaper,
        saves_usd=money_verdict.saves_usd,
        saves_percent=money_verdict.saves_percent,
        break_even=money_verdict.break_even,
        money=money_verdict.sentence,
        latency=latency,
        losses=_loss_sentence(modes),
    )


def environment_here(versions: Mapping[str, str] | None = None) -> Environment:
    """This machine, now. `versions` adds what no Python package knows, such as that of the Redis server."""
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=_package_versions() | dict(versions or {}),
    )


def encode_result(result: Result) -> bytes:
    """The result as indented JSON, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def decode_result(data: bytes) -> Result:
    """Read what `encode_result` wrote; raise ResultError with one clear line for anything else."""
    try:
        header = msgspec.json.decode(data, type=_Header)
    except msgspec.DecodeError as exc:
        raise ResultError(f"not a result file: {exc}") from exc
    if header.schema != SCHEMA:
        raise ResultError(f"this result has the schema {header.schema!r}; this version reads {SCHEMA!r}")
    try:
        return msgspec.json.decode(data, type=Result)
    except msgspec.DecodeError as exc:
        raise ResultError(f"damaged result file: {exc}") from exc


def where_words(mode: ModeResult) -> str:
    """What a reader must know of this mode's times: an emulated one is never AWS's."""
    if mode.latency_ms.basis == "measured":
        return f"measured on {mode.where}"
    return f"{mode.latency_ms.basis} on this machine, not AWS's"


class _Header(msgspec.Struct):
    schema: str


def _latency_sentence(mode: Mode, result: ModeResult) -> str:
    times = result.latency_ms.delivery
    if not times.count:
        return f"No delivery was timed with {MODE_NAMES[mode]}."
    return (
        f"With {MODE_NAMES[mode]} half of the updates were with the proctor in {times.p50:,.0f} ms and 95 of 100 in "
        f"{times.p95:,.0f} ms ({where_words(result)})."
    )


def _loss_sentence(modes: Mapping[Mode, ModeResult]) -> str:
    bad = [
        f"{MODE_NAMES[mode]}: {result.lost} lost, {result.duplicates} doubled, {result.false_offline} wrongly offline"
        for mode, result in modes.items()
        if result.lost or result.duplicates or result.false_offline
    ]
    if bad:
        return "; ".join(bad) + "."
    return "Nothing was lost, nothing was shown twice, and nobody was wrongly shown as offline."


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _package_versions() -> dict[str, str]:
    found = {}
    for name in ("proctorwire", "msgspec", "picows", "websockets", "redis", "boto3", "ministack"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
