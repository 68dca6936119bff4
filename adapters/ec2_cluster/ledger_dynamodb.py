"""The journal in DynamoDB: a ledger that outlives every instance. Only the journal process imports this, and boto3 with it.

The table and its items are those of the serverless side, so that an exam which moves has one journal: pk `s#SCHOOL#QUIZ#0`, sk
`STUDENT#VERSION#N`, and the entry in a list of one. (There one save is one item; here an entry may come in another batch each time
it is carried, and must still be the same item.) Items expire: `ttl`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from adapters.ec2_cluster.journal import LedgerPlace, LedgerUnavailableError
from core.journal import Entry
from core.participant import ExamKey

_BATCH = 25  # BatchWriteItem takes no more
_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 0.1
_DAY_SECONDS = 86_400
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
            pk, sk = _partition(ExamKey(entry.school, entry.quiz_id)), _sort_key(entry)
            items[pk, sk] = {"pk": {"S": pk}, "sk": {"S": sk}, "e": {"S": _encode([entry]).decode()}, "ttl": expires}
        wanted = list(items.values())
        for start in range(0, len(wanted), _BATCH):
            self._put(wanted[start : start + _BATCH])

    def of_exam(self, exam: ExamKey) -> list[Entry]:
        """See `Ledger`."""
        found: list[Entry] = []
        with _reaching():
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": _partition(exam)}},
            )
            for page in pages:
                for item in page["Items"]:
                    found += _decode(item["e"]["S"])
        return sorted(found, key=lambda entry: (entry.version, entry.student_id, entry.n))

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def _put(self, items: list[_Item]) -> None:
        requests = [{"PutRequest": {"Item": item}} for item in items]
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


def _partition(exam: ExamKey) -> str:
    return f"s#{_escaped(exam.school)}#{_escaped(exam.quiz_id)}#0"


def _sort_key(entry: Entry) -> str:
    return f"{_escaped(entry.student_id)}#{entry.version:016d}#{entry.n:03d}"


def _escaped(value: str) -> str:
    """As the serverless side escapes it: an id as a part of a key, without the separator."""
    return value.replace("%", "%25").replace("#", "%23")


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise LedgerUnavailableError(f"DynamoDB: {error}") from error
