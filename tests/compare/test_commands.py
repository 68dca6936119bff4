"""What every command owes its user: a help with an example, and examples that its own parser takes."""

import re
import shlex

import click
import pytest

from compare.commands import register


def commands(group, above=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        else:
            yield " ".join((*above, name)), command


@pytest.fixture(scope="module")
def group():
    made = click.Group("compare")
    register(made)
    return made


def test_every_command_has_a_help_with_an_example(group):
    found = dict(commands(group))
    assert set(found) >= {
        "advise",
        "calibrate",
        "diff",
        "paper",
        "plan",
        "prices show",
        "prices refresh",
        "scenarios list",
    }
    for name, command in found.items():
        assert "Example:" in (command.help or ""), name
        assert f"compare {name}" in command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_the_examples_parse(group, monkeypatch):
    for name, command in commands(group):
        for line in re.findall(r"^\s*(compare .*)$", command.help.split("Example:", 1)[1], re.MULTILINE):
            words = shlex.split(line.split(" > ")[0])[1:]
            if " ".join(words).startswith(name):
                arguments = words[len(name.split()) :]
                command.make_context(name, list(arguments), resilient_parsing=False)
