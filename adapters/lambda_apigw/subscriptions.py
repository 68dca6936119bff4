"""Who is connected, and who watches which exam: in the base table, where reads can be consistent.

    pk                  sk              what
    c#CONNECTION        c               a connection: `p` who is on it, `t` since when, `w` the exams it watches, `f` faulty frames
    w#SCHOOL#QUIZ       CONNECTION      a subscription: `g` the groups, `x` until when the token holds
    r#SCHOOL#ROLE       QUIZ#SUBJECT    tokens refused until `x`: of a bearer or (no SUBJECT) all, in an exam or (no QUIZ) in all

A join must lose nothing: the subscription is written before the snapshot is read, and whoever publishes reads the subscriptions
after the save, consistently. A global index could not promise that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from adapters.dynamodb_keys import escaped, plain
from adapters.lambda_apigw.aws_http import AwsError, DynamoDb
from adapters.lambda_apigw.ports import TOKEN_GRACE_SECONDS
from core.identity import Principal, Role
from core.participant import ExamKey
from core.revocation import Revocation, is_refused

_KEPT_SECONDS = 3 * 3_600.0
"""API Gateway ends every connection after two hours, and does not always say so."""

_encode = msgspec.json.Encoder().encode
_principal = msgspec.json.Decoder(Principal)
_groups = msgspec.json.Decoder(tuple[str, ...])
_Item = dict[str, Any]


class DynamoSubscriptions:
    """`Subscriptions` in the table of the records."""

    def __init__(self, dynamodb: DynamoDb, table: str, clock: Callable[[], float]) -> None:
        self._db = dynamodb
        self._table = table
        self._clock = clock
        self._faulty: set[str] = set()

    # --- who watches ---

    def subscribe(self, exam: ExamKey, connection: str, groups: Sequence[str], expires_at: float | None = None) -> None:
        """Publish to the connection from now on. Noted on the connection first, so that `forget` finds it."""
        self._update(_connection_key(connection), "ADD w :exam SET #ttl = :ttl", {":exam": {"SS": [_watched(exam)]}})
        item = {
            **_row_key(exam, connection),
            "g": {"S": _encode(list(groups)).decode()},
            "ttl": self._ttl(),
        }
        if expires_at is not None:
            item["x"] = {"N": repr(expires_at)}
        self._db.write("PutItem", {"TableName": self._table, "Item": item})

    def unsubscribe(self, exam: ExamKey, connection: str) -> None:
        """Publish to the connection no more."""
        self._delete(_row_key(exam, connection))

    def subscriptions(self, exam: ExamKey) -> Iterator[tuple[str, Sequence[str]]]:
        """Connections whose token holds, each with its groups. A consistent read."""
        for item in self._rows(exam):
            if not self._is_expired(item):
                yield item["sk"]["S"], _groups.decode(item["g"]["S"])

    def expired(self, exam: ExamKey) -> Iterator[str]:
        """Connections that still watch the exam although their token expired a while ago."""
        for item in self._rows(exam):
            if self._is_expired(item):
                yield item["sk"]["S"]

    # --- who is connected ---

    def remember(self, connection: str, connected_at: float, principal: Principal) -> None:
        """Keep who is on a connection; what it watches stays, and ends with the new token."""
        values = {
            ":p": {"S": _encode(principal).decode()},
            ":t": {"N": repr(connected_at)},
        }
        answer = self._update(_connection_key(connection), "SET p = :p, t = :t, #ttl = :ttl", values, "ALL_NEW")
        for watched in answer.get("Attributes", {}).get("w", {}).get("SS", ()):
            expires_at = {":x": {"N": repr(principal.expires_at + TOKEN_GRACE_SECONDS)}}
            key = {"pk": {"S": watched}, "sk": {"S": connection}}
            self._update(key, "SET x = :x, #ttl = :ttl", expires_at, condition="attribute_exists(pk)")

    def principal(self, connection: str) -> Principal | None:
        """Who is on a connection, if it is known."""
        item = self._db.get(self._table, _connection_key(connection))
        return None if item is None or "p" not in item else _principal.decode(item["p"]["S"])

    def forget(self, connection: str) -> None:
        """Forget a connection and all that it watches."""
        answer = self._delete(_connection_key(connection), "ALL_OLD")
        for watched in answer.get("Attributes", {}).get("w", {}).get("SS", ()):
            self._delete({"pk": {"S": watched}, "sk": {"S": connection}})

    def failed(self, connection: str) -> int:
        """Count a faulty frame."""
        answer = self._update(
            _connection_key(connection), "ADD f :one SET #ttl = :ttl", {":one": {"N": "1"}}, "UPDATED_NEW"
        )
        self._faulty.add(connection)
        return int(answer["Attributes"]["f"]["N"])

    def succeeded(self, connection: str) -> None:
        """End the row of faulty frames, if this object has counted one: looking it up would cost every good frame a read."""
        if connection in self._faulty:
            self._faulty.discard(connection)
            self._update(_connection_key(connection), "REMOVE f SET #ttl = :ttl", {})

    # --- who is refused ---

    def revoke(self, revocation: Revocation, seconds: float) -> None:
        """Refuse these tokens for so long: at the next connect, and the sockets that are open at the next sweep."""
        until = self._clock() + seconds
        item = {
            **_revocation_key(revocation),
            "x": {"N": repr(until)},
            "ttl": {"N": str(int(until) + 1)},
        }
        self._db.write("PutItem", {"TableName": self._table, "Item": item})

    def allow(self, revocation: Revocation) -> bool:
        """Take a revocation back. Whether it was in force."""
        gone: _Item = self._delete(_revocation_key(revocation), "ALL_OLD").get("Attributes") or {}
        return bool(gone) and not self._is_expired(gone)

    def revocations(self, school: str, role: Role) -> dict[Revocation, float]:
        """Those in force, with the moment until which each is. A consistent read of the few there are."""
        items = self._db.query(
            self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": _revoked(school, role)}},
        )
        found: dict[Revocation, float] = {}
        for item in items:
            if not self._is_expired(item):
                quiz_id, subject = item["sk"]["S"].split("#")
                found[Revocation(school, role, plain(quiz_id), plain(subject))] = float(item["x"]["N"])
        return found

    def is_revoked(self, principal: Principal) -> bool:
        """Whether this bearer is refused now."""
        return is_refused(principal, self.revocations(principal.school, principal.role), self._clock())

    # --- inside ---

    def _rows(self, exam: ExamKey) -> Iterator[_Item]:
        rows: Iterator[_Item] = self._db.query(
            self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": _watched(exam)}},
        )
        return rows

    def _is_expired(self, item: _Item) -> bool:
        return "x" in item and float(item["x"]["N"]) < self._clock()

    def _update(self, key: _Item, expression: str, values: _Item, returned: str = "NONE", condition: str = "") -> _Item:
        """An update that also puts off the item's end; with a condition that fails it is none."""
        request = {
            "TableName": self._table,
            "Key": key,
            "UpdateExpression": expression,
            "ExpressionAttributeNames": {"#ttl": "ttl"},  # a reserved word
            "ExpressionAttributeValues": values | {":ttl": self._ttl()},
            "ReturnValues": returned,
        }
        if condition:
            request["ConditionExpression"] = condition
        try:
            return self._db.write("UpdateItem", request)
        except AwsError as error:
            if condition and error.code == "ConditionalCheckFailedException":
                return {}
            raise

    def _delete(self, key: _Item, returned: str = "NONE") -> _Item:
        return self._db.write("DeleteItem", {"TableName": self._table, "Key": key, "ReturnValues": returned})

    def _ttl(self) -> _Item:
        return {"N": str(int(self._clock() + _KEPT_SECONDS))}


def _watched(exam: ExamKey) -> str:
    return f"w#{escaped(exam.school)}#{escaped(exam.quiz_id)}"


def _row_key(exam: ExamKey, connection: str) -> _Item:
    return {"pk": {"S": _watched(exam)}, "sk": {"S": connection}}


def _connection_key(connection: str) -> _Item:
    return {"pk": {"S": f"c#{connection}"}, "sk": {"S": "c"}}


def _revoked(school: str, role: Role) -> str:
    return f"r#{escaped(school)}#{role}"


def _revocation_key(revocation: Revocation) -> _Item:
    pk = _revoked(revocation.school, revocation.role)
    return {"pk": {"S": pk}, "sk": {"S": f"{escaped(revocation.quiz_id)}#{escaped(revocation.subject)}"}}
