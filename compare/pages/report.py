"""A result for readers: a table on the terminal and one self-contained page.

Both read nothing but a `Result`. The page answers a headteacher's question first and gives an engineer the tables,
the method and the sources after it. A time against the emulated gateway is headed as such wherever it stands.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compare.bill.lines import Bill, CostLine, Curve, ModeCost, break_even_sentence
from compare.bill.usage import Mode, ServerlessUsage
from compare.pages.markup import Markup, element, join
from compare.pages.parts import (
    BASIS_WORDS,
    VARIANT_STYLES,
    amount,
    basis_mark,
    both_widths,
    data_table,
    document,
    legend,
    milliseconds,
    money,
    unit_money,
)
from compare.pages.svg import Axis, Bar, Line, Mark, bar_plot, line_plot, linear_axis, log_axis
from compare.run.result import LatencySummary, ModeResult, Result, judge, where_words

TITLES: dict[Mode, str] = {"lambda": "Serverless", "ec2": "Cluster"}
MADE_OF: dict[Mode, str] = {"lambda": "API Gateway and Lambda", "ec2": "EC2 instances"}
LATENCIES = (
    ("message", "Message: send to the server's receipt"),
    ("round_trip", "Round trip: send to ack"),
    ("delivery", "Delivery: send to the proctor's receipt"),
)
STATISTICS = ("avg", "p50", "p90", "p95", "p99", "max")


# The terminal


def terminal_table(result: Result) -> RenderableType:
    """The deployments side by side, and the verdict under them."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for mode in result.modes:
        table.add_column(f"{TITLES[mode]}\n[dim]{MADE_OF[mode]}[/dim]", justify="right")
    modes = list(result.modes.values())

    def group(title: str, says: Callable[[ModeResult], str]) -> None:
        table.add_row("")
        table.add_row(Text(title, style="bold"), *[Text(says(mode), style="dim italic") for mode in modes])

    def row(title: str, says: Callable[[ModeResult], str]) -> None:
        table.add_row(f"  {title}", *[says(mode) for mode in modes])

    group("Latency, ms\n  p50 / p95 / p99 / max", where_words)
    row("message to server", lambda mode: _four(mode.latency_ms.message))
    row("round trip", lambda mode: _four(mode.latency_ms.round_trip))
    row("delivery to proctor", lambda mode: _four(mode.latency_ms.delivery))
    group("Reliability", lambda mode: mode.counts_basis)
    row("delivered of sent", lambda mode: f"{mode.delivered:,} of {mode.sent:,}")
    row("lost", lambda mode: f"{mode.lost:,}")
    row("duplicates", lambda mode: f"{mode.duplicates:,}")
    row("false offline", lambda mode: f"{mode.false_offline:,}")
    row("offline after, s (max)", _offline_cell)
    if any(mode.cpu or mode.memory for mode in modes):
        group("Server side", lambda mode: mode.cpu.basis if mode.cpu else "")
        row("CPU s per 1,000 reports", lambda mode: f"{mode.cpu.per_1000_reports_s:.2f}" if mode.cpu else "-")
        row("memory, MB", lambda mode: f"{mode.memory.total_bytes / 1e6:,.0f}" if mode.memory else "-")
    costs = [mode.cost for mode in modes if mode.cost]
    if costs:
        group(f"Cost in {costs[0].region}", lambda mode: "modelled" if mode.cost else "")
        row("one exam", lambda mode: money(mode.cost.exam.usd) if mode.cost else "-")
        row(
            f"month of {costs[0].exams_per_month:g} exams",
            lambda mode: f"{money(mode.cost.month.usd)} {mode.cost.month.variant}" if mode.cost else "-",
        )
        for index in range(max(len(cost.other_months) for cost in costs)):
            table.add_row("", *[_other_month(mode.cost, index) for mode in modes])
    parts: list[RenderableType] = [table]
    if result.verdict:
        sentences = (result.verdict.money, result.verdict.losses)
        parts += [Padding(Text(sentence), (1, 0, 0, 0)) for sentence in sentences]
    if result.partial:
        parts.append(Padding(Text("Stopped early: the figures cover what there was.", style="bold"), (1, 0, 0, 0)))
    return Group(*parts)


def _four(times: LatencySummary) -> str:
    if not times.count:
        return "-"
    return " / ".join(milliseconds(value) for value in (times.p50, times.p95, times.p99, times.max))


def _offline_cell(mode: ModeResult) -> str:
    times = mode.offline_detection_s.summary
    return f"{times.p50:.1f} ({times.max:.1f})" if times.count else "-"


def _other_month(cost: ModeCost | None, index: int) -> str:
    if cost is None or index >= len(cost.other_months):
        return ""
    bill = cost.other_months[index]
    return f"{money(bill.usd)} {bill.variant}"


# Figures as text


def _time(times: LatencySummary, statistic: str) -> str:
    return milliseconds(getattr(times, statistic)) if times.count else "-"


# The page


def html_report(result: Result, faults: Markup | None = None) -> str:
    """One page with everything in it: no script, and nothing that is loaded from elsewhere. `faults` is one more section."""
    sources = _Sources(result)
    workload = result.workload
    return document(
        "Proctorwire: serverless or cluster",
        "comparison of deployments",
        f"{result.environment.date[:10]}, prices of {workload.region}",
        (
            _summary(result),
            _latency_section(result),
            _bill_section(result),
            _exams_section(result),
            faults,
            _engineer_section(result, sources),
            _method_section(result),
            sources.section(),
        ),
        f"Made by compare run from {result.schema}. The figures are also in result.json.",
    )


def _summary(result: Result) -> Markup:
    workload = result.workload
    students = _students(result)
    ways = (
        "both ways of running Proctorwire on Amazon's cloud: serverless, where every message is paid for, and a "
        "cluster of small servers, paid by the hour"
        if len(result.modes) == 2
        else f"one way of running Proctorwire on Amazon's cloud: {_in_a_sentence(next(iter(result.modes), None))}"
    )
    return element(
        "section",
        element("h1", _headline(result)),
        element(
            "p",
            f"The same exam, {students:,} students with a report every {workload.interval_s:g} seconds, went through "
            f"{ways}.",
            class_="lead",
        ),
        element("p", f"{_cost_words(result)} ", _break_even_words(result), class_="lead"),
        element("p", _loss_words(result), " ", _speed_words(result), class_="lead"),
        _notices(result),
        element("div", *[_card(mode, found) for mode, found in result.modes.items()], class_="cards"),
        class_="summary",
    )


def _headline(result: Result) -> str:
    verdict = result.verdict
    if verdict and verdict.cheaper:
        cheaper = "Serverless" if verdict.cheaper == "lambda" else "The cluster"
        return f"{cheaper} is cheaper: {money(verdict.saves_usd)} less a month, {verdict.saves_percent:.0f} %."
    for mode, found in result.modes.items():
        if found.cost:
            return f"{TITLES[mode]}: {money(found.cost.month.usd)} a month."
    return "The exam ran; its cost was not worked out."


def _in_a_sentence(mode: Mode | None) -> str:
    if mode is None:
        return "none came to a result"
    return "serverless, where every message is paid for" if mode == "lambda" else "a cluster of small servers"


def _cost_words(result: Result) -> str:
    """What each way costs, in a sentence each."""
    words = []
    for mode, found in result.modes.items():
        if found.cost:
            cost = found.cost
            name, alone, standing = "Serverless", "", ""
            if mode == "ec2":
                name, alone, standing = "The cluster", " if servers run for it alone", f", servers {cost.month.variant}"
            words.append(
                f"{name} costs about {money(cost.exam.usd)} for one exam of {cost.hours:g} hours{alone}, and "
                f"{money(cost.month.usd)} for a month with {cost.exams_per_month:g} of them{standing}."
            )
    return " ".join(words)


def _loss_words(result: Result) -> Markup:
    found = list(result.modes.values())
    if not any(mode.sent for mode in found):
        return join("Nothing was sent.")
    if result.anything_lost:
        return element("strong", judge(result.modes).losses)
    if all(mode.delivered >= mode.sent for mode in found):
        count = " and ".join(dict.fromkeys(f"{mode.sent:,}" for mode in found))
        return join(element("strong", "Nothing was lost:"), f" all {count} reports reached the proctors.")
    reached = [f"{TITLES[mode]}: {run.delivered:,} of {run.sent:,}" for mode, run in result.modes.items()]
    return join(f"No loss was seen. Reports that had reached the proctors at the end: {'; '.join(reached)}.")


def _speed_words(result: Result) -> str:
    words = [
        f"{milliseconds(found.latency_ms.delivery.p95)} ms with "
        f"{'serverless' if mode == 'lambda' else 'the cluster'} ({where_words(found)})"
        for mode, found in result.modes.items()
        if found.latency_ms.delivery.count
    ]
    return f"19 of 20 updates were with the proctor within {' and '.join(words)}." if words else ""


def _break_even_words(result: Result) -> str | None:
    if not result.verdict or not result.verdict.break_even:
        return None
    return break_even_sentence(result.verdict.break_even[0])


def _notices(result: Result) -> Markup | None:
    problems = [
        element("li", f"{TITLES[mode]}: {problem}")
        for mode, found in result.modes.items()
        for problem in found.problems
    ]
    if not result.partial and not problems:
        return None
    return element(
        "div",
        element("p", "This run was stopped before its end: the figures cover what there was.")
        if result.partial
        else None,
        element("ul", *problems) if problems else None,
        class_="notice",
    )


def _card(mode: Mode, found: ModeResult) -> Markup:
    cost = found.cost
    delivery = found.latency_ms.delivery
    offline = found.offline_detection_s

    def figure(name: str, value: str, basis: str) -> Markup:
        return element("div", element("dt", name), element("dd", value, basis_mark(basis)))

    price: Sequence[Markup] = ()
    exam = None
    if cost:
        variant = f", servers {cost.month.variant}" if mode == "ec2" else ""
        price = (
            element("p", money(cost.month.usd), class_="price"),
            element("p", f"a month of {cost.exams_per_month:g} exams{variant} ", basis_mark("modelled")),
        )
        exam = figure("One exam", money(cost.exam.usd), "modelled")
    latencies = found.latency_ms.basis
    return element(
        "div",
        element("h2", TITLES[mode]),
        element("p", MADE_OF[mode], class_="by"),
        element("p", f"Times {where_words(found)}", class_="by"),
        *price,
        element(
            "dl",
            exam,
            figure("Update at the proctor, typical", f"{_time(delivery, 'p50')} ms", latencies),
            figure("19 of 20 within", f"{_time(delivery, 'p95')} ms", latencies),
            figure("Lost / twice / wrongly offline", _counts(found), found.counts_basis),
            figure("Offline shown after", f"{offline.summary.p50:.1f} s", offline.basis)
            if offline.summary.count
            else None,
            class_="figures",
        ),
        class_=f"card {mode}",
    )


def _counts(found: ModeResult) -> str:
    return f"{found.lost:,} / {found.duplicates:,} / {found.false_offline:,}"


def _latency_section(result: Result) -> Markup | None:
    lines = [
        Line(f"{TITLES[mode]}, {where_words(found)}", mode, found.delivery_distribution.points)
        for mode, found in result.modes.items()
        if found.delivery_distribution.points
    ]
    if not lines:
        return None
    low = min(max(line.points[0][0], 0.1) for line in lines)
    high = max(line.points[-1][0] for line in lines)
    x = log_axis("milliseconds from the student's send, logarithmic", low, high)
    y = Axis("share of updates with the proctor", 0.0, 1.0, tuple((n / 4, f"{25 * n} %") for n in range(5)))
    title = "Share of updates delivered within a time"
    modes = list(result.modes.items())
    table = data_table(
        "Delivery, in milliseconds",
        ["", *[TITLES[mode] for mode, _ in modes]],
        [
            ["basis", *[basis_mark(found.latency_ms.basis) for _, found in modes]],
            *[
                [
                    {"avg": "average", "p50": "p50, typical", "max": "slowest"}.get(name, name),
                    *[_time(found.latency_ms.delivery, name) for _, found in modes],
                ]
                for name in STATISTICS
            ],
            ["updates timed", *[f"{found.latency_ms.delivery.count:,}" for _, found in modes]],
        ],
    )
    emulated = any(found.latency_ms.basis == "emulated" for _, found in modes)
    return element(
        "section",
        element("h2", "How soon the proctor sees it"),
        element(
            "p",
            "From the student's send to the proctor's receipt. The way between school and cloud is not in it"
            + (
                ", and the serverless times are those of the gateway emulated on this machine, not AWS's: they show what "
                "the code does, not what Amazon's services add."
                if emulated
                else "."
            ),
            class_="soft",
        ),
        element(
            "div",
            element(
                "figure",
                legend(lines),
                both_widths(lambda width: line_plot(title, _from_zero(lines), x, y, (), width)),
            ),
            table,
            class_="beside",
        ),
    )


def _from_zero(lines: Iterable[Line]) -> list[Line]:
    return [Line(line.label, line.css, ((line.points[0][0], 0.0), *line.points)) for line in lines]


def _bill_section(result: Result) -> Markup | None:
    costs = _costs(result)
    if not costs:
        return None
    shown = [(mode, cost, _largest(cost.month)) for mode, cost in costs]
    most = max(value for _, _, lines in shown for _, _, value in lines)

    def plot(mode: Mode, cost: ModeCost, lines: list[tuple[str, str, float]]) -> Markup:
        title = f"{TITLES[mode]}: cost lines of a month"
        bars = [Bar(name, basis, value, money(value), mode) for name, basis, value in lines]
        variant = "" if cost.month.variant == "pay per use" else f", {cost.month.variant}"
        return element(
            "figure",
            element("h3", f"{TITLES[mode]}{variant}: {money(cost.month.usd)}"),
            both_widths(lambda width: bar_plot(title, bars, most, width), wide=440),
            class_=f"mode {mode}",
        )

    exams = costs[0][1].exams_per_month
    return element(
        "section",
        element("h2", f"What a month of {exams:g} exams is made of"),
        element(
            "p",
            "The largest lines of the bill. It stands complete, with quantities, unit prices and sources, further down."
            if len(costs) == 1
            else "The largest lines of both bills, to the same scale. They stand complete, with quantities, unit prices "
            "and sources, further down.",
            class_="soft",
        ),
        element("div", *[plot(mode, cost, lines) for mode, cost, lines in shown], class_="beside even"),
    )


def _largest(bill: Bill, count: int = 8) -> list[tuple[str, str, float]]:
    ordered = sorted(bill.lines, key=lambda line: line.usd, reverse=True)
    shown: list[tuple[str, str, float]] = [(line.name, line.basis, line.usd) for line in ordered[:count]]
    rest = ordered[count:]
    if rest:
        shown.append((f"{len(rest)} smaller lines", "", sum(line.usd for line in rest)))
    return shown


def _exams_section(result: Result) -> Markup | None:
    costs = _costs(result)
    curves = [curve for _, cost in costs for curve in cost.curves]
    if not curves:
        return None
    now = costs[0][1].exams_per_month
    meetings = result.verdict.break_even if result.verdict else ()
    last = curves[0].points[-1][0]
    furthest = max([10.0, 2 * now, *[1.5 * (m.exams_per_month or 0.0) for m in meetings]])
    high = min(last, furthest)
    lines = [Line(_curve_name(curve), VARIANT_STYLES[curve.variant], curve.points) for curve in curves]
    x = linear_axis("exams a month", high)
    y = linear_axis("USD a month", 1.05 * max(_at(curve, high) for curve in curves), prefix="$")
    marks = [Mark(now, None, f"{now:g} exams", "now")]
    for meeting in meetings:
        where = meeting.exams_per_month
        if where is not None and where <= high:
            label = f"{where:.1f}" if meeting.variant == "always on" else ""
            marks.append(Mark(where, _at(curves[0], where), label, "meeting"))
    columns = sorted({0.0, round(high / 4), round(high / 2), now, round(high)})
    table = data_table(
        "USD for a month, by the number of exams in it",
        ["", *[f"{exams:g}" for exams in columns]],
        [[_curve_name(curve), *[f"${_at(curve, exams):,.0f}" for exams in columns]] for curve in curves],
    )
    title = "Cost of a month against the number of exams in it"
    return element(
        "section",
        element("h2", "When the answer changes" if meetings else "More exams, or fewer"),
        element("ul", *[element("li", break_even_sentence(meeting)) for meeting in meetings], class_="plain soft")
        if meetings
        else None,
        element(
            "div",
            element(
                "figure",
                legend(lines),
                both_widths(lambda width: line_plot(title, lines, x, y, marks, width)),
            ),
            table,
            class_="beside",
        ),
    )


def _curve_name(curve: Curve) -> str:
    return "Serverless" if curve.variant == "pay per use" else f"Cluster {curve.variant}"


def _at(curve: Curve, exams: float) -> float:
    """The curve's value between its points."""
    for (x, usd), (next_x, next_usd) in pairwise(curve.points):
        if x <= exams <= next_x:
            return usd + (next_usd - usd) * (exams - x) / (next_x - x) if next_x > x else usd
    return curve.points[-1][1]


def _engineer_section(result: Result, sources: "_Sources") -> Markup:
    modes = list(result.modes.items())
    heads = ["", *[TITLES[mode] for mode, _ in modes]]
    times = [
        [
            join(name, element("small", f"{TITLES[mode]}, {where_words(found)}")),
            *[_time(getattr(found.latency_ms, field), statistic) for statistic in STATISTICS],
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
        *[part for mode, cost in _costs(result) for part in _bill_tables(mode, cost, sources)],
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


def _bill_tables(mode: Mode, cost: ModeCost, sources: "_Sources") -> Iterable[Markup]:
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


def _bill_table(bill: Bill, sources: "_Sources") -> Markup:
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


def _method_section(result: Result) -> Markup:
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
        *[part for mode, cost in _costs(result) for part in _assumption_list(mode, cost)],
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


class _Sources:
    """Numbers for the sources of the prices, in the order in which they are met."""

    def __init__(self, result: Result) -> None:
        bills = [bill for _, cost in _costs(result) for bill in (cost.exam, cost.month, *cost.other_months)]
        texts = [line.source for bill in bills for line in bill.lines]
        self._numbers = {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}

    def reference(self, text: str) -> Markup:
        number = str(self._numbers[text])
        return element("sup", element("a", number, href=f"#source-{number}"))

    def section(self) -> Markup | None:
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


# Small pieces


def _students(result: Result) -> int:
    found = next(iter(result.modes.values()), None)
    return found.usage.students if found and found.usage else result.workload.students


def _costs(result: Result) -> list[tuple[Mode, ModeCost]]:
    return [(mode, found.cost) for mode, found in result.modes.items() if found.cost]
