"""A simulated day as a page: connections, instances, CPU, delivery, dollars, and every limit it crosses. All of it modelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compare.advice.plan import SATURATED_MS, Crossing, Day, DayResult, Sample
from compare.model.latency import cluster_way, serverless_way
from compare.pages.markup import Markup, element, join
from compare.pages.parts import BASIS_WORDS, basis_mark, both_widths, data_table, document, legend, money
from compare.pages.svg import Axis, Line, Mark, line_plot, linear_axis, log_axis


def plan_page(days: Sequence[Day], results: Sequence[DayResult]) -> str:
    """The page: all sizes in a table, the largest one minute by minute."""
    day, largest = days[-1], results[-1]
    return document(
        "Proctorwire: a day of exams",
        "plan",
        f"prices of {day.prices.region}, {day.prices.as_of}",
        (
            _summary(day, results),
            _sizes(results),
            *([_by_size(results)] if len(results) > 1 else []),
            *hours(day, largest),
            _crossings(largest),
            _method(day),
        ),
        f"Made by compare plan, {results[0].students:,} to {largest.students:,} students."
        if len(results) > 1
        else f"Made by compare plan for {largest.students:,} students.",
    )


def crossing_words(crossing: Crossing) -> str:
    """When, by how much, and what to do."""
    return (
        f"{clock(crossing.first_hour)}: {crossing.name}: {_figure(crossing.worst)} of {_figure(crossing.allowed)} {crossing.unit}, "
        f"for {_span(crossing.seconds)}; {crossing.advice}"
    )


def clock(hour: float) -> str:
    """The time of day."""
    minutes = round(hour * 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _span(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 or value == int(value) else f"{value:.2g}"


def milliseconds_or_more(value: float) -> str:
    """A time, or that the deployment is overrun."""
    return "overrun" if value >= SATURATED_MS else f"{value:,.0f} ms"


def _summary(day: Day, results: Sequence[DayResult]) -> Markup:
    largest = results[-1]
    broken = [
        crossing
        for crossing in largest.crossings
        if crossing.deployment == "cluster" and "credits" not in crossing.name
    ]
    refused = [
        crossing for crossing in largest.crossings if crossing.deployment == "serverless" and "Age" not in crossing.name
    ]
    overrun = " that are overrun" if largest.worst_cluster_p95_ms >= SATURATED_MS else ""
    limits = {0: "serverless with no limit to raise", 1: "one limit of AWS to raise"}.get(
        len(refused), f"{len(refused)} limits of AWS to raise"
    )
    return element(
        "section",
        element(
            "h1",
            f"{largest.students:,} students in a morning: {largest.most_instances:,} instances{overrun}, or {limits}.",
        ),
        element(
            "p",
            f"Modelled. {largest.students:,} students join within {day.exam.arrival_minutes:g} minutes from "
            f"{clock(day.begins_hour)} on and stay for {day.exam.hours:g} hours, a frame every {day.exam.interval:g} seconds. "
            f"The day costs {money(largest.cluster_usd)} on {largest.instance_type}, "
            f"{money(largest.serverless_usd)} serverless.",
            class_="lead",
        ),
        element(
            "p",
            "The cluster carries it without crossing a limit that matters."
            if not broken
            else "The cluster crosses: " + "; ".join(crossing.name for crossing in broken) + ".",
            " ",
            "Serverless does, too."
            if not refused
            else "Serverless crosses: " + "; ".join(crossing.name for crossing in refused) + ".",
            class_="lead",
        ),
        class_="summary",
    )


def _sizes(results: Sequence[DayResult]) -> Markup:
    rows = [
        [
            f"{result.students:,}",
            f"{result.peak_joins:,.0f}",
            f"{result.most_instances:,}",
            f"{result.steady_instances:,}",
            f"{max(sample.busiest_cpu for sample in result.samples):.0%}",
            milliseconds_or_more(result.worst_cluster_p95_ms),
            milliseconds_or_more(result.worst_serverless_p95_ms),
            money(result.cluster_usd),
            money(result.serverless_usd),
            f"{len(result.crossings)}",
        ]
        for result in results
    ]
    return element(
        "section",
        element("h2", "By size"),
        data_table(
            "Modelled: one day each. Delivery is the worst minute's 95th percentile.",
            [
                "students",
                "joins/s, most",
                "instances, most",
                "without joins",
                "fullest CPU",
                "delivery, cluster",
                "delivery, serverless",
                "cluster, USD",
                "serverless, USD",
                "limits crossed",
            ],
            rows,
        ),
    )


def _by_size(results: Sequence[DayResult]) -> Markup:
    first, last = float(results[0].students), float(results[-1].students)
    money_lines = [
        Line("Serverless", "lambda", tuple((float(r.students), r.serverless_usd) for r in results)),
        Line("Cluster", "ec2", tuple((float(r.students), r.cluster_usd) for r in results)),
    ]
    values = [usd for line in money_lines for _, usd in line.points]
    return _figure_section(
        "Dollars of a day by students",
        "Modelled dollars of a day against students",
        money_lines,
        log_axis("students, logarithmic", first, last),
        log_axis("USD, modelled", min(values), max(values)),
        [],
    )


def hours(day: Day, result: DayResult) -> list[Markup]:
    """One section with a plot and a table for each of connections, instances, CPU, delivery, dollars and credits."""
    samples = result.samples
    x = _clock_axis(samples)
    made = [
        _figure_section(
            "Connections",
            "Modelled connections over the day",
            [
                _line("Connected", "ec2", samples, lambda sample: sample.connections),
                _line(
                    "Waiting for API Gateway to let them in", "lambda", samples, lambda sample: sample.waiting_to_join
                ),
            ],
            x,
            linear_axis("connections, modelled", 1.05 * max(1.0, result.peak_connections)),
            [],
        ),
        _figure_section(
            "Instances",
            "Modelled instances over the day",
            [
                _line("Taking connections", "ec2", samples, lambda sample: sample.instances),
                Line("Enough without joins", "limit", tuple((s.hour, float(result.steady_instances)) for s in samples)),
            ],
            x,
            linear_axis("instances, modelled", 1.1 * max(result.most_instances, result.steady_instances, 2)),
            [],
        ),
        _figure_section(
            "CPU",
            "Modelled CPU over the day",
            [
                _line("All instances", "ec2", samples, lambda sample: min(2.0, sample.cpu)),
                _line("The fullest, worst second", "scheduled", samples, lambda sample: min(2.0, sample.busiest_cpu)),
                Line("Aim", "limit", tuple((sample.hour, day.target_cpu) for sample in samples)),
            ],
            x,
            Axis("share of the vCPUs, modelled", 0.0, 1.2, tuple((n / 5, f"{20 * n} %") for n in range(7))),
            [],
        ),
    ]
    times = [max(1.0, value) for sample in samples for value in (sample.cluster_p95_ms, sample.serverless_p95_ms)]
    made.append(
        _figure_section(
            "Delivery",
            "Modelled 95th percentile of a delivery over the day",
            [
                _line("Serverless", "lambda", samples, lambda sample: sample.serverless_p95_ms),
                _line("Cluster", "ec2", samples, lambda sample: sample.cluster_p95_ms),
            ],
            x,
            log_axis("ms, modelled, logarithmic", min(times), max(times)),
            [],
            words=f"19 of 20 updates are there within this time. {SATURATED_MS / 1000:g} s says only that it is overrun.",
        )
    )
    made.append(
        _figure_section(
            "Dollars",
            "Modelled dollars since midnight",
            [
                _line("Serverless", "lambda", samples, lambda sample: sample.serverless_usd),
                _line("Cluster", "ec2", samples, lambda sample: sample.cluster_usd),
            ],
            x,
            linear_axis("USD, modelled", 1.05 * max(result.cluster_usd, result.serverless_usd), prefix="$"),
            [],
        )
    )
    if any(sample.credits for sample in samples):
        low = min(0.0, *[sample.credits for sample in samples])
        high = max(1.0, *[sample.credits for sample in samples])
        made.append(
            _figure_section(
                "CPU credits",
                "Modelled CPU credits of the poorest instance",
                [_line("Balance; below zero it is borrowed", "ec2", samples, lambda sample: sample.credits)],
                x,
                _signed_axis("credits, modelled", low, high),
                [],
                words=f"{result.surplus_vcpu_hours:,.2f} vCPU hours are charged as surplus.",
            )
        )
    return made


def _line(label: str, css: str, samples: Sequence[Sample], value: Callable[[Sample], float]) -> Line:
    return Line(label, css, tuple((sample.hour, value(sample)) for sample in samples))


def _clock_axis(samples: Sequence[Sample]) -> Axis:
    low, high = samples[0].hour, samples[-1].hour
    step = next(step for step in (0.5, 1, 2, 3, 6) if (high - low) / step <= 8)
    first = -(-low // step) * step
    ticks = []
    while first <= high + 1e-9:
        ticks.append((first, clock(first)))
        first += step
    return Axis("time of day", low, high, tuple(ticks))


def _signed_axis(title: str, low: float, high: float) -> Axis:
    rough = linear_axis(title, high - low)
    step = rough.ticks[1][0]
    first = -(-low // step) * step
    ticks = []
    while first <= high + 1e-9:
        ticks.append((first, f"{first:,.0f}"))
        first += step
    return Axis(title, low, high, tuple(ticks))


def _figure_section(
    heading: str,
    title: str,
    lines: Sequence[Line],
    x: Axis,
    y: Axis,
    marks: Sequence[Mark],
    words: str = "",
) -> Markup:
    shown = (
        sorted({x.low + (x.high - x.low) * part / 6 for part in range(7)})
        if not x.log
        else [p for p, _ in lines[0].points]
    )

    def nearest(line: Line, at: float) -> float:
        return min(line.points, key=lambda point: abs(point[0] - at))[1]

    rows = [[clock(at) if not x.log else f"{at:,.0f}", *[_amount(nearest(line, at)) for line in lines]] for at in shown]
    return element(
        "section",
        element("h2", heading),
        element("p", "Modelled. ", words, class_="soft"),
        element(
            "div",
            element("figure", legend(lines), both_widths(lambda width: line_plot(title, lines, x, y, marks, width))),
            data_table(title, ["", *[line.label for line in lines]], rows),
            class_="beside",
        ),
    )


def _amount(value: float) -> str:
    if abs(value) >= 100 or abs(value) < 0.005:
        return f"{value:,.0f}"
    return f"{value:,.3g}"


def _crossings(result: DayResult) -> Markup:
    if not result.crossings:
        return element("section", element("h2", "Limits"), element("p", "None is crossed.", class_="soft"))
    rows = [
        [
            crossing.name,
            crossing.deployment,
            clock(crossing.first_hour),
            _span(crossing.seconds),
            _figure(crossing.worst),
            _figure(crossing.allowed),
            crossing.unit,
            crossing.advice,
        ]
        for crossing in result.crossings
    ]
    return element(
        "section",
        element("h2", "Limits that are crossed"),
        data_table(
            f"Modelled, {result.students:,} students",
            ["limit", "", "first at", "for", "worst", "allowed", "", "what to do"],
            rows,
            words=(0, 1, 6, 7),
        ),
    )


def _method(day: Day) -> Markup:
    factor = day.given.cpu_factor(day.given.instance_type.partition(".")[0]).used
    case_words = (
        f"Students arrive as a {day.arrival}: within {day.exam.arrival_minutes:g} minutes, most of them in the first half."
        if day.arrival == "surge"
        else f"Students arrive in the shape '{day.arrival}'.",
        f"{day.exam.exams:,} exams, {day.exam.proctors_per_exam} proctors each; {day.exam.changes_per_hour:g} changes and "
        f"{day.exam.drops_per_hour:g} drops of a student an hour, assumed.",
        f"Instances: {day.given.instance_type}, {day.scaling}; the scaler aims at {day.target_cpu:.0%} CPU, a new instance takes "
        f"connections after {day.boot_seconds:g} s, {day.cooldown_seconds:g} s of cool-down, "
        f"{day.quiet_minutes} quiet minutes before one goes.",
        "New connections go to every instance; those that are there stay until they drop or their instance is behind.",
        f"CPU time measured on one machine, times {factor:g} for a vCPU of the type (assumed). {day.calibration.source}.",
    )
    ways = (
        serverless_way(day.calibration, day.given, day.exam.proctors_per_exam),
        cluster_way(day.calibration, day.given, day.target_cpu, 2),
    )
    return element(
        "section",
        element("h2", "Method"),
        element("ul", *[element("li", words) for words in case_words], class_="plain"),
        element(
            "dl",
            *[
                join(element("dt", basis_mark(word)), element("dd", BASIS_WORDS[word]))
                for word in ("modelled", "assumed")
            ],
            class_="words",
        ),
        *[
            data_table(
                f"{way.deployment}: hops of a delivery, ms, modelled",
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
            for way in ways
        ],
    )
