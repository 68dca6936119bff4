"""A result as a default run would give it, for the tests of the report and for looking at it."""

import math
import random

import msgspec

from compare.bill.cost import ExamPlan, cluster_cost, serverless_cost
from compare.bill.prices import load_prices
from compare.bill.usage import ClusterUsage, FunctionUsage, ProcessSplit, ServerlessUsage, ServiceCalls
from compare.run.result import (
    Cpu,
    Environment,
    Latencies,
    LatencySummary,
    Memory,
    ModeResult,
    OfflineDetection,
    Result,
    WorkloadOptions,
    distribution,
    judge,
    summarise,
)

STUDENTS = 400
PROCTORS = 4


def serverless_usage(seconds: float = 50.0, reports: int = 4_000) -> ServerlessUsage:
    connects = STUDENTS + PROCTORS + 20
    return ServerlessUsage(
        duration_seconds=seconds,
        students=STUDENTS,
        proctors=PROCTORS,
        reports=reports,
        messages_in=reports + 60,
        messages_out=reports * 2 + 900,
        connection_minutes=(STUDENTS + PROCTORS) * seconds / 60 * 0.95,
        connects=connects,
        disconnects=connects,
        functions={
            "authorizer": FunctionUsage("connection", 256, connects, connects * 1.1, ServiceCalls(), 6, 900.0, 700.0),
            "connect": FunctionUsage(
                "connection", 512, connects, connects * 1.5, ServiceCalls(dynamodb_write=connects), 6, 1200.0, 2100.0
            ),
            "message": FunctionUsage(
                "message",
                512,
                reports + 60,
                reports * 3.1,
                ServiceCalls(
                    dynamodb_read=reports * 2,
                    dynamodb_write=reports,
                    dynamodb_transact=900,
                    post_to_connection=reports * 2 + 900,
                ),
                24,
                4800.0,
                reports * 14.2,
            ),
            "sweep": FunctionUsage(
                "timer", 512, 20, 90.0, ServiceCalls(dynamodb_read=20, dynamodb_write=20, sqs=20), 1, 200.0, 260.0
            ),
        },
        dynamodb_read_units=reports * 1.5,
        dynamodb_write_units=reports + 1_800.0,
        sqs_requests=60,
        log_bytes=reports * 300,
        egress_bytes=reports * 700,
        journal_entries=1_240,
    )


def serverless_opening() -> ServerlessUsage:
    """The first 20 s of the run: everybody joins, and the changes that are journalled happen."""
    begun = serverless_usage(20.0, 1_600)
    return msgspec.structs.replace(begun, journal_entries=1_220)


def cluster_opening() -> ClusterUsage:
    return msgspec.structs.replace(
        cluster_usage(20.0, 1_600),
        cpu_seconds=ProcessSplit(workers=1.3, redis=0.3, supervisor=0.04, journal=0.2),
        journal_entries=1_220,
    )


def cluster_usage(seconds: float = 50.0, reports: int = 4_000) -> ClusterUsage:
    return ClusterUsage(
        duration_seconds=seconds,
        students=STUDENTS,
        proctors=PROCTORS,
        reports=reports,
        cpu_seconds=ProcessSplit(workers=2.4, redis=0.6, supervisor=0.1, journal=0.3),
        memory_bytes=ProcessSplit(workers=96e6, redis=14e6, supervisor=22e6, journal=31e6),
        memory_idle_bytes=ProcessSplit(workers=74e6, redis=8e6, supervisor=22e6, journal=30e6),
        connections=STUDENTS + PROCTORS,
        connection_minutes=(STUDENTS + PROCTORS) * seconds / 60 * 0.95,
        connects=STUDENTS + PROCTORS + 20,
        frames_out=reports * 2 + 300,
        ingress_bytes=reports * 420,
        egress_bytes=reports * 640,
        journal_entries=1_240,
        instances=1,
        workers=2,
    )


def samples(median: float, spread: float, count: int = 4_000, seed: int = 1) -> list[float]:
    random_source = random.Random(seed)
    return [median * math.exp(random_source.gauss(0, spread)) for _ in range(count)]


def offline(median: float, limit: float, basis: str) -> OfflineDetection:
    return OfflineDetection(basis=basis, summary=summarise(samples(median, 0.05, 16)), late=0, limit_s=limit)


def mode_result(
    kind: str, *, lost: int = 0, with_cost: bool = True, exams: float = 20.0, hours: float = 3.0
) -> ModeResult:
    plan = ExamPlan(hours=hours, exams_per_month=exams)
    prices = load_prices("ap-southeast-1")
    if kind == "lambda":
        usage = serverless_usage()
        opening = serverless_opening()
        cost = serverless_cost(usage, plan, prices, opening)
        basis, where, median, spread = "emulated", "emulated on this machine", 38.0, 0.55
        by_process = {name: f.handler_cpu_ms / 1000 for name, f in usage.functions.items()}
        memory = {"functions": 26 * 48e6}
    else:
        usage = cluster_usage()
        opening = cluster_opening()
        cost = cluster_cost(usage, plan, prices, opening)
        basis, where, median, spread = "measured", "this machine", 7.0, 0.7
        by_process = {name: getattr(usage.cpu_seconds, name) for name in ProcessSplit.__struct_fields__}
        memory = {name: getattr(usage.memory_bytes, name) for name in ProcessSplit.__struct_fields__}
    delivery = samples(median, spread)
    return ModeResult(
        where=where,
        latency_ms=Latencies(
            basis=basis,
            message=summarise(samples(median * 0.3, spread)),
            round_trip=summarise(samples(median * 0.9, spread)),
            delivery=summarise(delivery),
        ),
        delivery_distribution=distribution(delivery, basis),
        counts_basis="measured",
        sent=4_000,
        delivered=4_000 - lost,
        lost=lost,
        duplicates=0,
        false_offline=0,
        offline_detection_s=offline(27.0 if kind == "lambda" else 20.4, 32.0 if kind == "lambda" else 22.0, basis),
        cpu=Cpu("measured", sum(by_process.values()), sum(by_process.values()) / 4, by_process),
        memory=Memory("measured", sum(memory.values()), memory),
        usage=usage,
        opening_usage=opening,
        cost=cost if with_cost else None,
    )


def sample_result(*kinds: str, **options: object) -> Result:
    modes = {kind: mode_result(kind, **options) for kind in kinds or ("lambda", "ec2")}
    return Result(
        workload=WorkloadOptions(
            students=STUDENTS,
            exams=4,
            proctors_per_exam=1,
            interval_s=5.0,
            duration_s=30.0,
            seed=1,
            mode="both" if len(modes) == 2 else next(iter(modes)),
            client="proctorwire",
            instances=1,
            workers=2,
            region="ap-southeast-1",
            exams_per_month=20.0,
            hours=3.0,
        ),
        environment=Environment(
            date="2026-11-24T05:00:00+00:00",
            cpu="AMD EPYC 7B13",
            cores=2,
            memory_bytes=8 * 2**30,
            kernel="Linux 6.8.0",
            python="3.11.9",
            versions={"proctorwire": "0.1.0", "picows": "2.3.1", "redis-server": "7.2.5"},
        ),
        modes=modes,
        verdict=judge(modes),
    )


EMPTY = LatencySummary(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
