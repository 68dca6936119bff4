"""The bench runs, in the smallest form, and says what it found. How fast anything is, no test asks."""

from __future__ import annotations

import msgspec
from click.testing import CliRunner

from compare.bench.cluster import Shape, measure_steps
from compare.bench.suite import PARTS, Line, Plan, run, text_of, text_of_split
from compare.commands import bench as bench_commands

TINY = Plan(
    base=Shape(200, students=20, exams=2, workers=1),
    rates=(200,),
    many=40,
    steady_rate=100,
    spread=2,
    warm_seconds=0.2,
    seconds=0.4,
    storm_seconds=0.3,
    pairs=1,
    parts=("cpu", "rate", "school"),
)


async def test_a_tiny_bench_measures_everything():
    said: list[str] = []
    report = await run(TINY, said.append)
    assert len(said) == len(report.lines)
    assert {line.what: line.value for line in report.lines}["  reports never shown"] == 0
    assert all(found.acked for found in report.runs)
    assert report.split is not None
    assert report.split.redis > 0
    assert "decode" in text_of_split(report.split)
    assert msgspec.json.decode(msgspec.json.encode(report))["lines"][0]["what"] == report.lines[0].what


def test_steps_are_measured_alone():
    steps = measure_steps(students=5, rounds=2)
    assert min(steps.decode, steps.decide, steps.encode, steps.encode_ack) > 0


def test_a_figure_is_shown_with_what_is_asked_of_it():
    assert text_of(Line("memory", 13.4, "KiB", "<= 12", False)).split() == [
        "FAILED",
        "memory",
        "13.4",
        "KiB",
        "<=",
        "12",
    ]
    assert text_of(Line("rate", 12_000, "/s", ">= 12,000", True)).startswith("ok")


def test_the_command_knows_the_parts():
    assert bench_commands.PARTS == PARTS  # written twice, so that `proctorwire --help` loads no servers


def test_the_command_has_help_with_an_example():
    shown = CliRunner().invoke(bench_commands.bench_command, ["--help"]).output
    assert "Example:" in shown
    assert "--quick" in shown
