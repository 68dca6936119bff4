"""`compare advise`: which deployment, by how much, and what would flip it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text

from compare.advice.choice import Advice, Case, Flip, advise, best_type
from compare.bill.assumptions import Assumptions
from compare.bill.prices import load_prices
from compare.commands.common import (
    Function,
    calibration_option,
    clear_errors,
    format_options,
    option,
    quiet_option,
    region_options,
    write_page,
)
from compare.commands.scenarios import scenario_option
from compare.model import calibration
from compare.model.units import Exam
from compare.pages.outlook import PAGE_SECTIONS, outlook_page
from compare.pages.parts import money
from compare.present import Format, Out, present, progress

_EXAM = Exam(students=1)
_GIVEN = Assumptions()


def case_options(command: Function) -> Function:
    """What a month of exams looks like, and whose prices and coefficients to take."""
    for decorate in reversed(
        (
            click.option("--students", required=True, type=int, help="Students connected at the same time."),
            option("--exams-per-month", 8.0, "Sittings in a month.", type=float),
            option("--hours", _EXAM.hours, "Hours of a sitting.", type=float),
            option("--exams", _EXAM.exams, "Exams that the students of a sitting are split among.", type=int),
            option("--proctors-per-exam", _EXAM.proctors_per_exam, "Proctors who see all of an exam.", type=int),
            option("--interval", _EXAM.interval, "Seconds between a page's frames.", type=float),
            option("--changes", _EXAM.changes_per_hour, "Changes of a student in an hour (assumed).", type=float),
            option("--client", _EXAM.client, "As in `compare run`.", type=click.Choice(["proctorwire", "paper"])),
            option("--acks", _EXAM.acks, "Frames that are answered.", type=click.Choice(["all", "changes", "none"])),
            option(
                "--drops", _EXAM.drops_per_hour, "Drops of a student's connection in an hour (assumed).", type=float
            ),
            option("--arrival", _EXAM.arrival_minutes, "Minutes in which all students join.", type=float),
            region_options,
            option(
                "--servers",
                "scheduled",
                "How the cluster's servers are kept, for the headline.",
                type=click.Choice(["always-on", "scheduled", "scale-to-zero"]),
            ),
            option("--instance-type", "auto", "Of the cluster; auto takes the cheapest that carries the exam."),
            click.option(
                "--cpu-factor",
                type=float,
                help="CPU time on the instance's vCPU for a second of the machine of the coefficients (`compare calibrate --cpu`); "
                "without it an assumed one of the family.",
            ),
            option("--min-instances", _GIVEN.min_instances, "2 survive the loss of one.", type=int),
            option("--listener", _GIVEN.listener, "Where TLS ends.", type=click.Choice(["tls", "tcp"])),
            option(
                "--free-tier",
                _GIVEN.free_tier,
                "Account opened before (legacy) or since (credit) 15 July 2025.",
                type=click.Choice(["none", "legacy", "credit"]),
            ),
            calibration_option,
        )
    ):
        command = decorate(command)
    return command


def case_from(options: dict[str, Any]) -> Case:
    """The case that the options describe. Raises the library's errors."""
    exam = Exam(
        students=options["students"],
        hours=options["hours"],
        exams=options["exams"],
        proctors_per_exam=options["proctors_per_exam"],
        interval=options["interval"],
        changes_per_hour=options["changes"],
        client=options["client"],
        acks=options["acks"],
        drops_per_hour=options["drops"],
        arrival_minutes=options["arrival"],
    ).checked()
    if not 1 <= options["min_instances"] <= 1_000:
        raise click.UsageError(f"--min-instances: {options['min_instances']} is out of range; give 1 to 1,000")
    factor = options["cpu_factor"]
    if factor is not None and not 0.05 <= factor <= 50:
        raise click.UsageError(f"--cpu-factor: {factor:g} is out of range; give 0.05 to 50")
    if factor is not None and options["instance_type"] == "auto":
        raise click.UsageError("--cpu-factor: belongs to one type; give its --instance-type")
    prices = load_prices(options["region"], options["price_file"])
    wanted = options["instance_type"]
    given = msgspec.structs.replace(
        _GIVEN,
        min_instances=options["min_instances"],
        listener=options["listener"],
        free_tier=options["free_tier"],
        ec2_cpu_factor=options["cpu_factor"],
        **({} if wanted == "auto" else {"instance_type": wanted}),
    )
    if wanted != "auto" and wanted not in prices.instance_types():
        known = ", ".join(prices.instance_types())
        raise click.UsageError(
            f"--instance-type: no price or size of {wanted!r} in {prices.region}; give auto or one of {known}"
        )
    case = Case(
        exam=exam,
        exams_per_month=options["exams_per_month"],
        prices=prices,
        calibration=calibration.load(options["calibration_file"]),
        given=given,
        servers=options["servers"].replace("-", " "),
    )
    case.plan.checked()
    return best_type(case) if wanted == "auto" else case


@click.command("advise")
@scenario_option("advise")
@case_options
@option(
    "--lambda-concurrency", 1_000, "The account's limit of concurrent executions; new accounts may have 10.", type=int
)
@click.option(
    "--page",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a page with plots: cost against sittings, students and interval, and who wins where.",
)
@format_options
@quiet_option
def advise_command(lambda_concurrency: int, page: Path | None, form: Format, quiet: bool, **options: Any) -> None:
    """Say which deployment costs less for a month of exams, by how much, and what would change the answer.

    Nothing is run: frames are counted from the protocol, and what a frame costs comes from measured coefficients
    (`compare calibrate`). Times on AWS are modelled, hop by hop.

    \b
    Example:
      compare advise --students 1200 --exams-per-month 8 --hours 2
      compare advise --scenario small-school --page advice.html
      compare advise --students 300 --interval 5 --proctors-per-exam 3 --servers always-on --region us-east-1
      compare advise --students 10000 --exams 40 --min-instances 2 --json
    """
    wants_page = page is not None or form == "html"
    with clear_errors():
        with progress("Pricing", 2.0 + PAGE_SECTIONS * wants_page, quiet=quiet) as steps:
            case = case_from(options)
            steps.step()
            found = advise(case, float(lambda_concurrency))
            steps.step()
            made = outlook_page(case, found, steps.step) if wants_page else ""
        if page is not None:
            write_page(page, made)
        present(form, found, lambda out: show(found, out), title="advice", page=lambda: made)
    if page is not None:
        click.echo(f"\nPage {page}", err=form != "text")


def show(found: Advice, out: Out) -> None:
    """One screen."""
    exam = found.exam
    winner, other = ("Serverless", "the cluster") if found.cheaper == "lambda" else ("The cluster", "serverless")
    usd = {way.variant: way.usd for way in found.ways}
    pair = sorted((usd["pay per use"], usd[found.servers]))
    students = "1 student" if exam.students == 1 else f"{exam.students:,} students"
    sittings = "1 sitting" if found.exams_per_month == 1 else f"{found.exams_per_month:g} sittings"
    out.print(
        Text.assemble(
            (f"{winner} is cheaper: {money(pair[0])} a month, {other} {money(pair[1])}", "bold"),
            f" ({found.saves_percent:.0f} % less), for {sittings} of {exam.hours:g} h with {students}, "
            f"servers {found.servers}, prices of {found.region}.\n",
        )
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("modelled", "USD a month", "an update takes", "19 of 20 within", "made of"):
        table.add_column(name, justify="left" if name in ("modelled", "made of") else "right", no_wrap=True)
    for way in sorted(found.ways, key=lambda way: way.usd):
        times = (f"{way.usual_ms:,.0f} ms", f"{way.p95_ms:,.0f} ms")
        table.add_row(way.name, money(way.usd), *times, way.what)
    for service in found.alternatives:
        table.add_row(
            f"{service.name}", money(service.usd), "", "", "cost only: API Gateway's lines replaced", style="dim"
        )
    out.print(table)
    out.print(Text("\nWhat would flip it", style="bold"))
    for line in flip_lines(found):
        out.print(f"  {line}", highlight=False)
    crossed = found.limits
    out.print(Text(f"\nAWS limits that would be hit: {len(crossed) or 'none'}", style="bold"))
    for limit in crossed:
        kind = "raisable" if limit.raisable else "fixed"
        out.print(
            f"  {limit.name}: {limit.needed:,.0f} of {limit.allowed:,.0f} {limit.unit} ({kind}); {limit.advice}",
            highlight=False,
        )
    out.print(Text("\nLargest lines", style="bold"))
    for name, lines in found.largest.items():
        out.print(f"  {name}: " + ", ".join(f"{line.name} {money(line.usd)}" for line in lines), highlight=False)
    out.print(
        f"\n[dim]All modelled. Prices as of {found.price_date}; {found.calibration}. {exam.changes_per_hour:g} changes and "
        f"{exam.drops_per_hour:g} drops of a student an hour are assumed. `compare prices show` and `compare calibrate` print "
        "what this rests on.[/dim]",
        highlight=False,
    )


def flip_lines(found: Advice) -> Iterator[str]:
    """What would change the answer, a line each."""
    for flip in found.flips:
        yield _flip_line(flip, found)
    wrong = [guess for guess in found.guesses if guess.flips]
    for guess in wrong[:3]:
        end = guess.low if min(guess.gap_low_usd, guess.gap_high_usd) == guess.gap_low_usd else guess.high
        yield f"{guess.name} {end:g} {guess.unit} instead of {guess.used:g} ({guess.source})"
    if not wrong:
        most = found.guesses[0]
        spread = abs(most.gap_high_usd - most.gap_low_usd)
        ends = f"{most.low:g} to {most.high:g} {most.unit}"
        yield f"no single guess: the most important ({most.name}, {ends}) moves it by {money(spread)}"
    if found.redundant_usd is not None:
        serverless = next(way.usd for way in found.ways if way.variant == "pay per use")
        word = (
            "still cheaper" if (found.redundant_usd < serverless) == (found.cheaper == "ec2") else "then the dearer one"
        )
        if found.cheaper == "lambda":
            word = "more than serverless" if found.redundant_usd > serverless else "less than serverless"
        yield f"a second instance, so that losing one harms nobody: the cluster costs {money(found.redundant_usd)}, {word}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _flip_line(flip: Flip, found: Advice) -> str:
    names = {"lambda": "serverless", "ec2": "the cluster"}
    unit = f" {flip.unit}" if flip.unit else ""
    if flip.at is None:
        always = names[flip.cheaper_above]
        return f"{flip.what}: nothing from {flip.low:,.0f} to {flip.high:,.0f}{unit}; {always} is cheaper throughout"
    above, below = names[flip.cheaper_above], names["ec2" if flip.cheaper_above == "lambda" else "lambda"]
    if flip.unit:
        words = f"below {flip.at:.1f}{unit} {below} is cheaper, above it {above}"
    elif flip.at < 1:
        words = f"{above} is cheaper from the first on"
    else:
        words = f"up to {math.floor(flip.at):,} {below} is cheaper, from {math.floor(flip.at) + 1:,} on {above}"
    line = f"{flip.what}: {words} (now {_plain(flip.now)}{unit})"
    if flip.what == "exams a month":
        one, two = found.break_even_range
        ends = sorted(f"{value:.1f}" if value is not None else "never" for value in (one, two))
        line += f"; {ends[0]} to {ends[1]} if all guesses are off"
    return line
