"""What invokes functions besides the socket: an SQS event source mapping and scheduled rules.

The mapping polls a real queue over HTTP and follows "Using Lambda with Amazon SQS": what a batch's function accepted is
deleted, what it failed (the whole batch, or the items it names in `batchItemFailures`) becomes visible again when its
visibility timeout ends. Unlike on AWS each poller handles one batch at a time and none is added under load.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from adapters.lambda_apigw.local import sigv4
from adapters.lambda_apigw.local.environments import FunctionPool, InvocationFailed
from adapters.lambda_apigw.local.settings import Credentials, Faults, Queue, Schedule
from adapters.lambda_apigw.local.usage import QueueUsage

_RETRY_SECONDS = 0.5
_MOST_RECEIVED = 10


class SqsError(Exception):
    """SQS could not be reached or answered with an error."""


class _Message(msgspec.Struct, rename="pascal"):
    message_id: str
    receipt_handle: str
    body: str = ""
    m_d5_of_body: str = msgspec.field(default="", name="MD5OfBody")
    attributes: dict[str, str] = {}
    message_attributes: dict[str, dict[str, Any]] = {}


class _Received(msgspec.Struct, rename="pascal"):
    messages: list[_Message] = []


class _Failure(msgspec.Struct, rename="camel"):
    item_identifier: str


class _BatchResponse(msgspec.Struct, rename="camel"):
    batch_item_failures: list[_Failure] | None = None


class QueueMapping:
    """Polls one queue and invokes one function until it is stopped."""

    def __init__(
        self, queue: Queue, pool: FunctionPool, *, credentials: Credentials, region: str, faults: Faults
    ) -> None:
        self._queue = queue
        self._pool = pool
        self._credentials = credentials
        self._region = region
        self._duplicated = faults.queue_duplicated
        self._faults = random.Random(faults.seed)  # noqa: S311  a reproducible fault
        server = urlsplit(queue.endpoint_url)
        self._host, self._port = server.hostname or "127.0.0.1", server.port or 80
        *_, account, name = urlsplit(queue.url).path.split("/")
        self.name = name
        self._arn = f"arn:aws:sqs:{region}:{account}:{name}"
        self._pollers: list[asyncio.Task[None]] = []
        self._receives = self._empty = self._deletes = self._messages = 0
        self._batches = self._batch_failures = self._item_failures = self._poll_errors = 0

    def start(self) -> None:
        """Begin to poll."""
        loop = asyncio.get_running_loop()
        self._pollers = [loop.create_task(self._poll()) for _ in range(self._queue.pollers)]

    async def stop(self) -> None:
        """Stop at once; a batch in progress stays in the queue."""
        for poller in self._pollers:
            poller.cancel()
        if self._pollers:
            await asyncio.wait(self._pollers)

    async def _poll(self) -> None:
        while True:
            try:
                messages = await self._receive(self._queue.wait_seconds)
                if messages and self._queue.batching_window_seconds:
                    await self._fill(messages)
                if messages and self._faults.random() < self._duplicated:
                    await self._invoke(messages)  # delivered twice, the first time without a trace
                if messages:
                    await self._handle(messages)
            except (SqsError, OSError):
                self._poll_errors += 1
                await asyncio.sleep(_RETRY_SECONDS)

    async def _fill(self, messages: list[_Message]) -> None:
        """Wait for the batching window, then take what has come, up to the batch size."""
        await asyncio.sleep(self._queue.batching_window_seconds)
        while len(messages) < self._queue.batch_size and (more := await self._receive(0)):
            messages += more

    async def _receive(self, wait_seconds: int) -> list[_Message]:
        request: dict[str, object] = {
            "QueueUrl": self._queue.url,
            "MaxNumberOfMessages": min(self._queue.batch_size, _MOST_RECEIVED),
            "WaitTimeSeconds": wait_seconds,
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        if self._queue.visibility_timeout_seconds:
            request["VisibilityTimeout"] = self._queue.visibility_timeout_seconds
        self._receives += 1
        received = msgspec.json.decode(await self._call("ReceiveMessage", request) or b"{}", type=_Received)
        if not received.messages:
            self._empty += 1
        self._messages += len(received.messages)
        return received.messages

    async def _handle(self, messages: list[_Message]) -> None:
        result = await self._invoke(messages)
        if result is None:
            self._batch_failures += 1
            return
        failed = _failed_items(result, messages)
        self._item_failures += len(failed)
        done = [message for message in messages if message.message_id not in failed]
        for start in range(0, len(done), _MOST_RECEIVED):
            part = done[start : start + _MOST_RECEIVED]
            entries = [{"Id": str(i), "ReceiptHandle": message.receipt_handle} for i, message in enumerate(part)]
            await self._call("DeleteMessageBatch", {"QueueUrl": self._queue.url, "Entries": entries})
            self._deletes += 1

    async def _invoke(self, messages: list[_Message]) -> bytes | None:
        """What the function returned for the batch; None if it failed."""
        self._batches += 1
        event = {"Records": [self._record(message) for message in messages]}
        try:
            return await self._pool.invoke(msgspec.json.encode(event))
        except InvocationFailed:
            return None

    def _record(self, message: _Message) -> dict[str, object]:
        return {
            "messageId": message.message_id,
            "receiptHandle": message.receipt_handle,
            "body": message.body,
            "attributes": message.attributes,
            "messageAttributes": {
                name: {key[0].lower() + key[1:]: value for key, value in attribute.items()}
                for name, attribute in message.message_attributes.items()
            },
            "md5OfBody": message.m_d5_of_body,
            "eventSource": "aws:sqs",
            "eventSourceARN": self._arn,
            "awsRegion": self._region,
        }

    async def _call(self, action: str, request: dict[str, object]) -> bytes:
        """One SQS request on a connection of its own. Raises SqsError or OSError."""
        body = msgspec.json.encode(request)
        headers = sigv4.sign(
            "POST",
            "/",
            {
                "host": f"{self._host}:{self._port}",
                "content-type": "application/x-amz-json-1.0",
                "x-amz-target": f"AmazonSQS.{action}",
            },
            body,
            access_key_id=self._credentials.access_key_id,
            secret=self._credentials.secret_access_key,
            session_token=self._credentials.session_token,
            region=self._region,
            service="sqs",
        )
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            lines = [f"{name}: {value}" for name, value in headers.items()]
            head = ["POST / HTTP/1.1", *lines, f"content-length: {len(body)}", "connection: close", "", ""]
            writer.write("\r\n".join(head).encode() + body)
            return _answer(await reader.read())
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def usage(self) -> QueueUsage:
        """Everything counted so far."""
        return QueueUsage(
            receive_requests=self._receives,
            empty_receives=self._empty,
            delete_requests=self._deletes,
            messages=self._messages,
            batches=self._batches,
            batch_failures=self._batch_failures,
            item_failures=self._item_failures,
            poll_errors=self._poll_errors,
        )


def _answer(data: bytes) -> bytes:
    """The body of an HTTP answer that ended with the connection."""
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").lower().split("\r\n")
    if "transfer-encoding: chunked" in lines:
        chunks = []
        while body:
            size, _, rest = body.partition(b"\r\n")
            length = int(size or b"0", 16)
            chunks.append(rest[:length])
            body = rest[length + 2 :] if length else b""
        body = b"".join(chunks)
    if " 200" not in status_line[:12]:
        raise SqsError(f"{status_line or 'no answer'}: {body[:200].decode(errors='replace')}")
    return body


def _failed_items(result: bytes, messages: list[_Message]) -> set[str]:
    """Ids of the messages the function reports as failed; all of them if its report makes no sense.

    Source: "Handling errors for an SQS event source in Lambda".
    """
    everything = {message.message_id for message in messages}
    try:
        response = msgspec.json.decode(result, type=_BatchResponse | None)
    except msgspec.ValidationError:
        # A result that is not an object at all is a success; an object with a broken report is a failed batch.
        return everything if result.startswith(b"{") else set()
    failed = {failure.item_identifier for failure in (response.batch_item_failures or [])} if response else set()
    return failed if failed <= everything else everything


class Rule:
    """Invokes a function at a fixed rate, as an EventBridge rule does. Not repeated when the function fails."""

    def __init__(self, schedule: Schedule, pool: FunctionPool, *, region: str, account_id: str) -> None:
        self._schedule = schedule
        self._pool = pool
        self._region = region
        self._account_id = account_id
        self._task: asyncio.Task[None] | None = None
        self.invocations = 0

    def start(self) -> None:
        """Begin; the first invocation is one interval away."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop at once."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._schedule.interval_seconds)
            self.invocations += 1
            event = {
                "version": "0",
                "id": str(uuid.uuid4()),
                "detail-type": "Scheduled Event",
                "source": "aws.events",
                "account": self._account_id,
                "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "region": self._region,
                "resources": [f"arn:aws:events:{self._region}:{self._account_id}:rule/{self._schedule.name}"],
                "detail": {},
            }
            with contextlib.suppress(InvocationFailed):  # counted by the pool
                await self._pool.invoke(msgspec.json.encode(event))
