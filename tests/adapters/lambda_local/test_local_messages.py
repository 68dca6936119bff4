"""Where a message goes, what comes back, and the limits on it."""

import asyncio
import contextlib
import json
import time

import pytest
from toy_gateway import ask, function, say
from websockets.exceptions import ConnectionClosed

from adapters.lambda_apigw.local.settings import Limits

ROUTES = {
    "functions": {"message": function("message"), "reply": function("reply"), "quiet": function("quiet")},
    "routes": {"$default": "message", "$connect": "quiet", "$disconnect": "quiet", "named": "message"},
}


@pytest.mark.parametrize(
    ("body", "route"),
    [
        ('{"action":"named"}', "named"),
        ('{"action":"unknown"}', "$default"),
        ('{"data":{}}', "$default"),
        ('{"action":5}', "$default"),
        ('{"action":"$connect"}', "$default"),
        ('["action"]', "$default"),
        ("not json", "$default"),
    ],
)
async def test_route_selection(toy, body, route):
    """Source: "Working with routes for WebSocket APIs": `$request.body.action`, else `$default`, also for what is no JSON."""
    async with (await toy(**ROUTES)).connect() as socket:
        await socket.send(body)
        assert json.loads(await socket.recv())["event"]["requestContext"]["routeKey"] == route


async def test_no_route_and_no_default_is_forbidden(toy):
    """Captured on AWS: this frame, with a blank after the first colon only; the socket stays open."""
    local = await toy(routes={"named": "message"})
    async with local.connect() as socket:
        await socket.send("{}")
        frame = await socket.recv()
        fields = json.loads(frame)
        connection_id, request_id = fields["connectionId"], fields["requestId"]
        assert frame == f'{{"message": "Forbidden", "connectionId":"{connection_id}", "requestId":"{request_id}"}}'
        assert [connection_id] == local.gateway.connection_ids
        await socket.send('{"action":"named"}')
        assert "event" in json.loads(await socket.recv())
    assert local.usage().error_frames == {"Forbidden": 1}


@pytest.mark.parametrize(
    "data", [{"raise": "bug"}, {"exit": 1}, {"sleep": 5}, {"return": {}}, {"return": None}, {"return": "text"}]
)
async def test_a_failing_function_is_an_internal_server_error(toy, data):
    """serverless-offline's end-to-end suite, run against AWS: this frame, and the socket stays open."""
    local = await toy(functions={"message": function("message", timeout_seconds=0.5)})
    async with local.connect() as socket:
        await socket.send(say(**data))
        frame = await socket.recv()
        fields = json.loads(frame)
        assert frame.startswith('{"message": "Internal server error", "connectionId":"')
        assert fields.keys() == {"message", "connectionId", "requestId"}
        assert "event" in await ask(socket)


async def test_the_integration_timeout_ends_the_wait_not_the_function(toy):
    """Source: "Quotas": integration timeout at most 29 seconds. Lambda goes on, as "Synchronous invocation" says."""
    local = await toy(limits=Limits(integration_timeout_seconds=0.4))
    async with local.connect() as first:
        while "event" not in await ask(first):
            pass  # a cold start may take longer than that
        await local.idle()
    async with local.connect() as socket:
        assert (await ask(socket, sleep=0.8))["message"] == "Internal server error"
        assert "event" in json.loads(await socket.recv())
    assert local.usage("message").timeouts == 0


async def test_a_reply_needs_a_route_response(toy):
    """Source: "Setting up a route response": without one the body a function returns is dropped."""
    local = await toy(
        functions={"reply": function("reply")},
        routes={"two-way": "reply", "one-way": "reply"},
        route_responses=("two-way",),
    )
    async with local.connect() as socket:
        await socket.send('{"action":"one-way"}')
        await socket.send('{"action":"two-way"}')
        assert json.loads(await socket.recv()) == {"reply": '{"action":"two-way"}'}
        assert local.usage().messages_out == 1


async def test_messages_of_one_connection_run_concurrently(toy):
    """Source: "Invoke" of Lambda is one request a message; API Gateway promises no order."""
    async with (await toy()).connect() as socket:
        await socket.send(say(sleep=0.4))
        await socket.send(say())
        first, second = [json.loads(await socket.recv()) for _ in range(2)]
    assert "sleep" not in first["event"]["body"]
    assert first["pid"] != second["pid"]


async def test_binary_frames_are_refused(toy):
    """Source: "WebSocket close codes" in AWS's agent toolkit: 1003, binary is not supported."""
    async with (await toy()).connect() as socket:
        await socket.send(b"binary")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 1003


async def test_a_frame_over_32_kib_closes_with_1009(toy):
    """Source: "Quotas for configuring and running a WebSocket API"."""
    async with (await toy()).connect() as socket:
        await socket.send("x" * (32 * 1024 + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 1009


async def test_a_message_over_128_kib_closes_with_1009(toy):
    """The same page: also when each of its frames is small enough."""
    async with (await toy()).connect() as socket:
        await socket.send([*("x" * (32 * 1024) for _ in range(4)), "x"])
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 1009


async def test_the_largest_message_in_frames_is_delivered_and_counted_in_steps(toy):
    """The same page for the size; "Amazon API Gateway pricing": metered in steps of 32 KB."""
    local = await toy(functions={"message": function("quiet")})
    async with local.connect() as socket:
        await socket.send("x" * (32 * 1024) for _ in range(4))
        await socket.send("x" * (32 * 1024))
        await socket.send(["x" * (32 * 1024), "y"])
        await asyncio.wait_for(await socket.ping(), 5)
        usage = local.usage()
    assert (usage.messages_in, usage.messages_in_units, usage.bytes_in) == (3, 4 + 1 + 2, 6 * 32 * 1024 + 1)


async def test_an_empty_frame_has_no_body(toy):
    """Seen in fixtures of the serverless-offline project."""
    async with (await toy()).connect() as socket:
        await socket.send("")
        assert "body" not in json.loads(await socket.recv())["event"]


async def test_messages_take_from_the_account(toy):
    """Source: "Throttle requests to your WebSocket APIs". The frame's text is not documented."""
    local = await toy(limits=Limits(rate_per_second=0.001, burst=2))
    async with local.connect() as socket:
        await socket.send(say(post=False))
        assert (await ask(socket))["message"] == "Too Many Requests"
    assert local.usage().throttled_messages == 1


async def test_idle_connections_are_closed_whatever_they_ping(toy):
    """Source: "Quotas": idle timeout 10 minutes; captured on AWS: 1001 "Going away". Pings do not count (community sources)."""
    async with (await toy(limits=Limits(idle_seconds=0.3))).connect() as socket:
        started = time.monotonic()
        with contextlib.suppress(ConnectionClosed):
            while time.monotonic() - started < 5:
                await asyncio.wait_for(await socket.ping(), 5)
        assert 0.25 < time.monotonic() - started < 2
    assert (socket.close_code, socket.close_reason) == (1001, "Going away")


async def test_messages_keep_a_connection_from_being_idle_until_it_is_too_old(toy):
    """Source: "Quotas": connection duration 2 hours, idle or not."""
    local = await toy(functions={"message": function("quiet")}, limits=Limits(idle_seconds=0.8, duration_seconds=1.2))
    started = time.monotonic()
    async with local.connect() as socket:
        with contextlib.suppress(ConnectionClosed):
            while time.monotonic() - started < 20:
                await socket.send("{}")
                await asyncio.sleep(0.05)
        assert 1.2 <= time.monotonic() - started < 20
    assert socket.close_code == 1001
