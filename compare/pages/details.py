"""What the report of a run has for engineers, after the answer: all figures, lines of the bills, method, sources."""

from collections.abc import Iterable, Sequence

from compare.bill.lines import Bill, CostLine, ModeCost
from compare.bill.usage import Mode, ServerlessUsage
from compare.pages.markup import Markup, element, join
from compare.pages.parts import (
    BASIS_WORDS,
    amount,
    basis_mark,
    data_table,
    milliseconds,
    money,
    unit_money,
)
from compare.run.result import LatencySummary, ModeResult, Result, where_words

TITLES: dict[Mode, str] = {"lambda": "Serverless", "ec2": "Cluster"}
LATENCIES = (
    ("message", "Message: send to the server's receipt"),
    ("round_trip", "Round trip: send to ack"),
    ("delivery", "Delivery: send to the proctor's receipt"),
)
STATISTICS = ("avg", "p50", "p90", "p95", "p99", "max")


def time_text(times: LatencySummary, statistic: str) -> str:
    """One statistic of a series of milliseconds; a dash if there are none."""
    return milliseconds(getattr(times, statistic)) if times.count else "-"


def costs_of(result: Result) -> list[tuple[Mode, ModeCost]]:
    """Of each deployment that could be priced."""
    return [(mode, found.cost) for mode, found in result.modes.items() if found.cost]


class Sources:
    """Numbers for the sources of the prices, in the order in which they are met."""

    def __init__(self, result: Result) -> None:
        bills = [bill for _, cost in costs_of(result) for bill in (cost.exam, cost.month, *cost.other_months)]
        texts = [line.source for bill in bills for line in bill.lines]
        self._numbers = {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}

    def reference(self, text: str) -> Markup:
        """The number of a source, as a link to it."""
        number = str(self._numbers[text])
        return element("sup", element("a", number, href=f"#source-{number}"))

    def section(self) -> Markup | None:
        """The list that the numbers lead to, unless nothing was priced."""
        if not self._numbers:
            return None
        return element(
            "section",
            element("h2", "Sources of the prices"),
            element(
                "p",
                "On demand, in US dollars, before tax, without free tier. A price without a mark is quoted; one marked "
                "inferred was derived from a price nearby, one marked unverified was not found on a page of AWS.",
                class_="soft",
            ),
            element(
                "ol",
                *[element("li", text, id=f"source-{number}") for text, number in self._numbers.items()],
                class_="sources",
            ),
        )


def engineer_section(result: Result, sources: Sources) -> Markup:
    """Every figure: latency, reliability, processor and memory, units, and each line of the bills."""
    modes = list(result.modes.items())
    heads = ["", *[TITLES[mode] for mode, _ in modes]]
    times = [
        [
            join(name, element("small", f"{TITLES[mode]}, {where_words(found)}")),
            *[time_text(getattr(found.latency_ms, field), statistic) for statistic in STATISTICS],
            f"{getattr(found.latency_ms, field).count:,}",
        ]
        for field, name in LATENCIES
        for mode, found in modes
    ]
    counts: list[list[str]] = [
        ["sent", *[f"{found.sent:,}" for _, found in modes]],
        ["delivered", *[f"{found.delivered:,}" for _, found in modes]],
        ["lost", *[f"{found.lost:,}" for _, found in modes]],
        ["duplicates", *[f"{found.duplicates:,}" for _, found in modes]],
        ["false offline", *[f"{found.false_offline:,}" for _, found in modes]],
        ["offline shown after, s, p50", *[f"{found.offline_detection_s.summary.p50:.1f}" for _, found in modes]],
        ["offline shown after, s, slowest", *[f"{found.offline_detection_s.summary.max:.1f}" for _, found in modes]],
        ["allowed, s", *[f"{found.offline_detection_s.limit_s:g}" for _, found in modes]],
        ["later than allowed", *[f"{found.offline_detection_s.late:,}" for _, found in modes]],
    ]
    counts_basis = ["", *[basis_mark(found.counts_basis) for _, found in modes]]
    return element(
        "section",
        element("h2", "For engineers"),
        element("h3", "Latency, ms"),
        data_table(None, ["", *STATISTICS, "count"], times),
        element(
            "div",
            element("div", element("h3", "Reliability"), data_table(None, heads, [counts_basis, *counts])),
            element("div", *[_machine_tables(mode, found) for mode, found in modes]),
            class_="beside even",
        ),
        *[_usage_table(mode, found) for mode, found in modes],
        *[part for mode, cost in costs_of(result) for part in _bill_tables(mode, cost, sources)],
    )


def _machine_tables(mode: Mode, found: ModeResult) -> Markup | None:
    cpu, memory = found.cpu, found.memory
    if cpu is None or memory is None:
        return None
    names = dict.fromkeys([*cpu.by_process, *memory.by_process])

    def cell(values: dict[str, float], name: str, scale: float, digits: int) -> str:
        return f"{values[name] / scale:,.{digits}f}" if name in values else ""

    rows: list[list[str]] = [
        [name, cell(cpu.by_process, name, 1, 2), cell(memory.by_process, name, 1e6, 0)] for name in names
    ]
    rows.append(["together", f"{cpu.total_s:,.2f}", f"{memory.total_bytes / 1e6:,.0f}"])
    rows.append(["per 1,000 reports", f"{cpu.per_1000_reports_s:,.3f}", ""])
    heads = ["", join("CPU, s ", basis_mark(cpu.basis)), join("memory, MB ", basis_mark(memory.basis))]
    return join(element("h3", f"{TITLES[mode]}: processor and memory"), data_table(None, heads, rows))


def _usage_table(mode: Mode, found: ModeResult) -> Markup | None:
    usage = found.usage
    if usage is None:
        return None
    if isinstance(usage, ServerlessUsage):
        rows = [
            ["messages from clients, 32 KiB steps", f"{usage.messages_in:,}", "measured"],
            ["messages to clients, 32 KiB steps", f"{usage.messages_out:,}", "measured"],
            ["connection minutes", f"{usage.connection_minutes:,.1f}", "measured"],
            ["connections", f"{usage.connects:,}", "measured"],
            ["DynamoDB write units", f"{usage.dynamodb_write_units:,.0f}", "emulated"],
            ["DynamoDB read units", f"{usage.dynamodb_read_units:,.1f}", "emulated"],
            ["SQS requests", f"{usage.sqs_requests:,}", "emulated"],
            ["log bytes", f"{usage.log_bytes:,}", "measured"],
            ["bytes to clients", f"{usage.egress_bytes:,}", "measured"],
            ["journal entries", f"{usage.journal_entries:,}", "measured"],
        ]
        functions = data_table(
            "Functions during the run",
            ["function", "MB", "invocations", "CPU ms each", "elapsed ms each, emulated", "cold starts", "INIT CPU ms"],
            [
                [
                    name,
                    str(function.memory_mb),
                    f"{function.invocations:,}",
                    f"{function.handler_cpu_ms / max(1, function.invocations):,.2f}",
                    f"{function.handler_wall_ms / max(1, function.invocations):,.1f}",
                    f"{function.cold_starts:,}",
                    f"{function.init_cpu_ms / max(1, function.cold_starts):,.0f}",
                ]
                for name, function in usage.functions.items()
            ],
        )
    else:
        rows = [
            ["reports", f"{usage.reports:,}", "measured"],
            ["frames to clients", f"{usage.frames_out:,}", "measured"],
            ["bytes from clients", f"{usage.ingress_bytes:,}", "measured"],
            ["bytes to clients", f"{usage.egress_bytes:,}", "measured"],
            ["most connections at once", f"{usage.connections:,}", "measured"],
            ["connection minutes", f"{usage.connection_minutes:,.1f}", "measured"],
            ["journal entries", f"{usage.journal_entries:,}", "measured"],
            ["bytes between instances", f"{usage.cross_instance_bytes:,}", "measured"],
            ["instances x workers", f"{usage.instances} x {usage.workers}", "measured"],
        ]
        functions = None
    table = data_table(
        None, ["unit", "in this run", ""], [[name, value, basis_mark(basis)] for name, value, basis in rows]
    )
    heading = element("h3", f"{TITLES[mode]}: what the run of {usage.duration_seconds:,.0f} s used")
    if functions is None:
        return join(heading, table)
    return join(heading, element("div", table, functions, class_="beside even"))


def _bill_tables(mode: Mode, cost: ModeCost, sources: Sources) -> Iterable[Markup]:
    yield element("h3", f"{TITLES[mode]}: one exam of {cost.hours:g} h with {cost.students:,} students")
    yield _bill_table(cost.exam, sources)
    variant = "" if cost.month.variant == "pay per use" else f", {cost.month.variant}"
    yield element("h3", f"{TITLES[mode]}: a month of {cost.exams_per_month:g} exams{variant}")
    yield _bill_table(cost.month, sources)
    if cost.other_months:
        yield element("h3", f"{TITLES[mode]}: the same month, in {len(cost.other_months) + 1} variants")
        yield _variants_table((cost.month, *cost.other_months))
    if cost.capacity:
        size = cost.capacity
        yield element(
            "p",
            f"{size.instances} x {size.instance_type}: {size.vcpu_needed:.2f} of "
            f"{size.vcpu_available:g} vCPU at the busiest part, {size.memory_needed_bytes / 1e6:,.0f} of "
            f"{size.memory_available_bytes / 1e6:,.0f} MB; {size.cpu_ms_per_1000_reports:,.0f} ms of CPU per 1,000 "
            f"reports here, times {size.cpu_factor:g} for the instance.",
            class_="note",
        )
    if cost.sensitivity:
        yield element("h3", f"{TITLES[mode]}: if a guess is wrong")
        yield data_table(
            "The month's bill at the low and the high end of each guess",
            ["guess", "low", "used", "high", "month at low", "month at high"],
            [
                [
                    join(guess.name, element("small", guess.source)),
                    *[f"{value:g} {guess.unit}".strip() for value in (guess.low, guess.used, guess.high)],
                    money(guess.usd_low),
                    money(guess.usd_high),
                ]
                for guess in cost.sensitivity
            ],
        )


def _variants_table(bills: Sequence[Bill]) -> Markup:
    names = dict.fromkeys(line.name for bill in bills for line in bill.lines)
    usd = [{line.name: line.usd for line in bill.lines} for bill in bills]
    return data_table(
        "USD",
        ["line", *[bill.variant for bill in bills]],
        [[name, *[money(lines[name]) if name in lines else "" for lines in usd]] for name in names],
        total=["together", *[money(bill.usd) for bill in bills]],
    )


def _bill_table(bill: Bill, sources: Sources) -> Markup:
    def row(line: CostLine) -> list[str]:
        confidence = basis_mark(line.confidence) if line.confidence != "quoted" else None
        return [
            join(line.name, sources.reference(line.source), element("small", line.note) if line.note else None),
            join(f"{amount(line.quantity)} ", element("small", line.unit)),
            basis_mark(line.basis),
            join(unit_money(line.unit_price_usd), " " if confidence else None, confidence),
            money(line.usd),
        ]

    return data_table(
        None,
        ["line", "quantity", "basis", "unit price", "USD"],
        [row(line) for line in bill.lines],
        total=["together", "", "", "", money(bill.usd)],
        words=(0, 2),
        kind="bill",
    )


def method_section(result: Result) -> Markup:
    """How it was measured and reckoned, with which options, on which machine."""
    workload = result.workload
    environment = result.environment
    options = [
        [name.removesuffix("_s").replace("_", " ") + (", s" if name.endswith("_s") else ""), _option(value)]
        for name in workload.__struct_fields__
        if (value := getattr(workload, name)) is not None
    ]
    machine = [
        ["date", environment.date],
        ["processor", f"{environment.cpu}, {environment.cores} cores"],
        ["memory", f"{environment.memory_bytes / 2**30:.1f} GiB"],
        ["system", f"{environment.kernel}, Python {environment.python}"],
        *[[name, version] for name, version in environment.versions.items()],
    ]
    return element(
        "section",
        element("h2", "Method"),
        element(
            "p",
            "One seeded schedule of joins, reports, tab switches, dropped connections and warnings is played by the same "
            "clients over real sockets to each deployment. What each used is counted, stretched to an exam, and "
            "multiplied by published prices.",
        ),
        element("h3", "Four words that stand beside every figure"),
        element(
            "dl",
            *[join(element("dt", basis_mark(word)), element("dd", meaning)) for word, meaning in BASIS_WORDS.items()],
            class_="words",
        ),
        *[part for mode, cost in costs_of(result) for part in _assumption_list(mode, cost)],
        element(
            "div",
            element("div", element("h3", "Workload"), data_table(None, ["option", "value"], options, words=(0, 1))),
            element("div", element("h3", "Machine"), data_table(None, ["", ""], machine, words=(0, 1))),
            class_="beside even",
        ),
    )


def _option(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _assumption_list(mode: Mode, cost: ModeCost) -> Iterable[Markup]:
    yield element("h3", f"{TITLES[mode]}: how the bill was reckoned")
    yield element("ul", *[element("li", words) for words in (cost.scaling, *cost.assumptions)], class_="plain")
