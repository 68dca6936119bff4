"""Usage times prices: what one exam and a month of exams would cost on AWS.

Three steps, all pure: `stretch` a run to an exam, turn the exam's units into the quantities that AWS bills (with the
few models that needs: Lambda's billed time, the number of instances, load balancer capacity units), and multiply by the
price table. Each line of a bill says where its quantity and its price came from.

Not modelled: taxes, support plans, discounts for commitment, and what a reconnect sends beyond its report.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal

import msgspec

from compare.bill.assumptions import SERVICE_LATENCIES, Assumptions, ServiceLatency
from compare.bill.credits import one_run, simulate, timetable
from compare.bill.free import free_lines
from compare.bill.lines import (
    Bill,
    BreakEven,
    Capacity,
    CostLine,
    Curve,
    ModeCost,
    Sensitivity,
    Variant,
    break_even,
    break_even_sentence,
    priced_line,
)
from compare.bill.prices import InstanceType, Price, PriceError, Prices
from compare.bill.standing import agent_metric_months, function_metric_months, standing_lines
from compare.bill.stretch import (
    FORCED_RECONNECT_HOURS,
    HOURS_PER_MONTH,
    CostError,
    ExamPlan,
    growth,
    scaling_words,
    stretch_cluster,
    stretch_serverless,
)
from compare.bill.usage import Basis, ClusterUsage, FunctionUsage, Mode, ProcessSplit, ServerlessUsage

__all__ = [
    "SERVICE_LATENCIES",
    "Assumptions",
    "CostError",
    "ExamPlan",
    "MoneyVerdict",
    "ServiceLatency",
    "billed_ms",
    "capacity",
    "cheapest_type",
    "cluster_cost",
    "compare_costs",
    "serverless_cost",
]

GIB = float(2**30)
VCPU_MEMORY_MB = 1769.0  # the memory size at which a Lambda function has one vCPU
CLUSTER_VARIANTS: tuple[Variant, ...] = ("always on", "scheduled", "scale to zero")
CURVE_STEPS = 60
LISTENER_UNIT = {
    "tls": (50.0, 3_000.0),
    "tcp": (800.0, 100_000.0),
}  # new connections a second, open ones; and 1 GB an hour


FREE_TIER_WORDS = {
    "none": "No free tier is subtracted.",
    "legacy": "The free tier of an account opened before 15 July 2025 is subtracted, as in its first 12 months.",
    "credit": "What is free for ever is subtracted, and the credits of an account opened since 15 July 2025.",
}


def billed_ms(function: FunctionUsage, assumptions: Assumptions | None = None) -> float:
    """Milliseconds of handler time that Lambda would bill, INIT not included.

    CPU time takes longer where the memory size buys less than one vCPU, every call waits for its service, and each
    invocation is rounded up to a whole millisecond: half of one on average.
    """
    given = assumptions or Assumptions()
    cpu_share = max(1.0, VCPU_MEMORY_MB / function.memory_mb)
    waiting = math.fsum(getattr(function.calls, latency.call) * latency.ms for latency in given.latencies)
    return function.handler_cpu_ms * given.lambda_cpu_factor * cpu_share + waiting + 0.5 * function.invocations


def serverless_cost(
    usage: ServerlessUsage,
    plan: ExamPlan,
    prices: Prices,
    opening: ServerlessUsage | None = None,
    assumptions: Assumptions | None = None,
    *,
    only_month: bool = False,
) -> ModeCost:
    """What the exam and the month cost on API Gateway and Lambda. `only_month` leaves out curves and sensitivity."""
    plan = plan.checked()
    given = assumptions or Assumptions()
    exam = stretch_serverless(usage, plan, opening)

    def month(exams: float, guess: Assumptions = given) -> Bill:
        metrics = function_metric_months(plan.hours * exams, guess.habits)
        lines = _serverless_lines(exam, exams, prices, guess)
        lines += standing_lines(guess.serverless_standing, metrics, prices, guess.habits)
        return Bill("pay per use", lines + free_lines(lines, guess))

    return ModeCost(
        region=prices.region,
        students=exam.students,
        hours=plan.hours,
        exams_per_month=plan.exams_per_month,
        exam=Bill("pay per use", _serverless_lines(exam, 1.0, prices, given)),
        month=month(plan.exams_per_month),
        other_months=(),
        curves=() if only_month else (_curve("pay per use", plan, month),),
        sensitivity=()
        if only_month
        else _serverless_sensitivity(given, lambda guess: month(plan.exams_per_month, guess).usd),
        scaling=scaling_words(usage, plan, opening),
        assumptions=(
            FREE_TIER_WORDS[given.free_tier],
            "Lambda's billed time is CPU time measured here, stretched to the function's share of a vCPU, plus a "
            "published or assumed wait for each service call.",
            f"{FORCED_RECONNECT_HOURS:g} hours after its start API Gateway closes a connection; each such reconnect "
            "is counted with what it invokes.",
            "A started connection minute is billed as a whole one; connects, pings and pongs are no messages.",
            "One token request per connection; logs are kept for "
            f"{given.log_months:g} month, the journal for {given.journal_months:g}.",
        ),
    )


def capacity(
    usage: ClusterUsage,
    plan: ExamPlan,
    instance: InstanceType,
    opening: ClusterUsage | None = None,
    assumptions: Assumptions | None = None,
) -> Capacity:
    """How many instances carry the exam: by the busiest part of the run, by memory, and at least the minimum.

    A single instance has Redis on it; with several, Redis is a service of its own and takes nothing from them.
    """
    given = assumptions or Assumptions()
    students = growth(usage, plan, opening).students
    connections = usage.connections * students
    factor = given.cpu_factor(instance.family).used
    shaking = _busiest_connects(usage, opening) * given.tls_handshake_cpu_ms / 1000 if given.listener == "tcp" else 0.0

    def needed(with_redis: bool, minimum: int) -> Capacity:
        vcpu = (_busiest_cpu(usage, opening, with_redis) + shaking) * students * factor
        fixed, each = _memory(usage, with_redis)
        spare = instance.memory_gib * GIB * given.memory_share - fixed
        if spare <= 0:
            raise CostError(f"{instance.type} is too small: {fixed / GIB:.2f} GiB are used without a client")
        by_cpu = math.ceil(vcpu / (instance.vcpu * (1 - given.cpu_headroom)) - 1e-9)
        by_memory = math.ceil(connections * each / spare - 1e-9)
        count = max(minimum, by_cpu, by_memory) + given.spare_instances
        decided: Literal["cpu", "memory", "minimum"] = "cpu" if by_cpu >= by_memory else "memory"
        return Capacity(
            instance_type=instance.type,
            instances=count,
            decided_by="minimum" if max(by_cpu, by_memory) <= minimum else decided,
            vcpu_needed=vcpu,
            vcpu_available=float(instance.vcpu * count),
            memory_needed_bytes=connections * each + fixed * count,
            memory_available_bytes=instance.memory_gib * GIB * count,
            cpu_ms_per_1000_reports=usage.cpu_seconds.total * 1e6 / usage.reports if usage.reports else 0.0,
            cpu_factor=factor,
        )

    minimum = max(given.min_instances, usage.instances)
    if minimum + given.spare_instances > 1:
        return needed(False, minimum)
    alone = needed(True, 1)
    if alone.instances == 1:
        return alone
    several = needed(False, 2)
    return msgspec.structs.replace(several, decided_by=alone.decided_by)


def cluster_cost(
    usage: ClusterUsage,
    plan: ExamPlan,
    prices: Prices,
    opening: ClusterUsage | None = None,
    assumptions: Assumptions | None = None,
    *,
    only_month: Variant | None = None,
) -> ModeCost:
    """What the exam and the month cost on EC2, for instances that are always on, scheduled, or gone between exams.

    `only_month` gives that variant alone as the month, without curves and sensitivity.
    """
    plan = plan.checked()
    given = assumptions or Assumptions()
    exam = stretch_cluster(usage, plan, opening)
    size = capacity(usage, plan, prices.instance(given.instance_type), opening, given)

    def month(variant: Variant, exams: float, guess: Assumptions = given) -> Bill:
        needed = size
        if guess is not given:
            needed = capacity(usage, plan, prices.instance(guess.instance_type), opening, guess)
        kept = guess.cluster_standing if needed.instances == 1 else guess.cluster_standing.plus(guess.cache_standing)
        hours = _instance_hours(exam, variant, exams, guess)
        lines = (
            *_cluster_lines(exam, needed, variant, exams, prices, guess),
            *standing_lines(kept, agent_metric_months(needed.instances, hours, guess.habits), prices, guess.habits),
            *_cluster_standing(prices, guess),
        )
        return Bill(variant, lines + free_lines(lines, guess))

    return ModeCost(
        region=prices.region,
        students=exam.students,
        hours=plan.hours,
        exams_per_month=plan.exams_per_month,
        exam=Bill("scale to zero", _cluster_lines(exam, size, "scale to zero", 1.0, prices, given)),
        month=month(only_month or "always on", plan.exams_per_month),
        other_months=()
        if only_month
        else tuple(month(variant, plan.exams_per_month) for variant in CLUSTER_VARIANTS[1:]),
        curves=()
        if only_month
        else tuple(_curve(variant, plan, partial(month, variant)) for variant in CLUSTER_VARIANTS),
        sensitivity=()
        if only_month
        else _cluster_sensitivity(given, lambda guess: month("always on", plan.exams_per_month, guess).usd),
        scaling=scaling_words(usage, plan, opening),
        assumptions=(
            FREE_TIER_WORDS[given.free_tier],
            f"A second of CPU time here is taken to be {size.cpu_factor:g} on a vCPU of {given.instance_type}; "
            f"{given.cpu_headroom:.0%} of the vCPUs stay free at the busiest part of the run.",
            "Instances have public addresses and no NAT gateway; TLS ends "
            + ("at" if given.listener == "tls" else "on the instances, behind")
            + f" a Network Load Balancer in {given.load_balancer_addresses} zones, which sends to instances in all of them.",
            f"Scheduled instances run {given.start_stop_hours:g} h longer than the exam; the load balancer stays. "
            "Scale to zero removes it, too. Always on is the simplest to run and is what the verdict uses.",
            "One instance keeps Redis on itself; several use "
            f"{given.cache_nodes} {given.cache_node} nodes of ElastiCache for Valkey.",
            "Exams begin at equal distances in the month. CPU credits are followed hour by hour; what is borrowed is charged "
            "above 24 hours' earnings and when an instance ends.",
        ),
        capacity=size,
    )


def cheapest_type(
    usage: ClusterUsage,
    plan: ExamPlan,
    prices: Prices,
    opening: ClusterUsage | None = None,
    assumptions: Assumptions | None = None,
    types: Iterable[str] | None = None,
    variant: Variant = "always on",
) -> tuple[tuple[str, ModeCost], ...]:
    """The month on each instance type that can carry the exam, the cheapest first. Raises CostError if none can."""
    given = assumptions or Assumptions()
    found = []
    for name in prices.instance_types() if types is None else types:
        guess = msgspec.structs.replace(given, instance_type=name)
        try:
            found.append((name, cluster_cost(usage, plan, prices, opening, guess, only_month=variant)))
        except (CostError, PriceError):
            continue
    if not found:
        raise CostError("no instance type with a price in this region carries such an exam")
    # where bills are equal, because nothing runs or a credit pays for it, the smaller instance
    hourly = {name: prices.price("ec2", name).first_usd for name, _ in found}
    return tuple(sorted(found, key=lambda pair: (round(pair[1].month.usd, 6), hourly[pair[0]])))


class MoneyVerdict(msgspec.Struct, frozen=True):
    """Which deployment costs less in the month, and where that would change."""

    cheaper: Mode
    saves_usd: float
    saves_percent: float
    break_even: tuple[BreakEven, ...]
    sentence: str


def compare_costs(serverless: ModeCost, cluster: ModeCost) -> MoneyVerdict:
    """Set the two months side by side, and solve for the number of exams at which they meet."""
    dear, cheap = sorted((serverless.month.usd, cluster.month.usd), reverse=True)
    cheaper: Mode = "lambda" if serverless.month.usd <= cluster.month.usd else "ec2"
    meeting = tuple(break_even(serverless.curves[0], curve) for curve in cluster.curves)
    saves = dear - cheap
    percent = 100 * saves / dear if dear else 0.0
    names = {"lambda": "serverless (API Gateway and Lambda)", "ec2": "the EC2 cluster"}
    other: Mode = "ec2" if cheaper == "lambda" else "lambda"
    sentence = (
        f"For {serverless.exams_per_month:g} exams a month of {serverless.hours:g} h with {serverless.students:,} "
        f"students each, {names[cheaper]} costs ${cheap:,.2f} and {names[other]} ${dear:,.2f}: "
        f"{percent:.0f} % or ${saves:,.2f} less. {break_even_sentence(meeting[0])}"
    )
    return MoneyVerdict(cheaper, saves, percent, meeting, sentence)


def _sharing_tiers(price: Price, parts: Sequence[tuple[str, float, Basis, str]]) -> Iterable[CostLine]:
    together = sum(quantity for _, quantity, _, _ in parts)
    average = price.cost(together) / together if together else 0.0
    for name, quantity, basis, note in parts:
        yield priced_line(name, quantity, price, basis, note, usd=quantity * average)


def _serverless_lines(exam: ServerlessUsage, exams: float, prices: Prices, given: Assumptions) -> tuple[CostLine, ...]:
    functions = exam.functions
    minutes = exam.connection_minutes + exam.connects * given.connect_round_up_minutes
    retried = {name: given.retried_share if f.trigger == "message" else 0.0 for name, f in exam.functions.items()}
    invocations = sum(f.invocations * (1 + retried[name]) for name, f in exam.functions.items())
    writes = exam.dynamodb_write_units * (1 + given.retried_share) * exams
    reads = exam.dynamodb_read_units * (1 + given.retried_share) * exams
    messages_out = exam.messages_out * (1 + given.gone_share)
    steps = "in steps of 32 KiB each"
    log_gb = (exam.log_bytes + (exam.platform_log_bytes or invocations * given.platform_log_bytes)) / GIB
    egress_gb = (exam.egress_bytes + exam.messages_out * given.frame_overhead_bytes) / GIB
    lines = [
        *_sharing_tiers(
            prices.price("apigateway", "websocket-message"),
            [
                (
                    "Messages from clients",
                    (exam.messages_in + exam.connects * given.messages_per_connect) * exams,
                    "measured",
                    steps,
                ),
                ("Messages to clients", messages_out * exams, "measured", steps),
            ],
        ),
        priced_line("Connection minutes", minutes * exams, prices.price("apigateway", "websocket-minute"), "measured"),
        priced_line(
            "Token requests (HTTP API)",
            exam.connects * exams,
            prices.price("apigateway", "http-request"),
            "assumed",
            "one for each connection",
        ),
        priced_line("Lambda requests", invocations * exams, prices.price("lambda", "request"), "measured"),
    ]
    for architecture in sorted({function.architecture for function in functions.values()}):
        chosen = {name: function for name, function in functions.items() if function.architecture == architecture}
        handling = (
            sum(billed_ms(f, given) * (1 + retried[name]) * f.memory_mb for name, f in chosen.items()) / 1000 / 1024
        )
        starting = sum(f.init_cpu_ms * given.lambda_cpu_factor * f.memory_mb for f in chosen.values()) / 1000 / 1024
        lines += _sharing_tiers(
            prices.price("lambda", f"gb-second-{architecture}"),
            [
                (
                    f"Lambda compute ({architecture})",
                    handling * exams,
                    "modelled",
                    "CPU measured here, waits for services modelled",
                ),
                (
                    f"Lambda cold starts ({architecture})",
                    starting * exams,
                    "modelled",
                    "INIT, billed since August 2025; at full CPU speed",
                ),
            ],
        )
    lines += [
        priced_line("DynamoDB writes", writes, prices.price("dynamodb", "write-unit"), "emulated"),
        priced_line("DynamoDB reads", reads, prices.price("dynamodb", "read-unit"), "emulated"),
        _journal_storage(exam.journal_entries * exams, prices, given),
        priced_line("SQS requests", exam.sqs_requests * exams, prices.price("sqs", "request"), "emulated"),
        priced_line("Log ingestion", log_gb * exams, prices.price("logs", "ingest-gb"), "modelled"),
        priced_line(
            "Log storage", log_gb * exams * given.log_months, prices.price("logs", "storage-gb-month"), "modelled"
        ),
        priced_line(
            "Data to the internet",
            egress_gb * exams,
            prices.price("egress", "internet-gb"),
            "modelled",
            f"frames measured, {given.frame_overhead_bytes:g} bytes of headers each assumed",
        ),
    ]
    return tuple(lines)


def _cluster_lines(
    exam: ClusterUsage, size: Capacity, variant: Variant, exams: float, prices: Prices, given: Assumptions
) -> tuple[CostLine, ...]:
    exam_hours = exam.duration_seconds / 3600
    instance_hours = _instance_hours(exam, variant, exams, given)
    standing_hours = instance_hours if variant == "scale to zero" else HOURS_PER_MONTH
    addresses = size.instances * instance_hours + given.load_balancer_addresses * standing_hours
    egress_gb = (exam.egress_bytes + exam.frames_out * given.frame_overhead_bytes) / GIB
    write_units = exam.journal_entries * math.ceil(given.journal_entry_bytes / 1024)
    new, opened = LISTENER_UNIT[given.listener]
    lines = [
        priced_line(
            f"Instances ({size.instances} x {size.instance_type})",
            size.instances * instance_hours,
            prices.price("ec2", size.instance_type),
            "modelled",
            "as few as allowed" if size.decided_by == "minimum" else f"number decided by {size.decided_by}",
        )
    ]
    instance = prices.instance(size.instance_type)
    if instance.baseline is not None:
        surplus = _surplus_vcpu_hours(exam, size, instance, variant, exams, given)
        price = prices.price("ec2", f"surplus-credit-{instance.family}")
        lines.append(priced_line("CPU above the credits", surplus, price, "modelled", "simulated hour by hour"))
    lines += [
        priced_line("Load balancer", standing_hours, prices.price("nlb", "hour"), "assumed"),
        priced_line(
            "Load balancer capacity",
            _nlcu(exam, egress_gb, given) * exam_hours * exams,
            prices.price("nlb", "nlcu-hour"),
            "modelled",
            f"{given.listener.upper()}: {new:g} new connections a second, {opened:,.0f} open, or 1 GB an hour",
        ),
        priced_line(
            "Load balancer to other zones",
            2 * (exam.ingress_bytes / GIB + egress_gb) * (1 - 1 / max(1, given.load_balancer_addresses)) * exams,
            prices.price("egress", "cross-az-gb"),
            "modelled",
            "the share of the clients' bytes that reaches an instance in another zone; both directions are billed",
        ),
        priced_line("Public IPv4 addresses", addresses, prices.price("vpc", "public-ipv4-hour"), "assumed"),
        priced_line(
            "Disks (gp3)",
            size.instances * given.disk_gb * instance_hours / HOURS_PER_MONTH,
            prices.price("ebs", "gp3-gb-month"),
            "assumed",
        ),
    ]
    if size.instances > 1:
        price = prices.price("elasticache", f"valkey-{given.cache_node}")
        cross_gb = exam.cross_instance_bytes / GIB
        lines += [
            priced_line("ElastiCache for Valkey", given.cache_nodes * standing_hours, price, "assumed"),
            priced_line(
                "Traffic between zones",
                2 * cross_gb * exams,
                prices.price("egress", "cross-az-gb"),
                "modelled",
                "all of it taken to cross zones; both directions are billed",
            ),
        ]
    lines += [
        priced_line(
            "DynamoDB writes (journal)",
            write_units * exams,
            prices.price("dynamodb", "write-unit"),
            "modelled",
            "entries measured, one unit each",
        ),
        _journal_storage(exam.journal_entries * exams, prices, given),
        priced_line(
            "Data to the internet",
            egress_gb * exams,
            prices.price("egress", "internet-gb"),
            "modelled",
            f"frames measured, {given.frame_overhead_bytes:g} bytes of headers each assumed",
        ),
    ]
    return tuple(lines)


def _instance_hours(exam: ClusterUsage, variant: Variant, exams: float, given: Assumptions) -> float:
    """Hours of the month in which an instance runs."""
    if variant == "always on":
        return HOURS_PER_MONTH
    return min(HOURS_PER_MONTH, (exam.duration_seconds / 3600 + given.start_stop_hours) * exams)


def _journal_storage(entries: float, prices: Prices, given: Assumptions) -> CostLine:
    return priced_line(
        "Journal storage",
        entries * given.journal_entry_bytes / GIB * given.journal_months,
        prices.price("dynamodb", "storage-gb-month"),
        "modelled",
        f"kept for {given.journal_months:g} months",
    )


def _cluster_standing(prices: Prices, given: Assumptions) -> tuple[CostLine, ...]:
    return (
        priced_line("Log ingestion", given.cluster_log_gb, prices.price("logs", "ingest-gb"), "assumed"),
        priced_line("DNS zone", 1.0, prices.price("route53", "zone-month"), "assumed"),
    )


def _nlcu(exam: ClusterUsage, egress_gb: float, given: Assumptions) -> float:
    """Capacity units of the listener while the exam lasts: the largest of its three measures."""
    seconds = exam.duration_seconds
    gb_per_hour = (exam.ingress_bytes / GIB + egress_gb) / (seconds / 3600)
    new, opened = LISTENER_UNIT[given.listener]
    return max(exam.connects / seconds / new, exam.connections / opened, gb_per_hour)


def _surplus_vcpu_hours(
    exam: ClusterUsage, size: Capacity, instance: InstanceType, variant: Variant, exams: float, given: Assumptions
) -> float:
    """vCPU hours of the month that are charged above what the instances earn."""
    if not exams:
        return 0.0
    cpu_seconds = exam.cpu_seconds.total if size.instances == 1 else exam.cpu_seconds.total - exam.cpu_seconds.redis
    hours = exam.duration_seconds / 3600
    vcpus = cpu_seconds * size.cpu_factor / exam.duration_seconds / size.instances
    if variant == "always on":
        one = simulate(instance, timetable(HOURS_PER_MONTH, exams, hours, vcpus)).charged_vcpu_hours
    else:
        margin = given.start_stop_hours / 2
        run = one_run(margin, hours, margin, vcpus)
        one = simulate(instance, run, ends_after=hours + 2 * margin).charged_vcpu_hours * exams
    return one * size.instances


def _busiest_connects(usage: ClusterUsage, opening: ClusterUsage | None) -> float:
    """Connections a second, in the opening if there is one."""
    part = opening if opening is not None and opening.duration_seconds > 0 else usage
    return part.connects / part.duration_seconds


def _busiest_cpu(usage: ClusterUsage, opening: ClusterUsage | None, with_redis: bool) -> float:
    """CPU seconds in a second of the run, in its opening or in the rest, whichever is more."""

    def cpu(split: ProcessSplit) -> float:
        return split.total if with_redis else split.total - split.redis

    if opening is None or opening.duration_seconds <= 0:
        return cpu(usage.cpu_seconds) / usage.duration_seconds
    rest = (cpu(usage.cpu_seconds) - cpu(opening.cpu_seconds)) / (usage.duration_seconds - opening.duration_seconds)
    return max(cpu(opening.cpu_seconds) / opening.duration_seconds, rest)


def _memory(usage: ClusterUsage, with_redis: bool) -> tuple[float, float]:
    """Bytes that an instance's processes take without a client, and for one connection.

    Without a reading before the first client, everything in the workers counts as the connections' memory.
    """

    def kept(split: ProcessSplit) -> float:
        return split.total if with_redis else split.total - split.redis

    if usage.memory_idle_bytes is None:
        fixed = (kept(usage.memory_bytes) - usage.memory_bytes.workers) / usage.instances
        growing = usage.memory_bytes.workers
    else:
        fixed = kept(usage.memory_idle_bytes) / usage.instances
        growing = max(0.0, kept(usage.memory_bytes) - kept(usage.memory_idle_bytes))
    return fixed, growing / usage.connections if usage.connections else 0.0


def _curve(variant: Variant, plan: ExamPlan, month: Callable[[float], Bill]) -> Curve:
    """The month's bill from no exam to as many as fit into it, with an hour between two."""
    most = max(plan.exams_per_month, HOURS_PER_MONTH / (plan.hours + 1))
    exams = [most * step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    return Curve(variant, tuple((number, month(number).usd) for number in exams))


def _serverless_sensitivity(given: Assumptions, month: Callable[[Assumptions], float]) -> tuple[Sensitivity, ...]:
    def with_latency(latency: ServiceLatency, ms: float) -> Assumptions:
        changed = tuple(msgspec.structs.replace(x, ms=ms) if x.call == latency.call else x for x in given.latencies)
        return msgspec.structs.replace(given, latencies=changed)

    latencies = [
        Sensitivity(
            name=f"{latency.name} takes",
            unit="ms",
            low=latency.low_ms,
            used=latency.ms,
            high=latency.high_ms,
            usd_low=month(with_latency(latency, latency.low_ms)),
            usd_high=month(with_latency(latency, latency.high_ms)),
            source=latency.source,
        )
        for latency in given.latencies
    ]
    factor = Sensitivity(
        name="CPU time on Lambda compared with this machine",
        unit="x",
        low=0.5,
        used=given.lambda_cpu_factor,
        high=2.0,
        usd_low=month(msgspec.structs.replace(given, lambda_cpu_factor=0.5)),
        usd_high=month(msgspec.structs.replace(given, lambda_cpu_factor=2.0)),
        source="no measurement on Lambda",
    )
    return (*latencies, factor)


def _cluster_sensitivity(given: Assumptions, month: Callable[[Assumptions], float]) -> tuple[Sensitivity, ...]:
    factor = given.cpu_factor(given.instance_type.partition(".")[0])
    return (
        Sensitivity(
            name=f"CPU time on {given.instance_type} compared with this machine",
            unit="x",
            low=factor.low,
            used=factor.used,
            high=factor.high,
            usd_low=month(msgspec.structs.replace(given, ec2_cpu_factor=factor.low)),
            usd_high=month(msgspec.structs.replace(given, ec2_cpu_factor=factor.high)),
            source="no measurement on the instance",
        ),
        Sensitivity(
            name="Instances, at least",
            unit="",
            low=1.0,
            used=float(given.min_instances),
            high=2.0,
            usd_low=month(msgspec.structs.replace(given, min_instances=1)),
            usd_high=month(msgspec.structs.replace(given, min_instances=2)),
            source="two survive the loss of one, with Redis outside of them",
        ),
    )
