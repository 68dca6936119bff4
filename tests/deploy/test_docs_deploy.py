"""docs/deploy.md and docs/migration.md: each command in it can be given, and each thing it names is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from deploy import templates
from deploy.cli import deploy

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs/deploy.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```\n(.*?)```", TEXT + (ROOT / "docs/migration.md").read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("deploy ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_can_be_given(line):
    _, name, *arguments = shlex.split(line)
    command = deploy.commands[name]
    if isinstance(command, click.Group):
        command, (name, *arguments) = command.commands[arguments[0]], arguments
    command.make_context(name, arguments, parent=click.Context(deploy))


def test_all_commands_are_shown():
    assert {line.split()[1] for line in COMMANDS} == set(deploy.commands)
    migrate = deploy.commands["migrate"]
    assert isinstance(migrate, click.Group)
    shown = {line.split()[2] for line in COMMANDS if line.startswith("deploy migrate ")}
    assert shown == set(migrate.commands)


def test_parameters_are_named_as_they_are():
    known = {name for part in templates.FILES for name in templates.load(part)["Parameters"]}
    named = set(re.findall(r"--set (\w+)=", TEXT)) | {
        "ThrottleRate",
        "ConnectRate",
        "MessageConcurrency",
        "CustomerKey",
        "DrainSeconds",
    }
    assert named - {"PARAM"} <= known


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((\.\./[^)#]+)", TEXT):
        assert (ROOT / "docs" / link).exists(), link
