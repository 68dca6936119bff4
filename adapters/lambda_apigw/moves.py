"""The move of a stage, kept as data in the state table: no function is deployed during one.

    pk      sk        what
    move    move      the plan `m` and its version `v`; changed on condition of the version
    move    health    what the bridge has seen lately, `m`
    move    side      where this side is, `m`: the functions' variables that the bridge needs, by name

Read only when an event arrives for a participant whose home is elsewhere, so that without a move it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from adapters.dynamodb_keys import shard_partition
from adapters.lambda_apigw.aws_http import AwsError, DynamoDb
from adapters.lambda_apigw.ports import InboxItem
from core import events, migration
from core.migration import Health, Move
from core.participant import ExamKey, ParticipantKey

_CACHE_SECONDS = 2.0


def _key(what: str) -> dict[str, Any]:
    return {"pk": {"S": "move"}, "sk": {"S": what}}


class DynamoMoves:
    """The stored move. `recent` may be two seconds old."""

    def __init__(self, dynamodb: DynamoDb, table: str, clock: Callable[[], float]) -> None:
        self._db = dynamodb
        self._table = table
        self._clock = clock
        self._known: tuple[float, Move | None] = (float("-inf"), None)

    def recent(self) -> Move | None:
        """The move as it was at most two seconds ago."""
        now = self._clock()
        if now - self._known[0] >= _CACHE_SECONDS:
            self._known = (now, self.load())
        return self._known[1]

    def load(self) -> Move | None:
        """The move, by a consistent read."""
        item = self._db.get(self._table, _key("move"))
        return None if item is None else migration.decode_move(item["m"]["S"])

    def save(self, before: Move | None, after: Move) -> bool:
        """Keep the move if the stored one is still `before`."""
        item = {**_key("move"), "m": {"S": migration.encode(after).decode()}, "v": {"N": str(after.version)}}
        request: dict[str, Any] = {"TableName": self._table, "Item": item}
        if before is None:
            request["ConditionExpression"] = "attribute_not_exists(pk)"
        else:
            request["ConditionExpression"] = "v = :v"
            request["ExpressionAttributeValues"] = {":v": {"N": str(before.version)}}
        try:
            self._db.write("PutItem", request)
        except AwsError as error:
            if error.code == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def side(self) -> dict[str, str]:
        """The functions' variables that were written for the bridge; empty before the first move."""
        item = self._db.get(self._table, _key("side"))
        return {} if item is None else msgspec.json.decode(item["m"]["S"], type=dict[str, str])

    def health(self) -> Health | None:
        """What the bridge reported last."""
        item = self._db.get(self._table, _key("health"))
        return None if item is None else migration.decode_health(item["m"]["S"])

    def save_health(self, health: Health) -> None:
        """The bridge's report."""
        item = {**_key("health"), "m": {"S": migration.encode(health).decode()}}
        self._db.write("PutItem", {"TableName": self._table, "Item": item})

    def inboxes(self, exam: ExamKey, shards: int) -> dict[ParticipantKey, list[InboxItem]]:
        """What waits in inboxes, in the order of its coming. Reads nothing else, so that it may be asked several times a second."""
        found: dict[ParticipantKey, list[InboxItem]] = {}
        for shard in range(shards):
            items = self._db.query(
                self._table,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :inbox)",
                ExpressionAttributeValues={
                    ":pk": {"S": shard_partition(exam, shard)},
                    ":inbox": {"S": "i#"},
                },
            )
            for item in items:
                sk = item["sk"]["S"]
                key = ParticipantKey(*exam, sk[2:].partition("#")[0].replace("%23", "#").replace("%25", "%"))
                found.setdefault(key, []).append(InboxItem(sk, events.decode(item["e"]["S"])))
        return found
