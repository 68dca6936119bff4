import pytest
from core_builders import (
    T0,
    Story,
    command,
    deadline,
    heartbeat,
    joined,
    lost,
    ordered,
    owner_lost,
    receipt,
    regrouped,
    report,
    words,
)

from core import presence
from core.participant import Session
from core.policy import Policy
from core.snapshot import view

# promised next frame -> seconds of silence until reconnecting and offline
LEASES = [(1, 6.5, 17), (5, 12.5, 25), (15, 27.5, 45), (30, 50, 75), (60, 95, 135), (120, 185, 255)]


@pytest.mark.parametrize(("promise", "reconnecting", "offline"), LEASES)
def test_lease(promise, reconnecting, offline):
    story = joined(next_ms=promise * 1000)
    assert story.until(reconnecting - 0.001) == "active"
    assert story.until(reconnecting) == "reconnecting"
    assert story.until(offline - 0.001) == "reconnecting"
    assert story.until(offline) == "offline"
    assert story.labels == ["active", "reconnecting", "offline"]


def test_without_a_promise_the_exams_report_interval_counts():
    story = joined()
    assert (story.until(12.499), story.until(12.5), story.until(24.999), story.until(25)) == (
        "active",
        "reconnecting",
        "reconnecting",
        "offline",
    )


@pytest.mark.parametrize(
    ("next_ms", "away", "promise"),
    [
        (None, False, 5.0),
        (None, True, 5.0),
        (0, False, 1.0),
        (400, False, 1.0),
        (1_000, False, 1.0),
        (7_500, False, 7.5),
        (120_000, False, 120.0),
        (121_000, False, 120.0),
        (86_400_000, False, 120.0),
        (121_000, True, 121.0),
        (300_000, True, 300.0),
        (300_001, True, 300.0),
        (0, True, 1.0),
    ],
)
def test_promises_are_clamped(next_ms, away, promise):
    assert presence.promise_seconds(next_ms, away, Policy()) == promise


def test_the_promise_of_a_report_counts_as_away_or_not_by_that_report():
    story = joined(status="away", next_ms=300_000)
    assert story.until(454.9) == "away"
    assert story.until(455) == "reconnecting"
    assert story.until(615) == "offline"
    story = joined(status="active", next_ms=300_000)
    assert story.until(185) == "reconnecting"


def test_a_heartbeat_of_an_away_page_may_promise_up_to_five_minutes():
    story = joined(status="away", next_ms=60_000)
    story(heartbeat(60, next_ms=300_000))
    assert story.until(60 + 454) == "away"


def test_a_hidden_tab_that_promises_a_minute_is_not_reconnecting_after_one():
    story = joined()
    story(report(4, status="away", next_ms=60_000))
    for minute in range(1, 10):
        assert story.until(4 + 60 * minute) == "away"
        story(heartbeat(4 + 60 * minute, next_ms=60_000))
    assert story.labels == ["active", "away"]


def test_each_frame_renews_the_lease_and_none_shortens_it():
    story = joined(next_ms=60_000)
    story(heartbeat(10))
    assert story.until(94.9) == "active"
    story(heartbeat(94.9))
    assert story.until(94.9 + 12.4) == "active"
    assert story.until(94.9 + 12.5) == "reconnecting"


def test_closed_without_a_goodbye_is_reconnecting_at_once_and_offline_after_twenty_seconds():
    story = joined()
    story(lost(3))
    assert story.record.label == "reconnecting"
    assert story.until(22.999) == "reconnecting"
    assert story.until(23) == "offline"


def test_a_lost_socket_does_not_wait_for_a_long_promise():
    story = joined(next_ms=120_000)
    story(lost(3))
    assert story.until(23) == "offline"


@pytest.mark.parametrize("event", [lambda at: lost(at, reason="lost_by_us"), owner_lost])
def test_closed_or_lost_by_us_is_offline_after_a_minute(event):
    story = joined()
    story(event(3))
    assert story.record.label == "active"
    assert story.until(17.999) == "active"
    assert story.until(18) == "reconnecting"
    assert story.until(62.999) == "reconnecting"
    assert story.until(63) == "offline"


def test_closed_by_us_never_shortens_what_the_page_had_promised():
    story = joined(next_ms=60_000)
    story(lost(1, reason="lost_by_us"))
    assert story.until(94.9) == "active"
    assert story.until(95) == "offline"


def test_lost_by_us_after_silence_still_gives_the_minute_and_keeps_when_silence_began():
    story = joined()
    story(lost(3))
    story(owner_lost(10))
    assert presence.fell_silent_at(story.record.sessions[0]) == T0 + 3
    assert story.until(69.9) == "reconnecting"
    assert story.until(70) == "offline"


def test_a_planned_move_is_quiet_and_then_gives_a_minute():
    story = joined()
    decision = story(ordered(3, after_ms=10_000))
    assert decision.effects[-1].frame.data.after_ms == 10_000
    story(lost(13))
    assert story.until(27.9) == "active"
    assert story.until(28) == "reconnecting"
    assert story.until(72.9) == "reconnecting"
    assert story.until(73) == "offline"


def test_a_planned_move_that_succeeds_shows_nothing_at_all():
    story = joined(tab_id="t", seq=1)
    story(ordered(3, after_ms=10_000))
    story(lost(4, reason="dropped"))
    story(report(16, connection="c2", connected_at=15, tab_id="t", seq=2))
    assert story.until(20) == "active"
    assert story.labels == ["active"]
    assert story.record.reconnects == 0


def test_a_new_connection_after_a_planned_move_is_no_longer_planned():
    story = joined(tab_id="t", seq=1)
    story(ordered(3))
    story(report(6, connection="c2", connected_at=5, tab_id="t", seq=2))
    story(lost(8, connection="c2"))
    assert story.record.label == "reconnecting"


@pytest.mark.parametrize("goodbye", [lost(4, reason="left"), report(4, status="offline")])
def test_who_says_goodbye_is_offline_at_once(goodbye):
    story = joined()
    story(goodbye)
    assert (story.record.presence, story.record.label) == ("left", "offline")
    assert story.until(100) == "offline"
    assert story.labels == ["active", "offline"]


def test_who_left_comes_back_with_a_report_but_not_with_a_heartbeat():
    story = joined()
    story(lost(4, reason="left"))
    refused = story(heartbeat(5))
    assert refused.participant.label == "offline"
    assert refused.effects[0].frame.data.code == "report_first"
    story(report(6, connection="c2", connected_at=6))
    assert story.record.label == "active"
    assert story.record.reconnects == 1


def test_a_frame_that_was_received_before_the_goodbye_and_decided_after_it_undoes_nothing():
    for goodbye in (lost(4, reason="left"), lost(4)):
        story = joined()
        story(goodbye)
        before = story.record.label
        story(heartbeat(3.9), now=4.1)
        story(report(3.95, question_answered=3), now=4.2)
        assert story.record.label == before
    assert story.record.question_answered == 3


def test_a_frame_that_was_received_within_the_lease_and_decided_after_it_still_counts():
    story = joined()
    story.until(13)
    assert story.record.label == "reconnecting"
    story(heartbeat(12), now=14)
    assert story.record.label == "active"
    assert story.until(24.4) == "active"
    assert story.until(24.5) == "reconnecting"


def test_a_frame_that_waited_longer_than_its_lease_does_not_show_the_student_active():
    story = joined()
    story.until(60)
    assert story.record.label == "offline"
    story(report(30, connection="c2", connected_at=30), now=60)
    assert story.record.label == "offline"
    assert story.labels == ["active", "reconnecting", "offline"]


def test_a_heartbeat_on_an_unknown_connection_asks_for_a_report():
    decision = joined()(heartbeat(1, connection="other", echo=True))
    (error,) = [e.frame.data for e in decision.effects]
    assert (error.code, error.action) == ("report_first", "lmsQuizMonitoringHeartbeat")
    assert decision.entries == ()


# --- every presence and every kind of event -------------------------------------------------------------------------------


def in_presence(name: str) -> Story:
    """A participant with one session of this presence, thirty seconds old, with a command that waits for its receipt."""
    story = joined()
    story(command(1, "message", text="m"))
    match name:
        case "connected":
            for at in (8, 16, 24, 30):  # the last one leaves the deadline before its lease
                story(heartbeat(at))
                story.until(at)
        case "reconnecting":
            story.until(16)
        case "offline":
            story.until(30)
        case "left":
            story(lost(20, reason="left"))
    assert story.record.presence == name
    return story


EVENTS = {
    "report": lambda s: report(31),
    "goodbye": lambda s: report(31, status="offline"),
    "report, new connection": lambda s: report(31, connection="c2", connected_at=31),
    "heartbeat": lambda s: heartbeat(31),
    "words": lambda s: words(31),
    "receipt": lambda s: receipt(31),
    "dropped": lambda s: lost(31),
    "left": lambda s: lost(31, reason="left"),
    "lost_by_us": lambda s: lost(31, reason="lost_by_us"),
    "dropped, other connection": lambda s: lost(31, connection="c0"),
    "owner lost": lambda s: owner_lost(31),
    "reconnect ordered": lambda s: ordered(31),
    "stray deadline": lambda s: deadline(7, 31),
    "deadline": lambda s: deadline((s.record.check_at or 0) - T0, max(31, (s.record.check_at or 0) - T0)),
    "command": lambda s: command(31, "warn", id="k2", text="w"),
    "roster": lambda s: regrouped(31, group="R2"),
}
NEXT = {
    #                                connected       reconnecting    offline         left
    "report": ("connected", "connected", "connected", "connected"),
    "goodbye": ("left", "left", "left", "left"),
    "report, new connection": ("connected", "connected", "connected", "connected"),
    "heartbeat": ("connected", "connected", "connected", "left"),
    "words": ("connected", "reconnecting", "offline", "left"),
    "receipt": ("connected", "reconnecting", "offline", "left"),
    "dropped": ("reconnecting", "reconnecting", "offline", "left"),
    "left": ("left", "left", "offline", "left"),
    "lost_by_us": ("connected", "reconnecting", "offline", "left"),
    "dropped, other connection": ("connected", "reconnecting", "offline", "left"),
    "owner lost": ("connected", "reconnecting", "offline", "left"),
    "reconnect ordered": ("connected", "reconnecting", "offline", "left"),
    "stray deadline": ("connected", "reconnecting", "offline", "left"),
    "deadline": ("connected", "offline", "offline", "left"),
    "command": ("connected", "reconnecting", "offline", "left"),
    "roster": ("connected", "reconnecting", "offline", "left"),
}
PRESENCES = ("connected", "reconnecting", "offline", "left")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("before", PRESENCES)
def test_every_presence_and_event(before, event):
    story = in_presence(before)
    story(EVENTS[event](story))
    assert story.record.presence == NEXT[event][PRESENCES.index(before)]


def test_the_table_has_every_kind_of_event():
    from typing import get_args

    from core import events

    story = in_presence("connected")
    assert {type(make(story)) for make in EVENTS.values()} == set(get_args(events.ParticipantEvent))


def test_presence_is_the_best_of_the_sessions():
    story = joined(tab_id="one", seq=1)
    story(report(1, connection="c2", connected_at=1, tab_id="two", seq=1))
    story(lost(2, connection="c1"))
    assert story.record.presence == "connected"
    story(lost(3, connection="c2", reason="left"))
    assert story.record.presence == "reconnecting"
    story.until(22)
    assert story.record.presence == "offline"


def test_an_ended_session_is_due_no_more():
    from core_builders import EXAM

    for name in ("offline", "left"):
        assert presence.due(Session("s", "c", 0.0, presence=name), EXAM) is None


def test_a_view_says_since_when_the_label_is_what_it_is():
    story = joined()
    assert view(story.record).label_since == T0
    story(report(5, question_answered=1))
    assert view(story.record).label_since == T0
    story(report(6, status="away"))
    assert view(story.record).label_since == T0 + 6
    story(report(9, status="active"))
    story(report(10, connection="c2", connected_at=10, attempt="a2"))
    assert view(story.record).label_since == T0 + 10  # everything begins again with an attempt
    story.until(100)
    labels = [entry for entry in story.entries if entry.kind == "label"]
    assert view(story.record).label_since == labels[-1].at
