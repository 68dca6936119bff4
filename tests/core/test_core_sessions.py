from core_builders import T0, Story, frames, heartbeat, joined, lost, of, receipt, report

from core import effects as fx
from core import messages as m
from core.errors import CloseCode


def connections(story):
    return [s.connection for s in story.record.sessions]


def tab(name: str, at: float, seq: int = 1, **fields):
    """The first report of a page on a connection of its own."""
    return report(at, connection=f"c-{name}", connected_at=at, tab_id=name, seq=seq, **fields)


def test_a_first_report_joins_and_is_acknowledged():
    decision = Story()(report(0.25, seq=1, tab_id="t", time_end=T0 + 900))
    (hello,) = frames(decision, m.Joined)
    assert hello == m.JoinedData("t", 0, (T0 + 0.25) * 1000, "in_progress", T0 + 900, 7_200.0)
    assert frames(decision, m.Ack) == [m.AckData((T0 + 0.25) * 1000, seq=1)]


def test_a_page_that_speaks_figure_four_only_hears_nothing_new():
    decision = Story()(report(0))
    assert frames(decision, m.Joined) == []
    assert frames(decision, m.Ack) == []


def test_either_optional_field_makes_a_page_one_of_ours():
    assert frames(Story()(report(0, tab_id="t")), m.Joined)
    assert frames(Story()(report(0, seq=1)), m.Joined)[0].session_id == "c1"


def test_joined_comes_once_a_connection():
    story = joined(seq=1, tab_id="t")
    assert frames(story(report(1, seq=2, tab_id="t")), m.Joined) == []
    again = story(report(2, connection="c2", connected_at=2, seq=3, tab_id="t"))
    assert frames(again, m.Joined)[0].last_seq == 2


def test_a_second_page_is_a_flag_and_no_error():
    story = Story()
    story(tab("one", 0))
    decision = story(tab("two", 1))
    assert story.record.flags == ("several_pages",)
    assert of(decision.effects, fx.Close) == []
    assert frames(decision, m.Error) == []
    story(lost(2, connection="c-one", reason="left"))
    assert story.record.flags == ()


def test_a_fourth_page_closes_the_oldest():
    story = Story()
    for n, name in enumerate(("one", "two", "three")):
        assert of(story(tab(name, n)).effects, fx.Close) == []
    decision = story(tab("four", 9))
    assert [(c.connection, c.code) for c in of(decision.effects, fx.Close)] == [("c-one", CloseCode.REPLACED)]
    assert connections(story) == ["c-two", "c-three", "c-four"]
    assert [(e.cause, e.before, e.after) for e in decision.entries if e.cause == "evicted"] == [
        ("evicted", "one", "four")
    ]


def test_an_ended_page_makes_room_before_a_live_one():
    story = Story()
    for n, name in enumerate(("one", "two", "three")):
        story(tab(name, n))
    story(lost(4, connection="c-two", reason="left"))
    assert of(story(tab("four", 9)).effects, fx.Close) == []
    assert connections(story) == ["c-one", "c-three", "c-four"]


def test_an_evicted_page_that_missed_its_close_pushes_nobody_out():
    story = Story()
    for n, name in enumerate(("one", "two", "three", "four")):
        story(tab(name, n))
    before = story.record
    decision = story(report(5, connection="c-one", connected_at=0, tab_id="one", seq=2))
    assert decision.participant is before
    assert [(type(e), e.connection, e.code) for e in decision.effects] == [(fx.Close, "c-one", 4009)]


def test_the_same_page_on_a_new_connection_replaces_the_old_silently():
    story = joined(tab_id="t", seq=1)
    decision = story(report(2, connection="c2", connected_at=2, tab_id="t", seq=2))
    assert connections(story) == ["c2"]
    assert story.labels == ["active"]
    assert story.record.flags == ()
    assert story.record.reconnects == 0
    assert [(c.connection, c.code) for c in of(decision.effects, fx.Close)] == [("c1", 4009)]


def test_a_connection_that_is_gone_already_is_not_closed_again():
    story = joined(tab_id="t", seq=1)
    story(lost(1))
    decision = story(report(2, connection="c2", connected_at=2, tab_id="t", seq=2))
    assert of(decision.effects, fx.Close) == []
    assert story.record.reconnects == 1


def test_the_replaced_connection_is_fenced():
    story = joined(tab_id="t", seq=1)
    story(report(2, connection="c2", connected_at=2, tab_id="t", seq=2))
    before = story.record
    late = story(report(2.5, connection="c1", connected_at=0, tab_id="t", seq=3, question_answered=7))
    assert late.participant is before
    assert [(type(e), e.connection) for e in late.effects] == [(fx.Close, "c1")]
    assert story(lost(3, connection="c1")).participant is before
    assert story(heartbeat(3, connection="c1")).participant is before


def test_without_a_tab_id_the_connection_is_the_session():
    story = joined()
    story(report(2, connection="c2", connected_at=2))
    assert [s.id for s in story.record.sessions] == ["c1", "c2"]


def test_one_connection_carries_one_page():
    story = joined(tab_id="one", seq=1)
    story(report(1, tab_id="two", seq=1))
    assert [(s.id, s.connection) for s in story.record.sessions] == [("two", "c1")]
    story(report(2, connection="c2", connected_at=2, tab_id="one", seq=2))
    story(report(3, connection="c2", connected_at=2, tab_id="two", seq=2))
    assert [(s.id, s.connection) for s in story.record.sessions] == [("two", "c2")]


# --- seq ------------------------------------------------------------------------------------------------------------------


def test_at_or_below_the_last_applied_is_acknowledged_again_and_not_applied():
    story = joined(seq=5, question_answered=3)
    before = story.record
    for seq in (1, 4, 5):
        decision = story(report(1, seq=seq, question_answered=9))
        assert decision.participant is before
        assert [a.seq for a in frames(decision, m.Ack)] == [seq]
        # whoever saved the last one may have died before proctors were shown it
        assert [type(e) for e in decision.effects] == ([fx.PublishView] if seq == 5 else []) + [fx.Ack]


def test_a_gap_in_seq_is_no_error():
    story = joined(seq=1)
    story(report(1, seq=7, question_answered=9))
    assert (story.record.question_answered, story.record.sessions[0].seq) == (9, 7)


def test_an_acknowledgement_tells_when_that_report_was_received():
    decision = Story()(report(1.5, seq=1), now=4)
    assert frames(decision, m.Ack)[0].server_time == (T0 + 1.5) * 1000


def test_seq_counts_for_each_page_by_itself():
    story = Story()
    story(tab("one", 0, seq=9, question_answered=1))
    story(tab("two", 1, seq=1, question_answered=2))
    assert story.record.question_answered == 2


def test_seq_goes_on_over_a_reconnect():
    story = joined(tab_id="t", seq=4, question_answered=1)
    story(lost(1))
    repeated = story(report(2, connection="c2", connected_at=2, tab_id="t", seq=4, question_answered=8))
    assert story.record.question_answered == 1
    assert story.record.label == "active"
    assert frames(repeated, m.Joined)[0].last_seq == 4
    assert frames(repeated, m.Ack)[0].seq == 4


def test_reports_without_seq_are_ordered_by_their_receive_time():
    story = joined(question_answered=1)
    story(report(5, question_answered=5))
    before = story.record
    assert story(report(4, question_answered=4), now=6).participant is before
    story(report(5, question_answered=6), now=6)
    assert story.record.question_answered == 6


def test_a_repeated_report_that_submits_still_submits():
    """A submission that overtook its own earlier state must not be lost: nothing but a new attempt follows it."""
    story = joined(seq=5)
    story(report(1, seq=4, attempt_state="submitted"))
    assert story.record.lifecycle == "submitted"


def test_an_absent_field_means_unchanged():
    story = joined(question_number_current=3, question_answered=2, question_total=9, score=1.5)
    story(report(1))
    r = story.record
    assert (r.question_number_current, r.question_answered, r.question_total, r.score) == (3, 2, 9, 1.5)
    story(report(2, question_number_current=4, question_answered=0, question_total=10, score=0.0))
    r = story.record
    assert (r.question_number_current, r.question_answered, r.question_total, r.score) == (4, 0, 10, 0.0)


def test_a_heartbeat_is_acknowledged_only_if_it_asks():
    story = joined(seq=3)
    assert frames(story(heartbeat(1, seq=3)), m.Ack) == []
    assert frames(story(heartbeat(2, seq=3, echo=True)), m.Ack) == [m.AckData((T0 + 2) * 1000, seq=3)]
    story = joined()
    assert frames(story(heartbeat(2, echo=True)), m.Ack) == [m.AckData((T0 + 2) * 1000)]


def test_a_heartbeat_publishes_nothing():
    decision = joined()(heartbeat(1))
    assert of(decision.effects, fx.PublishView) == []


def test_commands_go_to_the_page_that_reported_last():
    story = Story()
    story(tab("one", 0))
    story(tab("two", 1))
    assert story.record.connection == "c-two"
    story(report(2, connection="c-one", connected_at=0, tab_id="one", seq=2))
    assert story.record.connection == "c-one"
    story(lost(3, connection="c-one"))
    assert story.record.connection == "c-two"
    story(receipt(3))
    story(lost(3, connection="c-two"))
    assert story.record.connection is None
