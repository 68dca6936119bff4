"""The faulty way to the table: refused or carried out without an answer, and the client stands both."""

import asyncio
import contextlib

import pytest

from adapters.lambda_apigw.aws_http import AwsError, Credentials, DynamoDb, Session
from adapters.lambda_apigw.local.settings import Faults
from adapters.lambda_apigw.local.table_faults import TableFaults


@contextlib.asynccontextmanager
async def table(**faults):
    """A server that counts requests, and a client that reaches it on the faulty way."""
    requests = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        requests.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = TableFaults(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", Faults(**faults))
    url = await proxy.start("127.0.0.1")
    try:
        with Session(Credentials("a", "b"), "eu-west-1", sleep=lambda seconds: None) as session:
            yield DynamoDb(session.client("dynamodb", url)), requests, proxy
    finally:
        await proxy.stop()
        server.close()


async def write(database):
    return await asyncio.to_thread(database.write, "PutItem", {"TableName": "t"})


async def test_without_a_fault_requests_and_answers_pass():
    async with table() as (database, requests, proxy):
        assert await write(database) == await write(database) == {}
        assert len(requests) == 2
        assert not proxy.counted


async def test_a_throttled_request_never_reaches_the_table():
    async with table(table_throttled=1.0) as (database, requests, proxy):
        with pytest.raises(AwsError, match="ProvisionedThroughputExceededException"):
            await write(database)
        assert requests == []
        assert proxy.counted["throttled"] == 5


async def test_a_lost_answer_leaves_what_was_carried_out():
    async with table(table_answer_lost=1.0) as (database, requests, proxy):
        with pytest.raises(OSError):
            await write(database)
        assert len(requests) == proxy.counted["answer_lost"] >= 1
