import pytest
from core_builders import EXAM, KEY, NOBODY, T0, Story, command, deadline, heartbeat, joined, lost, of, report, words
from msgspec.structs import replace

from core import decide, events
from core import effects as fx

# --- the one rolling deadline ---------------------------------------------------------------------------------------------


def test_a_join_sets_the_first_deadline():
    decision = Story()(report(0))
    assert of(decision.effects, fx.SetDeadline) == [fx.SetDeadline(KEY, T0 + 12.5)]
    assert decision.participant.check_at == T0 + 12.5


def test_a_renewed_lease_leaves_the_outstanding_deadline_as_it_is():
    story = joined()
    for at in (5, 7):
        assert of(story(report(at)).effects, fx.SetDeadline) == []
        assert story.record.check_at == T0 + 12.5


@pytest.mark.parametrize("fields", [{}, {"status": "away"}])
def test_a_report_moves_a_deadline_that_would_come_in_vain_before_the_next_report(fields):
    story = joined()
    story(report(5, **fields))
    decision = story(report(8, **fields))
    assert of(decision.effects, fx.SetDeadline) == [fx.SetDeadline(KEY, T0 + 20.5)]
    before = story.record
    assert story(deadline(12.5)).participant is before


def test_a_deadline_at_which_another_page_lapses_is_not_moved():
    story = joined()
    story(report(8, connection="c2", connected_at=8))
    story(report(12, connection="c2", connected_at=8))
    assert story.record.check_at == T0 + 12.5
    story.until(13)
    assert [s.presence for s in story.record.sessions] == ["reconnecting", "connected"]


def test_a_deadline_that_finds_a_renewed_lease_asks_for_the_next():
    story = joined()
    story(report(7))
    decision = story(deadline(12.5))
    assert story.record.label == "active"
    assert decision.effects == (fx.SetDeadline(KEY, T0 + 19.5),)


def test_an_earlier_need_brings_the_deadline_forward_and_the_old_one_is_stray():
    story = joined(next_ms=60_000)
    assert story.record.check_at == T0 + 95
    decision = story(lost(3))
    assert of(decision.effects, fx.SetDeadline) == [fx.SetDeadline(KEY, T0 + 23)]
    story.until(23)
    assert story.record.label == "offline"
    before = story.record
    assert story(deadline(95)).participant is before


@pytest.mark.parametrize("at", [12.4, 12.500001, 99.0])
def test_a_stray_deadline_is_ignored(at):
    story = joined()
    before = story.record
    assert decide(before, deadline(at, 100), EXAM, T0 + 100).effects == ()
    assert story(deadline(at, 100)).participant is before


def test_an_early_deadline_is_asked_for_again_and_changes_nothing():
    story = joined()
    before = story.record
    decision = story(deadline(12.5, 12.499))
    assert decision.participant is before
    assert decision.effects == (fx.SetDeadline(KEY, T0 + 12.5),)


def test_a_late_deadline_does_all_that_is_overdue():
    story = joined()
    story(deadline(12.5, 500))
    assert story.record.label == "offline"
    assert story.labels == ["active", "offline"]


def test_a_repeated_deadline_is_stray():
    story = joined()
    story(deadline(12.5))
    before = story.record
    assert story(deadline(12.5, 13)).participant is before


def test_nothing_is_asked_for_when_nothing_can_change_any_more():
    story = joined()
    story.until(100)
    assert story.record.label == "offline"
    assert story.record.check_at is None


def test_who_is_offline_still_times_out():
    story = joined(time_end=T0 + 100)
    story.until(50)
    assert story.record.check_at == T0 + 160
    assert story.until(160) == "timed_out"


def test_a_frame_that_waited_past_its_lease_is_decided_at_once_and_asks_for_no_moment_that_has_passed():
    decision = Story()(report(0), now=20)
    assert decision.participant.label == "reconnecting"
    (wanted,) = of(decision.effects, fx.SetDeadline)
    assert wanted.at == T0 + 25


def test_no_deadline_while_the_exam_is_closed():
    story = joined()
    story.exam = replace(EXAM, state="closed")
    assert story.record.check_at is not None
    story(deadline(12.5))
    assert story.record.check_at is None
    assert story.record.label == "active"
    decision = story(lost(20))
    assert of(decision.effects, fx.SetDeadline) == []


# --- order, version, home -------------------------------------------------------------------------------------------------


def test_deadlines_come_first_and_the_ack_last():
    story = Story()
    story(command(0, "warn", text="w"))
    story(report(0.5, connection="c0", connected_at=0, tab_id="t", seq=1))
    decision = story(report(1, tab_id="t", seq=2, connected_at=1, time_end=T0 - 55))
    kinds = [type(e) for e in decision.effects]
    assert kinds == [fx.SetDeadline, fx.PublishView, fx.Send, fx.Send, fx.Close, fx.Ack]
    assert [e.frame.__struct_config__.tag for e in of(decision.effects, fx.Send)] == ["joined", "lmsQuizCommand"]


def test_the_version_follows_the_clock_and_never_falls():
    story = joined()
    assert story.record.version == int(T0 * 1000)
    story(report(1))
    assert story.record.version == int((T0 + 1) * 1000)
    story(report(1))
    assert story.record.version == int((T0 + 1) * 1000) + 1
    story(heartbeat(0.5))
    assert story.record.version == int((T0 + 1) * 1000) + 2


def test_a_version_from_a_clock_that_was_ahead_goes_on_by_ones():
    story = Story(record=replace(NOBODY, version=int((T0 + 50) * 1000)))
    story(report(0))
    assert story.record.version == int((T0 + 50) * 1000) + 1


def test_an_update_is_published_when_something_visible_changed_and_only_then():
    story = joined(seq=1)
    assert of(story(heartbeat(1)).effects, fx.PublishView) == []
    assert of(story(report(2, seq=2)).effects, fx.PublishView) == []
    assert of(story(report(3, seq=3, question_answered=1)).effects, fx.PublishView) == [fx.PublishView()]
    assert of(story(lost(4)).effects, fx.PublishView) == [fx.PublishView()]


ELSEWHERE = replace(NOBODY, home="lambda", lifecycle="in_progress")


@pytest.mark.parametrize(
    "event",
    [
        report(0, seq=1),
        heartbeat(0, echo=True),
        words(0),
        deadline(0),
        command(0, "pause"),
    ],
)
def test_a_participant_whose_home_is_elsewhere_is_forwarded_and_nothing_else(event):
    decision = decide(ELSEWHERE, event, EXAM, T0)
    assert decision.participant is ELSEWHERE
    assert decision.entries == ()
    assert decision.effects == (fx.Forward(KEY, event),)


@pytest.mark.parametrize(("connection", "forwarded"), [("c1", 1), ("c9", 0)])
def test_a_lost_connection_is_forwarded_to_the_home_that_knows_it(connection, forwarded):
    record = replace(joined().record, home="lambda")
    decision = decide(record, lost(1, connection=connection), EXAM, T0 + 1)
    assert decision.participant is record
    assert len(of(decision.effects, fx.Forward)) == forwarded


def test_deciding_twice_gives_the_same_answer_and_leaves_the_record_alone():
    story = joined()
    copy = replace(story.record)
    first = decide(story.record, lost(3), EXAM, T0 + 3)
    assert decide(story.record, lost(3), EXAM, T0 + 3) == first
    assert story.record == copy


# --- the journal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "cause", "before", "after"),
    [
        (report(1, status="away"), "reported", "active", "away"),
        (report(1, status="offline"), "reported", "active", "offline"),
        (report(1, attempt_state="submitted"), "reported", "active", "submitted"),
        (lost(1), "dropped", "active", "reconnecting"),
        (lost(1, reason="left"), "left", "active", "offline"),
        (deadline(12.5), "deadline", "active", "reconnecting"),
        (command(1, "pause"), "command pause", "active", "paused"),
        (command(1, "terminate"), "command terminate", "active", "terminated"),
    ],
)
def test_each_change_of_label_is_one_line(event, cause, before, after):
    decision = joined()(event)
    lines = [e for e in decision.entries if e.kind == "label"]
    assert [(e.cause, e.before, e.after, e.at) for e in lines] == [(cause, before, after, event.received_at)]
    assert lines[0].version == decision.participant.version
    assert [e.n for e in decision.entries] == list(range(len(decision.entries)))


def test_coming_back_by_a_heartbeat_says_so():
    story = joined()
    story.until(13)
    decision = story(heartbeat(14))
    assert [(e.cause, e.after) for e in decision.entries] == [("heartbeat", "active")]
    assert story.record.reconnects == 1


def test_a_planned_silence_that_lapses_is_a_matter_of_the_clock():
    from core_builders import owner_lost

    story = joined()
    story(owner_lost(1))
    story.until(100)
    assert [(e.cause, e.after) for e in story.entries if e.kind == "label"][1:] == [
        ("deadline", "reconnecting"),
        ("deadline", "offline"),
    ]


def test_no_line_without_a_change():
    story = joined()
    for at in range(1, 60, 3):
        story(report(at, question_answered=at))
        story(heartbeat(at + 1))
        story.until(at + 1)
    assert [e.kind for e in story.entries] == ["attempt", "label"]


def test_offline_time_is_measured_from_label_to_label():
    story = joined()
    story.until(25)
    assert story.record.offline_since == T0 + 25
    story(report(60, connection="c2", connected_at=60))
    assert (story.record.offline_since, story.record.offline_seconds) == (None, 35)
    story(lost(61, connection="c2"))
    story.until(81)
    story(report(90, connection="c3", connected_at=90))
    assert story.record.offline_seconds == 35 + 9


def test_every_kind_of_event_survives_an_inbox():
    from core_builders import ordered, owner_lost, receipt

    for event in (
        report(0.25, seq=1, tab_id="t", next_ms=5, student_name="ü", time_end=T0 + 1, name="n", group="g"),
        heartbeat(1, seq=3, echo=True),
        words(1),
        receipt(1),
        lost(1, reason="left"),
        owner_lost(1),
        ordered(1),
        deadline(1.125),
        command(1, "update", extra_minutes=2.5, only_group="g"),
    ):
        assert events.decode(events.encode(event)) == event
