import pytest
from core_builders import EXAM, KEY, T0, Story, command, frames, joined, lost, of, report, words
from msgspec.structs import replace

from core import effects as fx
from core import messages as m
from core import new_participant


def test_a_new_attempt_starts_the_counters_again_and_the_version_goes_on():
    story = joined(question_answered=5, score=3.0, time_end=T0 + 500)
    story(report(1, status="away"))
    story(report(9, status="active"))
    story(lost(10))
    story(report(12, connection="c2", connected_at=12))
    version = story.record.version
    assert (story.record.away_count, story.record.reconnects) == (1, 1)
    decision = story(report(13, connection="c3", connected_at=13, attempt="a2"))
    r = story.record
    assert (r.quiz_attempt_id, r.past_attempts) == ("a2", ("a1",))
    assert (r.away_count, r.away_seconds, r.reconnects, r.question_answered, r.score) == (0, 0, 0, 0, None)
    assert r.time_end is None
    assert r.version > version
    assert [(c.connection, c.code) for c in of(decision.effects, fx.Close)] == [("c1", 4009), ("c2", 4009)]
    assert [s.connection for s in r.sessions] == ["c3"]
    assert [(e.before, e.after) for e in decision.entries if e.kind == "attempt"] == [("a1", "a2")]


def test_a_new_attempt_after_a_lost_one_is_no_reconnect():
    story = joined()
    story.until(100)
    story(report(101, connection="c2", connected_at=101, attempt="a2"))
    assert story.record.label == "active"
    assert story.record.reconnects == 0
    assert story.record.offline_seconds == 0


def test_the_old_attempts_page_may_still_speak_and_is_told_that_it_is_over():
    story = joined()
    story(report(1, connection="c2", connected_at=1, attempt="a2"))
    before = story.record
    decision = story(report(2, seq=9, attempt="a1"))
    assert decision.participant is before
    (error,) = [e.frame.data for e in decision.effects]
    assert (error.code, error.seq) == ("attempt_over", 9)


def test_a_new_attempt_gives_up_the_commands_of_the_old():
    story = joined()
    story(command(1, "message", text="hurry"))
    decision = story(report(2, connection="c2", connected_at=2, attempt="a2"))
    assert frames(decision, m.Command) == []
    assert story.record.commands == ()


def test_a_command_of_before_the_first_report_goes_out_with_it():
    story = Story()
    story(command(0, "message", text="welcome"))
    decision = story(report(2))
    assert [c.text for c in frames(decision, m.Command)] == ["welcome"]


def test_a_message_that_was_sent_again_is_not_new_in_the_next_attempt():
    story = joined()
    story(words(1))
    story(report(2, connection="c2", connected_at=2, attempt="a2"))
    assert of(story(words(3, connection="c2")).effects, fx.PublishMessage) == []


def test_the_journal_keeps_the_ids_of_the_lms():
    story = Story()
    decision = story(report(quiz_participant_id=7, quiz_result_id="r", topic_uuid="u"))
    assert [e.text for e in decision.entries if e.kind == "attempt"] == ["7 r u"]


@pytest.mark.parametrize(
    ("roster", "token", "reported", "shown"),
    [
        ("", "", None, ""),
        ("", "", "Ann by page", "Ann by page"),
        ("", "Ann by token", "Ann by page", "Ann by token"),
        ("Ann by roster", "", "Ann by page", "Ann by roster"),
        ("Ann by roster", "Ann by token", "Ann by page", "Ann by token"),
    ],
)
def test_names_of_token_and_roster_outrank_the_pages(roster, token, reported, shown):
    story = Story(record=new_participant(KEY, "ec2", name=roster))
    story(report(name=token, student_name=reported))
    story(report(1, name=token, student_name=reported))
    assert story.record.student_name == shown


def test_a_page_can_not_rename_its_student_later():
    story = joined(student_name="Ann")
    story(report(1, student_name="Bob"))
    assert story.record.student_name == "Ann"


def test_a_long_name_is_cut():
    assert len(joined(student_name="n" * 400).record.student_name) == 80
    assert len(joined(name="n" * 400).record.student_name) == 80


def test_the_group_of_a_token_outranks_the_rosters():
    record = new_participant(KEY, "ec2", group="room 1")
    story = Story(record=record)
    story(report())
    assert story.record.group == "room 1"
    story(report(1, group="room 2"))
    assert story.record.group == "room 2"


def test_the_shown_end_is_the_reported_plus_what_was_granted():
    story = joined(time_end=T0 + 600)
    assert story.record.time_end == T0 + 600
    story(command(1, "update", extra_minutes=5.0))
    assert story.record.time_end == T0 + 900
    story(command(2, "update", id="k2", extra_minutes=2.0))
    assert story.record.time_end == T0 + 1_020


def test_the_same_end_reported_again_keeps_what_was_granted():
    story = joined(time_end=T0 + 600)
    story(command(1, "update", extra_minutes=5.0))
    story(report(2, time_end=T0 + 600))
    story(report(3))
    assert story.record.time_end == T0 + 900


def test_another_end_is_one_that_has_been_extended_already():
    story = joined(time_end=T0 + 600)
    story(command(1, "update", extra_minutes=5.0))
    story(report(2, time_end=T0 + 900))
    assert story.record.time_end == T0 + 900
    assert story.record.granted_seconds == 0


def test_joined_shows_the_end_with_what_was_granted():
    story = joined(tab_id="t", seq=1, time_end=T0 + 600)
    story(command(1, "update", extra_minutes=5.0))
    again = story(report(2, connection="c2", connected_at=2, tab_id="t", seq=2, time_end=T0 + 600))
    assert frames(again, m.Joined)[0].time_end == T0 + 900
    applied = story(report(3, connection="c3", connected_at=3, tab_id="t", seq=3, time_end=T0 + 900))
    assert frames(applied, m.Joined)[0].time_end == T0 + 900


def test_a_later_end_moves_the_time_out():
    story = joined(time_end=T0 + 10)
    story(command(1, "update", extra_minutes=1.0))
    for at in range(5, 130, 5):
        story(report(at))
        story.until(at)
    assert story.record.lifecycle == "in_progress"
    story(report(130))
    story.until(131)
    assert story.record.lifecycle == "timed_out"


# --- standing commands ----------------------------------------------------------------------------------------------------


def with_standing(*standing, state="open"):
    return replace(EXAM, standing=standing, state=state)


def test_who_joins_late_gets_the_commands_that_stand():
    story = Story(with_standing(command(0, "message", text="no phones"), command(0, "flag", id="k2")))
    decision = story(report(30))
    assert [c.text for c in frames(decision, m.Command)] == ["no phones"]
    assert story.record.flags == ("flagged",)
    assert [e.after for e in decision.entries if e.kind == "command"] == ["accepted", "accepted"]


def test_a_standing_command_is_sent_once_a_connection():
    story = Story(with_standing(command(0, "message", text="no phones")))
    story(report(30, tab_id="t", seq=1))
    assert frames(story(report(31, tab_id="t", seq=2)), m.Command) == []
    again = story(report(32, connection="c2", connected_at=32, tab_id="t", seq=3))
    assert len(frames(again, m.Command)) == 1


def test_what_has_expired_or_was_ended_stands_no_more():
    over = (
        command(0, "message", text="old", expires=10),
        command(0, "resume", id="k2"),
        command(0, "acknowledge", id="k3"),
        command(0, "pause", id="k4"),
    )
    decision = Story(with_standing(*over))(report(30))
    assert frames(decision, m.Command) == []
    assert decision.participant.label == "active"


def test_who_joins_a_paused_exam_is_paused_and_told_so():
    story = Story(with_standing(command(0, "pause"), state="paused"))
    decision = story(report(30, tab_id="t", seq=1))
    assert story.record.label == "paused"
    assert frames(decision, m.Joined)[0].lifecycle == "paused"
    assert [c.command for c in frames(decision, m.Command)] == ["pause"]


def test_who_joins_after_the_exam_was_given_time_gets_it_too():
    story = Story(with_standing(command(0, "update", extra_minutes=10.0)))
    decision = story(report(30, time_end=T0 + 600))
    assert story.record.time_end == T0 + 1_200
    assert [c.extra_minutes for c in frames(decision, m.Command)] == [10.0]


def test_one_on_the_roster_who_has_not_joined_is_reached_when_they_do():
    """What went to everyone while they were not there is decided when they join, not refused before."""
    standing = (command(0, "update", extra_minutes=10.0), command(0, "pause", id="k2"))
    story = Story(with_standing(*standing, state="paused"))
    for event in standing:
        decision = story(event)
        assert (decision.participant, decision.entries, decision.effects) == (story.record, (), ())
    story(report(30, time_end=T0 + 600))
    assert story.record.time_end == T0 + 1_200
    assert story.record.label == "paused"


def test_a_command_to_one_who_has_not_joined_is_refused_if_it_needs_an_attempt():
    decision = Story()(command(0, "pause"))
    assert [(e.outcome, e.reason) for e in decision.effects] == [("refused", "not possible while not_joined")]


def test_submitting_with_the_first_report_is_not_undone_by_a_standing_pause():
    story = Story(with_standing(command(0, "pause"), state="paused"))
    story(report(30, attempt_state="submitted"))
    assert story.record.label == "submitted"
