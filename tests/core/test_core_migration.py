"""A move: who goes when, what changes hands, and when it is taken back."""

from __future__ import annotations

import itertools

import pytest
from core_builders import EXAM, KEY, T0, report
from msgspec.structs import replace

from core import decide, new_participant, presence
from core import migration as mg
from core.effects import Forward
from core.events import DeadlineReached
from core.migration import Health, Limits, Move
from core.participant import ParticipantKey, Session

MOVE = Move("wss://lambda", "wss://ec2", percent=30)
KEYS = [ParticipantKey("north", "math", f"s{n}") for n in range(5_000)]
LIMITS = Limits()
FINE = Health(at=100.0, on_lambda=50, on_ec2=50)


def on_ec2(move: Move) -> set[ParticipantKey]:
    return {key for key in KEYS if mg.target(move, key) == "ec2"}


def test_who_was_moved_at_a_lower_percentage_stays_moved_at_a_higher_one():
    shares = [on_ec2(replace(MOVE, percent=percent)) for percent in (0, 5, 30, 70, 100)]
    assert shares[0] == set()
    assert shares[-1] == set(KEYS)
    for lower, higher in itertools.pairwise(shares):
        assert lower < higher


@pytest.mark.parametrize("percent", [5, 30, 50])
def test_the_share_is_about_what_was_asked_for(percent):
    assert abs(len(on_ec2(replace(MOVE, percent=percent))) / len(KEYS) - percent / 100) < 0.02


def test_an_exam_or_group_that_is_not_named_stays():
    assert on_ec2(replace(MOVE, percent=100, exams=("chemistry",))) == set()
    grouped = replace(MOVE, percent=100, groups=("room-1",))
    assert mg.target(grouped, KEYS[0], "room-1") == "ec2"
    assert mg.target(grouped, KEYS[0], "room-2") == "lambda"


def test_an_exam_that_only_the_cluster_has_is_the_moves_business_if_it_began_since():
    move = replace(MOVE, started_at=1_000.0, exams=("math",))
    assert mg.concerns(move, "math")
    assert not mg.concerns(move, "physics")
    assert mg.concerns(move, "math", 1_000.5)
    assert not mg.concerns(move, "math", 999.5)
    assert not mg.concerns(move, "physics", 1_000.5)


def test_slots_are_spread_over_the_step_and_do_not_follow_the_order_of_moving():
    slots = sorted(mg.slot_ms(MOVE, key) for key in on_ec2(MOVE))
    assert slots[0] >= 0
    assert slots[-1] < MOVE.slot_seconds * 1000
    tenths = [sum(n * 3_000 <= slot < (n + 1) * 3_000 for slot in slots) for n in range(10)]
    assert min(tenths) > 0.6 * len(slots) / 10


def test_they_go_in_their_slots_and_no_more_at_a_time_than_arrive():
    move = replace(MOVE, changed_at=1_000.0, slot_seconds=30.0)
    keys = KEYS[:200]
    assert mg.due(move, keys, 0, 999.0) == []
    half = mg.due(move, keys, 0, 1_015.0, most=1_000)
    assert set(half) == {key for key in keys if mg.slot_ms(move, key) <= 15_000}
    assert [mg.slot_ms(move, key) for key in half] == sorted(mg.slot_ms(move, key) for key in half)
    assert mg.due(move, keys, 0, 1_030.0, most=7) == half[:7]
    assert mg.due(move, keys, 5, 1_030.0, most=7) == half[:2]
    assert mg.due(move, keys, 9, 1_030.0, most=7) == []
    assert len(mg.due(move, keys, 0, 1_030.0)) == mg.AT_ONCE == mg.at_once(300)
    assert mg.at_once(10_000) == 100


def test_a_connection_is_marked_on_the_way_there_and_plain_on_the_way_back():
    assert mg.named_for_other("abc=") == "other:abc="
    assert mg.named_for_other("other:abc=") == "abc="
    event = report(seq=1)
    assert mg.for_other(mg.for_other(event)) == event
    assert mg.for_other(DeadlineReached(received_at=1.0, at=1.0)) == DeadlineReached(received_at=1.0, at=1.0)


def test_a_record_changes_hands_whole_and_the_old_side_decides_nothing_more():
    record = decide(new_participant(KEY, EXAM.here), report(seq=1), EXAM, T0).participant
    there = "lambda" if EXAM.here == "ec2" else "ec2"
    after = mg.handed_over(record, there, T0 + 10, EXAM.policy)
    assert (after.home, after.home_epoch, after.question_answered) == (there, 1, record.question_answered)
    assert after.version > record.version
    assert after.label == record.label
    assert after.sessions[0].lease_until >= record.sessions[0].lease_until
    event = report(seq=2)
    assert decide(after, event, EXAM, T0 + 11).effects == (Forward(KEY, event),)
    back = mg.handed_over(after, EXAM.here, T0 + 20, EXAM.policy)
    assert back.sessions[0].connection == record.sessions[0].connection


def test_nobody_who_is_handed_over_is_shown_as_gone_for_a_minute():
    record = decide(new_participant(KEY, EXAM.here), report(seq=1), EXAM, T0).participant
    after = mg.handed_over(record, "lambda", T0 + 10, EXAM.policy)
    there = replace(EXAM, here="lambda")
    gone = decide(after, DeadlineReached(received_at=T0 + 60, at=after.check_at), there, T0 + 60).participant
    assert after.check_at <= T0 + 60
    assert gone.label in ("active", "reconnecting")
    late = decide(gone, DeadlineReached(received_at=T0 + 200, at=gone.check_at), there, T0 + 200).participant
    while late.label == "reconnecting":
        late = decide(late, DeadlineReached(received_at=T0 + 200, at=late.check_at), there, T0 + 200).participant
    assert late.label == "offline"


# --- steps and the guard --------------------------------------------------------------------------------------------------


def test_each_step_raises_the_version_and_says_when():
    after = mg.stepped(MOVE, "shifting", 60, 5.0)
    assert (after.version, after.percent, after.state, after.changed_at) == (MOVE.version + 1, 60, "shifting", 5.0)


@pytest.mark.parametrize(
    ("move", "state", "percent", "complaint"),
    [
        (MOVE, "shifting", 101, "percent is 101"),
        (MOVE, "finished", 100, "only 30 % are shifted"),
        (replace(MOVE, state="finished"), "rolled_back", 0, "finished"),
    ],
)
def test_a_step_that_is_not_possible_says_why(move, state, percent, complaint):
    with pytest.raises(mg.WrongStep, match=complaint):
        mg.stepped(move, state, percent, 0.0)


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (FINE, ""),
        (None, "never reported"),
        (replace(FINE, at=80.0), "silent for 20 s"),
        (replace(FINE, errors=6), "6 errors"),
        (replace(FINE, lag_seconds=3.5), "3.5 s late"),
        (replace(FINE, offline_after_move=3), "3 students went offline"),
        (replace(FINE, offline_after_move=2), ""),
    ],
)
def test_the_guard_takes_a_step_back_beyond_a_limit(health, reason):
    found = mg.verdict(health, FINE, LIMITS, 100.0)
    assert reason in found
    assert bool(found) == bool(reason)


def test_what_went_wrong_before_the_step_is_not_held_against_it():
    before = replace(FINE, errors=50, offline_after_move=9)
    assert mg.verdict(replace(before, errors=52), before, LIMITS, 100.0) == ""


def test_moves_and_health_survive_their_encoding():
    assert mg.decode_move(mg.encode(MOVE)) == MOVE
    assert mg.decode_health(mg.encode(FINE)) == FINE


def test_a_page_that_was_told_and_only_heartbeats_is_told_again_and_a_silent_one_is_not():
    policy = EXAM.policy
    session = Session("tab", "c1", T0, lease_until=T0 + 12.5, applied_at=T0)
    told = presence.planned(session, T0 + 5, 0.5, policy)
    assert not mg.was_told(session, policy)
    assert mg.was_told(told, policy)
    assert mg.was_told(presence.planned(told, T0 + 9, 0.5, policy), policy)
    assert not mg.was_told(replace(told, applied_at=T0 + 6), policy)
    later = presence.renewed(told, T0 + 60, presence.promise_seconds(None, False, policy), policy)
    assert not mg.was_told(replace(later, planned_until=told.planned_until), policy)
