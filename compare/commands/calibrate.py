"""`compare calibrate`: what each kind of frame costs, from runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec
import uvloop
from rich.table import Table

from compare.commands.common import allow_many_sockets, print_json, quiet_option
from compare.model import calibration
from compare.model.calibration import Calibration, CalibrationError
from compare.model.speed import report_ms
from compare.present import console, progress
from compare.run.result import Result, ResultError, decode_result, encode_result

STANDARD_RUNS = (
    {"mode": "lambda", "students": 200, "exams": 2},
    {"mode": "lambda", "students": 200, "exams": 2, "client": "paper"},
    {"mode": "lambda", "students": 150, "exams": 1, "proctors_per_exam": 4},
    {"mode": "ec2", "students": 200, "exams": 1},
    {"mode": "ec2", "students": 2_000, "exams": 10},
    {"mode": "ec2", "students": 600, "exams": 3, "proctors_per_exam": 6},
    {"mode": "ec2", "students": 1_000, "exams": 5, "instances": 2, "workers": 1},
)
"""They differ in what they are rich in, so that one kind of frame can be told from another. A frame every 5 s."""
_RUN_SECONDS = 70.0
"""A dashboard asks for a snapshot after 60 s: in a run of just so long it may fall on either side of the end."""

HELD_OUT_RUNS: tuple[dict[str, object], ...] = (
    {"mode": "lambda", "students": 1_000, "exams": 5, "interval": 15.0},
    {"mode": "ec2", "students": 1_000, "exams": 5},
)
"""What the coefficients are tested with, and not made from."""
QUICK_RUNS: tuple[dict[str, object], ...] = (
    {"students": 24, "exams": 2, "duration": 8.0, "interval": 2.0},
    {"students": 48, "exams": 2, "duration": 8.0, "interval": 1.0, "client": "paper"},
)


@click.command("calibrate")
@click.argument("results", metavar="[RESULT.json]...", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--measure",
    is_flag=True,
    help="Make the standard runs now (about 17 minutes) instead of reading results, and test what comes of it on two more.",
)
@click.option(
    "--quick", is_flag=True, help="With --measure: two small runs (about 2 minutes), to see that it works; provisional."
)
@click.option(
    "--from",
    "start",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Coefficients to start from, where the runs say nothing; without it those in this package.",
)
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the coefficients here; give the file to other commands with --calibration.",
)
@click.option(
    "--cpu",
    is_flag=True,
    help="Time this machine against the one of the coefficients: run it on an instance, and it prints its CPU factor.",
)
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --measure: also write the result of each run here.",
)
@click.option("--provisional", is_flag=True, help="Mark them as measured in passing, on a machine that had other work.")
@click.option("--json", "as_json", is_flag=True, help="Print all coefficients as JSON.")
@quiet_option
def calibrate_command(
    results: tuple[Path, ...],
    measure: bool,
    quick: bool,
    start: Path | None,
    output: Path | None,
    cpu: bool,
    keep: Path | None,
    provisional: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print the coefficients of the workload model, or work out new ones from results of `compare run`.

    Without a result it prints those in use. With several results, best of different sizes, numbers of proctors and clients, it
    solves for what one join, one change, one heartbeat and one frame to a proctor cost each.

    \b
    Example:
      compare calibrate
      compare calibrate small/result.json large/result.json --output calibration.json
      compare calibrate --measure --output calibration.json
      compare calibrate --measure --quick
      compare calibrate --cpu
    """
    if quick and not measure:
        raise click.UsageError("--quick: shortens the runs of --measure; give both")
    if keep is not None and not measure:
        raise click.UsageError("--keep: keeps the runs of --measure; give both")
    if cpu and (measure or results or output):
        raise click.UsageError("--cpu: only compares machines; give it alone")
    if measure and results:
        raise click.UsageError("--measure: makes its own runs; give either it or results")
    try:
        known = calibration.load(start)
    except CalibrationError as exc:
        raise click.UsageError(f"--from: {exc}") from exc
    if cpu:
        _show_cpu(known, as_json)
        return
    if measure:
        speed = report_ms()  # before the machine is busy
        known = msgspec.structs.replace(_measured(known, provisional, quick, keep, quiet), speed_ms=speed)
    elif results:
        known = _fitted([_read(path) for path in results], known, provisional)
    if output is not None:
        try:
            output.write_bytes(calibration.encode(known))
        except OSError as exc:
            raise click.UsageError(f"--output: can't write {output} ({exc.strerror})") from exc
    if as_json:
        print_json(known)
    else:
        _show(known)
    if output is not None:
        click.echo(f"\nwritten {output}; use it with --calibration {output}", err=as_json)


def _show_cpu(known: Calibration, as_json: bool) -> None:
    here = report_ms()
    factor = here / known.speed_ms if known.speed_ms else None
    if as_json:
        print_json({"speed_ms": here, "calibrated_speed_ms": known.speed_ms, "cpu_factor": factor})
        return
    click.echo(f"1,000 reports take {here:.1f} ms of CPU on this machine.")
    if factor is None:
        click.echo("The coefficients do not say how long they took where those were measured: no factor.")
        return
    click.echo(
        f"They took {known.speed_ms:.1f} ms where the coefficients were measured: the CPU factor is {factor:.2f}.\n"
        f"Measured on an instance, give it to `compare advise --cpu-factor {factor:.2f}`."
    )


def _read(path: Path) -> Result:
    try:
        return decode_result(path.read_bytes())
    except OSError as exc:
        raise click.UsageError(
            f"RESULT.json: can't read {path} ({exc.strerror}); give a result.json of `compare run`"
        ) from exc
    except ResultError as exc:
        raise click.UsageError(f"RESULT.json: {path}: {exc}") from exc


def _measured(known: Calibration, provisional: bool, quick: bool, keep: Path | None, quiet: bool) -> Calibration:
    """New coefficients from the standard runs, and how far they are off for two others; quick ones have no such test."""
    # with it come schedules and models that printing coefficients does not need
    from compare.model.heldout import examined

    runs, tests = (QUICK_RUNS, ()) if quick else (STANDARD_RUNS, HELD_OUT_RUNS)
    made = []
    with progress("Calibrating", len(runs) + len(tests), quiet=quiet) as steps:
        for number, options in enumerate((*runs, *tests), 1):
            steps.tell(f"{number} of {len(runs) + len(tests)}")
            made.append(_run(options))
            if keep is not None:
                name = "-".join(f"{value}" for key, value in options.items() if key != "duration")
                _keep(keep / f"{number}-{name}.json", made[-1])
            steps.step()
    fitted = _fitted(made[: len(runs)], known, provisional or quick)
    return examined(fitted, made[len(runs) :]) if tests else fitted


def _keep(path: Path, result: Result) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_result(result))
    except OSError as exc:
        raise click.UsageError(f"--keep: can't write {path} ({exc.strerror})") from exc


def _run(options: dict[str, object]) -> Result:
    # brings both deployments with it, which the other ways through here don't need
    from compare.run import comparison as running

    given = msgspec.convert({"duration": _RUN_SECONDS, "interval": 5.0, **options}, running.Options)
    allow_many_sockets()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(running.compare(given))
    except running.BadInput as exc:
        raise click.ClickException(str(exc)) from exc


def _fitted(results: list[Result], known: Calibration, provisional: bool) -> Calibration:
    from compare.model.observed import calibrate

    try:
        return calibrate(results, known, provisional=provisional)
    except CalibrationError as exc:
        raise click.UsageError(f"RESULT.json: {exc}") from exc


def _show(known: Calibration) -> None:
    out = console()
    out.print(f"Measured {known.date[:10]} on {known.machine}{' (provisional)' if known.provisional else ''}")
    out.print(f"How: {known.how}\n", highlight=False)
    events = Table(title="Serverless, one event (measured; store units emulated)", box=None, title_justify="left")
    columns = ("cpu_ms", "dynamodb_read", "dynamodb_write", "dynamodb_transact", "read_units", "write_units")
    events.add_column("")
    for name in columns:
        events.add_column(name.replace("dynamodb_", "").replace("_", " "), justify="right")
    for kind, values in known.serverless.per.items():
        events.add_row(kind, *[f"{values[name]:.3f}" if name in values else "" for name in columns])
    for name, each in known.serverless.functions.items():
        events.add_row(f"{name} function", *[f"{each[what]:.3f}" if what in each else "" for what in columns])
    out.print(events)
    cpu = Table(title="\nCluster, CPU ms of one event (measured)", box=None, title_justify="left")
    cpu.add_column("")
    for name in known.cluster.cpu_ms:
        cpu.add_column(name, justify="right")
    for event in dict.fromkeys(event for values in known.cluster.cpu_ms.values() for event in values):
        cells = [f"{values[event]:.3f}" if event in values else "" for values in known.cluster.cpu_ms.values()]
        cpu.add_row(event.replace("_", " "), *cells)
    out.print(cpu)
    out.print(
        f"\nCluster memory: {sum(known.cluster.idle_bytes.values()) / 1e6:.0f} MB of an instance without clients, "
        f"{known.cluster.connection_bytes / 1e3:.0f} KB for each connection",
        highlight=False,
    )
    for residual in known.residuals:
        out.print(
            f"worst error  {residual.quantity}: {residual.worst_percent:.1f} % in {residual.runs} runs", highlight=False
        )
    for error in known.held_out:
        out.print(f"held out     {error.quantity}: {error.worst_percent:.1f} % of what was measured", highlight=False)
    if not known.residuals:
        sys.stdout.write("No runs were fitted: first guesses.\n")
