"""The small HTTP server on raw sockets, and how answers of SQS and of batches are read."""

import asyncio
import json

import pytest

from adapters.lambda_apigw.local import queues
from adapters.lambda_apigw.local.http_server import HttpServer, Response


@pytest.fixture
async def exchange():
    """Sends bytes on one connection and returns what comes back until `count` answers or the end."""

    def echo(request):
        body = json.dumps([request.method, request.target, request.body.decode()]).encode()
        return Response(200, body, "Kind", "id=")

    server = await HttpServer.start(echo, "127.0.0.1", 0)

    async def send(*parts, count=1):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        answer = b""
        async with asyncio.timeout(5):
            while answer.count(b"HTTP/1.1 ") < count or not answer.endswith((b"]", b"\r\n\r\n")):
                data = await reader.read(65536)
                if not data:
                    break
                answer += data
        writer.close()
        await writer.wait_closed()
        return answer

    yield send
    await server.close()


async def test_requests_may_come_in_pieces_and_in_a_row(exchange):
    head = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    whole = head + b"one" + head + b"two"
    together = await exchange(whole, count=2)
    assert (b'"one"' in together, b'"two"' in together) == (True, True)
    assert b"x-amzn-ErrorType: Kind\r\n" in together
    apart = await exchange(*(whole[i : i + 1] for i in range(len(whole))), count=2)
    assert apart == together


async def test_expect_continue_is_answered_before_the_body(exchange):
    head = b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    answer = await exchange(head, b"x", count=2)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.count(b"100 Continue") == 1


async def test_connection_close_is_honoured(exchange):
    assert b"200 OK" in await exchange(b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", count=2)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a SPDY/1\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /a HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /a HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
    ],
)
async def test_what_is_no_request_is_refused_and_the_connection_closed(exchange, request_bytes, status):
    assert (await exchange(request_bytes, count=2)).startswith(f"HTTP/1.1 {status} ".encode())


def test_sqs_answers_are_read_with_a_length_and_in_chunks():
    assert queues._answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") == b"{}"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"
    assert queues._answer(chunked) == b"abc0123456789"
    for broken in (b"", b"HTTP/1.1 500 Oops\r\n\r\nno"):
        with pytest.raises(queues.SqsError):
            queues._answer(broken)


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        (b"null", set()),
        (b'"text"', set()),
        (b"{}", set()),
        (b'{"batchItemFailures": null}', set()),
        (b'{"batchItemFailures": []}', set()),
        (b'{"batchItemFailures": [{"itemIdentifier": "a"}]}', {"a"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "unknown"}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": null}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{}]}', {"a", "b"}),
    ],
)
def test_reports_of_failed_items(result, failed):
    """Source: "Handling errors for an SQS event source in Lambda": a report that makes no sense fails the batch."""
    messages = [queues._Message(message_id=name, receipt_handle="r") for name in "ab"]
    assert queues._failed_items(result, messages) == failed
