"""Where the cluster's HTTP API keeps its records: a database by its URL, or the journal's DynamoDB table."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from adapters.ec2_cluster.ledger import LedgerPlace, ledger_place
from adapters.web.records import Records, RecordsUnavailable

IN_MEMORY = "sqlite://"
_PASSWORD_SECONDS = 60.0


def default_place(journal: str) -> str:
    """Where records are if nobody says: beside the journal, in its table or in a file of their own; without one in memory."""
    place = ledger_place(journal)
    if place is not None:
        return f"dynamodb:{place.table}" + (f"?region={place.region}" if place.region else "")
    return f"sqlite:///{journal}-records" if journal else IN_MEMORY


def open_records(place: str, secret: str = "") -> Records:
    """The records at a place: `dynamodb:TABLE?region=REGION`, or a database's URL. Raises ValueError for what is neither.

    `secret`: the ARN of the secret in AWS Secrets Manager with the database's `password`, which AWS changes once a week.
    """
    try:
        table = ledger_place(place)
    except ValueError as error:
        raise ValueError("a DynamoDB table is written dynamodb:TABLE?region=REGION") from error
    if table is not None:
        from adapters.web.records.dynamodb import DynamoRecords

        return DynamoRecords(BotoTable(table))
    from adapters.web.records.sql import SqlRecords

    return SqlRecords(place, _Password(secret) if secret else None)


class _Password:
    """The password of a secret, read again after a minute: a new connection may need it after AWS has changed it."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`secret` is an ARN, which says the region."""
        self._secret = secret
        self._clock = clock
        self._known = ""
        self._until = 0.0

    def __call__(self) -> str:
        """The password as it was a minute ago at the earliest. Raises `RecordsUnavailable`."""
        if self._clock() >= self._until:
            import boto3
            import msgspec
            from botocore.exceptions import BotoCoreError, ClientError

            try:
                client = boto3.client("secretsmanager", region_name=self._secret.split(":")[3])
                text = client.get_secret_value(SecretId=self._secret)["SecretString"]
            except (BotoCoreError, ClientError) as error:
                raise RecordsUnavailable(f"the secret of the records' database: {error}") from error
            self._known = msgspec.json.decode(text, type=dict[str, Any])["password"]
            self._until = self._clock() + _PASSWORD_SECONDS
        return self._known


class BotoTable:
    """`adapters.web.records.dynamodb.Table` over boto3."""

    def __init__(self, place: LedgerPlace, client: Any = None) -> None:
        import boto3
        from botocore.config import Config

        settings = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 3})
        self._table = place.table
        with _reaching():
            self._client = client or boto3.client("dynamodb", region_name=place.region or None, config=settings)

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        """See `Table`."""
        with _reaching():
            answer = self._client.get_item(TableName=self._table, Key=_key(pk, sk), ConsistentRead=True)
        item: dict[str, Any] | None = answer.get("Item")
        return item

    def put(self, items: Sequence[dict[str, Any]], *, new: bool | None = None) -> bool:
        """See `Table`."""
        condition = {} if new is None else {"ConditionExpression": f"attribute_{'not_' if new else ''}exists(pk)"}
        writes = [{"TableName": self._table, "Item": item, **condition} for item in items]
        with _reaching():
            try:
                if len(writes) == 1:
                    self._client.put_item(**writes[0])
                else:
                    self._client.transact_write_items(TransactItems=[{"Put": put} for put in writes])
            except self._client.exceptions.ConditionalCheckFailedException:
                return False
            except self._client.exceptions.TransactionCanceledException:
                if new is None:
                    raise
                return False
        return True

    def delete(self, pk: str, sk: str) -> bool:
        """See `Table`."""
        with _reaching():
            answer = self._client.delete_item(TableName=self._table, Key=_key(pk, sk), ReturnValues="ALL_OLD")
        return "Attributes" in answer

    def query(self, pk: str, low: str, high: str) -> Iterator[dict[str, Any]]:
        """See `Table`."""
        with _reaching():
            pages = self._client.get_paginator("query").paginate(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="pk = :pk AND sk BETWEEN :low AND :high",
                ExpressionAttributeValues={":pk": {"S": pk}, ":low": {"S": low}, ":high": {"S": high}},
            )
            for page in pages:
                yield from page["Items"]


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise RecordsUnavailable(f"DynamoDB: {error}") from error
