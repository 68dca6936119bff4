"""The journal as people read it: a student's timeline, a whole exam's, its conversation. The API reads it; messages never do.

Queries at half the price (not consistent), in the order of the keys: nothing is sorted here, so a page costs what it reads.
`store` has the keys, and writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from adapters.dynamodb_keys import (
    audit_key,
    audit_partition,
    conversation_key,
    conversation_partition,
    escaped,
    journal_key,
    plain,
    shard_partition,
)
from adapters.lambda_apigw.aws_http import DynamoDb
from adapters.lambda_apigw.ports import Store
from adapters.lambda_apigw.store import OPEN, shard_of
from core.journal import AuditPosition, Entry, Position, audit_position, position_of
from core.participant import ExamKey

_decode_entries = msgspec.json.Decoder(list[Entry]).decode
_FIRST, _LAST = " ", "\U0010ffff"
"""Every sort key lies between these: ids are not empty, and the exam's own begin with `#`."""


class History:
    """Reads of the journal table. `store` tells over how many shards an exam is spread."""

    def __init__(self, dynamodb: DynamoDb, journal_table: str, store: Store, state_table: str) -> None:
        self._db = dynamodb
        self._table = journal_table
        self._store = store
        self._state = state_table

    def open_exams(self, school: str) -> list[ExamKey]:
        """The exams of a school with tickets for sweeps: one for each shard of an open exam."""
        items = self._db.query(
            self._state,
            consistent=False,
            KeyConditionExpression="pk = :open AND begins_with(sk, :school)",
            ExpressionAttributeValues={":open": {"S": OPEN}, ":school": {"S": f"{escaped(school)}#"}},
        )
        quiz_ids = dict.fromkeys(plain(item["sk"]["S"].split("#")[1]) for item in items)
        return [ExamKey(school, quiz_id) for quiz_id in quiz_ids]

    def timeline(
        self, exam: ExamKey, student_id: str | None, after: Position | None, *, newest_first: bool
    ) -> Iterator[Entry]:
        """See `adapters.web.ports.Ports.timeline`."""
        count = self._store.shards(exam)
        shards = range(count)
        begun = None if after is None else shard_of(after.student_id, count)
        if student_id is not None:
            shards = range(shard_of(student_id, count), shard_of(student_id, count) + 1)
        elif begun is not None:
            shards = range(begun + 1) if newest_first else range(begun, count)
        prefix = _FIRST if student_id is None else f"{escaped(student_id)}#"
        last = _LAST if student_id is None else f"{escaped(student_id)}$"  # the character after '#'
        for shard in reversed(shards) if newest_first else shards:
            low, high = prefix, last
            if after is not None and shard == begun:
                # an item holds all entries of one save under the number of its first, so it may lie before the position
                low, high = (low, journal_key(after)) if newest_first else (journal_key(_first_of_save(after)), high)
            for entry in self._entries(shard_partition(exam, shard), low, high, newest_first=newest_first):
                if after is None or shard != begun or not _is_passed(entry, after, newest_first=newest_first):
                    yield entry

    def conversation(self, exam: ExamKey, after: Position | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `adapters.web.ports.Ports.conversation`."""
        low, high = _FIRST, _LAST
        if after is not None:
            low, high = (low, conversation_key(after)) if newest_first else (conversation_key(after), high)
        for entry in self._entries(conversation_partition(exam), low, high, newest_first=newest_first):
            if position_of(entry) != after:
                yield entry

    def audit(self, school: str, after: AuditPosition | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `adapters.web.ports.Ports.audit`."""
        low, high = _FIRST, _LAST
        if after is not None:
            low, high = (low, audit_key(after)) if newest_first else (audit_key(after), high)
        for entry in self._entries(audit_partition(school), low, high, newest_first=newest_first):
            if audit_position(entry) != after:
                yield entry

    def _entries(self, partition: str, low: str, high: str, *, newest_first: bool) -> Iterator[Entry]:
        items: Iterator[dict[str, Any]] = self._db.query(
            self._table,
            consistent=False,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
            ExpressionAttributeValues={":pk": {"S": partition}, ":low": {"S": low}, ":high": {"S": high}},
            ScanIndexForward=not newest_first,
        )
        for item in items:
            entries = _decode_entries(item["e"]["S"])
            yield from reversed(entries) if newest_first else entries


def _first_of_save(position: Position) -> Position:
    return Position(position.at, position.student_id, position.version, 0)


def _is_passed(entry: Entry, after: Position, *, newest_first: bool) -> bool:
    """Whether an entry of the save at the position stands at it or on the side that was read already."""
    if (entry.student_id, entry.version) != (after.student_id, after.version):
        return False
    return entry.n >= after.n if newest_first else entry.n <= after.n
