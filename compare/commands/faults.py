"""`compare faults`: the same faults through both deployments, side by side."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import click
from rich.table import Table

from compare.bill.usage import Mode
from compare.commands.common import allow_many_sockets, format_options, option, quiet_option
from compare.faults.trials import SECONDS_EACH, TRIALS, FaultTable, Outcome, try_all
from compare.pages.faults import PAGE, TABLE_FILE, faults_page, keep
from compare.present import Format, Out, present, progress
from compare.run.result import MODE_NAMES
from compare.run.target import TargetError


@click.command("faults")
@click.option(
    "--fault",
    "names",
    multiple=True,
    type=click.Choice([trial.name for trial in TRIALS]),
    help="Only this one; may be given more than once.",
)
@option("--mode", "both", "Which deployments.", type=click.Choice(["both", "lambda", "ec2"]))
@option("--students", 24, "Students who report about once a second.", type=click.IntRange(8, 500))
@option("--seed", 1, "Who does what when, and whom a fault hits.", type=int)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Also write {TABLE_FILE} and {PAGE} here; the report of `compare run` in the same folder then has them as a section.",
)
@click.option("--list", "just_list", is_flag=True, help="Name the faults, and what each is in either deployment.")
@format_options
@quiet_option
def faults_command(
    names: tuple[str, ...],
    mode: str,
    students: int,
    seed: int,
    output: Path | None,
    just_list: bool,
    form: Format,
    quiet: bool,
) -> int:
    """Bring the same faults over both deployments: what was lost, doubled, wrongly shown offline, and how long it took to recover.

    Each fault has a deployment of its own on this machine: two instances over a real Redis, and the real handlers behind the
    emulated API Gateway. Takes about four minutes for all. Exit code 1 if anything was lost or anybody wrongly shown as offline.

    \b
    Example:
      compare faults
      compare faults --fault store-stopped --fault process-killed
      compare faults --mode ec2 --students 100 --format md
      compare faults --output compare-results
    """
    chosen = [trial for trial in TRIALS if not names or trial.name in names]
    if just_list:
        for trial in chosen:
            click.echo(f"{trial.name:16} {trial.what}\n{'':16}   serverless: {trial.serverless}")
            click.echo(f"{'':16}   cluster: {trial.cluster}")
        return 0
    modes: tuple[Mode, ...] = ("lambda", "ec2") if mode == "both" else ("lambda",) if mode == "lambda" else ("ec2",)
    allow_many_sockets()
    with progress("Faults", len(chosen) * len(modes) * SECONDS_EACH, quiet=quiet) as steps:

        def begins(name: str, mode: Mode) -> None:
            steps.tell(f"{name}, {MODE_NAMES[mode]}")

        try:
            found = asyncio.run(try_all(chosen, modes, students, seed, begins, lambda: steps.step(SECONDS_EACH)))
        except TargetError as exc:
            raise click.ClickException(str(exc)) from exc
    if output is not None:
        try:
            keep(found, output)
        except OSError as exc:
            raise click.UsageError(f"--output: can't write to {output} ({exc.strerror})") from exc
    present(form, found, lambda out: show(found, out), title="faults", page=lambda: faults_page(found))
    return 1 if found.anything_lost else 0


def show(found: FaultTable, out: Out) -> None:
    """A row for each fault and deployment."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("fault", "deployment", "lost", "duplicates", "false\noffline", "recovery\ns", "slowest\nreport, s"):
        table.add_column(name, justify="left" if name in ("fault", "deployment") else "right", no_wrap=True)
    table.add_column("shown re-\nconnecting", justify="right", no_wrap=True)
    table.add_column("what it was")
    last = ""
    for outcome in found.outcomes:
        table.add_row(outcome.fault if outcome.fault != last else "", *cells(outcome))
        last = outcome.fault
    out.print(table)
    for outcome in found.outcomes:
        for words in outcome.findings:
            out.print(f"{outcome.fault}, {MODE_NAMES[outcome.mode]}: {words}", style="dim", highlight=False)
    out.print(
        f"\n{found.students} students, seed {found.seed}. The cluster was measured on this machine; the serverless side is "
        "emulated: its times are not AWS's.",
        style="dim",
        highlight=False,
    )


def cells(outcome: Outcome) -> tuple[str, ...]:
    """A row's cells after the name of the fault."""
    never = outcome.recovery_s is None or math.isinf(outcome.recovery_s)
    return (
        f"{MODE_NAMES[outcome.mode]} ({outcome.basis})",
        f"{outcome.lost:,}",
        f"{outcome.duplicates:,}",
        f"{outcome.false_offline:,}",
        "never" if never else f"{outcome.recovery_s:.1f}",
        f"{outcome.slowest_s:.1f}",
        f"{outcome.reconnecting:,}",
        outcome.how,
    )
