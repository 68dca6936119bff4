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

from compare.bill.lines import Bill, Curve, ModeCost, break_even_sentence
from compare.bill.usage import Mode
from compare.pages.details import STATISTICS, TITLES, Sources, costs_of, engineer_section, method_section, time_text
from compare.pages.markup import Markup, element, join
from compare.pages.parts import (
    VARIANT_STYLES,
    basis_mark,
    both_widths,
    data_table,
    document,
    legend,
    milliseconds,
    money,
)
from compare.pages.svg import Axis, Bar, Line, Mark, bar_plot, line_plot, linear_axis, log_axis
from compare.run.result import LatencySummary, ModeResult, Result, judge, where_words

MADE_OF: dict[Mode, str] = {"lambda": "API Gateway and Lambda", "ec2": "EC2 instances"}
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


# The page


def html_report(result: Result, faults: Markup | None = None) -> str:
    """One page with everything in it: no script, and nothing that is loaded from elsewhere. `faults` is one more section."""
    sources = Sources(result)
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
            engineer_section(result, sources),
            method_section(result),
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
            figure("Update at the proctor, typical", f"{time_text(delivery, 'p50')} ms", latencies),
            figure("19 of 20 within", f"{time_text(delivery, 'p95')} ms", latencies),
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
                    *[time_text(found.latency_ms.delivery, name) for _, found in modes],
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
    costs = costs_of(result)
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
    costs = costs_of(result)
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


def _students(result: Result) -> int:
    found = next(iter(result.modes.values()), None)
    return found.usage.students if found and found.usage else result.workload.students
