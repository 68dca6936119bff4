"""The `compare` command. Thin: each command reads its options, calls the library and prints what it says."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click
import msgspec
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from compare.bill.usage import Mode
from compare.commands import register
from compare.commands.common import format_options
from compare.commands.scenarios import scenario_option
from compare.output import prepare_output, write_output
from compare.pages.report import html_report, terminal_table
from compare.present import Format, Out, present
from compare.run import comparison as running
from compare.run.comparison import BadInput, Comparison, Options, Phase, generator_words
from compare.run.result import MODE_NAMES

_INTERRUPTED = 130
_FILES_WANTED = 65_536


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="proctorwire")
def compare() -> None:
    """Serverless or EC2? Put the same exam through both and compare cost and latency."""


register(compare)

_DEFAULTS = Options()
Command: TypeAlias = Callable[..., int]


def _option(name: str, default: Any, help: str, **more: Any) -> Callable[[Command], Command]:
    """An option with its default in the help."""
    return click.option(name, default=default, show_default=True, help=help, **more)


@compare.command("run")
@scenario_option("run")
@_option("--students", _DEFAULTS.students, "Students of all exams together.", type=int)
@_option("--exams", _DEFAULTS.exams, "Exams at the same time.", type=int)
@_option("--proctors-per-exam", _DEFAULTS.proctors_per_exam, "Proctors who watch each exam.", type=int)
@_option("--interval", _DEFAULTS.interval, "Seconds between a page's reports or heartbeats.", type=float)
@_option("--duration", _DEFAULTS.duration, "Seconds that the exam lasts here.", type=float)
@_option("--seed", _DEFAULTS.seed, "Fixes who does what when.", type=int)
@_option("--mode", _DEFAULTS.mode, "Which deployments.", type=click.Choice(["both", "lambda", "ec2"]))
@_option(
    "--client",
    _DEFAULTS.client,
    "Students' pages: our protocol, or the paper's Figure 4 every interval and no more.",
    type=click.Choice(["proctorwire", "paper"]),
)
@_option("--instances", _DEFAULTS.instances, "Instances of the cluster.", type=int)
@_option("--workers", _DEFAULTS.workers, "Worker processes on each instance.", type=int)
@_option("--region", _DEFAULTS.region, "AWS region of the prices.")
@_option("--exams-per-month", _DEFAULTS.exams_per_month, "Exams in the month that is priced.", type=float)
@_option("--hours", _DEFAULTS.hours, "Hours of the exam that is priced.", type=float)
@_option(
    "--transport",
    _DEFAULTS.transport,
    "WebSocket library of the cluster.",
    type=click.Choice(["picows", "websockets"]),
)
@click.option(
    "--trace",
    metavar="FILE",
    help="Replay a recording: a CSV of time, student, event (join, leave, drop, change, away, back, submit). Students, "
    "duration and hours are its own; --duration takes only its beginning.",
)
@click.option("--lambda-url", metavar="WSS", help="Measure this API Gateway deployment instead of the emulated one.")
@click.option("--ec2-url", metavar="WSS", help="Measure this cluster instead of a local one.")
@click.option(
    "--token-secret",
    metavar="S",
    envvar="PROCTORWIRE_TOKEN_SECRET",
    help="Secret that those deployments sign tokens with; also from PROCTORWIRE_TOKEN_SECRET.",
)
@_option(
    "--output",
    Path("compare-results"),
    "Folder for result.json and report.html.",
    metavar="DIR",
    type=click.Path(path_type=Path),
)
@format_options
@click.option("--quiet", is_flag=True, help="No progress bars.")
def run_command(output: Path, form: Format, quiet: bool, **given: Any) -> int:
    """Run the same seeded exam through both deployments, on this machine or on real ones.

    Prints latency, losses and cost side by side, and writes result.json and report.html. Exit code 0: nothing was lost, doubled
    or wrongly shown as offline; 1: something was; 2: bad input; 130: interrupted, with what was measured so far.

    \b
    Example:
      compare run --students 200 --duration 30
      compare run --scenario small-school
      compare run --trace exam.csv --exams 2 --duration 600
      compare run --mode ec2 --client paper --students 1000 --exams 1 --instances 2
      compare run --mode lambda --lambda-url wss://abc.execute-api.ap-southeast-1.amazonaws.com/live --token-secret "$SECRET"
    """
    try:
        source = click.get_current_context().get_parameter_source
        own = {name: source(name) is ParameterSource.COMMANDLINE for name in ("duration", "hours", "students")}
        if given["trace"] is not None and own["students"]:
            raise click.UsageError("--students, --trace: the recording says who is there; give one of them")
        options = running.traced(
            msgspec.convert(given, Options), keep_duration=own["duration"], keep_hours=own["hours"]
        )
        running.checked(options)
        prepare_output(output)
        _allow_many_sockets()
        comparison, interrupted = _run(options, show=not quiet and sys.stderr.isatty())
        result = comparison.result
        if interrupted and not result.modes:
            click.echo("Stopped before anything was measured.", err=True)
            return _INTERRUPTED
        json_path, report_path = write_output(output, result)
    except BadInput as exc:
        raise click.UsageError(str(exc)) from exc

    def show(out: Out) -> None:
        out.print(terminal_table(result))
        for mode, run in comparison.runs.items():
            if run.recording.generator is not None:
                words = generator_words(run.recording.generator)
                out.print(f"\nLoad generator for {MODE_NAMES[mode]}: {words}.", style="dim", highlight=False)
        out.print(f"\nReport  {report_path}\nFigures {json_path}", soft_wrap=True, highlight=False)

    present(form, result, show, title="serverless or cluster", page=lambda: html_report(result))
    if interrupted:
        click.echo("Stopped: the figures cover what there was.", err=True)
        return _INTERRUPTED
    return 1 if result.anything_lost else 0


def _run(options: Options, show: bool) -> tuple[Comparison, bool]:
    """Run until done or interrupted."""

    async def body() -> tuple[Comparison, bool]:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        with _Bars(show) as bars:
            return await running.compare_and_keep(options, stop=stop, progress=bars), stop.is_set()

    with asyncio.Runner() as runner:
        return runner.run(body())


class _Bars:
    """Progress on standard error: one bar for each deployment."""

    def __init__(self, show: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=Console(stderr=True),
            disable=not show,
        )
        self._tasks: dict[Mode, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, mode: Mode, phase: Phase, done: float, total: float, note: str) -> None:
        """Move this deployment's bar."""
        if mode not in self._tasks:
            self._tasks[mode] = self._progress.add_task(MODE_NAMES[mode], total=total, note="")
        self._progress.update(self._tasks[mode], completed=done, note=f"{phase}  {note}"[:70])


def _allow_many_sockets() -> None:
    """Raise the soft limit of open files: one student is one socket, here and in the servers we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; every error is one line."""
    try:
        code = compare.main(args=arguments, prog_name="compare", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        code = exc.exit_code
    except click.ClickException as exc:
        click.echo(f"Error: {exc.format_message()}", err=True)
        code = exc.exit_code
    except click.Abort:
        code = _INTERRUPTED
    sys.exit(code)
