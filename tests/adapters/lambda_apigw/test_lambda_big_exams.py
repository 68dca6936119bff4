"""Ten thousand students in an exam: within what a partition takes, in chunks, in pages, and never by a scan."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lambda_aws import Tables
from lambda_fakes import World
from msgspec.structs import replace

import adapters.lambda_apigw as package
from adapters.lambda_apigw.aws_http import DynamoDb
from adapters.lambda_apigw.store import DynamoStore, shard_of, shards_for
from adapters.lambda_apigw.subscriptions import DynamoSubscriptions
from core.exam import new_exam
from core.incidents import SilenceCounts
from core.journal import Entry
from core.messages import encode_value
from core.participant import ExamKey, ParticipantKey, new_participant
from core.snapshot import pages, view

PARTITION_WRITES = 1_000
"""A second, of one partition ("Designing partition keys to distribute your workload", DynamoDB guide)."""

SOURCES = [path for path in Path(package.__file__).parent.glob("*.py") if path.name != "aws_http.py"]


@pytest.mark.parametrize("beat", [5.0, 19.0])
@pytest.mark.parametrize("ids", ["s{:05}", "{}@school.example", "2026-11-{}-x"])
def test_ten_thousand_students_stay_below_a_thousand_writes_a_second_a_partition(beat: float, ids: str) -> None:
    """Each frame is a write, and 60 changes an hour come on top; and three quarters are left for joins, which all come at once."""
    shards = shards_for(10_000)
    spread = Counter(shard_of(ids.format(number), shards) for number in range(10_000))
    writes = max(spread.values()) * (1 / beat + 60 / 3_600)
    assert writes < 0.25 * PARTITION_WRITES
    assert max(spread.values()) < 1.25 * min(spread.values())


def test_shards_grow_with_the_students_expected() -> None:
    sizes = (0, 1, 1_000, 1_001, 10_000, 64_000, 10**9)
    assert [shards_for(students) for students in sizes] == [1, 1, 1, 2, 10, 64, 64]


def test_an_exam_keeps_the_shards_that_it_was_stored_with(wire: Tables) -> None:
    exam = new_exam(ExamKey("north", "large"), "lambda", 1.0)
    store = DynamoStore(wire.dynamodb, wire.state, wire.journal, time.time)
    assert store.save_exam(None, replace(exam, version=1), (), students=10_000)
    assert store.save_exam(replace(exam, version=1), replace(exam, version=2), (), students=90_000)
    elsewhere = DynamoStore(wire.dynamodb, wire.state, wire.journal, time.time)
    assert (store.shards(exam.key), elsewhere.shards(exam.key)) == (10, 10)
    assert len(list(elsewhere.late_sweeps(1.0))) >= 10


def test_nothing_scans_and_only_the_client_that_pages_queries() -> None:
    assert len(SOURCES) > 10
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(r"\bScan\b|\bParallelScan\b|\.scan\(", text), path.name
        assert '"Query"' not in text, path.name


class OneByOne(DynamoDb):
    """Answers come in pages of one item."""

    def query(self, table: str, *, consistent: bool = True, **request: Any) -> Any:
        return super().query(table, consistent=consistent, Limit=1, **request)


def test_every_read_of_many_goes_on_to_the_last_page(wire: Tables) -> None:
    database = OneByOne(wire.dynamodb._client)
    store = DynamoStore(database, wire.state, wire.journal, time.time, shards=2)
    exam = ExamKey("north", "quiz")
    assert store.save_exam(None, new_exam(exam, "lambda", time.time(), None), ())
    for number in range(5):
        record = new_participant(ParticipantKey(*exam, f"s{number}"), "lambda")
        entry = Entry(
            *record.key, version=1, n=0, kind="label", at=float(number), cause="reported", before="", after="active"
        )
        assert store.save(None, record, (entry,))
    assert sorted(r.student_id for r in store.participants(exam)) == [f"s{n}" for n in range(5)]
    rows = [row.key.student_id for shard in (0, 1) for row in store.partition(exam, shard)]
    assert sorted(rows) == [f"s{n}" for n in range(5)]
    assert len(store.journal(exam)) == 5
    for shard in (0, 1):
        store.put_counts(exam, shard, SilenceCounts(taking=shard + 1))
    assert store.counts(exam).taking == 3
    assert len(list(store.late_sweeps(1.0))) == 2
    subscriptions = DynamoSubscriptions(database, wire.state, time.time)
    for number in range(4):
        subscriptions.subscribe(exam, f"c{number}", (), time.time() + (60 if number else -60))
    assert len(list(subscriptions.subscriptions(exam))) == 3
    assert list(subscriptions.expired(exam)) == ["c0"]


def test_a_command_to_everyone_goes_in_chunks_and_tells_how_far_it_is() -> None:
    world = World(shards=4)
    world.watch()
    students = [f"s{number:04}" for number in range(1_000)]
    for student in students:
        world.report(student)
    world.connections.sent.clear()
    world.order(everyone=True)
    told = set()
    while world.queue.commands:
        world.shell.carry_out(world.queue.commands.pop(0))
        [status] = world.frames("c-proctor", "lmsQuizCommandStatus")
        world.connections.sent.clear()
        assert 0 < len(status["students"]) <= 100
        assert status["counts"] == {"sent": len(status["students"])}
        told |= set(status["students"])
    assert told == set(students)


def test_a_snapshot_of_ten_thousand_is_cut_below_what_a_frame_may_have() -> None:
    record = new_participant(ParticipantKey("north", "quiz", "s" * 40), "lambda", name="N" * 80, group="G" * 40)
    views = (view(record) for _ in range(10_000))
    sizes = [len(encode_value(page)) for page in pages("quiz", "1", views, (), 0.0)]
    assert len(sizes) > 50
    assert max(sizes) < 96 * 1024
