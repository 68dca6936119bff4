"""Queues and rules that invoke functions, against a real SQS server (MiniStack)."""

import asyncio
import json
from pathlib import Path

import boto3
import pytest
from toy_gateway import function, until

from adapters.lambda_apigw.local import ministack
from adapters.lambda_apigw.local.ministack import MiniStack, MiniStackError
from adapters.lambda_apigw.local.settings import Faults, Queue, Schedule


@pytest.fixture(scope="module")
def server():
    """One MiniStack for the module."""
    stack = MiniStack()
    asyncio.run(stack.start())
    yield stack
    asyncio.run(stack.stop())


@pytest.fixture
def sqs(server):
    return boto3.client(
        "sqs",
        endpoint_url=server.endpoint_url,
        region_name="ap-southeast-1",
        aws_access_key_id="AKIDLOCAL",
        aws_secret_access_key="local-secret",
    )


@pytest.fixture
async def mapping(toy, server, sqs, request):
    """Starts a gateway whose function takes a fresh queue; gives the gateway, a send function and the queue's URL."""
    name = request.node.name.split("[")[0][:70]
    url = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "1"})["QueueUrl"]
    local = await toy(
        functions={"queue": function("queue")},
        routes={"$default": "queue"},
        queues=(Queue(url=url, function="queue", endpoint_url=server.endpoint_url, wait_seconds=1),),
    )

    async def send(*bodies):
        entries = [{"Id": str(i), "MessageBody": body} for i, body in enumerate(bodies)]
        await asyncio.to_thread(sqs.send_message_batch, QueueUrl=url, Entries=entries)

    def records():
        lines = local.gateway.log_lines("queue")
        return [json.loads(line.removeprefix("record ")) for line in lines if line.startswith("record ")]

    def usage():
        return local.usage().queues[name]

    async def waiting():
        attributes = await asyncio.to_thread(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])
        return sum(int(value) for key, value in attributes["Attributes"].items() if key.startswith("ApproximateN"))

    return send, records, usage, waiting


async def test_a_batch_is_handed_over_and_deleted(mapping):
    """Source: "Using Lambda with Amazon SQS": the event's records, and deletion on success."""
    send, records, usage, waiting = mapping
    await send("one", "two")
    await until(lambda: len(records()) == 2 and usage().delete_requests == usage().batches)
    record = records()[0]
    assert record.keys() == {
        "messageId",
        "receiptHandle",
        "body",
        "attributes",
        "messageAttributes",
        "md5OfBody",
        "eventSource",
        "eventSourceARN",
        "awsRegion",
    }
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"].startswith("arn:aws:sqs:ap-southeast-1:000000000000:test_a_batch")
    assert {"ApproximateReceiveCount", "SentTimestamp"} <= record["attributes"].keys()
    assert len(record["md5OfBody"]) == 32
    assert sorted(record["body"] for record in records()) == ["one", "two"]
    assert usage().messages == 2
    assert await waiting() == 0
    assert usage().receive_requests >= usage().batches


async def test_a_failed_batch_comes_back(mapping):
    """The same page: a batch whose function fails becomes visible again after the visibility timeout."""
    send, records, usage, _ = mapping
    await send("raise")
    await until(lambda: usage().batch_failures >= 2 and len(records()) >= 2)
    assert [record["attributes"]["ApproximateReceiveCount"] for record in records()[:2]] == ["1", "2"]
    assert usage().delete_requests == 0


async def test_a_partial_failure_keeps_only_what_failed(mapping):
    """Source: "Handling errors for an SQS event source in Lambda": `batchItemFailures`."""
    send, records, usage, waiting = mapping
    await send("good", "fail")
    await until(lambda: len(records()) == 3 and usage().delete_requests == 2)
    assert usage().item_failures == 1
    assert sorted(record["body"] for record in records()) == ["fail", "fail", "good"]
    assert await waiting() == 0


async def test_duplicated_batches_are_a_fault_that_can_be_set(toy, server, sqs):
    """Source: "Amazon SQS at-least-once delivery"."""
    url = (await asyncio.to_thread(sqs.create_queue, QueueName="duplicated"))["QueueUrl"]
    local = await toy(
        functions={"queue": function("queue")},
        routes={"$default": "queue"},
        queues=(Queue(url=url, function="queue", endpoint_url=server.endpoint_url, wait_seconds=1),),
        faults=Faults(queue_duplicated=1.0),
    )
    await asyncio.to_thread(sqs.send_message, QueueUrl=url, MessageBody="once")
    await until(lambda: local.usage().queues["duplicated"].delete_requests)
    assert local.usage().queues["duplicated"].batches == 2
    assert local.usage().queues["duplicated"].messages == 1


async def test_an_unreachable_queue_is_counted_and_tried_again(toy):
    """The mapping outlives its server."""
    queue = Queue(url="http://x/000000000000/q", function="queue", endpoint_url="http://127.0.0.1:9")
    local = await toy(functions={"queue": function("queue")}, routes={"$default": "queue"}, queues=(queue,))
    await until(lambda: local.usage().queues["q"].poll_errors >= 2)


async def test_a_rule_invokes_at_its_rate(toy):
    """Source: "Scheduled events" of EventBridge: the fields of the event."""
    local = await toy(
        functions={"scheduled": function("scheduled")},
        routes={"$default": "scheduled"},
        schedules=(Schedule(name="each-minute", function="scheduled", interval_seconds=0.1),),
    )

    def events():
        return [line for line in local.gateway.log_lines("scheduled") if line.startswith("scheduled ")]

    await until(lambda: len(events()) >= 2)
    event = json.loads(events()[0].removeprefix("scheduled "))
    assert event["source"] == "aws.events"
    assert event["detail-type"] == "Scheduled Event"
    assert event["resources"] == ["arn:aws:events:ap-southeast-1:000000000000:rule/each-minute"]
    assert event["detail"] == {}
    assert local.usage().schedule_invocations >= 2


async def test_ministack_leaves_nothing_behind(capfd, tmp_path, monkeypatch):
    """It is silent, writes into its own directory only, and its process ends."""
    monkeypatch.chdir(tmp_path)
    stack = MiniStack()
    async with stack:
        table = boto3.client(
            "dynamodb",
            endpoint_url=stack.endpoint_url,
            region_name="ap-southeast-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        await asyncio.to_thread(
            table.create_table,
            TableName="table",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        pid, directory = stack.pid, stack._directory
    left = [path for path in (f"/proc/{pid}", directory) if Path(path).exists()]  # noqa: ASYNC240  nothing else runs
    assert left == []
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


async def test_a_missing_ministack_is_one_line(monkeypatch):
    monkeypatch.setattr(ministack.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MiniStackError, match=r"^MiniStack is not installed: pip install ministack$"):
        await MiniStack().start()
