"""The events, field by field, and against the models of Powertools for AWS Lambda."""

import asyncio

import pytest
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
)
from boto3_free_client import call
from toy_gateway import ask, function, until

from adapters.lambda_apigw.local.settings import Authorizer, Faults, Limits

ALL = {
    "functions": {name: function(name) for name in ("connect", "disconnect", "message", "authorize")},
    "routes": {"$connect": "connect", "$disconnect": "disconnect", "$default": "message"},
    "authorizer": Authorizer(function="authorize"),
}
COMMON = {
    "routeKey",
    "eventType",
    "extendedRequestId",
    "requestTime",
    "messageDirection",
    "stage",
    "connectedAt",
    "requestTimeEpoch",
    "identity",
    "requestId",
    "domainName",
    "connectionId",
    "apiId",
    "authorizer",
}


@pytest.fixture
async def events(toy):
    """The three events of one connection."""
    local = await toy(**ALL)
    async with local.connect("?token=ok&tag=a&tag=b", additional_headers={"X-Tag": "1"}) as socket:
        message = (await ask(socket))["event"]
    return local.events("connect")[0], message, await local.disconnect_event()


async def test_every_event_validates_in_powertools(events):
    """Powertools for AWS Lambda, "Parser": models made from real events."""
    connect, message, disconnect = events
    APIGatewayWebSocketConnectEventModel.model_validate(connect)
    APIGatewayWebSocketMessageEventModel.model_validate(message)
    APIGatewayWebSocketDisconnectEventModel.model_validate(disconnect)


async def test_fields_of_the_three_events(events):
    """Real events captured by others; "Mapping template reference": `messageId` is available for messages only."""
    connect, message, disconnect = events
    assert connect.keys() == {
        "headers",
        "multiValueHeaders",
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "requestContext",
        "isBase64Encoded",
    }
    assert message.keys() == {"requestContext", "isBase64Encoded", "body"}
    assert disconnect.keys() == {"headers", "multiValueHeaders", "requestContext", "isBase64Encoded"}
    assert connect["requestContext"].keys() == COMMON
    assert message["requestContext"].keys() == COMMON | {"messageId"}
    assert disconnect["requestContext"].keys() == COMMON | {"disconnectStatusCode", "disconnectReason"}


async def test_connect_carries_the_upgrade_request(events):
    """Real events captured by others: original case, forwarding headers added, `Upgrade` and `Connection` absent."""
    connect, _, disconnect = events
    headers = connect["headers"]
    assert headers["X-Tag"] == "1"
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert {"X-Forwarded-Port", "X-Forwarded-Proto", "X-Amzn-Trace-Id", "Sec-WebSocket-Key"} <= headers.keys()
    assert not {"Upgrade", "Connection"} & headers.keys()
    assert connect["multiValueHeaders"]["X-Tag"] == ["1"]
    assert connect["queryStringParameters"] == {"token": "ok", "tag": "b"}
    assert connect["multiValueQueryStringParameters"]["tag"] == ["a", "b"]
    assert disconnect["headers"] == {
        "Host": headers["Host"],
        "x-api-key": "",
        "X-Forwarded-For": "",
        "x-restapi": "",
    }


async def test_ids_and_times(events):
    """Source: "Mapping template reference"; captured events: `requestId` equals `extendedRequestId`."""
    contexts = [event["requestContext"] for event in events]
    assert len({context["connectionId"] for context in contexts}) == 1
    assert len({context["requestId"] for context in contexts}) == 3
    for context in contexts:
        assert context["extendedRequestId"] == context["requestId"]
        assert context["requestTimeEpoch"] >= context["connectedAt"]
        assert context["requestTime"].endswith(" +0000")
        assert context["identity"]["sourceIp"] == "127.0.0.1"


async def test_no_query_no_parameters_and_stage_variables_only_if_set(toy):
    """Real events captured by others."""
    local = await toy(functions=ALL["functions"], routes=ALL["routes"], stage_variables={"table": "t1"})
    async with local.connect() as socket:
        message = (await ask(socket))["event"]
    connect = local.events("connect")[0]
    assert "queryStringParameters" not in connect
    assert connect["stageVariables"] == message["stageVariables"] == {"table": "t1"}


async def _close(socket, local):
    await socket.close(4000, "bye")


async def _close_without_code(socket, local):
    socket.protocol.send_close()
    socket.send_data()


async def _vanish(socket, local):
    socket.transport.abort()


async def _drop(socket, local):
    assert local.gateway.drop_connection(local.gateway.connection_ids[0])


async def _binary(socket, local):
    await socket.send(b"x")


async def _delete(socket, local):
    await asyncio.to_thread(call, "DELETE", local.gateway.management_url, local.gateway.connection_ids[0])


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        (_close, 4000, "bye"),
        (_close_without_code, 1005, "Client-side close frame status not set"),
        (_vanish, 1006, ""),
        (_drop, 1006, ""),
        (_binary, 1003, "Unsupported data"),
        (_delete, 1000, "Connection Closed Normally"),
    ],
)
async def test_disconnect_says_why(toy, end, code, reason):
    """Real events captured by others for 1005; the rest follows RFC 6455, section 7.4."""
    local = await toy(functions={"disconnect": function("disconnect")}, routes={"$disconnect": "disconnect"})
    async with local.connect() as socket:
        await end(socket, local)
        context = (await local.disconnect_event())["requestContext"]
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (code, reason)
    assert local.usage().close_codes == {str(code): 1}


async def test_disconnect_after_idleness(toy):
    """Captured on AWS: `disconnectStatusCode` 1001, `disconnectReason` "Going away"."""
    local = await toy(
        functions={"disconnect": function("disconnect")},
        routes={"$disconnect": "disconnect"},
        limits=Limits(idle_seconds=0.1),
    )
    async with local.connect():
        context = (await local.disconnect_event())["requestContext"]
    assert (context["disconnectStatusCode"], context["disconnectReason"]) == (1001, "Going away")


async def test_disconnects_can_be_lost(toy):
    """Source: "Managing connected users": the event is best effort. Reproducible for a seed."""

    async def lost(seed):
        local = await toy(
            functions={"quiet": function("quiet")},
            routes={"$disconnect": "quiet"},
            faults=Faults(disconnect_lost=0.5, seed=seed),
        )
        pattern = []
        for _ in range(12):
            before = local.usage().disconnects_lost
            async with local.connect():
                pass
            await _settled(local, len(pattern) + 1)
            pattern.append(local.usage().disconnects_lost - before)
        return pattern

    async def _settled(local, total):
        await until(lambda: local.usage().disconnects + local.usage().disconnects_lost == total)

    first = await lost(7)
    assert first == await lost(7)
    assert 0 < sum(first) < 12
