"""`proctorwire bench`: how fast the cluster is on this machine."""

from __future__ import annotations

import sys

import click
import msgspec

from compare.commands.common import print_json

PARTS = ("cpu", "rate", "growth", "memory", "school")


@click.command("bench")
@click.option("--quick", is_flag=True, help="About three minutes: short runs, one of each, and 3,000 students at most.")
@click.option("--only", "parts", multiple=True, type=click.Choice(PARTS), help="Only this part; may be repeated.")
@click.option(
    "--rates", metavar="LIST", help="Only one line for each of these rates (reports a second), of the load given by:"
)
@click.option("--students", default=1_000, show_default=True, type=click.IntRange(20, 20_000), help="How many report.")
@click.option("--exams", default=20, show_default=True, type=click.IntRange(1, 1_000), help="How many exams they take.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 16), help="Workers of each instance.")
@click.option("--instances", default=1, show_default=True, type=click.IntRange(1, 16), help="Instances.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
def bench_command(
    quick: bool,
    parts: tuple[str, ...],
    rates: str | None,
    students: int,
    exams: int,
    workers: int,
    instances: int,
    as_json: bool,
) -> None:
    """Measure the cluster on one core of this machine, beside a server that only decodes and acks.

    Prints each figure beside what is asked of it: processor time a report and where it goes, the rate that is held, whether a
    report costs more with more students or instances, memory, a large school, a connect storm. The servers get one core and the
    load another, so close what else runs; trust ratios, absolute figures belong to the machine. Takes about 11 minutes; the exit
    code is 1 if a figure fails.

    \b
    Example:
      proctorwire bench --quick
      proctorwire bench --only cpu --only memory
      proctorwire bench --rates 2000,10000 --students 5000 --json
    """
    import uvloop

    from compare.bench.cluster import Shape
    from compare.bench.suite import QUICK, Plan, run, run_rates, text_of_split

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    plan = QUICK if quick else Plan()
    if rates is not None:
        asked = _rates(rates)
        shape = Shape(asked[0], students, exams, instances, workers)
        figures = uvloop.run(run_rates(msgspec.structs.replace(plan, base=shape, rates=asked), say))
        if as_json:
            print_json(figures)
        return
    report = uvloop.run(run(msgspec.structs.replace(plan, parts=parts or PARTS), say))
    if as_json:
        print_json(report)
    elif report.split is not None:
        say(text_of_split(report.split))
    if report.is_too_busy:
        click.echo(
            f"other processes kept {report.other_work:.1f} cores busy meanwhile: trust ratios, not figures that failed",
            err=True,
        )
    sys.exit(0 if all(line.holds is not False for line in report.lines) else 1)


def _rates(given: str) -> tuple[int, ...]:
    try:
        rates = tuple(int(rate) for rate in given.split(","))
    except ValueError:
        raise click.UsageError(f"--rates is {given!r}; give whole numbers with commas between") from None
    if not all(1 <= rate <= 100_000 for rate in rates):
        raise click.UsageError(f"--rates is {given!r}; each must be between 1 and 100000")
    return rates
