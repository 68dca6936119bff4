import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transport_peers import ACCEPT, CLOSE, TEXT, UPGRADE, Recorder, frame, until

from adapters.ec2_cluster.handshake import Accepted, Refused, RequestError, read_handshake, read_request


async def test_firefox_connects(serve):
    served = await serve()
    peer = await served.peer(
        "/ws?token=abc&x=%20y",
        Connection="keep-alive, Upgrade",
        User_Agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        Sec_WebSocket_Extensions="permessage-deflate",
        Sec_Fetch_Mode="websocket",
    )
    assert "sec-websocket-extensions" not in peer.answer
    peer.text(b"hello")
    assert await peer.next() == (TEXT, b"hello")
    (handshake,) = served.endpoint.handshakes
    assert (handshake.path, handshake.query, handshake.peer) == ("/ws", {"token": "abc", "x": " y"}, "127.0.0.1")
    assert handshake.bearer == "abc"
    assert not handshake.secure
    (connection,) = served.endpoint.connections
    assert served.listener.connections == {connection.id: connection}
    assert (connection.principal, connection.peer, connection.is_open) == ("someone", "127.0.0.1", True)


async def test_the_token_of_a_subprotocol_goes_before_that_of_the_url(serve):
    served = await serve()
    served.endpoint.answer = Accepted("someone", "proctorwire")
    peer = await served.peer("/?token=url", Sec_WebSocket_Protocol="proctorwire, bearer.aaa.bbb-c_c")
    assert peer.answer["sec-websocket-protocol"] == "proctorwire"
    (handshake,) = served.endpoint.handshakes
    assert handshake.subprotocols == ("proctorwire", "bearer.aaa.bbb-c_c")
    assert handshake.bearer == "aaa.bbb-c_c"


async def test_frames_right_behind_the_request_are_not_lost(serve):
    served = await serve()
    peer = await served.raw()
    status, _ = await peer.request(body=frame(TEXT, b"early") + frame(TEXT, b"x" * 5000))
    assert status == 101
    assert await peer.next() == (TEXT, b"early")
    assert await peer.next() == (TEXT, b"x" * 5000)


async def test_a_request_may_come_byte_by_byte(serve):
    served = await serve()
    peer = await served.raw()
    lines = ["GET / HTTP/1.1", *(f"{name}:{value}" for name, value in UPGRADE.items()), "", ""]
    request = "\r\n".join(lines)
    for byte in request.encode():
        peer.send(bytes((byte,)))
        await peer.writer.drain()
    status, headers = await peer.response()
    assert (status, headers["sec-websocket-accept"]) == (101, ACCEPT)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/other", {}, 404),
        ("/", {"Upgrade": "h2c"}, 426),
        ("/", {"Connection": "keep-alive"}, 426),
        ("/", {"Sec_WebSocket_Version": "8"}, 426),
        ("/", {"Sec_WebSocket_Key": None}, 400),
        ("/", {"Sec_WebSocket_Key": "short"}, 400),
        ("/", {"Sec_WebSocket_Key": "not base 64 at all!!!!!!"}, 400),
        ("/", {"Sec_WebSocket_Protocol": "a,,b"}, 400),
        ("/", {"Host": None}, 400),
        ("/", {"Content_Length": "5"}, 400),
        ("/", {"Transfer_Encoding": "chunked"}, 400),
        ("/", {"Bad Name": "x"}, 400),
        ("/", {"X": "a\x00b"}, 400),
        ("/", {"host": "again"}, 400),
        ("/", {"Origin": "https://evil.example"}, 403),
        ("/", {"Origin": "null"}, 403),
        ("http://absolute/", {}, 400),
        ("/ HTTP/1.1 x", {}, 400),
        ("/", {"X": "x" * 9000}, 431),
        ("/", {f"X{n}": "x" for n in range(70)}, 431),
        ("/?" + "&".join("a=b" for _ in range(100)), {}, 400),
    ],
)
async def test_a_request_that_is_not_to_be_answered_with_a_socket(serve, path, headers, status):
    served = await serve()
    peer = await served.raw()
    assert (await peer.request(path, **headers))[0] == status
    await peer.ended()
    assert served.endpoint.handshakes == []
    assert served.listener.counters[f"refused_{status}"] == 1
    await until(lambda: served.listener.handshakes == 0)


async def test_origins_of_the_host_and_of_the_list_may_connect(serve):
    served = await serve(origins=("https://lms.example",))
    await served.peer(Origin="https://lms.example")
    await served.peer(Host="exam.example:8443", Origin="https://exam.example:8443")
    anybody = await serve(origins=("*",))
    await anybody.peer(Origin="null")


async def test_a_refusal_carries_its_status_and_reason(serve):
    served = await serve()
    served.endpoint.answer = Refused(401, "token expired")
    peer = await served.raw()
    status, headers = await peer.request()
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert peer.body == b"token expired\n"
    served.endpoint.answer = Refused(503, retry_after=7)
    peer = await served.raw()
    status, headers = await peer.request()
    assert (status, headers["retry-after"]) == (503, "7")


async def test_the_text_of_an_exception_stays_here(serve, caplog):
    class Broken(Recorder):
        def admit(self, handshake):
            raise RuntimeError("secret password hunter2")

        def health(self, path):
            raise RuntimeError("secret password hunter2")

    served = await serve(Broken())
    for path, headers in (("/", {}), ("/healthz", {"Upgrade": None, "Connection": None})):
        peer = await served.raw()
        assert (await peer.request(path, **headers))[0] == 500
        assert peer.body == b"Internal Server Error\n"
    assert served.listener.counters["errors"] == 2
    assert "hunter2" in caplog.text


async def test_errors_do_not_flood_the_log(serve, caplog):
    class Broken(Recorder):
        def admit(self, handshake):
            raise RuntimeError("again")

    served = await serve(Broken())
    for _ in range(25):
        peer = await served.raw()
        assert (await peer.request())[0] == 500
    assert served.listener.counters["errors"] == 25
    assert 10 <= len([record for record in caplog.records if record.levelno == logging.ERROR]) <= 20


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: h\r\n"])
async def test_a_request_has_its_time(serve, said):
    served = await serve(handshake_seconds=0.1)
    peer = await served.raw()
    peer.send(said)
    assert (await peer.response())[0] == 408
    await peer.ended()
    await until(lambda: served.listener.handshakes == 0)


async def test_dripping_headers_do_not_buy_time(serve):
    served = await serve(handshake_seconds=0.2)
    peer = await served.raw()
    answer = asyncio.ensure_future(peer.response())
    while not answer.done():
        peer.send(b"X")
        await asyncio.sleep(0.01)
    assert (await answer)[0] == 408


async def test_an_endless_header_is_cut_off_with_bounded_memory(serve):
    served = await serve()
    peer = await served.raw()
    peer.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000)
    assert (await peer.response())[0] == 431
    await peer.ended()


async def test_handshakes_and_connections_are_limited(serve):
    served = await serve(max_handshakes=2, max_connections=1)
    first, second = await served.raw(), await served.raw()
    await until(lambda: served.listener.handshakes == 2)
    third = await served.raw()
    status, headers = await third.response()
    assert (status, headers["retry-after"]) == (503, "1")
    await third.ended()
    assert (await first.request())[0] == 101
    assert (await second.request())[0] == 503


async def test_health_pages_and_others_on_the_same_port(serve):
    served = await serve()
    plain = {"Upgrade": None, "Connection": None, "Sec_WebSocket_Key": None, "Sec_WebSocket_Version": None}
    for path, status, body in (
        ("/healthz", 200, b"ok\n"),
        ("/readyz?verbose", 200, b"ok\n"),
        ("/", 426, b"this is a WebSocket\n"),
        ("/ws", 426, b"this is a WebSocket\n"),
        ("/admin", 404, b"Not Found\n"),
    ):
        peer = await served.raw()
        assert ((await peer.request(path, **plain))[0], peer.body) == (status, body)
        await peer.ended()
    served.endpoint.health_answer = (503, b"draining\n")
    peer = await served.raw()
    assert (await peer.request("/readyz", **plain))[0] == 503
    peer = await served.raw()
    assert (await peer.request("/healthz", method="POST", **plain))[0] == 405


async def test_closing_the_listener_closes_everything(serve):
    served = await serve()
    peer, waiting = await served.peer(), await served.raw()
    await until(lambda: served.listener.handshakes == 1)
    served.listener.stop_accepting()
    served.listener.stop_accepting()
    with pytest.raises(OSError):
        await served.raw()
    peer.text(b"still here")
    assert await peer.next() == (TEXT, b"still here")
    await served.listener.close(4200, "drain")
    assert await peer.next() == (CLOSE, (4200).to_bytes(2, "big") + b"drain")
    await waiting.ended()
    assert served.endpoint.closes == [(4200, "drain", True)]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_request_error(data):
    for head in (data, b"GET / HTTP/1.1\r\n" + data, b"GET " + data + b" HTTP/1.1\r\nHost: x"):
        try:
            request = read_request(head, 64)
            read_handshake(request, "", False)
        except RequestError:
            pass
