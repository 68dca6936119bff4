import json

import msgspec
import pytest
from core_builders import EXAM_KEY, KEY, NOBODY, T0, Story, command, joined, lost, report
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core import exam, journal, new_exam, participant, snapshot
from core import messages as m
from core.journal import Entry
from core.participant import Participant
from core.policy import MAX_SNAPSHOT_PAGE_BYTES, Policy

# --- records --------------------------------------------------------------------------------------------------------------


def full() -> Participant:
    story = joined(tab_id="t", seq=1, student_name="Änn", group="room 1", time_end=T0 + 600, time_start=T0, score=1.5)
    story(report(1, connection="c2", connected_at=1, tab_id="u", seq=1, status="away", question_total=9))
    story(command(2, "message", text="hi"))
    story(lost(3))
    return story.record


def test_a_record_comes_back_as_it_was_kept():
    for record in (NOBODY, joined().record, full()):
        assert participant.decode(participant.encode(record)) == record


def test_names_on_disk_are_short_and_defaults_are_left_out():
    stored = msgspec.msgpack.decode(participant.encode(full()))
    assert max(map(len, stored)) <= 2
    assert all(len(name) == 1 for name in stored["s"][0])
    assert set(msgspec.msgpack.decode(participant.encode(NOBODY))) == {"S", "Q", "I", "h"}


def test_a_student_with_one_page_is_kept_in_a_quarter_of_a_kilobyte():
    """An item over 1 KB costs each write double; the rest of the room is for names, commands and two more pages."""
    story = joined(tab_id="t" * 36, seq=1, student_name="Maximilian Mustermann", group="room 1", time_end=T0 + 5_400)
    story(report(5, tab_id="t" * 36, seq=2, question_answered=17, question_total=40, question_number_current=18))
    assert len(participant.encode(story.record)) < 300


def test_what_is_no_record_is_refused():
    for stored in (b"", b"\x80", msgspec.msgpack.encode({"S": 5})):
        with pytest.raises((msgspec.ValidationError, msgspec.DecodeError)):
            participant.decode(stored)


def test_a_record_of_a_later_version_with_unknown_fields_is_read():
    stored = msgspec.msgpack.decode(participant.encode(full())) | {"zz": 1}
    assert participant.decode(msgspec.msgpack.encode(stored)) == full()


def test_what_a_later_release_keeps_survives_our_rewrite():
    stored = msgspec.msgpack.decode(participant.encode(full())) | {"zz": {"deep": [1]}, "sc": 2}
    read = participant.decode(msgspec.msgpack.encode(stored))
    assert (read.version, read.schema) == (full().version, 2)
    story = Story(record=read)
    story(report(9, tab_id="u", seq=9, question_answered=7))
    story(report(10, tab_id="u", seq=1, attempt="another"))  # a new attempt starts the record again
    written = msgspec.msgpack.decode(participant.encode(story.record))
    assert (written["zz"], written["sc"], written["a"]) == ({"deep": [1]}, 2, "another")
    assert participant.decode(participant.encode(story.record)) == story.record
    stored = exam.encode(new_exam(EXAM_KEY, "ec2", T0))
    later = exam.decode(msgspec.json.encode(msgspec.json.decode(stored) | {"zz": 1, "schema": 2}))
    assert msgspec.json.decode(exam.encode(replace(later, state="closed"))) == msgspec.json.decode(stored) | {
        "zz": 1,
        "schema": 2,
        "state": "closed",
    }


def test_an_entry_comes_back_as_it_was_kept():
    entry = Entry(*KEY, 7, 0, T0, "label", "reported", before="active", after="away")
    assert journal.decode(journal.encode(entry)) == entry
    assert journal.decode(journal.encode(entry).decode()) == entry


def test_a_record_knows_its_address():
    assert NOBODY.key == KEY
    assert NOBODY.key.exam == EXAM_KEY
    assert full().session_of("c2").id == "u"
    assert full().session_of("c9") is None


# --- labels ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifecycle", ["not_joined", "in_progress", "paused", "submitted", "timed_out", "terminated"])
@pytest.mark.parametrize("presence", ["connected", "reconnecting", "offline", "left"])
@pytest.mark.parametrize("attention", ["focused", "away", "unknown"])
def test_label_and_status_follow_from_the_three_axes(lifecycle, presence, attention):
    gone = presence in ("offline", "left")
    status = "offline" if gone else "away" if attention == "away" else "active"
    label = lifecycle if lifecycle != "in_progress" else "reconnecting" if presence == "reconnecting" else status
    assert participant.user_status_of(presence, attention) == status
    assert participant.label_of(lifecycle, presence, status) == label


# --- views and snapshots --------------------------------------------------------------------------------------------------


def test_a_view_shows_the_record():
    record = full()
    shown = snapshot.view(record)
    assert (shown.label, shown.user_status, shown.presence, shown.attention) == (
        "active",
        "active",
        "connected",
        "focused",
    )
    assert (shown.student_name, shown.group, shown.question_total, shown.score) == ("Änn", "room 1", 9, 1.5)
    assert (shown.time_start, shown.time_end, shown.seq, shown.flags) == (T0, T0 + 600, 1, ("several_pages",))
    assert shown.version == record.version


def test_views_have_the_fields_of_the_wire():
    names = """student_id student_name group quiz_attempt_id label user_status presence attention lifecycle
        question_number_current question_answered question_total score away_count away_seconds away_since
        offline_seconds offline_since reconnects time_start time_end last_seen version seq flags label_since"""
    assert " ".join(m.View.__struct_fields__) == " ".join(names.split())


def test_the_seq_of_a_view_is_that_of_the_last_report_applied():
    story = Story()
    story(report(0, connection="c1", tab_id="one", seq=9))
    story(report(1, connection="c2", connected_at=1, tab_id="two", seq=2))
    assert snapshot.view(story.record).seq == 2
    assert snapshot.view(NOBODY).seq == 0


def test_every_visible_field_is_published_when_it_changes():
    """`visible` and the view agree: two records with equal visible parts differ at most in what is no news."""
    no_news = {"last_seen", "seq", "version"}
    story = joined(seq=1)
    before = story.record
    story(report(1, seq=2))
    assert snapshot.visible(before) == snapshot.visible(story.record)
    changed = {
        f
        for f in m.View.__struct_fields__
        if getattr(snapshot.view(before), f) != getattr(snapshot.view(story.record), f)
    }
    assert changed == no_news


VIEW = snapshot.view(full())


@given(st.lists(st.integers(1, 50), min_size=1))
def test_the_merge_keeps_the_highest_version_in_any_order_and_with_repeats(versions):
    known = None
    for version in versions:
        known = snapshot.newer(known, replace(VIEW, version=version, question_answered=version))
    assert (known.version, known.question_answered) == (max(versions), max(versions))


def test_the_merge_keeps_what_it_knows_of_the_same_version():
    same = replace(VIEW)
    assert snapshot.newer(VIEW, same) is VIEW


def test_a_proctor_of_some_groups_sees_those():
    assert snapshot.in_groups("room 1", ())
    assert snapshot.in_groups("room 1", ("room 1", "room 2"))
    assert not snapshot.in_groups("room 3", ("room 1", "room 2"))
    assert not snapshot.in_groups("", ("room 1",))


@pytest.mark.parametrize("name", ["Ann", "ü" * 80, '"' * 80])
@pytest.mark.parametrize("students", [0, 1, 200, 1_000])
def test_pages_stay_under_their_limit_and_lose_nobody(students, name):
    views = [replace(VIEW, student_id=f"s{n}", student_name=name) for n in range(students)]
    many = tuple(m.Incident("silence", T0 + n, 100, T0 + n + 1) for n in range(20))
    pages = snapshot.pages("quiz", "id", views, many, T0)
    encoded = [m.encode(page) for page in pages]
    assert max(map(len, encoded)) < MAX_SNAPSHOT_PAGE_BYTES == 96 * 1024
    read = [json.loads(page)["data"] for page in encoded]
    assert [page["page"] for page in read] == list(range(1, len(pages) + 1))
    assert {page["pages"] for page in read} == {len(pages)}
    assert [p["student_id"] for page in read for p in page["participants"]] == [v.student_id for v in views]


def test_pages_are_filled():
    views = [replace(VIEW, student_id=f"s{n}") for n in range(1_000)]
    pages = snapshot.pages("quiz", "id", views, (), T0)
    total = sum(len(m.encode_value(v)) for v in views)
    assert len(pages) <= total // (90 * 1024) + 1


# --- policy ---------------------------------------------------------------------------------------------------------------


def test_a_policy_that_contradicts_itself_names_the_field():
    with pytest.raises(ValueError, match="promise_min_seconds"):
        Policy(promise_min_seconds=200)
    with pytest.raises(ValueError, match="promise_max_seconds"):
        Policy(promise_max_seconds=400)
    with pytest.raises(msgspec.ValidationError, match="closed_grace_seconds"):
        msgspec.convert({"closed_grace_seconds": 0}, Policy)


def test_the_policy_of_the_exam_is_the_one_that_decides():
    from core_builders import EXAM

    story = joined(replace(EXAM, policy=Policy(report_seconds=15.0, closed_grace_seconds=5.0)), tab_id="t")
    assert story.until(27.4) == "active"
    assert story.until(27.5) == "reconnecting"
    story(report(30, connection="c2", connected_at=30, tab_id="t"))
    story(lost(31, connection="c2"))
    assert story.until(36) == "offline"
    quick = Policy(report_seconds=2.0, lease_margin_seconds=1.0, silent_grace_seconds=3.0)
    story = joined(replace(EXAM, policy=quick), tab_id="t")
    assert [story.until(t) for t in (3.9, 4, 7.9, 8)] == ["active", "reconnecting", "reconnecting", "offline"]
