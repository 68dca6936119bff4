from core_builders import EXAM, EXAM_KEY, KEY, T0, Story, report
from msgspec.structs import replace

from core import decide_exam
from core import effects as fx
from core.events import ExamClosed, ExamOpened, SweepCounted
from core.policy import Policy
from core.roster import RosterLine, enrolled


def line(**fields):
    return RosterLine(student_id=KEY.student_id, **fields)


def test_a_line_makes_a_participant_who_has_not_joined():
    record = enrolled(None, EXAM_KEY, line(name="Budi", group="R1"), "ec2", T0)
    assert (record.key, record.label, record.student_name, record.group) == (KEY, "not_joined", "Budi", "R1")
    assert record.version == int(T0 * 1000)
    assert record.check_at is None


def test_a_corrected_line_changes_who_has_not_joined_and_keeps_what_it_leaves_out():
    before = enrolled(None, EXAM_KEY, line(name="Budi", group="R1"), "ec2", T0)
    after = enrolled(before, EXAM_KEY, line(group="R2"), "ec2", T0)
    assert (after.student_name, after.group, after.version) == ("Budi", "R2", before.version + 1)
    assert enrolled(after, EXAM_KEY, line(name="Budi"), "ec2", T0 + 1) is None


def test_a_line_changes_nobody_who_has_joined_or_is_decided_elsewhere():
    story = Story()
    story(report(0))
    assert enrolled(story.record, EXAM_KEY, line(name="Other"), EXAM.here, T0 + 1) is None
    away = enrolled(None, EXAM_KEY, line(), "lambda", T0)
    assert enrolled(away, EXAM_KEY, line(name="Budi"), "ec2", T0 + 1) is None


def test_a_long_name_is_cut_as_in_reports_and_a_number_is_an_id():
    record = enrolled(None, EXAM_KEY, RosterLine(student_id=7, name="n" * 99), "ec2", T0)
    assert (record.student_id, len(record.student_name)) == ("7", 80)


def test_the_first_report_of_a_roster_student_keeps_name_and_group():
    story = Story()
    story.record = enrolled(None, EXAM_KEY, line(name="Budi", group="R1"), EXAM.here, T0)
    story(report(1, student_name="somebody"))
    assert (story.record.student_name, story.record.group, story.record.label) == ("Budi", "R1", "active")


def opened(at, policy=None):
    return ExamOpened(received_at=T0 + at, by="api", policy=policy)


def test_opening_takes_over_rules_and_an_open_exam_changes_only_these():
    closed = decide_exam(EXAM, ExamClosed(received_at=T0, by="api"), T0).exam
    strict = Policy(report_seconds=2)
    assert decide_exam(closed, opened(1, strict), T0 + 1).exam.policy == strict
    decision = decide_exam(EXAM, opened(1, strict), T0 + 1)
    assert decision.exam == replace(EXAM, policy=strict, version=decision.exam.version)
    assert [(e.kind, e.cause, e.after, e.actor) for e in decision.entries] == [("exam", "policy", "open", "api")]
    assert decision.effects == ()
    assert decide_exam(decision.exam, opened(2, strict), T0 + 2).exam is decision.exam
    assert decide_exam(decision.exam, opened(3), T0 + 3).exam is decision.exam


def test_an_exam_opened_again_long_after_its_end_has_an_hour():
    day = 86_400
    closed = replace(EXAM, state="closed", last_time_end=T0)
    again = decide_exam(closed, opened(day), T0 + day)
    assert again.effects == (fx.ScheduleSweep(EXAM_KEY, "start"),)

    def after(seconds):
        event = SweepCounted(received_at=T0 + day + seconds, taking=0, fell_silent=0, still_silent=0, last_time_end=T0)
        return decide_exam(again.exam, event, T0 + day + seconds).exam.state

    assert (after(10), after(3_599), after(3_600)) == ("open", "open", "closed")
