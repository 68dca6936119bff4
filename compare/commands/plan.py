"""`compare plan`: a day of exams, simulated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from compare.advice.plan import Day, DayResult, simulate
from compare.bill.assumptions import Assumptions
from compare.bill.prices import load_prices
from compare.commands.common import (
    calibration_option,
    clear_errors,
    format_options,
    in_range,
    option,
    quiet_option,
    region_options,
    write_page,
)
from compare.commands.scenarios import scenario_option
from compare.model import calibration
from compare.model.units import Exam
from compare.pages.day import crossing_words, milliseconds_or_more, plan_page
from compare.pages.parts import money
from compare.present import Format, Out, present, progress

_EXAM = Exam(students=1)
_MOST_SIZES = 9


@click.command("plan")
@scenario_option("plan")
@click.option("--students", required=True, metavar="N[..M]", help="Students of the day, or from N to M of them.")
@option("--steps", 5, "Sizes between N and M, both with them.", type=int)
@option("--arrival", "surge", "How they come.", type=click.Choice(["surge", "even", "waves"]))
@option("--arrival-minutes", 20.0, "In which they come.", type=float)
@option("--begins", 6.0, "Hour of the day when the first come.", type=float)
@option("--hours", 3.0, "Hours that each stays.", type=float)
@option("--per-exam", 500, "Students of one exam.", type=int)
@option("--proctors-per-exam", 1, "Proctors who see all of an exam.", type=int)
@option("--interval", 5.0, "Seconds between a page's frames.", type=float)
@option("--changes", _EXAM.changes_per_hour, "Changes of a student in an hour (assumed).", type=float)
@option("--drops", _EXAM.drops_per_hour, "Drops of a student's connection in an hour (assumed).", type=float)
@option("--instance-type", "t3a.small", "Of the cluster.")
@option("--min-instances", 1, "Instances that are always there.", type=int)
@option(
    "--scaling",
    "auto",
    "Follow the CPU, or start what is needed before the exam.",
    type=click.Choice(["auto", "scheduled"]),
)
@option("--target-cpu", 0.5, "CPU that the scaler aims at.", type=float)
@option("--boot", 150.0, "Seconds until a new instance takes connections (assumed).", type=float)
@option("--max-instances", 10_000, "More are never started.", type=int)
@click.option("--storm", metavar="HOUR", type=float, help="At this hour half of all connections drop at once.")
@option("--lambda-concurrency", 1_000, "The account's limit of concurrent executions.", type=int)
@region_options
@calibration_option
@click.option(
    "--page",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a page with plots of the largest day.",
)
@format_options
@quiet_option
def plan_command(page: Path | None, form: Format, quiet: bool, **options: Any) -> None:
    """Simulate a day of exams on both deployments: instances, CPU, delivery, dollars, and every limit that is crossed.

    Students join in a surge, report, drop, come back and leave, second by second; instances boot, fill unevenly and are taken away;
    API Gateway and Lambda have their quotas. Everything printed is modelled.

    \b
    Example:
      compare plan --students 10000..1000000 --arrival surge
      compare plan --students 10000 --scaling auto --begins 6 --hours 3 --page day.html
      compare plan --scenario morning-surge --scaling scheduled
      compare plan --students 50000 --storm 7.5 --instance-type c7g.large --min-instances 2
    """
    with clear_errors():
        days = _days(options)
        results = []
        with progress("Simulating", float(sum(day.exam.students for day in days)), quiet=quiet) as steps:
            for day in days:
                steps.tell(f"{day.exam.students:,} students")
                results.append(simulate(day))
                steps.step(float(day.exam.students))
        if page is not None:
            write_page(page, plan_page(days, results), "--page")
        present(
            form,
            results,
            lambda out: show(days[-1], results, out),
            title="a day of exams",
            page=lambda: plan_page(days, results),
        )
    if page is not None:
        click.echo(f"\nPage {page}", err=form != "text")


def sizes(text: str, steps: int) -> list[int]:
    """The sizes that `--students` and `--steps` mean."""
    match = re.fullmatch(r"(\d[\d_,]*)(?:\.\.(\d[\d_,]*))?", text.strip())
    if match is None:
        raise click.UsageError(f"--students: {text!r} is no number and no range; give 10000, or 10000..1000000")
    first, last = (int(re.sub("[_,]", "", part)) if part else None for part in match.groups())
    assert first is not None  # the pattern has it
    if last is None:
        return [first]
    if last <= first:
        raise click.UsageError(f"--students: {text} does not rise; give the smaller number first")
    in_range("--steps", steps, 2, _MOST_SIZES)
    return [round(first * (last / first) ** (step / (steps - 1))) for step in range(steps)]


def _days(options: dict[str, Any]) -> list[Day]:
    for name, least, most in (
        ("per_exam", 1, 100_000),
        ("min_instances", 1, 10_000),
        ("max_instances", 1, 100_000),
        ("target_cpu", 0.05, 0.95),
        ("boot", 0, 3_600),
        ("begins", 0, 23),
        ("hours", 0.05, 12),
        ("lambda_concurrency", 1, 1_000_000),
    ):
        value = options[name]
        if not least <= value <= most:
            name = "--" + name.replace("_", "-")
            raise click.UsageError(f"{name}: {value:g} is out of range; give {least:g} to {most:,}")
    if options["begins"] + options["hours"] > 23:
        raise click.UsageError("--begins, --hours: the day would go on after midnight; begin earlier")
    prices = load_prices(options["region"], options["price_file"])
    if options["instance_type"] not in prices.instance_types():
        known = ", ".join(prices.instance_types())
        raise click.UsageError(
            f"--instance-type: no price or size of {options['instance_type']!r}; give one of {known}"
        )
    if (
        options["storm"] is not None
        and not options["begins"] <= options["storm"] <= options["begins"] + options["hours"]
    ):
        raise click.UsageError("--storm: not during the exam; give an hour between --begins and its end")
    known_coefficients = calibration.load(options["calibration_file"])
    given = Assumptions(instance_type=options["instance_type"], min_instances=options["min_instances"])
    return [
        Day(
            exam=Exam(
                students=students,
                hours=options["hours"],
                exams=max(1, -(-students // options["per_exam"])),
                proctors_per_exam=options["proctors_per_exam"],
                interval=options["interval"],
                changes_per_hour=options["changes"],
                drops_per_hour=options["drops"],
                arrival_minutes=options["arrival_minutes"],
            ).checked(),
            calibration=known_coefficients,
            prices=prices,
            given=given,
            arrival=options["arrival"],
            begins_hour=options["begins"],
            scaling=options["scaling"],
            target_cpu=options["target_cpu"],
            boot_seconds=options["boot"],
            most_instances=options["max_instances"],
            storm_hour=options["storm"],
            concurrency=float(options["lambda_concurrency"]),
        )
        for students in sizes(options["students"], options["steps"])
    ]


def show(day: Day, results: list[DayResult], out: Out) -> None:
    """All sizes, and the limits of the largest."""
    exam = day.exam
    out.print(
        f"[bold]A day of exams, modelled[/bold]: {day.arrival} of {exam.arrival_minutes:g} min, {exam.hours:g} h, a frame every "
        f"{exam.interval:g} s, {day.given.instance_type} {day.scaling}\n",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in (
        "students",
        "joins/s\nmost",
        "instances\nmost",
        "fullest\nCPU",
        "delivery p95\ncluster",
        "delivery p95\nserverless",
        "USD\ncluster",
        "USD\nserverless",
        "limits\ncrossed",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            f"{result.students:,}",
            f"{result.peak_joins:,.0f}",
            f"{result.most_instances:,}",
            f"{max(sample.busiest_cpu for sample in result.samples):.0%}",
            milliseconds_or_more(result.worst_cluster_p95_ms),
            milliseconds_or_more(result.worst_serverless_p95_ms),
            money(result.cluster_usd),
            money(result.serverless_usd),
            f"{len(result.crossings)}",
        )
    out.print(table)
    for line in limit_lines(results):
        out.print(line)
    out.print(f"\n[dim]All modelled; {day.calibration.source}.[/dim]", highlight=False)


def limit_lines(results: list[DayResult]) -> Iterator[Text]:
    """The limits of the largest day, and from which size on each is crossed."""
    largest = results[-1]
    if not largest.crossings:
        yield Text("\nNo limit is crossed.", style="bold")
        return
    yield Text(f"\nLimits crossed with {largest.students:,} students", style="bold")
    for crossing in largest.crossings:
        first = next(
            result.students for result in results if crossing.name in {found.name for found in result.crossings}
        )
        since = f" (from {first:,} students on)" if len(results) > 1 else ""
        yield Text(f"  {crossing.deployment:10}  {crossing_words(crossing)}{since}")
