"""Runs scenarios one after the other and prints how each went."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from compare.faults.chaos import play
from compare.faults.rig import INVARIANTS, Scenario, Verdict
from compare.faults.scenarios import SCENARIOS

_SHOWN = 4
_WIDTH = 132


def scenarios_named(names: Sequence[str], quick: bool) -> tuple[list[Scenario], str]:
    """The scenarios of these names (none: all), and the first name that is none."""
    known = {scenario.name: scenario for scenario in SCENARIOS}
    unknown = next((name for name in names if name not in known), "")
    chosen = [known[name] for name in names if name in known] if names else list(SCENARIOS)
    return [scenario for scenario in chosen if scenario.quick or not quick], unknown


def run(scenarios: Sequence[Scenario], seed: int, students: int, as_json: bool) -> bool:
    """Play and print; True if every invariant held everywhere."""
    verdicts = []
    console = Console(stderr=True)
    for scenario in scenarios:
        if not as_json:
            console.print(f"{scenario.name}: {scenario.what} ...", highlight=False)
        verdict = asyncio.run(play(scenario, seed, students))
        verdicts.append(verdict)
        if as_json:
            sys.stdout.write(msgspec.json.encode(verdict).decode() + "\n")
            sys.stdout.flush()
    if not as_json:
        shown = Console()
        shown.width = max(shown.width, _WIDTH)  # a table for a file, too
        shown.print(table(verdicts))
        for verdict in verdicts:
            for invariant, found in verdict.broken.items():
                more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
                sys.stdout.write(f"{verdict.scenario}, {invariant}: {'; '.join(found[:_SHOWN])}{more}\n")
    return all(verdict.held for verdict in verdicts)


def table(verdicts: Sequence[Verdict]) -> Table:
    """Scenario, invariants held, recovery time."""
    shown = Table(title=f"Faults, seed {verdicts[0].seed}" if verdicts else "Faults")
    shown.add_column("scenario", no_wrap=True)
    shown.add_column("fault")
    for invariant in INVARIANTS:
        shown.add_column(invariant, justify="center")
    shown.add_column("recovery, s", justify="right")
    for verdict in verdicts:
        marks = ("broken" if invariant in verdict.broken else "held" for invariant in INVARIANTS)
        shown.add_row(verdict.scenario, verdict.what, *marks, f"{verdict.recovery:.2f}")
    return shown
