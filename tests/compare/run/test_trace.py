"""A recorded exam: what a wrong row is told, and that both the schedule and a run do what the rows say."""

import contextlib
import random

import pytest
from click.testing import CliRunner
from reference_server import ReferenceServer

from compare.cli import compare
from compare.run.comparison import Options, compare_and_keep, traced
from compare.run.trace import EVENTS, TraceError, read_trace, schedule_of, trace_seconds
from compare.run.workload import Plan

TRACE = """time,student,event
100,ann,join
100.2,ben,join
100.4,cem,join
100.6,ann,change
101,ben,drop
101.1,cem,away
101.5,ben,join
101.6,cem,back
102,ann,submit
102.2,ben,change
102.5,cem,leave
103,ann,change
"""


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("when,who,what\n", "row 1: the heading is when,who,what; it must be time,student,event"),
        ("", "row 1: the heading is empty"),
        ("time,student,event\n1,ann,join\n2,ann,foo\n", f"row 3: event 'foo' is not one of {', '.join(EVENTS)}"),
        ("time,student,event\nsoon,ann,join\n", "row 2: time 'soon' is no number of seconds"),
        ("time,student,event\nnan,ann,join\n", "row 2: time 'nan' is no number of seconds"),
        ("time,student,event\n1,,join\n", "row 2: student is empty"),
        ("time,student,event\n1,ann\n", "row 2: 2 fields"),
        ("time,student,event\n5,ann,join\n1,ben,join\n", "row 3: time 1 is before the row above it"),
        ("time,student,event\n1,ann,join\n2,ann,join\n", "row 3: 'ann' joins again without a drop or leave before"),
        ("time,student,event\n1,ann,drop\n", "row 2: drop of 'ann', who is not there"),
        ("time,student,event\n1,ann,join\n\n3,ben,change\n", "row 4: change of 'ben' before the first join"),
        ("time,student,event\n", "nobody joins"),
    ],
)
def test_a_wrong_row_is_named(rows, says):
    with pytest.raises(TraceError) as wrong:
        read_trace(rows.splitlines())
    assert says in str(wrong.value)


def test_whatever_stands_in_a_file_is_rows_or_one_clear_error():
    rng = random.Random(5)
    for _ in range(300):
        text = "time,student,event\n" + "".join(rng.choices('1.e-,"\n annjoinleavedrop\x00', k=60))
        with contextlib.suppress(TraceError):
            read_trace(text.splitlines(keepends=True))


def test_the_schedule_does_what_the_rows_say():
    rows = read_trace(TRACE.splitlines())
    assert trace_seconds(rows) == 3
    made = schedule_of(rows, Plan(students=99, exams=2, interval=0.5, duration=3.0))
    ann, ben, cem = made.students
    assert [student.name for student in made.students] == ["ann", "ben", "cem"]
    assert [student.quiz_id for student in made.students] == [made.quiz_ids[0], made.quiz_ids[1], made.quiz_ids[0]]
    assert made.plan.students == 3
    told = [(step.act, pytest.approx(step.at)) for step in ben.steps if step.act != "tick" or step.progressed]
    assert told[:3] == [("join", 0.2), ("drop", 1.0), ("return", 1.5)]
    assert (ann.goes_at, ben.goes_at, cem.goes_at) == (None, None, pytest.approx(2.5))
    assert not [step for step in ben.steps if step.act == "tick" and 1.0 < step.at < 1.5]  # no heartbeat while away
    assert [step for step in ann.steps if step.act == "tick" and step.at > 3.0]  # the overtime keeps the page alive


def test_a_beginning_is_a_shorter_exam_of_those_who_came():
    made = schedule_of(read_trace(TRACE.splitlines()), Plan(students=1, exams=1, interval=0.5, duration=2.1))
    assert all(step.act != "leave" for student in made.students for step in student.steps)


async def test_a_recording_is_replayed_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("compare.run.measure.SEEN_SECONDS", 2.0)
    monkeypatch.setattr("compare.run.comparison._JOURNAL_SECONDS", 0.5)
    file = tmp_path / "exam.csv"
    file.write_text(TRACE)
    options = traced(Options(trace=str(file), exams=1, interval=0.5, mode="ec2", exams_per_month=1))
    assert (options.students, options.duration, options.hours) == (3, 3.0, 0.05)
    done = await compare_and_keep(options, targets=[ReferenceServer()])
    found, recording = done.result.modes["ec2"], done.runs["ec2"].recording
    assert (found.lost, found.duplicates, found.false_offline) == (0, 0, 0), found.problems
    assert done.result.workload.trace == "exam.csv"
    ann, ben, cem = recording.students
    assert ann.reports[-1].state.submitted
    assert [line.end for line in ben.lines] == ["dropped", ""]
    assert [r.state.status for r in cem.reports if r.changed][1:3] == ["away", "active"]
    assert cem.lines[-1].end == "left"


def test_the_command_names_the_row_and_starts_nothing(tmp_path):
    file = tmp_path / "exam.csv"
    file.write_text("time,student,event\n1,ann,join\n2,ann,foo\n")
    done = CliRunner().invoke(compare, ["run", "--trace", str(file), "--output", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert f"--trace: {file}: row 3: event 'foo' is not one of join" in done.output
    both = CliRunner().invoke(compare, ["run", "--trace", str(file), "--students", "5"])
    assert "--students, --trace" in both.output
