"""Documented behaviours of a WebSocket API in API Gateway, as data: a name, where it is documented or was seen, and a check.

A check is given a `Probe`, which talks to a peer as a client and as a caller of its management API. It asserts; a peer that does
not behave so fails it. What an emulator is known to do otherwise is in `GAPS`, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import boto3
import pytest
import websockets
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
)
from botocore.config import Config
from peers import REGION, Peer
from websockets.asyncio.client import ClientConnection

_WAIT_SECONDS = 6.0


class Probe:
    """A client of one peer."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.api = boto3.client(
            "apigatewaymanagementapi",
            endpoint_url=peer.management_url,
            region_name=REGION,
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
            **peer.credentials,
        )

    @contextlib.asynccontextmanager
    async def connect(self, query: str = "", url: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
        query = query if "token=" in query else f"token=ok&{query}".rstrip("&")
        options = {"compression": None, "ping_interval": None, "close_timeout": 1, "max_size": 2**20} | options
        async with websockets.connect(f"{url or self.peer.url}?{query}", **options) as socket:
            yield socket

    async def refusal(self, query: str) -> int:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with self.connect(query):
                pass
        return refused.value.response.status_code

    @contextlib.asynccontextmanager
    async def observed(
        self, query: str = "", **options: Any
    ) -> AsyncIterator[tuple[ClientConnection, ClientConnection]]:
        """A connection, and one that is told of its `$connect` and `$disconnect`."""
        async with self.connect() as observer:
            who = (await self.ask(observer))["requestContext"]["connectionId"]
            async with self.connect(f"observer={quote(who, safe='')}&{query}", **options) as socket:
                yield socket, observer

    async def ask(self, socket: ClientConnection, action: str = "echo", **wanted: Any) -> Any:
        """Send a message; the event that its function saw."""
        await socket.send(json.dumps({"action": action, **wanted}))
        return (await self.saw(socket, "MESSAGE"))["event"]

    async def saw(self, socket: ClientConnection, what: str) -> Any:
        async with asyncio.timeout(_WAIT_SECONDS):
            while True:
                frame = json.loads(await socket.recv())
                if isinstance(frame, dict) and frame.get("saw") == what:
                    return frame

    async def frame(self, socket: ClientConnection, seconds: float = _WAIT_SECONDS) -> str:
        async with asyncio.timeout(seconds):
            return str(await socket.recv())

    async def id_of(self, socket: ClientConnection) -> str:
        return str((await self.ask(socket))["requestContext"]["connectionId"])

    async def manage(self, operation: str, connection: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(self.api, operation), ConnectionId=connection, **arguments)

    async def post_raw(self, connection: str, data: bytes) -> int:
        """The status of a post without a signature; boto3 would check its size."""
        url = urlsplit(self.peer.management_url)

        def post() -> int:
            kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
            client = kind(url.netloc, timeout=10)
            try:
                client.request("POST", f"{url.path}/@connections/{quote(connection, safe='')}", data)
                return client.getresponse().status
            finally:
                client.close()

        return await asyncio.to_thread(post)

    async def close_code(self, socket: ClientConnection, seconds: float = _WAIT_SECONDS) -> int | None:
        async with asyncio.timeout(seconds):
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await socket.recv()
        return socket.close_code

    def close(self) -> None:
        self.api.close()


@dataclass(frozen=True)
class Behaviour:
    name: str
    source: str
    check: Callable[[Probe], Awaitable[None]]
    needs: str = ""
    """`scaled`: only where the clock can be scaled. `bare`: a second API."""


BEHAVIOURS: list[Behaviour] = []
_GUIDE = "API Gateway guide"


def behaviour(
    source: str, needs: str = ""
) -> Callable[[Callable[[Probe], Awaitable[None]]], Callable[[Probe], Awaitable[None]]]:
    def add(check: Callable[[Probe], Awaitable[None]]) -> Callable[[Probe], Awaitable[None]]:
        BEHAVIOURS.append(Behaviour(check.__name__, source, check, needs))
        return check

    return add


# --- events ---------------------------------------------------------------------------------------------------------------------


@behaviour("captures of February 2024 and March 2025; " + _GUIDE + ", @connections commands")
async def connection_ids_are_15_characters_and_an_equals_sign(probe: Probe) -> None:
    async with probe.connect() as socket:
        assert re.fullmatch(r"[A-Za-z0-9_-]{15}=", await probe.id_of(socket))


@behaviour("captures; Powertools' model of the event")
async def a_connect_event_has_headers_and_query_and_no_message_id(probe: Probe) -> None:
    async with probe.observed("extra=1") as (_, observer):
        event = (await probe.saw(observer, "CONNECT"))["event"]
        assert event["queryStringParameters"]["extra"] == "1"
        assert event["multiValueQueryStringParameters"]["extra"] == ["1"]
        assert {"host", "sec-websocket-key"} <= {name.lower() for name in event["headers"]}
        about = event["requestContext"]
        assert (about["routeKey"], about["eventType"], about["messageDirection"]) == ("$connect", "CONNECT", "IN")
        assert "messageId" not in about
        assert abs(about["connectedAt"] / 1000 - time.time()) < 60
        assert event["isBase64Encoded"] is False
        APIGatewayWebSocketConnectEventModel.model_validate(event)


@behaviour("captures; Powertools' model of the event")
async def a_message_event_has_a_message_id_and_no_headers(probe: Probe) -> None:
    async with probe.connect() as socket:
        event = await probe.ask(socket, mark=7)
        assert "headers" not in event
        assert "queryStringParameters" not in event
        about = event["requestContext"]
        assert about["eventType"] == "MESSAGE"
        assert about["messageId"]
        assert about["requestId"] == about["extendedRequestId"]
        assert json.loads(event["body"]) == {"action": "echo", "mark": 7}
        APIGatewayWebSocketMessageEventModel.model_validate(event)


@behaviour("captures; Powertools' model of the event")
async def a_disconnect_event_tells_code_and_reason(probe: Probe) -> None:
    async with probe.observed() as (socket, observer):
        await probe.ask(socket)
        await socket.close(4000, "goodbye")
        event = (await probe.saw(observer, "DISCONNECT"))["event"]
        about = event["requestContext"]
        assert (about["routeKey"], about["eventType"]) == ("$disconnect", "DISCONNECT")
        assert (about["disconnectStatusCode"], about["disconnectReason"]) == (4000, "goodbye")
        assert "messageId" not in about
        APIGatewayWebSocketDisconnectEventModel.model_validate(event)


@behaviour("a fixture of the serverless-offline project")
async def an_empty_frame_has_no_body(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send("")
        assert "body" not in (await probe.saw(socket, "MESSAGE"))["event"]


# --- opening --------------------------------------------------------------------------------------------------------------------


@behaviour("serverless-offline PR 1301, which states AWS's behaviour")
async def connect_refuses_with_its_status(probe: Probe) -> None:
    assert await probe.refusal("status=418") == 418


@behaviour("serverless-offline's integration suite, run against AWS")
async def a_connect_that_throws_is_502(probe: Probe) -> None:
    assert await probe.refusal("do=throw") == 502


@behaviour(_GUIDE + ", Lambda REQUEST authorizers")
async def an_authorizer_that_denies_is_403(probe: Probe) -> None:
    assert await probe.refusal("token=deny") == 403


@behaviour(_GUIDE + ", Lambda REQUEST authorizers")
async def an_authorizer_that_raises_unauthorized_is_401(probe: Probe) -> None:
    assert await probe.refusal("token=unauthorized") == 401


@behaviour("serverless-offline's integration suite, run against AWS")
async def an_authorizer_that_crashes_is_500(probe: Probe) -> None:
    assert await probe.refusal("token=crash") == 500


@behaviour(_GUIDE + ", Lambda REQUEST authorizers: a missing identity source")
async def a_missing_identity_source_is_401(probe: Probe) -> None:
    assert await probe.refusal("token=") == 401


@behaviour(_GUIDE + ", mapping template reference: values of the context are strings")
async def the_authorizers_context_is_on_messages_as_strings(probe: Probe) -> None:
    async with probe.connect() as socket:
        context = (await probe.ask(socket))["requestContext"]["authorizer"]
        assert context["principalId"] == "user-1"
        assert (context["number"], context["flag"]) == ("3", "true")


@behaviour(_GUIDE + ", $connect route that requires a subprotocol")
async def the_subprotocol_is_the_one_that_connect_answers(probe: Probe) -> None:
    async with probe.connect(subprotocols=["proctorwire", "bearer.x"]) as socket:
        assert socket.subprotocol == "proctorwire"


@behaviour("AWS knowledge center, 410 GoneException: the socket is not open before $connect has ended")
async def a_post_inside_connect_is_410(probe: Probe) -> None:
    async with probe.observed("do=post") as (_, observer):
        assert (await probe.saw(observer, "CONNECT"))["status"] == 410


# --- routes and replies ---------------------------------------------------------------------------------------------------------


@behaviour(_GUIDE + ", route selection expressions")
async def a_message_goes_to_the_route_of_its_action(probe: Probe) -> None:
    async with probe.connect() as socket:
        assert (await probe.ask(socket, "echo"))["requestContext"]["routeKey"] == "echo"


@behaviour(_GUIDE + ", route selection expressions")
async def an_unknown_action_goes_to_default(probe: Probe) -> None:
    async with probe.connect() as socket:
        assert (await probe.ask(socket, "fly"))["requestContext"]["routeKey"] == "$default"


@behaviour(_GUIDE + ", route selection expressions: non-JSON")
async def what_is_no_json_goes_to_default(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send("hello")
        event = (await probe.saw(socket, "MESSAGE"))["event"]
        assert (event["requestContext"]["routeKey"], event["body"]) == ("$default", "hello")


@behaviour("six independent captures", needs="bare")
async def without_a_route_the_client_is_told_forbidden_and_stays(probe: Probe) -> None:
    async with probe.connect(url=probe.peer.bare_url) as socket:
        await socket.send('{"action": "fly"}')
        text = await probe.frame(socket, probe.peer.patience_seconds)
        assert text.startswith('{"message": "Forbidden", "connectionId":"')
        assert set(json.loads(text)) == {"message", "connectionId", "requestId"}
        await socket.send('{"action": "fly"}')
        assert "Forbidden" in await probe.frame(socket)


@behaviour("serverless-offline's end-to-end suite, run against AWS")
async def a_function_that_throws_is_an_error_frame_and_the_socket_stays(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send('{"action": "echo", "do": "throw"}')
        error = json.loads(await probe.frame(socket))
        assert error["message"] == "Internal server error"
        assert re.fullmatch(r"[A-Za-z0-9_-]{15}=", error["requestId"])
        await probe.ask(socket)


@behaviour(_GUIDE + ", route responses")
async def a_returned_body_is_dropped_without_a_route_response(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send('{"action": "echo", "do": "body"}')
        await socket.send('{"action": "echo"}')
        assert json.loads(await probe.frame(socket))["saw"] == "MESSAGE"
        with pytest.raises(TimeoutError):
            await probe.frame(socket, 0.3)


@behaviour(_GUIDE + ", route responses")
async def a_returned_body_is_sent_with_a_route_response(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send('{"action": "two-way", "do": "body"}')
        assert json.loads(await probe.frame(socket)) == {"saw": "the body"}


@behaviour("Lambda: one invocation a request; API Gateway promises no order")
async def messages_of_one_connection_run_at_the_same_time(probe: Probe) -> None:
    async with probe.connect() as socket:
        await probe.ask(socket)
        await socket.send('{"action": "echo", "do": "sleep", "seconds": 1, "slow": 1}')
        await socket.send('{"action": "echo", "slow": 0}')
        first = (await probe.saw(socket, "MESSAGE"))["event"]
        assert json.loads(first["body"])["slow"] == 0


# --- @connections ---------------------------------------------------------------------------------------------------------------


@behaviour("Management API reference, PostToConnection")
async def a_post_is_200_and_delivered(probe: Probe) -> None:
    async with probe.connect() as socket:
        connection = await probe.id_of(socket)
        answer = await probe.manage("post_to_connection", connection, Data=b"hello")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert await probe.frame(socket) == "hello"


@behaviour("Management API reference, PostToConnection: GoneException")
async def a_post_to_a_gone_connection_is_410_gone_exception(probe: Probe) -> None:
    async with probe.connect() as socket:
        connection = await probe.id_of(socket)

    async def post_until_refused() -> None:
        for _ in range(30):  # it may take a moment until it is gone
            await probe.manage("post_to_connection", connection, Data=b"x")
            await asyncio.sleep(0.1)

    with pytest.raises(probe.api.exceptions.GoneException) as gone:
        await post_until_refused()
    assert gone.value.response["ResponseMetadata"]["HTTPStatusCode"] == 410


@behaviour("Management API reference, GetConnection")
async def a_connection_can_be_looked_at(probe: Probe) -> None:
    async with probe.connect() as socket:
        found = await probe.manage("get_connection", await probe.id_of(socket))
        assert found["Identity"]["SourceIp"]
        assert found["ConnectedAt"].timestamp() <= found["LastActiveAt"].timestamp() <= time.time() + 60


@behaviour("Management API reference, DeleteConnection")
async def a_deleted_connection_is_204_and_closes(probe: Probe) -> None:
    async with probe.connect() as socket:
        answer = await probe.manage("delete_connection", await probe.id_of(socket))
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
        await probe.close_code(socket)


@behaviour(_GUIDE + ", quotas; Management API reference: PayloadTooLargeException")
async def a_post_over_128_kib_is_413(probe: Probe) -> None:
    async with probe.connect() as socket:
        with pytest.raises(probe.api.exceptions.PayloadTooLargeException):
            await probe.manage("post_to_connection", await probe.id_of(socket), Data=b"x" * (128 * 1024 + 1))


@behaviour(_GUIDE + ", control access with IAM")
async def an_unsigned_post_is_403(probe: Probe) -> None:
    async with probe.connect() as socket:
        assert await probe.post_raw(await probe.id_of(socket), b"x") == 403


# --- limits ---------------------------------------------------------------------------------------------------------------------


@behaviour(_GUIDE + ", quotas: frames of 32 KB")
async def a_frame_over_32_kib_closes_with_1009(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send("x" * (32 * 1024 + 1))
        assert await probe.close_code(socket, probe.peer.patience_seconds) == 1009


@behaviour(_GUIDE + ", quotas: messages of 128 KB")
async def a_message_over_128_kib_closes_with_1009(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send([*("x" * (32 * 1024) for _ in range(4)), "x"])
        assert await probe.close_code(socket, probe.peer.patience_seconds) == 1009


@behaviour(_GUIDE + ", quotas: messages of 128 KB")
async def a_message_of_128_kib_in_frames_is_delivered(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send(["x" * (32 * 1024)] * 4)
        assert (await probe.saw(socket, "MESSAGE"))["event"]["body"] == 128 * 1024


@behaviour("WebSocket close codes in AWS's agent toolkit")
async def a_binary_frame_closes_with_1003(probe: Probe) -> None:
    async with probe.connect() as socket:
        await socket.send(b"\x00\x01")
        assert await probe.close_code(socket, probe.peer.patience_seconds) == 1003


@behaviour(_GUIDE + ", quotas: idle for 10 minutes; a capture with 1001", needs="scaled")
async def an_idle_connection_is_closed_with_1001_though_it_pings(probe: Probe) -> None:
    async with probe.connect(url=probe.peer.scaled_url) as socket:
        began = time.monotonic()
        with contextlib.suppress(websockets.ConnectionClosed):
            while time.monotonic() - began < 10:
                await asyncio.wait_for(await socket.ping(), 10)
                await asyncio.sleep(0.05)
        assert socket.close_code == 1001
        assert time.monotonic() - began < probe.peer.idle_seconds + 2


@behaviour(_GUIDE + ", quotas: 2 hours, idle or not", needs="scaled")
async def a_busy_connection_is_closed_with_1001_at_its_greatest_age(probe: Probe) -> None:
    async with probe.connect(url=probe.peer.scaled_url) as socket:
        began = time.monotonic()
        with contextlib.suppress(websockets.ConnectionClosed):
            while time.monotonic() - began < 15:
                await socket.send('{"action": "echo", "do": "body"}')
                await asyncio.sleep(0.1)
        assert socket.close_code == 1001
        assert probe.peer.hard_seconds - 0.5 < time.monotonic() - began < probe.peer.hard_seconds + 4


# --- what other emulators do otherwise --------------------------------------------------------------------------------------------

GAPS: dict[str, dict[str, str]] = {
    "ministack": {
        "connection_ids_are_15_characters_and_an_equals_sign": "ids are UUIDs",
        "a_connect_event_has_headers_and_query_and_no_message_id": "messageDirection is missing",
        "a_message_event_has_a_message_id_and_no_headers": "requestId and extendedRequestId differ",
        "a_disconnect_event_tells_code_and_reason": "the client's code and reason are not passed on",
        "an_empty_frame_has_no_body": "the body is an empty string",
        "connect_refuses_with_its_status": "another status",
        "a_connect_that_throws_is_502": "another status",
        "an_authorizer_that_raises_unauthorized_is_401": "500",
        "the_subprotocol_is_the_one_that_connect_answers": "none is answered",
        "without_a_route_the_client_is_told_forbidden_and_stays": "nothing is sent",
        "a_function_that_throws_is_an_error_frame_and_the_socket_stays": "the exception's text is sent",
        "a_returned_body_is_dropped_without_a_route_response": "every returned body is sent",
        "messages_of_one_connection_run_at_the_same_time": "one after the other: a function has one worker",
        "a_connection_can_be_looked_at": "the keys are in another case",
        "a_post_over_128_kib_is_413": "no limit",
        "an_unsigned_post_is_403": "signatures are not looked at unless AUTH=true",
        "a_frame_over_32_kib_closes_with_1009": "no limit",
        "a_message_over_128_kib_closes_with_1009": "no limit",
        "a_binary_frame_closes_with_1003": "taken for text",
    },
    "offline": {
        "connection_ids_are_15_characters_and_an_equals_sign": "ids are UUIDs",
        "a_connect_event_has_headers_and_query_and_no_message_id": "there is a messageId, and no sourceIp",
        "a_message_event_has_a_message_id_and_no_headers": "requestId and extendedRequestId differ, no sourceIp",
        "a_disconnect_event_tells_code_and_reason": "neither is in the event",
        "an_empty_frame_has_no_body": "the body is an empty string",
        "an_authorizer_that_raises_unauthorized_is_401": "500, after the function's timeout, for Python (issue 1823)",
        "a_missing_identity_source_is_401": "the authorizer is invoked",
        "an_unknown_action_goes_to_default": "it does, but the event's routeKey is the action",
        "a_function_that_throws_is_an_error_frame_and_the_socket_stays": "requestId is 1234567890",
        "a_post_is_200_and_delivered": "delivered, with status 204",
        "a_post_to_a_gone_connection_is_410_gone_exception": "410 without the name of the exception",
        "a_connection_can_be_looked_at": "GET is not there: 426",
        "a_post_over_128_kib_is_413": "no limit",
        "an_unsigned_post_is_403": "signatures are not looked at",
        "a_frame_over_32_kib_closes_with_1009": "no limit",
        "a_message_over_128_kib_closes_with_1009": "no limit",
        "a_binary_frame_closes_with_1003": "a Buffer as JSON is the body",
    },
}
