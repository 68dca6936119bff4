"""What every command owes its user: a help with an example, and examples that its own parser takes."""

import csv
import io
import json
import pkgutil
import re
import shlex

import click
import pytest
from click.testing import CliRunner

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
        "bus",
        "calibrate",
        "diff",
        "faults",
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


def once(function):
    """The function, which runs at its first call only."""
    kept = []

    def first(*arguments, **named):
        if not kept:
            kept.append(function(*arguments, **named))
        return kept[0]

    return first


@pytest.mark.parametrize(
    ("arguments", "word", "figures"),
    [
        (["advise", "--students", "300"], "an update takes", ["advise.best_type", "advise.advise"]),
        (["plan", "--students", "2000", "--hours", "1"], "delivery p95", ["plan.simulate"]),
        (["paper", "--minutes", "0", "--part", "c"], "Ours, cluster, scheduled", ["paper.paper.month_bill"]),
    ],
)
def test_every_format_has_the_same_tables(group, monkeypatch, arguments, word, figures):
    for name in figures:  # the same for every format, so they are made once
        made = getattr(pkgutil.resolve_name(f"compare.commands.{name.rpartition('.')[0]}"), name.rpartition(".")[2])
        monkeypatch.setattr(f"compare.commands.{name}", once(made))

    def run(form):
        return CliRunner().invoke(group, [*arguments, "--format", form], standalone_mode=False).output

    text, markdown, values = run("text"), run("md"), run("csv")
    assert word in " ".join(text.split())
    assert "\x1b[" not in text
    assert word in markdown.replace("<br>", " ")
    assert markdown.startswith("# ")
    assert "| --- |" in markdown
    assert word in values
    assert len({len(row) for row in csv.reader(io.StringIO(values.split("\n\n")[0]))}) == 1
    page = run("html")
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"<h1>[a-z]", page)
    assert json.loads(run("json"))


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        (["advise", "--students", "100", "--instance-type", "t3a.small"], "Pricing"),
        (["plan", "--students", "100", "--hours", "0.5"], "Simulating"),
    ],
)
def test_long_work_says_how_far_it_is_on_a_terminal_only(group, monkeypatch, arguments, title):
    monkeypatch.setattr("compare.present.QUIET_SECONDS", 0.0)

    def said(*more):
        return CliRunner().invoke(group, [*arguments, *more], standalone_mode=False).stderr

    assert said() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    assert title in said()
    assert re.search(r"\d:\d\d:\d\d", said())  # the time that is left
    assert said("--quiet") == ""
