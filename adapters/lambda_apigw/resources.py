"""The tables and queues of this side, each defined once: for the deployment's template, for local runs and for tests.

Definitions are the parameters of DynamoDB's CreateTable and SQS's CreateQueue; a template takes them over and adds encryption and
point-in-time recovery. Every item that may go has its end in `ttl`.
"""

from __future__ import annotations

from typing import Any

from adapters.lambda_apigw.aws_http import Client

TTL_ATTRIBUTE = "ttl"


def _table(name: str) -> dict[str, Any]:
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
    }


def tables(state: str = "proctorwire-state", journal: str = "proctorwire-journal") -> list[dict[str, Any]]:
    """Records, exams, connections and subscriptions in one table; the journal in another, which is kept and exported apart."""
    return [_table(state), _table(journal)]


def queues(
    sweep: str = "proctorwire-sweep",
    command: str = "proctorwire-command",
    *,
    sweep_timeout_seconds: int = 60,
    command_timeout_seconds: int = 60,
) -> list[dict[str, Any]]:
    """One queue for sweeps, one for commands to many. A message comes back after its function's timeout, six-fold as AWS advises.

    A sweep's message is not worth keeping: the rule of each minute starts a new chain.
    """
    return [
        {
            "QueueName": sweep,
            "Attributes": {
                "VisibilityTimeout": str(6 * sweep_timeout_seconds),
                "MessageRetentionPeriod": str(max(6 * sweep_timeout_seconds, 600)),
            },
        },
        {
            "QueueName": command,
            "Attributes": {
                "VisibilityTimeout": str(6 * command_timeout_seconds),
                "MessageRetentionPeriod": str(max(6 * command_timeout_seconds, 3_600)),
            },
        },
    ]


VIEWS_BATCH_SIZE = 1_000
VIEWS_WINDOW_SECONDS = 2
"""How the mapping of the queue of views collects them: MaximumBatchingWindowInSeconds counts whole seconds, at least one. A sweep's
publications do not wait here, so that who turns offline is shown at once."""


def views_queue(name: str = "proctorwire-views", *, timeout_seconds: int = 30) -> dict[str, Any]:
    """The queue of views that are published together. What is older than a few minutes has been published otherwise since."""
    visible = str(6 * timeout_seconds + VIEWS_WINDOW_SECONDS)
    return {"QueueName": name, "Attributes": {"VisibilityTimeout": visible, "MessageRetentionPeriod": "300"}}


def create(
    dynamodb: Client, sqs: Client, wanted_tables: list[dict[str, Any]], wanted_queues: list[dict[str, Any]]
) -> list[str]:
    """Make tables (with their TTL) and queues on a server that has none yet; the URLs of the queues."""
    for table in wanted_tables:
        dynamodb.call("DynamoDB_20120810.CreateTable", table, "setup")
        ttl = {"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
        dynamodb.call(
            "DynamoDB_20120810.UpdateTimeToLive",
            {"TableName": table["TableName"], "TimeToLiveSpecification": ttl},
            "setup",
        )
    return [str(sqs.call("AmazonSQS.CreateQueue", queue, "setup")["QueueUrl"]) for queue in wanted_queues]
