"""`compare diff`: two results, or two groups of them, and what changed beyond noise."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from rich.table import Table

from compare.commands.common import format_options, in_range, quiet_option
from compare.present import Format, Out, present, progress
from compare.run.difference import Difference, Row, difference, load_side
from compare.run.result import MODE_NAMES, ResultError

_MARKS = {"worse": "worse", "better": "better", "same": "", "unknown": "?"}
_TIMEOUT_SECONDS = 7_200


@click.command("diff")
@click.argument("sides", nargs=-1, metavar="[A B]", type=click.Path(path_type=Path))
@click.option("--a", "run_a", metavar="OPTIONS", help="Instead of A: options of `compare run`, to be run now.")
@click.option("--b", "run_b", metavar="OPTIONS", help="Instead of B.")
@click.option(
    "--repeat", default=3, show_default=True, type=int, help="Runs of either side with --a and --b, in turns a-b-a-b."
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the results of --a and --b here.",
)
@format_options
@quiet_option
def diff_command(
    sides: tuple[Path, ...],
    run_a: str | None,
    run_b: str | None,
    repeat: int,
    output: Path | None,
    form: Format,
    quiet: bool,
) -> int:
    """Say what changed from A to B, with the 95 % interval of each difference where either side has two runs or more.

    A and B are result.json files of `compare run`, or folders with several. Exit code 1 if something got worse by more than noise.

    \b
    Example:
      compare diff before/result.json after/result.json
      compare diff runs-before/ runs-after/
      compare diff --repeat 5 --a "--mode ec2 --transport picows" --b "--mode ec2 --transport websockets"
    """
    if (run_a is None) != (run_b is None):
        raise click.UsageError("--a, --b: give both, or two results")
    if run_a is not None and run_b is not None:
        if sides:
            raise click.UsageError("--a, --b: give either them or two results")
        in_range("--repeat", repeat, 1, 100)
        found = _run_both(run_a, run_b, repeat, output, quiet=quiet)
    else:
        if len(sides) != 2:
            raise click.UsageError(f"A B: {len(sides)} given; give two results, or two folders of them")
        found = _compared(*sides)
    present(form, found, lambda out: show(found, out), title="what changed")
    return 1 if found.worse else 0


def _compared(before: Path, after: Path) -> Difference:
    try:
        return difference(load_side(before), load_side(after))
    except ResultError as exc:
        raise click.UsageError(f"A B: {exc}") from exc


def _run_both(run_a: str, run_b: str, repeat: int, output: Path | None, *, quiet: bool) -> Difference:
    """The runs, in turns, so that what the machine does meanwhile falls on both sides."""
    with tempfile.TemporaryDirectory(prefix="compare-diff-") as temporary:
        folder = output or Path(temporary)
        turns = [(side, number, text) for number in range(1, repeat + 1) for side, text in (("a", run_a), ("b", run_b))]
        with progress("Running", len(turns), quiet=quiet) as steps:
            for side, number, text in turns:
                steps.tell(f"{side}, run {number}")
                _run(side, text, folder / side / str(number))
                steps.step()
        return _compared(folder / "a", folder / "b")


def _run(side: str, text: str, folder: Path) -> None:
    try:
        options = shlex.split(text)
    except ValueError as exc:
        raise click.UsageError(f"--{side}: {exc}") from exc
    command = [
        sys.executable,
        "-c",
        "from compare.cli import main; main()",
        "run",
        *options,
        "--quiet",
        "--output",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode not in (0, 1) or not (folder / "result.json").exists():
        lines = done.stderr.strip().splitlines() or ["no result"]
        raise click.UsageError(f"--{side}: {lines[-1].removeprefix('Error: ')}")


def show(found: Difference, out: Out) -> None:
    """A row for each figure, the ones that changed marked in words."""
    out.print(f"{found.runs_before} run(s) before, {found.runs_after} after", highlight=False)
    for name, before, after in found.options:
        out.print(f"  {name.replace('_', ' ')}: {before} -> {after}", highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, justify in (
        ("", "left"),
        ("", "left"),
        ("before", "right"),
        ("after", "right"),
        ("change", "right"),
        ("95 % interval", "right"),
        ("", "left"),
        ("", "left"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    last = ""
    for row in found.rows:
        mode = MODE_NAMES[row.mode]
        table.add_row(mode if mode != last else "", *_cells(row))
        last = mode
    out.print(table)
    if any(row.direction == "unknown" for row in found.rows):
        out.print(
            "\n? one run on a side: its noise is not known. --repeat, or folders with several results, tell.",
            style="dim",
        )


def _cells(row: Row) -> tuple[str, ...]:
    unit = f" {row.unit}" if row.unit else ""
    change = f"{row.percent:+.1f} %" if row.percent is not None else f"{row.after - row.before:+.3g}{unit}"
    interval = "" if row.low is None or row.high is None else f"{row.low:+.3g} to {row.high:+.3g}{unit}"
    return (
        row.name,
        f"{_number(row.before)}{unit}",
        f"{_number(row.after)}{unit}",
        change,
        interval,
        _MARKS[row.direction],
        row.basis,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 or value == int(value) else f"{value:.3g}"
