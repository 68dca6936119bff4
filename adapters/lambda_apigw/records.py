"""The journal table as the HTTP function's records use it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from adapters.lambda_apigw.aws_http import AwsError, DynamoDb
from adapters.web.records import RecordsUnavailable


class RecordsTable:
    """`adapters.web.records.dynamodb.Table` over this side's own client."""

    def __init__(self, dynamodb: DynamoDb, table: str) -> None:
        self._db = dynamodb
        self._table = table

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        """See `Table`."""
        with _reaching():
            return self._db.get(self._table, _key(pk, sk))

    def put(self, items: Sequence[dict[str, Any]], *, new: bool | None = None) -> bool:
        """See `Table`."""
        writes = []
        for item in items:
            put = {"TableName": self._table, "Item": item}
            if new is not None:
                put["ConditionExpression"] = "attribute_not_exists(pk)" if new else "attribute_exists(pk)"
            writes.append(put)
        with _reaching():
            try:
                if len(writes) == 1:
                    self._db.write("PutItem", writes[0])
                else:
                    self._db.transact([{"Put": put} for put in writes], token=secrets.token_hex(16))
            except AwsError as error:
                if new is not None and error.code in (
                    "ConditionalCheckFailedException",
                    "TransactionCanceledException",
                ):
                    return False
                raise
        return True

    def delete(self, pk: str, sk: str) -> bool:
        """See `Table`."""
        request = {"TableName": self._table, "Key": _key(pk, sk), "ReturnValues": "ALL_OLD"}
        with _reaching():
            return "Attributes" in self._db.write("DeleteItem", request)

    def query(self, pk: str, low: str, high: str) -> Iterator[dict[str, Any]]:
        """See `Table`."""
        with _reaching():
            yield from self._db.query(
                self._table,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
                ExpressionAttributeValues={":pk": {"S": pk}, ":low": {"S": low}, ":high": {"S": high}},
            )


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (AwsError, OSError) as error:
        raise RecordsUnavailable(f"DynamoDB: {error}") from error
