"""The contract of the store and the subscriptions, on two DynamoDBs that we did not write; sizes and units on the wire."""

from __future__ import annotations

import base64
import random
import time
import uuid

import pytest
from lambda_aws import Tables
from lambda_fakes import T0
from msgspec.structs import replace

from adapters.lambda_apigw.ports import TOKEN_GRACE_SECONDS, SweepTicket
from adapters.lambda_apigw.store import DynamoStore, shard_of
from adapters.lambda_apigw.subscriptions import DynamoSubscriptions
from core.events import CommandIssued, ConnectionLost, HeartbeatReceived
from core.exam import Exam, new_exam
from core.identity import Principal
from core.incidents import SilenceCounts
from core.journal import Entry
from core.messages import Heartbeat
from core.participant import ExamKey, Participant, ParticipantKey, PendingCommand, Session, new_participant

EXAM = ExamKey("north", "quiz")
KEY = ParticipantKey(*EXAM, "ann")
COMMAND = PendingCommand("k1", "warn", T0 + 300, "eyes on your own paper")


class Clock:
    now = T0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tables: Tables, clock: Clock) -> DynamoStore:
    return DynamoStore(tables.dynamodb, tables.state, tables.journal, clock)


@pytest.fixture
def subscriptions(tables: Tables, clock: Clock) -> DynamoSubscriptions:
    return DynamoSubscriptions(tables.dynamodb, tables.state, clock)


def record(version: int = 1, key: ParticipantKey = KEY, **fields: object) -> Participant:
    return replace(new_participant(key, "lambda", name="Ann"), version=version, **fields)


def entry(version: int, n: int = 0, student: str = "ann", **fields: object) -> Entry:
    return Entry(*EXAM, student, version, n, T0 + version, "label", "reported", **fields)


# --- participants ---


def test_what_was_saved_is_loaded(store: DynamoStore) -> None:
    assert store.load(KEY) is None
    assert store.save(None, record(), ())
    assert store.load(KEY) == record()
    assert store.save(record(), record(2, score=1.5), ())
    assert store.load(KEY) == record(2, score=1.5)


def test_a_save_is_refused_if_anyone_saved_in_between(store: DynamoStore) -> None:
    assert store.save(None, record(), ())
    assert not store.save(None, record(7), ())
    assert store.save(record(), record(2), ())
    assert not store.save(record(), record(3), ())
    assert not store.save(record(), record(3), [entry(3)])
    assert store.load(KEY) == record(2)
    assert store.journal(EXAM) == []


def test_entries_are_saved_with_the_record_or_not_at_all_and_once(store: DynamoStore) -> None:
    lines = [entry(1, 0, after="active"), entry(1, 1, text="Ünïcode")]
    assert store.save(None, record(), lines)
    assert not store.save(None, record(), lines)
    assert store.save(record(), record(2), [entry(2)])
    assert store.journal(EXAM) == [*lines, entry(2)]


def test_commands_come_and_go_with_the_record(store: DynamoStore) -> None:
    with_command = record(1, commands=(COMMAND,))
    assert store.save(None, with_command, [entry(1)])
    assert store.load(KEY) == with_command
    later = record(2, commands=(COMMAND,), score=2.0)
    assert store.save(with_command, later, ())
    assert store.load(KEY) == later
    assert list(store.participants(EXAM)) == [later]
    assert store.save(later, record(3), ())
    assert store.load(KEY) == record(3)


def test_ids_with_separators_do_not_meet(store: DynamoStore) -> None:
    keys = [ParticipantKey("a", "b#c", "d"), ParticipantKey("a#b", "c", "d"), ParticipantKey("a%23b", "c", "d#e%")]
    for number, key in enumerate(keys, 1):
        assert store.save(None, record(number, key), [Entry(*key, number, 0, T0, "label", "reported")])
    for number, key in enumerate(keys, 1):
        assert store.load(key) == record(number, key)
        assert list(store.participants(key.exam)) == [record(number, key)]
        assert [e.student_id for e in store.journal(key.exam)] == [key.student_id]


def test_participants_are_spread_over_the_shards_that_the_exam_was_stored_with(tables: Tables, clock: Clock) -> None:
    wide = DynamoStore(tables.dynamodb, tables.state, tables.journal, clock, shards=4)
    assert wide.save_exam(None, new_exam(EXAM, "lambda", T0), ())
    keys = [ParticipantKey(*EXAM, f"s{n}") for n in range(20)]
    for key in keys:
        assert wide.save(None, record(1, key), ())
    narrow = DynamoStore(tables.dynamodb, tables.state, tables.journal, clock, shards=1)
    assert narrow.load(keys[3]) == record(1, keys[3])
    assert {p.key for p in narrow.participants(EXAM)} == set(keys)
    of_shard = [row.key for row in narrow.partition(EXAM, 2)]
    assert of_shard == sorted(key for key in keys if shard_of(key.student_id, 4) == 2)


def test_a_partition_is_read_in_order_from_behind_a_student(store: DynamoStore) -> None:
    for name in ("cyd", "ann", "bob"):
        assert store.save(None, record(1, ParticipantKey(*EXAM, name), commands=(COMMAND,)), ())
    assert [row.key.student_id for row in store.partition(EXAM, 0)] == ["ann", "bob", "cyd"]
    rows = list(store.partition(EXAM, 0, after="ann"))
    assert [row.key.student_id for row in rows] == ["bob", "cyd"]
    assert rows[0].record is not None
    assert rows[0].record.commands == (COMMAND,)


def test_more_than_a_page_of_participants_is_read_to_the_end(store: DynamoStore) -> None:
    padding = tuple("flag" * 25 for _ in range(75))  # 7.5 KB each: a page is 1 MB
    keys = [ParticipantKey(*EXAM, f"s{n:03d}") for n in range(150)]
    for key in keys:
        assert store.save(None, record(1, key, flags=padding), ())
    assert [p.key for p in store.participants(EXAM)] == keys


# --- the exam and its sweeps ---


def test_the_exam_is_saved_on_condition_of_its_version(store: DynamoStore) -> None:
    assert store.load_exam(EXAM) is None
    first = replace(new_exam(EXAM, "lambda", T0), version=1)
    assert store.save_exam(None, first, ())
    assert not store.save_exam(None, first, ())
    second = replace(first, version=2, last_sweep_at=T0 + 5)
    assert store.save_exam(first, second, ())
    assert not store.save_exam(first, replace(first, version=3), ())
    assert store.load_exam(EXAM) == second


def test_an_open_exam_has_a_ticket_a_shard_and_a_closed_one_none(tables: Tables, clock: Clock) -> None:
    store = DynamoStore(tables.dynamodb, tables.state, tables.journal, clock, shards=2)
    exam = replace(new_exam(EXAM, "lambda", T0), version=1)
    assert store.save_exam(None, exam, ())
    first = [SweepTicket(EXAM, shard, 0.0) for shard in (0, 1)]
    assert list(store.late_sweeps(T0)) == first
    assert store.claim_sweep(first[0], T0 + 10)
    assert not store.claim_sweep(first[0], T0 + 11)
    assert list(store.late_sweeps(T0)) == [first[1]]
    assert list(store.late_sweeps(T0 + 11)) == [SweepTicket(EXAM, 0, T0 + 10), first[1]]
    closed = replace(exam, version=2, state="closed")
    assert store.save_exam(exam, closed, [entry(2, student="")])
    assert list(store.late_sweeps(T0 + 100)) == []
    assert not store.claim_sweep(SweepTicket(EXAM, 0, T0 + 10), T0 + 20)
    store.put_counts(EXAM, 0, SilenceCounts(1))  # a sweep that was under way: no trace
    assert store.counts(EXAM) == SilenceCounts()
    assert store.save_exam(closed, replace(closed, version=3, state="open"), ())
    assert list(store.late_sweeps(T0)) == first


def test_counts_of_the_shards_add_up(tables: Tables, clock: Clock) -> None:
    store = DynamoStore(tables.dynamodb, tables.state, tables.journal, clock, shards=2)
    other = ExamKey("north", "quiz2")
    for key in (EXAM, other):
        assert store.save_exam(None, new_exam(key, "lambda", T0), ())
    store.put_counts(EXAM, 0, SilenceCounts(5, 1, 2, T0))
    store.put_counts(EXAM, 1, SilenceCounts(7, 0, 1))
    store.put_counts(other, 0, SilenceCounts(100))
    assert store.counts(EXAM) == SilenceCounts(12, 1, 3, T0)


# --- the inbox ---


def test_an_inbox_is_read_with_its_record_and_emptied_in_the_save(store: DynamoStore) -> None:
    beat = HeartbeatReceived(received_at=T0 + 1, connection="c", heartbeat=Heartbeat(seq=1))
    lost = ConnectionLost(received_at=T0 + 2, connection="c")
    for event in (lost, beat, beat):
        store.put_in_inbox(KEY, event)
    [row] = store.partition(EXAM, 0)
    assert (row.key, row.record, [item.event for item in row.inbox]) == (KEY, None, [beat, lost])
    assert store.save(None, record(), [entry(1)], [row.inbox[0].id])
    [row] = store.partition(EXAM, 0)
    assert (row.record, [item.event for item in row.inbox]) == (record(), [lost])
    assert list(store.participants(EXAM)) == [record()]
    store.drop_from_inbox(KEY, [row.inbox[0].id])
    [row] = store.partition(EXAM, 0)
    assert row.inbox == ()


# --- who is connected, who watches ---


def proctor(expires_at: float = T0 + 60) -> Principal:
    return Principal("proctor", "north", "pat", ("quiz", "quiz2"), expires_at)


def test_a_subscription_lasts_until_it_is_taken_back(subscriptions: DynamoSubscriptions) -> None:
    subscriptions.subscribe(EXAM, "c1", ())
    subscriptions.subscribe(EXAM, "c2", ("A", "B"))
    subscriptions.subscribe(ExamKey("north", "quiz2"), "c1", ())
    assert sorted(subscriptions.subscriptions(EXAM)) == [("c1", ()), ("c2", ("A", "B"))]
    subscriptions.unsubscribe(EXAM, "c1")
    subscriptions.unsubscribe(EXAM, "unknown")
    assert list(subscriptions.subscriptions(EXAM)) == [("c2", ("A", "B"))]


def test_a_forgotten_connection_watches_nothing(subscriptions: DynamoSubscriptions) -> None:
    subscriptions.remember("c1", T0, proctor())
    subscriptions.subscribe(EXAM, "c1", ())
    subscriptions.subscribe(ExamKey("north", "quiz2"), "c1", ())
    assert subscriptions.principal("c1") == proctor()
    subscriptions.forget("c1")
    subscriptions.forget("unknown")
    assert subscriptions.principal("c1") is None
    assert list(subscriptions.subscriptions(EXAM)) == []
    assert list(subscriptions.subscriptions(ExamKey("north", "quiz2"))) == []


def test_an_expired_subscription_is_not_served_until_the_token_is_refreshed(
    subscriptions: DynamoSubscriptions, clock: Clock
) -> None:
    subscriptions.remember("c1", T0, proctor())
    subscriptions.subscribe(EXAM, "c1", (), T0 + 60)
    clock.now += 61
    assert list(subscriptions.subscriptions(EXAM)) == []
    assert list(subscriptions.expired(EXAM)) == ["c1"]
    subscriptions.remember("c1", T0, proctor(T0 + 600))
    assert list(subscriptions.subscriptions(EXAM)) == [("c1", ())]
    clock.now = T0 + 600 + TOKEN_GRACE_SECONDS + 1
    assert list(subscriptions.expired(EXAM)) == ["c1"]


def test_faulty_frames_are_counted_until_a_good_one(subscriptions: DynamoSubscriptions) -> None:
    assert [subscriptions.failed("c1") for _ in range(3)] == [1, 2, 3]
    subscriptions.succeeded("c1")
    subscriptions.succeeded("c1")
    assert subscriptions.failed("c1") == 1


# --- sizes and units ---


def worst() -> Participant:
    """UUIDs for every id, a name of 80 characters, three pages, every field used."""

    def one() -> str:
        return str(uuid.uuid4())

    sessions = tuple(
        Session(
            one(),
            base64.urlsafe_b64encode(uuid.uuid4().bytes[:11]).decode(),
            T0 + 0.123,
            "reconnecting",
            "away",
            T0 + 17.501,
            12.5,
            12_345,
            T0 + 9.871,
            T0 + 75.25,
        )
        for _ in range(3)
    )
    return Participant(
        one(),
        one(),
        one(),
        home="lambda",
        home_epoch=3,
        version=1_700_000_123_456,
        lifecycle="in_progress",
        sessions=sessions,
        quiz_attempt_id=one(),
        past_attempts=(one(), one(), one()),
        student_name="Raden Ajeng Siti Nurhaliza binti Muhammad Zulkifli al-Wiryokusumo Sastrodiningrat"[:80],
        group="Room 12, second floor",
        question_number_current=39,
        question_answered=38,
        question_total=40,
        score=87.5,
        time_start=T0 + 0.5,
        time_end_reported=T0 + 5_400.5,
        granted_seconds=600.0,
        away_count=17,
        away_seconds=312.471,
        away_since=T0 + 61.233,
        away_counted=True,
        last_away_since=T0 + 33.9,
        last_away_ended_at=T0 + 41.7,
        offline_seconds=73.333,
        offline_since=T0 + 99.1,
        reconnects=9,
        last_seen=T0 + 99.871,
        flags=("several_pages", "hand_raised", "warned", "flagged"),
        commands=tuple(replace(COMMAND, command_id=one(), text="T" * 500) for _ in range(16)),
        done=tuple(random.Random(7).randrange(2**47, 2**48) for _ in range(12)),
        check_at=T0 + 112.5,
    )


def item_size(item: dict[str, dict[str, str]]) -> int:
    """Bytes as DynamoDB counts them: names, UTF-8, binary as bytes, a number one byte for two digits and one more."""
    size = 0
    for name, value in item.items():
        [(kind, content)] = value.items()
        size += len(name)
        size += (
            len(content) * 3 // 4 if kind == "B" else len(content) // 2 + 2 if kind == "N" else len(content.encode())
        )
    return size


def test_the_worst_realistic_participant_is_below_one_kilobyte(wire: Tables) -> None:
    store = DynamoStore(wire.dynamodb, wire.state, wire.journal, time.time)
    full = worst()
    assert store.save(None, full, ())
    partition = f"s#{full.school}#{full.quiz_id}#0"
    item = wire.dynamodb.get(wire.state, {"pk": {"S": partition}, "sk": {"S": f"p#{full.student_id}"}})
    assert item is not None
    assert item_size(item) < 1_024
    assert store.load(full.key) == full


def test_a_plain_save_costs_one_unit_and_a_load_one(wire: Tables) -> None:
    store = DynamoStore(wire.dynamodb, wire.state, wire.journal, time.time)
    full = replace(worst(), commands=())
    assert store.save_exam(None, new_exam(full.key.exam, "lambda", T0), ())
    assert store.save(None, full, ())
    meter = wire.dynamodb._client.session.meter
    meter.take()
    loaded = store.load(full.key)
    assert loaded is not None
    assert store.save(loaded, replace(loaded, version=loaded.version + 1), ())
    assert meter.take() == {"dynamodb_read": 1, "dynamodb_write": 1, "read_units": 1.0, "write_units": 1.0}
    assert store.load(full.key, latest=False) is not None
    assert meter.take() == {"dynamodb_read": 1, "read_units": 0.5}


def test_exams_with_standing_commands_survive_the_table(store: DynamoStore) -> None:
    command = CommandIssued(received_at=T0, command_id="k", command="pause", expires_at=T0 + 300, issued_by="pat")
    exam: Exam = replace(new_exam(EXAM, "lambda", T0), version=1, standing=(command,), state="paused")
    assert store.save_exam(None, exam, ())
    assert store.load_exam(EXAM) == exam
