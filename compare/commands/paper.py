"""`compare paper`: the published study's tables beside this project."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from compare.advice import paper
from compare.bill.assumptions import Assumptions
from compare.bill.lines import CostLine
from compare.bill.prices import Prices, load_prices
from compare.commands.common import (
    allow_many_sockets,
    calibration_option,
    clear_errors,
    format_options,
    option,
    quiet_option,
    write_page,
)
from compare.model import calibration
from compare.model.calibration import Calibration
from compare.pages.day import clock
from compare.pages.paper import paper_page
from compare.pages.parts import amount, milliseconds, money
from compare.present import Format, Out, present
from compare.run.result import Result

PARTS = ("a", "b", "c", "d")


@click.command("paper")
@option("--minutes", 1.0, "Minutes of the stress test of Table 1; 30 in the paper, 0 leaves it out.", type=float)
@click.option(
    "--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this part; may be given more than once."
)
@click.option(
    "--prices",
    "price_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Price table written by `compare prices refresh`.",
)
@calibration_option
@click.option(
    "--page",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write a page, with plots of the exam of 10,000.",
)
@format_options
@quiet_option
def paper_command(
    minutes: float,
    parts: tuple[str, ...],
    price_file: Path | None,
    calibration_file: Path | None,
    page: Path | None,
    form: Format,
    quiet: bool,
) -> None:
    """Set the published study's figures beside ours: a its example, b its stress test, c its bill, d its exam of 10,000.

    Part b is measured here and takes --minutes and about 40 seconds more; the others are modelled from prices and coefficients.
    Prices are those of Singapore, as in the study.

    \b
    Example:
      compare paper
      compare paper --part a --part c
      compare paper --minutes 0 --page paper.html
      compare paper --part b --minutes 30
    """
    if not 0 <= minutes <= 240:
        raise click.UsageError(f"--minutes: {minutes:g} is out of range; give 0 to 240")
    wanted = parts or PARTS
    with clear_errors(prices="--prices"):
        prices = load_prices(paper.REGION, price_file)
        known = calibration.load(calibration_file)
        given = Assumptions()
        found: dict[str, Any] = {}
        if "a" in wanted:
            found["a"] = paper.example_bill(prices, known)
        if "c" in wanted:
            found["c"] = paper.month_bill(prices, known, given)
        if "d" in wanted:
            found["d"] = paper.big_exam(prices, known, given)
        if "b" in wanted and minutes:
            found["b"] = paper.stress_test(_run(minutes, show=not quiet), minutes, prices, given)
    if page is not None:
        write_page(page, paper_page(found, paper.big_day(prices, known, given)), "--page")
        click.echo(f"Page {page}\n", err=True)

    def show(out: Out) -> None:
        for part in wanted:
            if part == "b" and not minutes:
                out.print("[dim]b  Table 1: left out; --minutes 30 runs its stress test.[/dim]\n")
            else:
                _show(part, found[part], out)
        out.print(f"[dim]{_sources(prices, known)}[/dim]", highlight=False)

    def whole_page() -> str:
        return paper_page(found, paper.big_day(prices, known, given))

    with clear_errors(prices="--prices"):
        present(form, dict(sorted(found.items())), show, title="the published study", page=whole_page)


def _sources(prices: Prices, known: Calibration) -> str:
    return (
        f"Prices of {prices.region} as of {prices.as_of}; {known.source}. Figures of the study: E. C. Nugroho, A "
        f"Horizontally "
        "Scalable WebSocket Architecture for Cost-Effective Online Examination Proctoring System on AWS Cloud "
        "Infrastructure."
    )


def _run(minutes: float, show: bool) -> Result:
    """The stress test on this machine: two instances, 1,000 students, a frame every five seconds."""
    from compare.run import comparison as running  # brings both deployments with it, which the other parts don't need

    options = msgspec.convert(
        {
            "mode": "ec2",
            "students": paper.TABLE_1_STUDENTS,
            "exams": 10,
            "interval": paper.TABLE_1_INTERVAL,
            "duration": minutes * 60,
            "instances": paper.TABLE_1_INSTANCES,
        },
        running.Options,
    )
    allow_many_sockets()
    try:
        with (
            _Bar(show and Console(stderr=True).is_terminal) as bar,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(running.compare_and_keep(options, progress=bar)).result
    except running.BadInput as exc:
        raise click.ClickException(str(exc)) from exc


class _Bar:
    """Progress of the run on standard error."""

    def __init__(self, show: bool) -> None:
        self._progress = Progress(
            TextColumn("Table 1"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=Console(stderr=True),
            disable=not show,
        )
        self._task: TaskID = self._progress.add_task("", total=1.0, note="")

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, _mode: object, phase: str, done: float, total: float, note: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done, total=total, note=f"{phase}  {note}"[:70])


# Printing


def _show(part: str, found: Any, out: Out) -> None:
    match part:
        case "a":
            _show_a(found, out)
        case "b":
            _show_b(found, out)
        case "c":
            _show_c(found, out)
        case _:
            _show_d(found, out)


def _head(out: Out, text: str) -> None:
    out.print(Text(text, style="bold"))


def _lines(lines: Sequence[CostLine], usd_first: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for justify in ("left", "right", "left", "right"):
        table.add_column(justify="right" if justify == "right" else "left", no_wrap=True)
    for line in sorted(lines, key=lambda line: -line.usd) if usd_first else lines:
        table.add_row(f"  {line.name}", amount(line.quantity), line.unit, f"${line.usd:,.3f}")
    return table


def _show_a(found: paper.ExampleBill, out: Out) -> None:
    _head(out, "a  Its example: 1,000 students, 3 hours, a message every 5 seconds (Singapore)")
    out.print(
        f"   {found.messages:,.0f} messages {money(found.messages_usd)} and {found.minutes:,.0f} connection minutes "
        f"{money(found.minutes_usd)}: {money(found.messages_usd + found.minutes_usd)} an exam; "
        f"{money(found.after_free_tier_usd)} after the free tier of an account of before July 2025.",
        highlight=False,
    )
    counted = sum(line.usd for line in found.counted)
    out.print(
        f"   What it left out, on our serverless side with the same messages and one proctor (modelled): "
        f"{money(found.whole_usd)} in all, of which {money(counted)} is in its arithmetic.",
        highlight=False,
    )
    out.print(_lines(found.left_out))
    out.print(
        f"   If every message is handed on to one proctor, as in its Figure 6, that is {money(found.passed_on_usd)} more. "
        "We hand on changes only.\n",
        highlight=False,
    )


def _show_b(found: paper.StressTest, out: Out) -> None:
    _head(
        out, f"b  Table 1: 1,000 students, 2 instances, 5 s; ours in {found.minutes:g} min on {found.where}, not on AWS"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for name in ("average", "90 %", "95 %", "99 %"):
        table.add_column(f"{name}\ntheirs / ours", justify="right", no_wrap=True)
    table.add_column("ours")
    for row in found.rows:
        cells = [
            f"{theirs:g} / {'-' if ours is None else milliseconds(ours)}"
            for theirs, ours in zip(row.theirs, row.ours, strict=True)
        ]
        table.add_row(f"{row.name}, {row.unit}", *cells, f"{row.basis}: {row.words}")
    out.print(table)
    out.print(
        f"   A message took {found.their_cpu_ms_a_message:.1f} ms of CPU there (65 % of four vCPUs for 200 a "
        f"second) and takes "
        f"{found.our_cpu_ms_a_message:.2f} ms here (modelled for a t3a vCPU; our pages send heartbeats where "
        f"nothing changed). "
        f"Lost: {found.lost}.",
        highlight=False,
    )
    for problem in found.problems:
        out.print(f"   {problem}", style="dim", highlight=False)
    out.print()


def _show_c(found: paper.MonthBill, out: Out) -> None:
    _head(out, "c  Table 2: a month before and after")
    for percent in found.percents:
        out.print(
            f"   {percent.what:12} printed {percent.printed:+.1f} %, from its dollars {percent.computed:+.2f} %: "
            f"{percent.words}",
            highlight=False,
        )
    out.print(
        f"   WebSocket's part of the old bill is {money(found.websocket_usd)}. {found.sittings:.1f} sittings of "
        f"10,000 students "
        f"and 3 hours explain it, each message in and on to one proctor: {found.messages / 1e9:.2f} billion "
        f"messages (assumed).",
        highlight=False,
    )
    out.print(
        f"   The total falls by $1,846.51, the two columns by $919.11: {money(found.others_usd)} of the saving is "
        f"in neither. "
        f"Lambda, DynamoDB and logs of such messages cost {money(found.handlers_usd)} on our serverless side (modelled), "
        "which would explain most of it.",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    gateway = f"of which API Gateway {money(found.serverless_gateway_usd)}: changes only are handed on, and acked"
    table.add_row("  Ours, serverless, every 5 s", money(found.serverless_usd), gateway)
    table.add_row("  Ours, serverless, every 15 s", money(found.relaxed_serverless_usd), "our default interval")
    cluster = f"{found.cluster_instances} x t3a.small and a Redis of two nodes, all on"
    table.add_row("  Ours, cluster, always on", money(found.cluster_always_on_usd), cluster)
    table.add_row("  Ours, cluster, scheduled", money(found.cluster_scheduled_usd), "started for each sitting")
    table.add_row(
        "  Theirs", "$293.02", "more for EC2 than before; load balancer, Redis and DynamoDB are in other columns"
    )
    out.print("   The same workload, a month, modelled:")
    out.print(table)
    out.print()


def _show_d(found: paper.BigExam, out: Out) -> None:
    _head(out, "d  Figures 8 and 9: 10,000 students, the surge at six, the end at twelve (modelled)")
    out.print(
        f"   {found.updates_a_second:,.0f} frames a second. Theirs: {found.their_instances} x t3a.small, "
        f"{found.their_students_an_instance:,.0f} students on each. Ours: {found.our_instances}, with one to spare "
        f"{found.with_redundancy}; a t3a.small carries {found.students_an_instance:,.0f} students at half of its CPU.",
        highlight=False,
    )
    worst = max(found.day.samples, key=lambda sample: sample.busiest_cpu)
    out.print(
        f"   The fullest instance is at {worst.busiest_cpu:.0%} at {clock(worst.hour)}, when "
        f"{worst.joins_a_second:,.0f} join "
        f"in a second; delivery within {found.day.worst_cluster_p95_ms:,.0f} ms for 19 of 20; the day costs "
        f"{money(found.day.cluster_usd)}.",
        highlight=False,
    )
    slow = found.their_cpu
    out.print(
        f"   With the CPU that Table 1 says a message took, the same scaler needs {slow.steady_instances} instances "
        f"for it and "
        f"starts {slow.most_instances} in the surge; twelve would be {found.their_busy_percent:.0f} % busy, so that "
        f"their two "
        "figures do not quite fit together.",
        highlight=False,
    )
    out.print(
        "   Our coefficients were measured with up to 2,000 students and a t3a vCPU is taken to be 2.5 times slower "
        "(assumed).\n",
        highlight=False,
    )
