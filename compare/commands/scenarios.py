"""`compare scenarios`: the named exams that other commands take with --scenario; and the option itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click
from rich.table import Table

from compare.commands.common import Function, json_option, print_json
from compare.present import console
from compare.scenario import (
    Scenario,
    ScenarioError,
    advise_options,
    load_scenario,
    names,
    plan_options,
    run_options,
    scenario_from_trace,
    to_yaml,
)

_TAKES: dict[str, Callable[[Scenario], dict[str, Any]]] = {
    "advise": advise_options,
    "plan": plan_options,
    "run": run_options,
}


def scenario_option(command: Literal["advise", "plan", "run"]) -> Callable[[Function], Function]:
    """`--scenario`: the scenario's values become the command's defaults; options that are given win."""

    def read(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is None:
            return
        try:
            taken = _TAKES[command](load_scenario(value))
        except ScenarioError as exc:
            raise click.UsageError(f"--scenario: {exc}") from exc
        context.default_map = {**(context.default_map or {}), **taken}

    return click.option(
        "--scenario",
        metavar="NAME|FILE",
        is_eager=True,
        expose_value=False,
        callback=read,
        help="Take what is not given from a scenario; `compare scenarios list` names them.",
    )


@click.group("scenarios")
def scenarios() -> None:
    """Named exams: list them, check a file of your own, or make one from a recording."""


@scenarios.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the scenarios that come with the package.

    \b
    Example:
      compare scenarios list
      compare advise --scenario small-school
    """
    found = [load_scenario(name) for name in names()]
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for scenario in found:
        table.add_row(scenario.name, scenario.about)
    console().print(table)


@scenarios.command("show")
@click.argument("name", metavar="NAME|FILE")
def show_command(name: str) -> None:
    """Print a scenario as YAML, after checking it; a file of your own begins as a copy of one.

    \b
    Example:
      compare scenarios show small-school > mine.yaml
      compare scenarios show mine.yaml
    """
    try:
        click.echo(to_yaml(load_scenario(name)), nl=False)
    except ScenarioError as exc:
        raise click.UsageError(f"NAME|FILE: {exc}") from exc


@scenarios.command("from-trace")
@click.argument("trace", metavar="CSV", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", default="recorded", show_default=True, help="Of the scenario.")
def trace_command(trace: Path, name: str) -> None:
    """Make a scenario from a recording of an exam: lines of time, student, event (join, leave, drop, change, away, back, submit).

    It counts students, hours, arrival, changes and drops; `advise` and `plan` then speak of an exam like that one.

    \b
    Example:
      compare scenarios from-trace exam.csv > ours.yaml
      compare advise --scenario ours.yaml --exams-per-month 8
    """
    try:
        with trace.open(newline="") as lines:
            click.echo(to_yaml(scenario_from_trace(lines, name)), nl=False)
    except (OSError, UnicodeDecodeError) as exc:
        raise click.UsageError(f"CSV: can't read {trace} ({getattr(exc, 'strerror', None) or 'not text'})") from exc
    except ScenarioError as exc:
        raise click.UsageError(f"CSV: {trace}: {exc}") from exc
