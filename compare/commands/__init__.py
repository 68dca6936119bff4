"""The commands: each module has one or a few, reads their options, asks the library, and prints.

`register` puts those of `compare` on its group. `admin`, `bench`, `records` and `serverless` are of `proctorwire`, which takes
them itself.
"""

import click

from compare.commands import advise, bus, calibrate, diff, faults, paper, plan, prices, scenarios


def register(group: click.Group) -> None:
    """Add every command of this package."""
    group.add_command(advise.advise_command)
    group.add_command(bus.bus_command)
    group.add_command(diff.diff_command)
    group.add_command(faults.faults_command)
    group.add_command(paper.paper_command)
    group.add_command(plan.plan_command)
    group.add_command(prices.prices)
    group.add_command(calibrate.calibrate_command)
    group.add_command(scenarios.scenarios)
