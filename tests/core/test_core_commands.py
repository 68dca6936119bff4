import pytest
from core_builders import T0, Story, command, frames, heartbeat, joined, lost, of, receipt, report, words
from msgspec.structs import replace

from core import effects as fx
from core import messages as m


def statuses(effects):
    return [(s.command_id, s.outcome, s.reason) for s in of(effects, fx.PublishCommandStatus)]


def test_a_command_to_one_who_is_there_is_sent():
    story = joined()
    decision = story(command(1, "warn", text="eyes on your page"))
    assert frames(decision, m.Command) == [m.CommandData("k1", "warn", "eyes on your page")]
    assert statuses(decision.effects) == [("k1", "sent", "")]
    assert [(e.kind, e.cause, e.after, e.actor, e.reference) for e in decision.entries] == [
        ("command", "warn", "accepted", "proctor", "k1")
    ]


def test_a_command_to_one_who_is_not_there_waits_and_goes_out_on_each_new_connection_until_delivered():
    story = joined(tab_id="t", seq=1)
    story(lost(1))
    accepted = story(command(2, "message", text="hi"))
    assert frames(accepted, m.Command) == []
    assert statuses(accepted.effects) == [("k1", "accepted", "")]
    first = story(report(3, connection="c2", connected_at=3, tab_id="t", seq=2))
    assert len(frames(first, m.Command)) == 1
    assert statuses(first.effects) == [("k1", "sent", "")]
    second = story(report(4, connection="c3", connected_at=4, tab_id="t", seq=3))
    assert len(frames(second, m.Command)) == 1
    assert statuses(second.effects) == []
    same = story(report(5, connection="c3", connected_at=4, tab_id="t", seq=4))
    assert frames(same, m.Command) == []
    delivered = story(receipt(6, connection="c3"))
    assert statuses(delivered.effects) == [("k1", "delivered", "")]
    assert frames(story(report(7, connection="c4", connected_at=7, tab_id="t", seq=5)), m.Command) == []


def test_a_command_without_a_receipt_is_sent_again_on_the_connection_that_lives():
    story = joined(tab_id="t", seq=1)
    assert len(frames(story(command(1, "warn", text="w")), m.Command)) == 1
    assert frames(story(report(5.9, tab_id="t", seq=2)), m.Command) == []  # its receipt may be under way
    again = story(heartbeat(6))
    assert frames(again, m.Command) == [m.CommandData("k1", "warn", "w")]
    assert statuses(again.effects) == []  # proctors have heard that it was sent
    assert frames(story(report(7, tab_id="t", seq=3)), m.Command) == []
    assert len(frames(story(report(11, tab_id="t", seq=4)), m.Command)) == 1
    story(receipt(12))
    assert frames(story(report(20, tab_id="t", seq=5)), m.Command) == []


def test_the_papers_own_client_gives_no_receipts_and_gets_a_command_once():
    story = joined()
    story(command(1, "warn", text="w"))
    assert frames(story(report(10)), m.Command) == []


def test_delivered_then_confirmed():
    story = joined()
    story(command(1, "warn", text="w"))
    delivered = story(receipt(2))
    assert frames(delivered, m.Ack) == [m.AckData((T0 + 2) * 1000, command_id="k1")]
    assert [(e.kind, e.after, e.reference, e.actor) for e in delivered.entries] == [
        ("receipt", "delivered", "k1", "student")
    ]
    confirmed = story(receipt(3, "confirmed"))
    assert statuses(confirmed.effects) == [("k1", "confirmed", "")]
    assert [e.after for e in story.entries if e.kind == "receipt"] == ["delivered", "confirmed"]


@pytest.mark.parametrize("outcome", ["delivered", "confirmed"])
def test_a_receipt_that_comes_twice_is_acknowledged_twice_and_counts_once(outcome):
    story = joined()
    story(command(1, "warn", text="w"))
    story(receipt(2, outcome))
    before = story.record
    again = story(receipt(3, outcome))
    assert again.participant is before
    assert [type(e) for e in again.effects] == [fx.Ack]


def test_a_confirmation_that_overtakes_the_delivery_says_it_all():
    story = joined()
    story(command(1, "warn", text="w"))
    assert statuses(story(receipt(2, "confirmed")).effects) == [("k1", "confirmed", "")]
    before = story.record
    assert story(receipt(3, "delivered")).participant is before


@pytest.mark.parametrize("outcome", ["delivered", "confirmed"])
def test_a_receipt_of_an_unknown_command_is_not_acknowledged(outcome):
    """Whoever decides may hold an older copy of the record than the one that has the command: the page must ask again."""
    story = joined()
    before = story.record
    decision = story(receipt(2, outcome, id="never"))
    assert decision.participant is before
    assert decision.effects == ()


def test_what_nobody_received_expires_and_says_so():
    story = joined()
    story(lost(1))
    story(command(2, "message", text="hi", expires=60))
    story.until(61.9)
    assert len(story.record.commands) == 1
    story.until(62)
    assert story.record.commands == ()
    assert statuses(story.effects)[-1] == ("k1", "expired", "")
    assert [(e.kind, e.after) for e in story.entries][-1] == ("receipt", "expired")
    assert frames(story(report(70, connection="c2", connected_at=70)), m.Command) == []


def test_one_that_has_expired_is_not_sent_although_no_timer_came():
    story = joined()
    story(lost(1))
    story(command(2, "message", text="hi", expires=10))
    decision = story(report(30, connection="c2", connected_at=30))
    assert frames(decision, m.Command) == []
    assert statuses(decision.effects) == [("k1", "expired", "")]


def test_a_command_to_one_who_never_joins_expires_too():
    story = Story()
    story(command(0, "message", text="hi", expires=60))
    story.until(60)
    assert statuses(story.effects) == [("k1", "accepted", ""), ("k1", "expired", "")]
    assert story.record.check_at is None


def test_a_command_twice_is_one_command():
    story = joined(time_end=T0 + 600)
    story(command(1, "update", extra_minutes=5.0))
    before = story.record
    again = story(command(2, "update", extra_minutes=5.0))
    assert again.participant is before
    assert again.effects == ()
    assert story.record.time_end == T0 + 900


def test_a_command_that_waits_is_known_however_much_was_said_since():
    story = joined(time_end=T0 + 600)
    story(command(1, "update", extra_minutes=5.0))
    for n in range(30):
        story(words(2 + n, id=f"m{n}"))
    story(command(40, "update", extra_minutes=5.0))
    assert story.record.time_end == T0 + 900


def test_a_student_can_not_block_a_command_by_guessing_its_id():
    story = joined()
    for guess in ("k1", "confirmed k1", "command k1"):
        story(words(1, id=guess))
    decision = story(command(2, "warn", text="w"))
    assert len(frames(decision, m.Command)) == 1
    assert statuses(story(receipt(3, "confirmed")).effects) == [("k1", "confirmed", "")]


def test_more_commands_than_a_record_holds_are_refused_and_none_is_forgotten():
    story = joined()
    for n in range(16):
        story(command(1, id=f"k{n}", text="t"))
    decision = story(command(2, id="one too many", text="t"))
    assert statuses(decision.effects) == [("one too many", "refused", "16 commands wait for this student already")]
    assert len(story.record.commands) == 16


def test_a_lease_and_a_waiting_command_share_one_deadline():
    story = joined()
    story(command(1, "message", text="hi", expires=5))
    assert story.record.check_at == T0 + 6
    story.until(6)
    assert story.record.check_at == T0 + 12.5


# --- what each command does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("message", "flags", ()),
        ("warn", "flags", ("warned",)),
        ("flag", "flags", ("flagged",)),
        ("pause", "lifecycle", "paused"),
        ("resume", "lifecycle", "in_progress"),
        ("terminate", "lifecycle", "terminated"),
        ("update", "granted_seconds", 300.0),
    ],
)
def test_a_command_takes_effect_when_it_is_accepted(name, field, value):
    story = joined(time_end=T0 + 600)
    story(lost(0.5))
    story(command(1, name, extra_minutes=5.0 if name == "update" else None))
    assert getattr(story.record, field) == value


def test_acknowledging_lowers_the_hand_and_the_flag():
    story = joined()
    story(words(1, "raise_hand"))
    story(command(2, "flag"))
    assert story.record.flags == ("hand_raised", "flagged")
    decision = story(command(3, "acknowledge", id="k2"))
    assert story.record.flags == ()
    assert statuses(decision.effects) == [("k2", "confirmed", "")]


@pytest.mark.parametrize("name", ["flag", "acknowledge"])
def test_the_page_has_no_part_in_flags(name):
    story = joined()
    decision = story(command(1, name))
    assert frames(decision, m.Command) == []
    assert statuses(decision.effects) == [("k1", "confirmed", "")]
    assert story.record.commands == ()


def test_pause_and_resume():
    story = joined()
    story(command(1, "pause"))
    story(heartbeat(2))
    story(report(3))
    assert story.record.label == "paused"
    story(command(4, "resume", id="k2"))
    assert story.record.label == "active"
    assert [e.cause for e in story.entries if e.kind == "label"] == ["reported", "command pause", "command resume"]


@pytest.mark.parametrize(
    ("story", "event", "reason"),
    [
        (joined(), command(1, "update", extra_minutes=5.0), "no attempt with a known end is in progress"),
        (Story(), command(1, "update", extra_minutes=5.0), "no attempt with a known end is in progress"),
        (Story(), command(1, "pause"), "not possible while not_joined"),
        (joined(attempt_state="submitted"), command(1, "pause"), "not possible while submitted"),
        (joined(attempt_state="submitted"), command(1, "terminate"), "not possible while submitted"),
        (joined(group="room 1"), command(1, "warn", text="w", only_group="room 2"), "not in group room 2"),
    ],
)
def test_what_can_not_be_done_is_refused_with_its_reason(story, event, reason):
    decision = story(event)
    assert statuses(decision.effects) == [("k1", "refused", reason)]
    assert [(e.kind, e.after, e.text) for e in decision.entries] == [("command", "refused", reason)]
    assert decision.participant.commands == ()
    assert story(event).effects == ()


def test_a_proctor_of_the_same_group_may_command():
    story = joined(group="room 1")
    assert statuses(story(command(1, "warn", text="w", only_group="room 1")).effects) == [("k1", "sent", "")]


def test_a_command_that_waited_in_an_inbox_until_it_expired_is_refused():
    story = joined()
    decision = story(command(1, "message", text="hi", expires=5), now=6)
    assert statuses(decision.effects) == [("k1", "refused", "expired before it was decided")]


def test_the_journal_keeps_reason_minutes_and_words():
    decision = joined()(command(1, "warn", text="phone", reason_code="P1"))
    assert [e.text for e in decision.entries if e.kind == "command"] == ["P1 phone"]
    decision = joined(time_end=T0 + 500)(command(1, "update", extra_minutes=7.5, reason_code="technical"))
    assert [e.text for e in decision.entries if e.kind == "command"] == ["technical 7.5 min"]


def test_a_command_is_saved_before_it_is_sent():
    """The record that waits for the receipt is in the same decision as the frame."""
    decision = joined()(command(1, "warn", text="w"))
    assert decision.participant.commands[0].command_id == "k1"
    assert replace(decision.participant, commands=()) != decision.participant


# --- a student's words ----------------------------------------------------------------------------------------------------


def test_a_chat_line_is_published_to_the_proctors_of_its_group_and_acknowledged():
    story = joined(group="room 1")
    decision = story(words(1, text="the page is blank"))
    (published,) = of(decision.effects, fx.PublishMessage)
    assert published.group == "room 1"
    assert published.frame.data == m.MessageData("m1", "ann", "chat", "the page is blank", (T0 + 1) * 1000)
    assert frames(decision, m.Ack) == [m.AckData((T0 + 1) * 1000, message_id="m1")]
    assert [(e.kind, e.cause, e.reference, e.actor, e.text) for e in decision.entries] == [
        ("message", "chat", "m1", "student", "the page is blank")
    ]


@pytest.mark.parametrize("kind", ["chat", "raise_hand", "lower_hand"])
def test_words_sent_again_are_acknowledged_again_and_shown_once(kind):
    story = joined()
    story(words(1, kind))
    before = story.record
    again = story(words(2, kind))
    assert again.participant is before
    assert [type(e) for e in again.effects] == [fx.Ack]


def test_a_hand_is_raised_and_lowered():
    story = joined()
    story(words(1, "raise_hand", id="m1"))
    assert story.record.flags == ("hand_raised",)
    story(words(2, "raise_hand", id="m2"))
    assert story.record.flags == ("hand_raised",)
    story(words(3, "lower_hand", id="m3"))
    assert story.record.flags == ()
    story(words(4, "raise_hand", id="m1"))
    assert story.record.flags == ()
