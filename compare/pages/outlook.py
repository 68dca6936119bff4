"""The advice as a page: what a month costs against exams, students and interval, and where each deployment wins.

Everything on it is modelled, and says so in every heading of a plot. Data stand in a table beside each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from compare.advice.choice import Advice, Case, Flip, gap_of, price, price_month
from compare.bill.assumptions import CPU_FACTORS
from compare.bill.lines import Bill, CostLine, Variant
from compare.bill.stretch import CostError
from compare.model.latency import Way, cluster_way, serverless_way
from compare.model.units import MOST_STUDENTS
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
    money,
    unit_money,
)
from compare.pages.svg import Axis, Bar, Line, Mark, bar_plot, cell_map, line_plot, linear_axis, log_axis

VARIANTS: tuple[Variant, ...] = ("pay per use", "always on", "scheduled", "scale to zero")
NAMES: dict[Variant, str] = {
    "pay per use": "Serverless",
    "always on": "Cluster always on",
    "scheduled": "Cluster scheduled",
    "scale to zero": "Cluster scale to zero",
}
POINTS = 25
MODELLED = "USD, modelled"
MAP_EXAMS = (1, 2, 4, 6, 8, 10, 15, 20, 30, 45, 60, 90)
MAP_STUDENTS = (30, 60, 120, 250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000)
FAMILIES = ("t3a.small", "t3.small", "t4g.small", "t3a.medium", "c7g.medium", "m7g.medium", "c7g.large", "c7i.large")


PAGE_SECTIONS = 11


def outlook_page(case: Case, found: Advice, done: Callable[[], None] = lambda: None) -> str:
    """The whole page for a case and its advice; `done` is called after each of its sections."""
    exam = found.exam

    def sections() -> Iterator[Markup]:
        made: tuple[Callable[[], Markup], ...] = (
            lambda: _summary(found),
            lambda: _exams(case, found),
            lambda: _students(case, found),
            lambda: _map(case),
            lambda: _interval(case, found),
            lambda: _choices(case),
            lambda: _latency(case, found),
            lambda: _limits(found),
            lambda: _guesses(found),
            lambda: _bills(case),
            lambda: _method(found),
        )
        for section in made:
            yield section()
            done()

    return document(
        "Proctorwire: which deployment",
        "advice",
        f"prices of {found.region}, {found.price_date}",
        tuple(sections()),
        f"Made by compare advise for {exam.students:,} students, {found.exams_per_month:g} sittings of {exam.hours:g} h a month.",
    )


def _summary(found: Advice) -> Markup:
    exam = found.exam
    usd = {way.variant: way.usd for way in found.ways}
    winner = "Serverless" if found.cheaper == "lambda" else "The cluster"
    loser = "the cluster" if found.cheaper == "lambda" else "serverless"
    rows = [
        [
            way.name,
            money(way.usd),
            f"{way.usual_ms:,.0f}",
            f"{way.p95_ms:,.0f}",
            way.what,
        ]
        for way in sorted(found.ways, key=lambda way: way.usd)
    ]
    rows += [
        [service.name, money(service.usd), "", "", "a cost line only: nothing of ours runs on it"]
        for service in found.alternatives
    ]
    return element(
        "section",
        element("h1", f"{winner} is cheaper: {money(found.saves_usd)} less a month, {found.saves_percent:.0f} %."),
        element(
            "p",
            f"{found.exams_per_month:g} sittings a month, each with {exam.students:,} students for {exam.hours:g} hours: "
            f"{money(min(usd['pay per use'], usd[found.servers]))} a month, against "
            f"{money(max(usd['pay per use'], usd[found.servers]))} with {loser}. Servers {found.servers}.",
            class_="lead",
        ),
        element("ul", *[element("li", flip_words(flip)) for flip in found.flips], class_="plain lead"),
        data_table(
            "Each way of running it, the cheapest first; money and milliseconds modelled",
            ["", "USD a month", "an update takes, ms", "19 of 20 within, ms", "made of"],
            rows,
            words=(0, 4),
        ),
        class_="summary",
    )


def flip_words(flip: Flip) -> str:
    """Where an answer flips, for a reader."""
    names = {"lambda": "serverless", "ec2": "the cluster"}
    above, below = names[flip.cheaper_above], names["ec2" if flip.cheaper_above == "lambda" else "lambda"]
    unit = f" {flip.unit}" if flip.unit else ""
    what = {"interval": "a page's interval"}.get(flip.what, flip.what)
    if flip.at is None:
        return f"No number of {what} from {flip.low:,.0f} to {flip.high:,.0f}{unit} changes it: {above} is cheaper."
    if flip.at < 1:
        return f"From the first of {what} on, {above} is cheaper."
    value = f"{flip.at:,.1f}{unit}" if unit else f"{math.floor(flip.at):,}"
    return f"Up to {value} {'of ' if unit else ''}{what}, {below} is cheaper; beyond that, {above}."


# Lines of cost


def _lines(case: Case, values: Sequence[float], changed: Callable[[Case, float], Case]) -> list[Line]:
    return [
        Line(NAMES[variant], VARIANT_STYLES[variant], tuple(_points(case, variant, values, changed)))
        for variant in VARIANTS
    ]


def _points(
    case: Case, variant: Variant, values: Sequence[float], changed: Callable[[Case, float], Case]
) -> Iterable[tuple[float, float]]:
    for value in values:
        try:
            yield value, price_month(changed(case, value), variant)
        except CostError:
            continue


def _with(case: Case, **fields: float) -> Case:
    return msgspec.structs.replace(case, exam=msgspec.structs.replace(case.exam, **fields))


def _plot_section(
    heading: str,
    words: str,
    title: str,
    lines: Sequence[Line],
    x: Axis,
    marks: Sequence[Mark],
    rows: Sequence[float],
    *,
    log_y: bool = False,
    row_name: Callable[[float], str] = "{:g}".format,
) -> Markup:
    values = [usd for line in lines for _, usd in line.points]
    y = (
        log_axis(MODELLED, max(0.5, min(values)), max(values))
        if log_y
        else linear_axis(MODELLED, 1.05 * max(values), prefix="$")
    )
    table = data_table(
        title,
        ["", *[line.label for line in lines]],
        [[row_name(row), *[_cell(line, row) for line in lines]] for row in rows],
    )
    return element(
        "section",
        element("h2", heading),
        element("p", words, class_="soft"),
        element(
            "div",
            element("figure", legend(lines), both_widths(lambda width: line_plot(title, lines, x, y, marks, width))),
            table,
            class_="beside",
        ),
    )


def _cell(line: Line, x: float) -> str:
    near = min(line.points, key=lambda point: abs(point[0] - x), default=None)
    return money(near[1]) if near is not None and abs(near[0] - x) <= 1e-6 * max(1.0, x) else ""


def _exams(case: Case, found: Advice) -> Markup:
    meeting = next(flip for flip in found.flips if flip.what == "exams a month")
    high = min(meeting.high, max(10.0, 2 * found.exams_per_month, 1.5 * (meeting.at or 0.0)))
    values = sorted({*[float(round(high * step / POINTS)) for step in range(POINTS + 1)], found.exams_per_month})
    lines = _lines(case, values, lambda given, value: msgspec.structs.replace(given, exams_per_month=value))
    marks = [Mark(found.exams_per_month, None, f"{found.exams_per_month:g} now", "now")]
    if meeting.at is not None:
        marks.append(_meeting_mark(meeting.at, case, exams_per_month=meeting.at))
    one, two = found.break_even_range
    words = "Modelled. Both bills for more or fewer sittings of the same size."
    if meeting.at is not None and one is not None and two is not None:
        ends = f"between {min(one, two):.1f} and {max(one, two):.1f}"
        words += f" They meet at {meeting.at:.1f}; with all guesses at their ends, {ends}."
    columns = [values[0], values[len(values) // 4], values[len(values) // 2], found.exams_per_month, values[-1]]
    return _plot_section(
        "More sittings, or fewer",
        words,
        "Modelled cost of a month against the sittings in it",
        lines,
        linear_axis("sittings a month", high),
        marks,
        sorted(set(columns)),
    )


def _meeting_mark(at: float, case: Case, **fields: float) -> Mark:
    exam_fields = {name: value for name, value in fields.items() if name != "exams_per_month"}
    changed = _with(case, **exam_fields) if exam_fields else msgspec.structs.replace(case, **fields)
    return Mark(at, price_month(changed, "pay per use"), f"{at:,.0f}" if at >= 100 else f"{at:.1f}", "meeting")


def _students(case: Case, found: Advice) -> Markup:
    meeting = next(flip for flip in found.flips if flip.what == "students")
    low, high = 10.0, float(min(MOST_STUDENTS, max(10_000, 4 * case.exam.students)))
    grid = {round(low * (high / low) ** (step / POINTS)) for step in range(POINTS + 1)}
    values = sorted({float(max(case.exam.exams, number)) for number in grid} | {float(case.exam.students)})
    lines = _lines(case, values, lambda given, value: _with(given, students=round(value)))
    marks = [Mark(float(case.exam.students), None, f"{case.exam.students:,} now", "now")]
    if meeting.at is not None and meeting.at <= high:
        marks.append(_meeting_mark(round(meeting.at), case, students=round(meeting.at)))
    columns = [values[0], values[len(values) // 3], values[2 * len(values) // 3], float(case.exam.students), values[-1]]
    return _plot_section(
        "More students, or fewer",
        f"Modelled. {found.exams_per_month:g} sittings a month; both scales are logarithmic. Steps in the cluster's lines are "
        "instances that come on top.",
        "Modelled cost of a month against students",
        lines,
        log_axis("students of a sitting, logarithmic", values[0], high),
        marks,
        sorted(set(columns)),
        log_y=True,
        row_name="{:,.0f}".format,
    )


def _map(case: Case) -> Markup:
    """Who wins for each number of students and sittings; a letter in each cell says it without colour."""
    columns = [exams for exams in MAP_EXAMS if exams * (case.exam.hours + 1) <= 730] or [1]
    rows = [students for students in MAP_STUDENTS if students >= case.exam.exams]
    cells = []
    for students in rows:
        line = []
        for exams in columns:
            gap = gap_of(msgspec.structs.replace(_with(case, students=students), exams_per_month=float(exams)))
            line.append(("lambda", "S") if gap <= 0 else ("ec2", "C"))
        cells.append(line)
    title = "Modelled: the cheaper deployment, by students and sittings a month"
    firsts = [
        [
            f"{students:,}",
            next((f"{exams}" for exams, cell in zip(columns, line, strict=True) if cell[1] == "C"), "never"),
        ]
        for students, line in zip(rows, cells, strict=True)
    ]
    return element(
        "section",
        element("h2", "Where each of them wins"),
        element(
            "p",
            f"Modelled, servers {case.servers}, {case.given.instance_type}. S: serverless costs less; C: the cluster does. "
            "Everything else is as it was asked for.",
            class_="soft",
        ),
        element(
            "div",
            element(
                "figure",
                both_widths(
                    lambda width: cell_map(
                        title,
                        [f"{exams}" for exams in columns],
                        [f"{students:,}" for students in rows],
                        cells,
                        "sittings a month",
                        "students of a sitting",
                        width,
                    )
                ),
            ),
            data_table("From how many sittings a month on the cluster is cheaper", ["students", "sittings"], firsts),
            class_="beside",
        ),
    )


def _interval(case: Case, found: Advice) -> Markup:
    values = sorted({1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, case.exam.interval})
    lines = _lines(case, values, lambda given, value: _with(given, interval=value))
    meeting = next(flip for flip in found.flips if flip.what == "interval")
    marks = [Mark(case.exam.interval, None, f"{case.exam.interval:g} s now", "now")]
    if meeting.at is not None:
        marks.append(_meeting_mark(meeting.at, case, interval=meeting.at))
    return _plot_section(
        "How often pages report",
        "Modelled. An interval is a promise: a student is shown as offline after twice the interval and 15 s of silence. "
        "Serverless pays for every frame, so it pays for every second less.",
        "Modelled cost of a month against the interval",
        lines,
        log_axis("seconds between a page's frames, logarithmic", 1.0, 120.0),
        marks,
        sorted({1.0, 5.0, 15.0, 60.0, case.exam.interval}),
        log_y=True,
    )


def _choices(case: Case) -> Markup:
    """Ack policies and clients, then instance types."""
    acks = []
    for label, client, policy in (
        ("No ack", "proctorwire", "none"),
        ("Reports that say something new are acked", "proctorwire", "changes"),
        ("Every frame is acked", "proctorwire", "all"),
        ("Figure 4 in full every interval, no ack", "paper", "none"),
    ):
        exam = msgspec.structs.replace(case.exam, client=client, acks=policy)
        changed = msgspec.structs.replace(case, exam=exam)
        acks.append((label, price_month(changed, "pay per use"), price_month(changed, case.servers)))
    most = max(usd for _, *pair in acks for usd in pair)
    bars = [
        Bar(label, name, usd, money(usd), css)
        for label, serverless, cluster in acks
        for name, usd, css in (("serverless", serverless, "lambda"), ("cluster", cluster, "ec2"))
    ]
    types = []
    for name in FAMILIES:
        if name not in case.prices.instance_types():
            continue
        given = msgspec.structs.replace(case.given, instance_type=name, ec2_cpu_factor=None)
        try:
            types.append((name, price_month(msgspec.structs.replace(case, given=given), case.servers)))
        except CostError:
            continue
    types.sort(key=lambda pair: pair[1])
    type_bars = [Bar(name, _factor_words(name), usd, money(usd), "ec2") for name, usd in types]
    return element(
        "section",
        element("h2", "What a choice costs"),
        element("p", f"USD a month, modelled; the cluster's servers {case.servers}.", class_="soft"),
        element(
            "div",
            element(
                "figure",
                element("h3", "Which frames are answered"),
                both_widths(lambda width: bar_plot("Modelled cost by ack policy", bars, most, width), wide=440),
            ),
            element(
                "figure",
                element("h3", "Instance types"),
                both_widths(
                    lambda width: bar_plot(
                        "Modelled cost by instance type", type_bars, max(u for _, u in types), width
                    ),
                    wide=440,
                ),
            ),
            class_="beside even",
        ),
    )


def _factor_words(name: str) -> str:
    return f"CPU x {CPU_FACTORS[name.partition('.')[0]].used:g}, assumed"


def _latency(case: Case, found: Advice) -> Markup:
    size = found.capacity
    ways = (
        serverless_way(case.calibration, case.given, case.exam.proctors_per_exam),
        cluster_way(case.calibration, case.given, size.vcpu_needed / size.vcpu_available, size.instances),
    )
    most = max(way.p95_ms for way in ways)
    bars = [
        Bar(f"{way.deployment}: {words}", "modelled", value, f"{value:,.0f} ms", "lambda" if way is ways[0] else "ec2")
        for way in ways
        for words, value in (("at best", way.low_ms), ("usual", way.usual_ms), ("19 of 20 within", way.p95_ms))
    ]
    return element(
        "section",
        element("h2", "How soon a proctor would see it on AWS, modelled"),
        element(
            "p",
            "Not measured: the sum of published and assumed times of each hop, with its range, from a page to a dashboard.",
            class_="soft",
        ),
        element(
            "div",
            element(
                "figure", both_widths(lambda width: bar_plot("Modelled latency on AWS", bars, most, width), wide=440)
            ),
            element("div", *[_hops(way) for way in ways]),
            class_="beside even",
        ),
    )


def _hops(way: Way) -> Markup:
    return data_table(
        f"{way.deployment}, ms, modelled",
        ["hop", "low", "usual", "high", ""],
        [
            [
                join(hop.name, element("small", hop.source)),
                *[f"{value:.1f}" for value in (hop.low, hop.usual, hop.high)],
                basis_mark(hop.basis),
            ]
            for hop in way.hops
        ],
        words=(0, 4),
    )


def _limits(found: Advice) -> Markup:
    if not found.limits:
        return element(
            "section",
            element("h2", "Limits of AWS"),
            element("p", "None of the limits that are checked would be hit.", class_="soft"),
        )
    rows = [
        [
            join(limit.name, element("small", limit.source)),
            f"{limit.needed:,.0f}",
            f"{limit.allowed:,.0f}",
            limit.unit,
            "yes" if limit.raisable else "no",
            limit.advice,
        ]
        for limit in found.limits
    ]
    return element(
        "section",
        element("h2", "Limits of AWS that would be hit"),
        data_table(
            "Modelled need", ["limit", "needed", "allowed", "", "raisable", "what to do"], rows, words=(0, 3, 4, 5)
        ),
    )


def _guesses(found: Advice) -> Markup:
    rows = [
        [
            join(guess.name, element("small", guess.source)),
            *[f"{value:g} {guess.unit}".strip() for value in (guess.low, guess.used, guess.high)],
            money(guess.gap_low_usd),
            money(guess.gap_high_usd),
            "flips it" if guess.flips else "",
        ]
        for guess in found.guesses
    ]
    return element(
        "section",
        element("h2", "If a guess is wrong"),
        element(
            "p",
            "How much more serverless costs than the cluster, at either end of each guess; below zero it is cheaper.",
            class_="soft",
        ),
        data_table(None, ["guess", "low", "used", "high", "gap at low", "gap at high", ""], rows),
    )


def _bills(case: Case) -> Markup:
    priced = price(case)
    cluster = next(b for b in (priced.cluster.month, *priced.cluster.other_months) if b.variant == case.servers)
    return element(
        "section",
        element("h2", "Both bills, line by line"),
        element("h3", f"Serverless: {money(priced.serverless.month.usd)}"),
        bill_table(priced.serverless.month),
        element("h3", f"Cluster, {case.servers}: {money(cluster.usd)}"),
        bill_table(cluster),
    )


def bill_table(bill: Bill) -> Markup:
    """Every line with its quantity, unit price, and the source of both."""
    return data_table(
        None,
        ["line", "quantity", "basis", "unit price", "USD"],
        [
            [
                join(
                    line.name,
                    element("small", "; ".join(part for part in (line.note, f"price: {line.source}") if part)),
                ),
                join(f"{amount(line.quantity)} ", element("small", line.unit)),
                basis_mark(line.basis),
                join(
                    unit_money(line.unit_price_usd),
                    "" if line.confidence == "quoted" else join(" ", basis_mark(line.confidence)),
                ),
                money(line.usd),
            ]
            for line in bill.lines
        ],
        total=["together", "", "", "", money(bill.usd)],
        words=(0, 2),
        kind="bill",
    )


def _doubt(line: CostLine) -> Markup | None:
    return None if line.confidence == "quoted" else join(" ", basis_mark(line.confidence))


def _method(found: Advice) -> Markup:
    return element(
        "section",
        element("h2", "Method"),
        element(
            "p",
            "Frames, acks, fan-out and connection minutes are counted from the protocol. What a frame costs in CPU time, store "
            f"units and bytes comes from runs on one machine ({found.calibration}). Quantities are multiplied by published prices.",
        ),
        element(
            "dl",
            *[join(element("dt", basis_mark(word)), element("dd", meaning)) for word, meaning in BASIS_WORDS.items()],
            class_="words",
        ),
        element("ul", *[element("li", words) for words in dict.fromkeys(found.assumptions)], class_="plain"),
    )
