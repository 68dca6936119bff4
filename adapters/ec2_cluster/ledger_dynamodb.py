"""The journal in DynamoDB: a ledger that outlives every instance. The journal process and the web app import it, and boto3 with it.

The table and its items are those of the serverless side, so that an exam which moves has one journal; here all students are in
shard 0, and each item has a list of one entry. (There one save is one item; here an entry may come in another batch each time that
it is carried, and must still be the same item.) Items expire: `ttl`, of the audit log after a year at the earliest.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from adapters.dynamodb_keys import (
    AUDIT_SECONDS,
    MAX_SHARDS,
    audit_key,
    audit_partition,
    conversation_key,
    conversation_partition,
    escaped,
    journal_key,
    shard_partition,
)
from adapters.ec2_cluster.ledger import LedgerPlace, LedgerUnavailableError
from core.journal import (
    AuditPosition,
    Entry,
    Position,
    audit_position,
    audited,
    is_audited,
    is_conversation,
    position_of,
)
from core.participant import ExamKey

_BATCH = 25  # BatchWriteItem takes no more
_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 0.1
_DAY_SECONDS = 86_400
_FIRST, _LAST = " ", "\U0010ffff"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Entry]).decode
_Item = dict[str, Any]


class DynamoLedger:
    """`Ledger` over a table. Waits no longer than its attempts take, then raises: what waits, waits in Redis."""

    def __init__(self, place: LedgerPlace, client: Any = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._table = place.table
        self._keep_seconds = place.retention_days * _DAY_SECONDS
        self._sleep = sleep
        self.on_progress: Callable[[], None] = lambda: None
        """Called between calls, each of which ends before a supervisor would take the process for one that hangs."""
        settings = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 1})
        with _reaching():
            self._client = client or boto3.client("dynamodb", region_name=place.region or None, config=settings)

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Ledger`."""
        expires = {"N": str(int(time.time() + self._keep_seconds))}
        items: dict[tuple[str, str], _Item] = {}
        for entry in entries:
            pk, sk = shard_partition(ExamKey(entry.school, entry.quiz_id), 0), journal_key(position_of(entry))
            if entry.kind != "audit":
                items[pk, sk] = {
                    "pk": {"S": pk},
                    "sk": {"S": sk},
                    "e": {"S": _encode([entry]).decode()},
                    "ttl": expires,
                }
            if is_conversation(entry):
                pk, sk = (
                    conversation_partition(ExamKey(entry.school, entry.quiz_id)),
                    conversation_key(position_of(entry)),
                )
                items[pk, sk] = {
                    "pk": {"S": pk},
                    "sk": {"S": sk},
                    "e": {"S": _encode([entry]).decode()},
                    "ttl": expires,
                }
            if is_audited(entry):
                pk, sk = audit_partition(entry.school), audit_key(audit_position(entry))
                until = {"N": str(int(time.time() + max(self._keep_seconds, AUDIT_SECONDS)))}
                items[pk, sk] = {
                    "pk": {"S": pk},
                    "sk": {"S": sk},
                    "e": {"S": _encode([audited(entry)]).decode()},
                    "ttl": until,
                }
        wanted = list(items.values())
        for start in range(0, len(wanted), _BATCH):
            self._send([{"PutRequest": {"Item": item}} for item in wanted[start : start + _BATCH]])

    def of_exam(self, exam: ExamKey) -> list[Entry]:
        """See `Ledger`."""
        found: list[Entry] = []
        with _reaching():
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": shard_partition(exam, 0)}},
            )
            for page in pages:
                for item in page["Items"]:
                    found += _decode(item["e"]["S"])
        return sorted(found, key=lambda entry: (entry.version, entry.student_id, entry.n))

    def timeline(
        self, exam: ExamKey, student_id: str | None, after: Position | None, *, newest_first: bool
    ) -> Iterator[Entry]:
        """See `Ledger`."""
        low, high = (_FIRST, _LAST) if student_id is None else (f"{escaped(student_id)}#", f"{escaped(student_id)}$")
        return self._behind(
            shard_partition(exam, 0), low, high, after, None if after is None else journal_key(after), newest_first
        )

    def conversation(self, exam: ExamKey, after: Position | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ledger`."""
        there = None if after is None else conversation_key(after)
        return self._behind(conversation_partition(exam), _FIRST, _LAST, after, there, newest_first)

    def audit(self, school: str, after: AuditPosition | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ledger`."""
        low, high = _FIRST, _LAST
        if after is not None:
            low, high = (low, audit_key(after)) if newest_first else (audit_key(after), high)
        for entry in self._between(audit_partition(school), low, high, newest_first):
            if audit_position(entry) != after:
                yield entry

    def purge(self, exam: ExamKey, until: float) -> tuple[int, bool]:
        """See `Ledger`. The serverless side may have spread an exam that came from there over several partitions."""
        gone = 0
        for pk in (conversation_partition(exam), *(shard_partition(exam, shard) for shard in range(MAX_SHARDS))):
            with _reaching():
                pages = self._client.get_paginator("query").paginate(
                    TableName=self._table,
                    KeyConditionExpression="pk = :pk",
                    ExpressionAttributeValues={":pk": {"S": pk}},
                    ProjectionExpression="pk, sk",
                )
                keys = (item for page in pages for item in page["Items"])
                while batch := list(itertools.islice(keys, _BATCH)):
                    if time.monotonic() >= until:
                        return gone, False
                    self._send([{"DeleteRequest": {"Key": key}} for key in batch])
                    gone += len(batch)
        return gone, True

    def place(self, position: Position) -> tuple[str, int, int]:
        """See `Ledger`."""
        return f"{escaped(position.student_id)}#", position.version, position.n

    def _behind(
        self, pk: str, low: str, high: str, after: Position | None, there: str | None, newest_first: bool
    ) -> Iterator[Entry]:
        """The entries of a partition between two keys, and behind a position that has the key `there`."""
        if there is not None:
            low, high = (low, there) if newest_first else (there, high)
        for entry in self._between(pk, low, high, newest_first):
            if position_of(entry) != after:
                yield entry

    def _between(self, pk: str, low: str, high: str, newest_first: bool) -> Iterator[Entry]:
        """The entries of a partition between two keys."""
        with _reaching():
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
                ExpressionAttributeValues={":pk": {"S": pk}, ":low": {"S": low}, ":high": {"S": high}},
                ScanIndexForward=not newest_first,
            )
            for page in pages:
                for item in page["Items"]:
                    entries = _decode(item["e"]["S"])
                    yield from reversed(entries) if newest_first else entries

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _send(self, requests: list[_Item]) -> None:
        for attempt in range(_ATTEMPTS):
            self.on_progress()
            with _reaching():
                answer = self._client.batch_write_item(RequestItems={self._table: requests})
            requests = answer.get("UnprocessedItems", {}).get(self._table, [])
            if not requests:
                return
            self._sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
        raise LedgerUnavailableError(
            f"DynamoDB table {self._table} is too busy: {len(requests)} entries were not taken"
        )


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise LedgerUnavailableError(f"DynamoDB: {error}") from error
