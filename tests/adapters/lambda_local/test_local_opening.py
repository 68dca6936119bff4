"""How a connection opens, and how it is refused."""

import asyncio
import http.client
import re
from urllib.parse import urlsplit

import pytest
from toy_gateway import ask, function
from websockets.asyncio.client import connect

from adapters.lambda_apigw.local.settings import Authorizer, Limits

CONNECT = {"functions": {"connect": function("connect", timeout_seconds=0.4)}, "routes": {"$connect": "connect"}}
AUTHORIZED = {
    "functions": {"auth": function("authorize"), "message": function("message")},
    "routes": {"$default": "message"},
}
AUTHORIZER = Authorizer(function="auth")


@pytest.mark.parametrize("path", ["/", "/ws", "/live", "/live/"])
async def test_upgrade_paths(toy, path):
    """Source: "Invoking a WebSocket API": the stage is the path; `/` and `/ws` stand for a custom domain name."""
    local = await toy()
    url = urlsplit(local.gateway.websocket_url)
    async with connect(f"ws://{url.netloc}{path}"):
        pass


async def test_an_unknown_stage_is_forbidden(toy):
    """Source: "Invoking a WebSocket API"; floci, an emulator, and common experience agree on 403."""
    status, body = await (await toy()).refusal("/other")
    assert status == 403
    assert b'"Forbidden"' in body


async def test_a_url_over_4096_characters_is_refused(toy):
    """Source: "Quotas for configuring and running a WebSocket API". Which status AWS answers is not documented."""
    local = await toy()
    async with local.connect("?t=" + "x" * 4000):
        pass
    assert (await local.refusal("?t=" + "x" * 4100))[0] == 414


async def test_plain_http_is_answered_426(toy):
    """serverless-offline's end-to-end suite, run against AWS: a GET without upgrade gets 426."""
    local = await toy()
    url = urlsplit(local.gateway.websocket_url)

    def get():
        connection = http.client.HTTPConnection(url.netloc)
        connection.request("GET", url.path)
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    assert await asyncio.to_thread(get) == 426


async def test_connection_ids_have_the_form_of_aws(toy):
    """Source: "@connections commands": ids such as `TXzPWdnOjoECGjA=`, 15 characters of url-safe base64 and `=`."""
    local = await toy()
    async with local.connect(), local.connect():
        first, second = local.gateway.connection_ids
        assert re.fullmatch(r"[A-Za-z0-9_-]{15}=", first)
        assert first != second


async def test_the_upgrade_waits_for_connect(toy):
    """Source: "Managing connected users": until the `$connect` integration has run the upgrade is not completed."""
    local = await toy(**CONNECT)
    async with local.connect("?sleep=0.1"):
        assert local.usage("connect").wall_ms >= 100


@pytest.mark.parametrize("status", [400, 401, 403, 500, 501])
async def test_connect_refuses_with_its_status(toy, status):
    """serverless-offline PR 1301, which states AWS's behaviour: the client sees the status `$connect` returned."""
    assert (await (await toy(**CONNECT)).refusal(f"?status={status}"))[0] == status


@pytest.mark.parametrize("query", ["raise=1", "sleep=5"])
async def test_a_connect_that_throws_or_times_out_is_502(toy, query):
    """serverless-offline's integration suite, run against AWS: 502."""
    assert (await (await toy(**CONNECT)).refusal(f"?{query}"))[0] == 502


async def test_the_subprotocol_is_the_one_connect_answers(toy):
    """Source: "Setting up a $connect route that requires a WebSocket subprotocol"."""
    local = await toy(**CONNECT)
    async with local.connect(subprotocols=["proctorwire", "bearer.x"]) as socket:
        assert socket.subprotocol == "proctorwire"


async def test_no_subprotocol_without_connects_answer(toy):
    """The same page: API Gateway itself chooses none."""
    async with (await toy()).connect(subprotocols=["a"]) as socket:
        assert socket.subprotocol is None


@pytest.mark.parametrize(
    ("token", "status"),
    [
        ("deny", 403),
        ("other", 403),
        ("nobody", 403),
        ("unauthorized", 401),
        ("crash", 500),
        ("nested", 500),
        ("huge", 500),
    ],
)
async def test_authorizer_refusals(toy, token, status):
    """Source: "Create an API Gateway Lambda REQUEST authorizer": deny or no principalId 403, "Unauthorized" 401, else 500;
    context values are scalars; "Quotas": its result is at most 8 KB."""
    local = await toy(**AUTHORIZED, authorizer=AUTHORIZER)
    assert (await local.refusal(f"?token={token}"))[0] == status
    assert local.usage().connects_refused == {str(status): 1}


async def test_a_missing_identity_source_is_401_without_an_invocation(toy):
    """The same page: "if any identity source is missing, null or empty, the client receives a 401"."""
    authorizer = Authorizer(function="auth", identity_sources=("route.request.querystring.token",))
    local = await toy(**AUTHORIZED, authorizer=authorizer)
    assert (await local.refusal(""))[0] == 401
    assert local.usage("auth").invocations == 0
    async with local.connect("?token=ok"):
        assert local.usage("auth").invocations == 1


async def test_authorizer_context_is_on_later_events_as_strings(toy):
    """Source: "Mapping template reference": `$context.authorizer.property` is the stringified value."""
    local = await toy(**AUTHORIZED, authorizer=AUTHORIZER)
    async with local.connect() as socket:
        authorizer = (await ask(socket))["event"]["requestContext"]["authorizer"]
    latency = authorizer.pop("integrationLatency")
    assert isinstance(latency, int)
    assert authorizer == {"principalId": "user-1", "school": "s1", "level": "3", "proctor": "true"}


async def test_new_connections_are_limited(toy):
    """Source: "Quotas": 500 new connections a second; "Throttling": 429."""
    local = await toy(limits=Limits(connects_per_second=0.5))
    async with local.connect():
        assert (await local.refusal(""))[0] == 429


async def test_connects_take_from_the_account(toy):
    """Source: "API Gateway account-level quotas": one bucket for all requests."""
    local = await toy(limits=Limits(rate_per_second=0.001, burst=1))
    async with local.connect():
        assert (await local.refusal(""))[0] == 429


async def test_a_client_that_leaves_during_connect_still_gets_its_disconnect(toy):
    """Not documented; `$connect` has run, so what it stored can be removed."""
    local = await toy(
        functions={"connect": function("connect"), "disconnect": function("disconnect")},
        routes={"$connect": "connect", "$disconnect": "disconnect"},
    )
    url = urlsplit(local.gateway.websocket_url)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(
        f"GET {url.path}?sleep=0.2 HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
    )
    await writer.drain()
    writer.transport.abort()
    event = await local.disconnect_event()
    assert event["requestContext"]["disconnectStatusCode"] == 1006
    assert local.usage().connections_now == 0
