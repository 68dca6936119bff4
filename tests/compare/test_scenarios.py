"""Scenario files: those of the package are right, mistakes are named, commands take them, recordings become them."""

import json

import click
import pytest
from click.testing import CliRunner

from compare.cli import compare
from compare.commands import register
from compare.run.comparison import Options, checked
from compare.scenario import (
    ScenarioError,
    load_scenario,
    names,
    parse,
    run_options,
    scenario_from_trace,
    to_yaml,
)

WANTED = {"paper-stress", "paper-exam-10k", "small-school", "national-exam", "morning-surge", "flaky-network"}
HEAD = "name: x\nabout: y\n"


@pytest.fixture
def run():
    group = click.Group("compare")
    register(group)
    return lambda *arguments: CliRunner().invoke(group, list(arguments))


def test_the_scenarios_of_the_package():
    assert set(names()) == WANTED
    for name in names():
        assert load_scenario(name).name == name


@pytest.mark.parametrize("name", sorted(WANTED))
def test_a_scenario_survives_being_written_and_can_be_run(name):
    found = load_scenario(name)
    assert parse(to_yaml(found), "again") == found
    checked(Options(**run_options(found)))


@pytest.mark.no_cover  # the commands' own tests reach the same lines, and tracing takes three quarters of the time
@pytest.mark.parametrize("name", sorted(WANTED))
def test_every_command_takes_every_scenario(run, name):
    advised = run("advise", "--scenario", name, "--instance-type", "c7g.large", "--json")
    assert advised.exit_code == 0, advised.output
    assert json.loads(advised.output)["exam"]["students"] == load_scenario(name).exam.students
    planned = run("plan", "--scenario", name, "--students", "2000", "--hours", "0.6", "--quiet")
    if "--storm" not in planned.output:  # the storm of a scenario may lie after an exam that was cut short
        assert planned.exit_code == 0, planned.output


@pytest.mark.no_cover
def test_an_option_that_is_given_wins(run):
    shown = run("advise", "--scenario", "small-school", "--students", "77", "--instance-type", "t3a.small", "--json")
    assert json.loads(shown.output)["exam"]["students"] == 77


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "exam:\n  studnts: 3\n", "x.yaml: exam.studnts: no such field; did you mean students?"),
        (HEAD + "exam:\n  qqq: 3\n", "exam.qqq: no such field; there are students, hours"),
        (HEAD + "exam: {}\nmoon: {}\n", "moon: no such field"),
        (HEAD + "exam:\n  students: many\n", "exam.students: Expected `int | null`, got `str`"),
        (HEAD + "exam:\n  students: -3\n", "exam.students: -3 is below zero"),
        (HEAD + "exam:\n  client: netscape\n", "exam.client: Invalid enum value 'netscape'"),
        ("about: y\nexam: {}\n", "missing required field `name`"),
        ("- 1\n- 2\n", "is no table of sections"),
        ("exam: [1, 2\n", "line 2: no YAML"),
        (HEAD + "exam: !!python/object/apply:os.system ['true']\n", "no YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place(text, says):
    with pytest.raises(ScenarioError) as raised:
        parse(text, "x.yaml")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["advise", "--scenario", "smal-school"], "--scenario: no scenario 'smal-school'; did you mean small-school?"),
        (["plan", "--scenario", "/nowhere.yaml"], "--scenario: can't read /nowhere.yaml"),
        (["scenarios", "show", "zzz"], "no scenario 'zzz'; there are"),
        (["scenarios", "from-trace", "/nowhere.csv"], "CSV: can't read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, says):
    shown = run(*arguments)
    assert shown.exit_code == 2
    assert says in shown.output


# Recordings: three students for an hour, one of whom drops once and is back after 100 s

TRACE = """time,student,event
0,ann,join
30,ben,join
60,eve,join
600,ann,change
900,ben,away
960,ben,back
1000,eve,drop
1100,eve,join
3500,ann,submit
3600,ann,leave
3630,ben,leave
3660,eve,leave
"""


def test_a_recording_becomes_a_scenario():
    found = scenario_from_trace(TRACE.splitlines(), "ours")
    hours = (3600 + 3600 + 3500) / 3600
    assert found.exam.students == 3
    assert found.exam.hours == pytest.approx(3660 / 3600, abs=1e-3)
    assert found.exam.arrival_minutes == 1.0
    assert found.exam.changes == pytest.approx(4 / hours, abs=0.01)
    assert found.exam.drops == pytest.approx(1 / hours, abs=1e-3)


@pytest.mark.no_cover
def test_a_recording_is_advised_on(run, tmp_path):
    recording, scenario = tmp_path / "exam.csv", tmp_path / "ours.yaml"
    recording.write_text(TRACE)
    shown = run("scenarios", "from-trace", str(recording), "--name", "ours")
    assert shown.exit_code == 0, shown.output
    scenario.write_text(shown.output)
    assert run("advise", "--scenario", str(scenario), "--instance-type", "t3a.small").exit_code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n", "row 1: the heading is a,b; it must be time,student,event"),
        ("time,student,event\nsoon,ann,join\n", "row 2: time 'soon'"),
        ("time,student,event\n1,ann,sneeze\n", "row 2: event 'sneeze' is not one of join"),
        ("time,student,event\n5,ann,join\n1,ben,join\n", "row 3: time 1 is before"),
        ("time,student,event\n1,ann\n", "row 2: 2 fields"),
        ("time,student,event\n", "nobody joins"),
    ],
)
def test_a_mistake_in_a_recording_names_its_line(text, says):
    with pytest.raises(ScenarioError, match=says):
        scenario_from_trace(text.splitlines(), "x")


def test_a_run_takes_its_part_of_a_scenario():
    command = compare.commands["run"]
    taken = command.make_context("run", ["--scenario", "small-school", "--seed", "7"]).params
    assert (taken["students"], taken["exams"], taken["duration"]) == (120, 4, 60.0)
    assert (taken["hours"], taken["exams_per_month"], taken["seed"]) == (1.5, 8.0, 7)
