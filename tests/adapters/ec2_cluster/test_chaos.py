"""The quick half of `proctorwire chaos`, and that its judge sees what is wrong."""

from __future__ import annotations

import asyncio

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from adapters.ec2_cluster.keys import exam_keys
from compare.faults.chaos import play
from compare.faults.chaos_report import scenarios_named, table
from compare.faults.rig import Rig, Scenario, Verdict
from compare.faults.scenarios import SCENARIOS
from compare.proctorwire import main
from compare.run.workload import SCHOOL
from core.messages import encode_value
from core.participant import ExamKey

BUSY_SECONDS = 8.0
"""How soon views must be right here, where other tests may have the machine; `make chaos` asks for two seconds."""


@pytest.mark.parametrize("half", [0, 1])
async def test_nothing_is_lost_whatever_breaks(half: int) -> None:
    quick = [scenario for scenario in SCENARIOS if scenario.quick][half::2]
    verdicts = await asyncio.gather(*(play(s, seed=1, students=12, within=BUSY_SECONDS) for s in quick))
    assert {verdict.scenario: verdict.broken for verdict in verdicts} == {scenario.name: {} for scenario in quick}


async def _lie(rig: Rig) -> None:
    """What no cluster does: proctors are told that somebody who reports all the time is offline."""
    recording = rig.crowd.recording
    student = recording.students[0].plan
    view = recording.proctors_of(student.quiz_id)[0].views[student.student_id]
    lie = encode_value(replace(view, label="offline", presence="offline", version=view.version + 10**9))
    rig.redis().publish(exam_keys(ExamKey(SCHOOL, student.quiz_id)).channel, b"liar 1\n" + lie + b"\n")


async def test_the_judge_sees_a_false_offline() -> None:
    liar = Scenario("liar", "a view that lies", _lie)
    verdict = await play(liar, seed=1, students=8, within=BUSY_SECONDS, settle=1.0)
    assert {"offline", "views"} <= verdict.broken.keys()


def test_scenarios_are_named_and_listed() -> None:
    assert scenarios_named(("worker-killed",), quick=False)[0][0].name == "worker-killed"
    done = CliRunner().invoke(main, ["chaos", "nonsense"])
    assert done.exit_code == 2
    assert "no scenario nonsense" in done.output
    listed = CliRunner().invoke(main, ["chaos", "--list"])
    assert [line.split()[0] for line in listed.output.splitlines()] == [scenario.name for scenario in SCENARIOS]


def test_the_table_has_a_line_a_scenario() -> None:
    shown = table([Verdict("a", "b", 1, broken={"views": ["late"]}), Verdict("c", "d", 1)])
    assert shown.row_count == 2
