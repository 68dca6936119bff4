"""`@connections`, through boto3 and through a signed http.client."""

import asyncio
import json
import socket as sockets
import time
from urllib.parse import urlsplit

import pytest
from boto3_free_client import call
from botocore.exceptions import ClientError
from toy_gateway import Toy, ask, function, until
from websockets.exceptions import ConnectionClosed

from adapters.lambda_apigw.local.settings import Credentials, Faults, Limits

LOCAL = {"functions": {"quiet": function("quiet")}, "routes": {"$default": "quiet"}}


async def boto3_call(client, operation, connection_id, **arguments):
    return await asyncio.to_thread(getattr(client, operation), ConnectionId=connection_id, **arguments)


async def refused(client, exception, operation, connection_id, **arguments):
    with pytest.raises(getattr(client.exceptions, exception)) as caught:
        await boto3_call(client, operation, connection_id, **arguments)
    return caught.value.response


async def test_post_get_and_delete(toy):
    """API reference of the API Gateway Management API: 200, 200 with three fields, 204 and the connection closes."""
    local = await toy(**LOCAL)
    client = local.boto3_client()
    async with local.connect() as socket:
        connection_id = local.gateway.connection_ids[0]
        posted = await boto3_call(client, "post_to_connection", connection_id, Data=b"hello")
        assert posted["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert await socket.recv() == "hello"
        seen = await boto3_call(client, "get_connection", connection_id)
        assert seen["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "Python/3.11 websockets/17.4"}
        assert time.time() - 60 < seen["ConnectedAt"].timestamp() <= seen["LastActiveAt"].timestamp() <= time.time()
        deleted = await boto3_call(client, "delete_connection", connection_id)
        assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    usage = local.usage()
    assert usage.posts == {"200": 1}
    assert usage.other_management_calls == {"200": 1, "204": 1}


async def test_a_gone_connection_is_410(toy):
    """PostToConnection, GetConnection, DeleteConnection: GoneException."""
    local = await toy(**LOCAL)
    client = local.boto3_client()
    async with local.connect():
        connection_id = local.gateway.connection_ids[0]
    await until(lambda: not local.gateway.connection_ids)
    for operation, arguments in (
        ("post_to_connection", {"Data": b"x"}),
        ("get_connection", {}),
        ("delete_connection", {}),
    ):
        response = await refused(client, "GoneException", operation, connection_id, **arguments)
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 410


async def test_a_deleted_connection_is_gone_at_once(toy):
    """DeleteConnection closes it; nothing can be posted while the client answers."""
    local = await toy(**LOCAL)
    client = local.boto3_client()
    async with local.connect():
        connection_id = local.gateway.connection_ids[0]
        await boto3_call(client, "delete_connection", connection_id)
        await refused(client, "GoneException", "post_to_connection", connection_id, Data=b"x")


async def test_over_128_kib_is_413(toy):
    """PostToConnection: PayloadTooLargeException; "Quotas": 128 KB. The largest one is sent in frames of 32 KB."""
    local = await toy(**LOCAL)
    url = urlsplit(local.gateway.management_url)
    async with local.connect() as socket:
        connection_id = local.gateway.connection_ids[0]
        # boto3 checks the size itself, so that a raw request is needed.
        status, body, headers = await asyncio.to_thread(
            call, "POST", local.gateway.management_url, connection_id, b"x" * (128 * 1024 + 1)
        )
        assert (status, headers["x-amzn-ErrorType"]) == (413, "PayloadTooLargeException")
        assert "message" in json.loads(body)
        largest = b"x" * (128 * 1024)
        await boto3_call(local.boto3_client(), "post_to_connection", connection_id, Data=largest)
        frames = [frame async for frame in socket.recv_streaming()]
        assert [len(frame) for frame in frames] == [32 * 1024] * 4
    assert url.hostname == "127.0.0.1"
    assert local.usage().messages_out_units == 4


async def test_posts_take_from_the_account(toy):
    """Source: "API Gateway account-level quotas": shared with WebSocket callbacks; LimitExceededException."""
    local = await toy(**LOCAL, limits=Limits(rate_per_second=0.001, burst=2))
    async with local.connect():
        client, connection_id = local.boto3_client(), local.gateway.connection_ids[0]
        await boto3_call(client, "post_to_connection", connection_id, Data=b"x")
        response = await refused(client, "LimitExceededException", "post_to_connection", connection_id, Data=b"x")
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429


async def test_throttled_posts_are_a_fault_that_can_be_set(toy):
    local = await toy(**LOCAL, faults=Faults(post_throttled=1.0))
    async with local.connect():
        client, connection_id = local.boto3_client(), local.gateway.connection_ids[0]
        await refused(client, "LimitExceededException", "post_to_connection", connection_id, Data=b"x")


async def test_a_client_that_does_not_read_is_429(toy):
    """PostToConnection: LimitExceededException "or the WebSocket client side buffer is full"."""
    local = await toy(**LOCAL, limits=Limits(client_buffer_bytes=200_000))
    url = urlsplit(local.gateway.websocket_url)
    with sockets.socket() as raw:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, (url.hostname, url.port))
        await loop.sock_sendall(
            raw,
            f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode(),
        )
        (connection_id,) = await until(lambda: local.gateway.connection_ids)

        def post_until_refused():
            for _ in range(200):
                status, _, headers = call("POST", local.gateway.management_url, connection_id, b"x" * 100_000)
                if status != 200:
                    return status, headers["x-amzn-ErrorType"]
            return status, ""

        assert await asyncio.to_thread(post_until_refused) == (429, "LimitExceededException")


async def test_post_inside_connect_is_410(toy):
    """AWS knowledge center, "How do I resolve 410 GoneException": the connection is not there before `$connect` ends."""
    local = await toy(functions={"connect": function("connect")}, routes={"$connect": "connect"})
    async with local.connect("?post=1"):
        await until(lambda: "posted inside $connect: 410" in local.gateway.log_lines("connect"))


@pytest.mark.parametrize(
    "credentials",
    [{"secret": "wrong"}, {"access_key_id": "AKIDOTHER"}, {"session_token": "other"}],
)
async def test_a_wrong_signature_is_403(toy, credentials):
    """Source: "Control access to WebSocket APIs with IAM"; "Common errors": 403 with the kind in x-amzn-ErrorType."""
    local = await toy(**LOCAL)
    async with local.connect() as socket:
        client = local.boto3_client(**credentials)
        with pytest.raises(ClientError) as caught:
            await boto3_call(client, "post_to_connection", local.gateway.connection_ids[0], Data=b"x")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.05)


async def test_an_unsigned_request_is_403(toy):
    """Source: "Common errors": MissingAuthenticationTokenException."""
    local = await toy(**LOCAL)
    status, _, headers = await asyncio.to_thread(call, "POST", local.gateway.management_url, "x=", b"x", headers={})
    assert (status, headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")


async def test_session_tokens_of_a_role_are_accepted(toy):
    """Source: "Temporary security credentials": what a function's role gets."""
    credentials = Credentials(access_key_id="ASIA1", secret_access_key="s", session_token="t")
    local = await toy(**LOCAL, credentials=credentials)
    async with local.connect() as socket:
        client = local.boto3_client(access_key_id="ASIA1", secret="s", session_token="t")
        await boto3_call(client, "post_to_connection", local.gateway.connection_ids[0], Data=b"x")
        assert await socket.recv() == "x"


async def test_the_stage_may_be_absent_and_another_is_forbidden(toy):
    """Source: "@connections commands": the path of a custom domain name has no stage."""
    local = await toy(**LOCAL)
    base = local.gateway.management_url.removesuffix("/live")
    async with local.connect() as socket:
        connection_id = local.gateway.connection_ids[0]
        await boto3_call(local.boto3_client(base), "post_to_connection", connection_id, Data=b"x")
        assert await socket.recv() == "x"
        other = local.boto3_client(base + "/other")
        await refused(other, "ForbiddenException", "post_to_connection", connection_id, Data=b"x")


async def test_functions_can_post_while_they_run(toy):
    """Source: "@connections commands": from any function with the permission, to any connection."""
    local: Toy = await toy()
    async with local.connect() as socket:
        assert (await ask(socket))["event"]["requestContext"]["connectionId"] == local.gateway.connection_ids[0]
