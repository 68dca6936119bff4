"""The truth about a student, from what their page did. Times are small numbers; 0 is when the page connected."""

from __future__ import annotations

import pytest

from compare.run.recording import Attempt, Line, PageState, Report, StudentLog
from compare.run.truth import FATE_SECONDS, Truth, reached_server, replay
from compare.run.workload import Part, StudentPlan
from core.policy import Policy

ACTIVE, AWAY, DONE = PageState(), PageState("away"), PageState(submitted=True, score=80.0)


def log(part: Part = "stays") -> StudentLog:
    return StudentLog(StudentPlan("s-1", "a-1", "Student", "q-1", part, ()), lines=[Line(0.0)])


def report(student: StudentLog, at: float, state: PageState = ACTIVE, *, acked: bool = True, line: int = 0) -> Report:
    made = Report(state, len(student.reports) + 1, True, at, [Attempt(at, line)], acked_at=at + 0.01 if acked else None)
    student.reports.append(made)
    return made


def ends(student: StudentLog, at: float, end: str) -> None:
    student.lines[-1].closed_at, student.lines[-1].end = at, end


def truth(student: StudentLog, until: float = 60.0) -> Truth:
    return replay(student, "ec2", Policy(), until, 5000)


def labels(student: StudentLog, until: float = 60.0) -> list[tuple[float, str]]:
    return [(change.at, change.label) for change in truth(student, until).shown]


def test_reports_give_the_labels_at_their_times() -> None:
    student = log()
    report(student, 0.0)
    report(student, 4.0, AWAY)
    report(student, 7.0)
    report(student, 9.0, DONE)
    assert labels(student) == [(0.0, "active"), (4.0, "away"), (7.0, "active"), (9.0, "submitted")]


def test_a_dropped_connection_is_reconnecting_and_then_offline_after_the_grace() -> None:
    student = log("vanishes")
    report(student, 0.0)
    ends(student, 8.0, "dropped")
    assert labels(student) == [(0.0, "active"), (8.0, "reconnecting"), (28.0, "offline")]


def test_who_returns_in_time_was_never_offline() -> None:
    student = log("returns")
    report(student, 0.0)
    ends(student, 8.0, "dropped")
    student.lines.append(Line(11.0))
    report(student, 11.1, line=1)
    assert labels(student, 20.0) == [(0.0, "active"), (8.0, "reconnecting"), (11.1, "active")]


def test_who_says_goodbye_is_offline_at_once() -> None:
    student = log("leaves")
    report(student, 0.0)
    ends(student, 8.0, "left")
    assert labels(student) == [(0.0, "active"), (8.0, "offline")]


def test_a_connection_that_the_server_cut_is_not_charged_for_a_minute() -> None:
    student = log()
    report(student, 8.0)
    ends(student, 8.5, "cut")
    shown = labels(student, 90.0)
    assert [label for _, label in shown] == ["active", "reconnecting", "offline"]
    assert shown[-1][0] >= 68.0


def test_heartbeats_keep_a_silent_page_alive() -> None:
    student = log()
    report(student, 0.0)
    student.beats += [Attempt(at, 0) for at in (5.0, 10.0, 15.0, 20.0, 25.0)]
    assert labels(student, 30.0) == [(0.0, "active")]
    student.beats.clear()
    assert labels(student, 30.0) == [(0.0, "active"), (12.5, "reconnecting"), (25.0, "offline")]


def test_what_happens_after_the_end_is_not_part_of_it() -> None:
    student = log()
    report(student, 0.0)
    report(student, 9.0, AWAY)
    assert labels(student, 8.0) == [(0.0, "active")]


def test_a_report_that_went_down_with_its_connection_does_not_count_until_it_is_sent_again() -> None:
    student = log("returns")
    report(student, 0.0)
    lost = report(student, 7.9, AWAY, acked=False)
    ends(student, 8.0, "dropped")
    student.lines.append(Line(11.0))
    lost.attempts.append(Attempt(11.1, 1))
    lost.acked_at = 11.2
    assert labels(student, 20.0) == [(0.0, "active"), (8.0, "reconnecting"), (11.1, "away")]
    with_it = replay(student, "ec2", Policy(), 20.0, 5000, whatever_was_sent=True)
    assert [change.label for change in with_it.shown] == ["active", "away", "reconnecting", "away"]


def test_the_same_report_sent_twice_is_one_report() -> None:
    student = log()
    report(student, 0.0)
    report(student, 3.0, AWAY).attempts.append(Attempt(3.005, 0))
    assert labels(student, 10.0) == [(0.0, "active"), (3.0, "away")]


@pytest.mark.parametrize(
    ("closed_at", "acked_at", "reached"),
    [
        (None, None, True),
        (5.5, None, False),
        (5.5, 5.2, True),
        (5.5, 9.0, False),  # that was the ack of the next attempt
        (5.0 + FATE_SECONDS, None, True),
    ],
)
def test_a_frame_reached_the_server_if_it_was_answered_or_its_connection_lived_on(
    closed_at: float | None, acked_at: float | None, reached: bool
) -> None:
    assert reached_server(Attempt(5.0, 0), [Line(0.0, closed_at)], acked_at, numbered=True) is reached


def test_questions_about_a_moment_and_about_a_stretch() -> None:
    student = log("vanishes")
    report(student, 1.0)
    ends(student, 8.0, "dropped")
    it = truth(student)
    assert [it.label_at(at) for at in (0.5, 1.0, 8.0, 27.9, 28.0)] == [
        "not_joined",
        "active",
        "reconnecting",
        "reconnecting",
        "offline",
    ]
    assert it.labels_between(0.0, 8.5) == {"not_joined", "active", "reconnecting"}
    assert it.until(it.shown[1], 60.0) == 20.0
    assert it.until(it.shown[2], 60.0) == 32.0
