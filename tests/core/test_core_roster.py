import pytest
from core_builders import EXAM, EXAM_KEY, KEY, T0, Story, joined, of, regrouped, report
from msgspec.structs import replace

from core import decide_exam
from core import effects as fx
from core.events import ExamClosed, ExamOpened, SweepCounted
from core.journal import Entry, is_audited
from core.policy import Policy
from core.roster import RosterLine, enrolled, has_joined, roster_changed


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


# --- after they have joined -------------------------------------------------------------------------------------------------


def test_a_line_for_who_has_joined_becomes_an_event_if_it_says_anything_new():
    story = joined(student_name="Budi")
    assert has_joined(story.record)
    assert roster_changed(story.record, line(name="Budi"), "api", T0 + 5) is None
    event = roster_changed(story.record, line(group="R2"), "api", T0 + 5)
    assert event == regrouped(5, group="R2")
    decision = story(event)
    assert (story.record.group, story.record.student_name) == ("R2", "Budi")
    assert of(decision.effects, fx.PublishView) == [fx.PublishView()]
    (entry,) = decision.entries
    assert (entry.kind, entry.cause, entry.before, entry.after, entry.actor) == ("roster", "group", "", "R2", "api")


def test_a_name_is_changed_and_stays_out_of_the_journal():
    story = joined(student_name="Bdui")
    (entry,) = story(regrouped(5, name="Budi" + "x" * 99)).entries
    assert len(story.record.student_name) == 80
    assert (entry.cause, "Budi" in str(entry)) == ("name", False)


def test_an_older_token_does_not_take_a_change_of_the_roster_back():
    story = Story()
    story(report(0, name="Token", group="R1"))
    assert (story.record.student_name, story.record.group) == ("Token", "R1")
    story(regrouped(1, name="Budi", group="R2"))
    story(report(2, name="Token", group="R1", question_answered=3))
    assert (story.record.student_name, story.record.group, story.record.question_answered) == ("Budi", "R2", 3)
    story(report(3, attempt="a2", name="Token", group="R1"))
    assert (story.record.student_name, story.record.group) == ("Budi", "R2"), "nor in a new attempt"


def test_a_repeated_change_changes_nothing():
    story = joined()
    story(regrouped(1, group="R2"))
    decision = story(regrouped(1, group="R2"))
    assert (decision.entries, decision.effects) == ((), ())
    story(regrouped(2, group="R3"))
    assert story(regrouped(1, group="R2")).entries == (), "an earlier one that comes again takes nothing back"
    assert story.record.group == "R3"


@pytest.mark.parametrize(
    ("kind", "fields", "audited"),
    [
        ("command", {"cause": "warn", "after": "accepted"}, True),
        ("command", {"cause": "warn", "after": "refused"}, True),
        ("command", {"cause": "warn", "after": "accepted", "to_everyone": True}, False),
        ("exam", {"cause": "warn", "actor": "p1", "to_everyone": True}, True),
        ("exam", {"cause": "opened", "actor": ""}, False),
        ("exam", {"cause": "closed", "actor": "api"}, True),
        ("receipt", {"cause": "delivered", "after": "delivered"}, False),
        ("label", {"cause": "reported"}, False),
        ("message", {"cause": "chat", "actor": "student"}, False),
        ("roster", {"cause": "group"}, True),
        ("audit", {"cause": "purged"}, True),
    ],
)
def test_what_people_did_is_audited_once(kind, fields, audited):
    assert is_audited(Entry(*KEY, 1, 0, T0, kind, **fields)) is audited
