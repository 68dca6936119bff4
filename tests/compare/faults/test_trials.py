"""`compare faults`: a fault through both real deployments, a judge that sees what is wrong, and the table in every format."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import click
import msgspec
import pytest
from click.testing import CliRunner
from reference_server import ReferenceServer
from sample_result import sample_result

from compare.commands import faults, register
from compare.faults.trials import TRIALS, FaultTable, Outcome, play, target_for
from compare.pages.faults import keep, kept
from compare.run.result import encode_result, environment_here

NAMED = {trial.name: trial for trial in TRIALS}


EXPECTED = {
    "": set(),
    "lose an update": set(),  # a later view repairs it: nothing that stays is lost
    "journal gap": {"lost"},
    "update twice": {"duplicates"},
    "journal twice": {"duplicates"},
    "false offline": {"lost", "false_offline"},
}


@pytest.fixture(scope="module")
async def played() -> tuple[list[Outcome], list[Outcome]]:
    """Both deployments, and the reference server with each of its faults: all at the same time, most of which is waiting."""
    stopped, dropped = NAMED["store-stopped"], NAMED["clients-dropped"]
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("_WARM", 0.3), ("_AFTER", 0.7), ("_JOURNAL", 2.0), ("AWAY", 0.6), ("STORE", 1.5)):
            patch.setattr(f"compare.faults.trials.{name}_SECONDS", seconds)
        patch.setattr("compare.run.clients.RESEND_SECONDS", 1.0)
        found = await asyncio.gather(
            *(play(stopped, target_for(stopped, mode, 8), 8) for mode in ("lambda", "ec2")),
            *(play(dropped, ReferenceServer(fault), 8, settle=2.0) for fault in EXPECTED),
        )
        judged = dict(zip(EXPECTED, found[2:], strict=True))
        for fault, outcome in judged.items():
            if not EXPECTED[fault] - {"lost"} <= wrong(outcome) or (
                fault == "journal gap" and "lost" not in wrong(outcome)
            ):
                # so late, all at once on a busy machine, that the fault found nothing to spoil
                judged[fault] = await play(dropped, ReferenceServer(fault), 8, settle=2.0)
    return found[:2], list(judged.values())


def wrong(outcome: Outcome) -> set[str]:
    return {name for name in ("lost", "duplicates", "false_offline") if getattr(outcome, name)}


def test_both_deployments_get_over_a_store_that_stands_still(played) -> None:
    found, _ = played
    assert [(outcome.mode, outcome.basis) for outcome in found] == [("lambda", "emulated"), ("ec2", "measured")]
    for outcome in found:
        assert (outcome.lost, outcome.false_offline) == (0, 0), outcome.findings
        assert outcome.recovery_s is not None
        assert outcome.slowest_s > 1.0  # the fault was felt
        assert outcome.reports > 8


def test_the_judge_sees_what_is_wrong_and_nothing_else(played) -> None:
    _, found = played
    seen = {fault: wrong(outcome) for fault, outcome in zip(EXPECTED, found, strict=True)}
    for fault, expected in EXPECTED.items():
        assert expected - {"lost"} <= seen[fault], (fault, seen)
    assert seen[""] == set()
    assert "lost" in seen["journal gap"]
    assert "false_offline" not in seen["update twice"]


def table(lost: int = 0) -> FaultTable:
    outcomes = (
        Outcome("process-killed", "lambda", "emulated", "20 x SIGKILL", 90, 0, 2, 0, 5.25, 6.0, 0),
        Outcome("process-killed", "ec2", "measured", "SIGKILL | once", 90, lost, 0, 0, None, 0.5, 3, ("s1 is <lost>",)),
    )
    return FaultTable(environment=environment_here(), students=24, seed=1, outcomes=outcomes)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    async def tried(trials, modes, students, seed, begins, ended):
        return table(lost=int(students == 9))

    monkeypatch.setattr(faults, "try_all", tried)
    group = click.Group("compare")
    register(group)
    return lambda *arguments: CliRunner().invoke(group, ["faults", *arguments], standalone_mode=False)


def test_every_format_says_the_same(run) -> None:
    text, md, values, page, data = (run("--format", form).output for form in ("text", "md", "csv", "html", "json"))
    assert "never" in text
    assert "\x1b[" not in text
    assert "| process-killed | serverless (emulated) | 0 | 2 | 0 | 5.2 |" in md
    assert "SIGKILL \\| once" in md
    rows = list(csv.reader(io.StringIO(values)))
    assert rows[0][:3] == ["fault", "deployment", "lost"]
    assert rows[2][8] == "SIGKILL | once"
    assert page.startswith("<!DOCTYPE html>")
    assert "When something breaks" in page
    assert json.loads(data)["outcomes"][0]["recovery_s"] == 5.25
    assert run("--json").output == data


def test_the_exit_code_tells_of_a_loss(run) -> None:
    assert run().return_value == 0
    assert run("--students", "9").return_value == 1
    assert isinstance(run("--fault", "earthquake").exception, click.BadParameter)


def test_faults_are_a_section_of_the_report_in_the_same_folder(run, tmp_path) -> None:
    (tmp_path / "result.json").write_bytes(encode_result(sample_result()))
    assert kept(tmp_path) is None
    keep(table(), tmp_path)
    report = (tmp_path / "report.html").read_text()
    assert "When something breaks" in report
    assert "How soon the proctor sees it" in report
    assert msgspec.json.decode((tmp_path / "faults.json").read_bytes())["schema"] == "proctorwire.faults/1"
    assert kept(tmp_path) is not None
