import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transport_peers import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Recorder, frame, until

from adapters.ec2_cluster.connection import Connection, ConnectionSettings
from adapters.ec2_cluster.listener import Listener


async def test_messages_of_every_size_up_to_the_limit_arrive(serve):
    served = await serve()
    peer = await served.peer()
    for size in (0, 1, 125, 126, 4096, 8192):
        peer.text(b"x" * size)
        assert await peer.next() == (TEXT, b"x" * size)
    assert served.endpoint.too_bigs == 0


async def test_a_big_message_is_reported_and_the_socket_stays(serve):
    served = await serve()
    peer = await served.peer()
    for size in (8193, 32 * 1024):
        peer.text(b"x" * size)
    peer.text(b"after")
    assert await peer.next() == (TEXT, b"after")
    assert served.endpoint.too_bigs == served.listener.counters["too_big"] == 2
    assert served.endpoint.messages == [b"after"]


@pytest.mark.parametrize("sizes", [[32 * 1024 + 1], [20_000, 20_000], [70_000]])
async def test_a_huge_message_closes_with_1009(serve, sizes):
    served = await serve()
    peer = await served.peer()
    for at, size in enumerate(sizes):
        peer.frame(TEXT if at == 0 else CONTINUATION, b"x" * size, fin=at == len(sizes) - 1)
    assert (await peer.closed())[0] == 1009
    await until(lambda: [(code, by_us) for code, _, by_us in served.endpoint.closes] == [(1009, True)])


async def test_an_impossible_length_does_not_crash_the_process(serve):
    served = await serve()
    peer = await served.peer()
    peer.send(b"\x81\xff" + b"\xff" * 8 + b"\0" * 4)
    assert (await peer.closed())[0] in (1002, 1009)
    another = await served.peer()
    another.text(b"alive")
    assert await another.next() == (TEXT, b"alive")


async def test_a_length_of_gigabytes_is_refused_before_it_is_buffered(serve):
    served = await serve()
    peer = await served.peer()
    peer.send(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"\0" * 4)
    assert (await peer.closed())[0] == 1009


async def test_binary_closes_with_1003(serve):
    served = await serve()
    peer = await served.peer()
    peer.frame(BINARY, b"x")
    assert await peer.closed() == (1003, "text only")


async def test_fragments_make_one_message_with_pings_in_between(serve):
    served = await serve()
    peer = await served.peer()
    euro = "€".encode()
    peer.frame(TEXT, euro[:1], fin=False)
    peer.frame(PING, b"now")
    peer.frame(CONTINUATION, euro[1:2], fin=False)
    peer.frame(CONTINUATION, euro[2:])
    assert await peer.next() == (PONG, b"now")
    assert await peer.next() == (TEXT, euro)


async def test_fragments_are_counted_empty_ones_too(serve):
    served = await serve()
    peer = await served.peer()
    peer.frame(TEXT, b"", fin=False)
    for _ in range(14):
        peer.frame(CONTINUATION, b"", fin=False)
    peer.frame(CONTINUATION, b"sixteenth")
    assert await peer.next() == (TEXT, b"sixteenth")
    peer.frame(TEXT, b"", fin=False)
    for _ in range(16):
        peer.frame(CONTINUATION, b"", fin=False)
    assert (await peer.closed())[0] == 1008


@pytest.mark.parametrize(
    "frames",
    [
        [(CONTINUATION, b"x", True)],
        [(CONTINUATION, b"x", False)],
        [(TEXT, b"x", False), (TEXT, b"y", True)],
        [(PING, b"x" * 126, True)],
        [(PING, b"x", False)],
        [(3, b"x", True)],
        [(11, b"x", True)],
    ],
)
async def test_broken_order_and_broken_control_frames_close_with_1002(serve, frames):
    served = await serve()
    peer = await served.peer()
    for opcode, payload, fin in frames:
        peer.frame(opcode, payload, fin=fin)
    assert (await peer.closed())[0] == 1002
    assert served.endpoint.messages == []


@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
@pytest.mark.parametrize("rsv", [1, 2, 4])
async def test_reserved_bits_close_with_1002(serve, opcode, rsv):
    served = await serve()
    peer = await served.peer()
    peer.frame(opcode, b"", rsv=rsv)
    assert (await peer.closed())[0] == 1002


async def test_an_unmasked_frame_closes_with_1002(serve):
    served = await serve()
    peer = await served.peer()
    peer.send(b"\x81\x01x")
    assert (await peer.closed())[0] == 1002


@pytest.mark.parametrize(
    "frames", [[b"\xff"], [b"\xc3"], [b"\xed\xa0\x80"], [b"ok \xe2\x82", b"( no"], [b"\xf4\x90", b""]]
)
async def test_bad_utf8_closes_with_1007(serve, frames):
    served = await serve()
    peer = await served.peer()
    for at, payload in enumerate(frames):
        peer.frame(TEXT if at == 0 else CONTINUATION, payload, fin=at == len(frames) - 1)
    assert (await peer.closed())[0] == 1007
    assert served.endpoint.messages == []


async def test_bad_utf8_is_found_before_the_message_is_complete(serve):
    served = await serve()
    peer = await served.peer()
    peer.frame(TEXT, b"\xff", fin=False)
    assert (await peer.closed())[0] == 1007


@pytest.mark.parametrize(
    ("payload", "echoed", "told"),
    [
        (b"", (1000, 1005), (1005, "")),
        (b"\x03\xe8", (1000,), (1000, "")),
        ((4000).to_bytes(2, "big") + "léave".encode(), (4000,), (4000, "léave")),
        ((3999).to_bytes(2, "big"), (3999,), (3999, "")),
    ],
)
async def test_a_close_is_echoed_and_told(serve, payload, echoed, told):
    served = await serve()
    peer = await served.peer()
    peer.frame(CLOSE, payload)
    opcode, answer = await peer.next()
    assert opcode == CLOSE
    assert (int.from_bytes(answer[:2], "big") if answer else 1005) in echoed
    await peer.ended()
    await until(lambda: served.endpoint.closes == [(*told, False)])
    counted = "other" if told[0] == 3999 else told[0]  # what peers make up is one figure, not 2,000
    assert served.listener.counters[f"closed_{counted}"] == 1


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, 65535])
async def test_a_close_code_nobody_may_send_is_1002(serve, code):
    served = await serve()
    peer = await served.peer()
    peer.frame(CLOSE, code.to_bytes(2, "big"))
    assert (await peer.closed())[0] == 1002


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff", 1007)])
async def test_a_malformed_close_is_answered(serve, payload, code):
    served = await serve()
    peer = await served.peer()
    peer.frame(CLOSE, payload)
    assert (await peer.closed())[0] == code


async def test_nothing_is_received_after_our_close(serve):
    class Once(Recorder):
        def received(self, connection, payload):
            super().received(connection, payload)
            connection.close(4009, "replaced")
            connection.close(1000, "the first call counts")
            connection.send(b"nothing goes out after it")

    served = await serve(Once())
    peer = await served.peer()
    peer.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
    assert await peer.next() == (TEXT, b"one")
    assert await peer.closed() == (4009, "replaced")
    await until(lambda: served.endpoint.closes == [(4009, "replaced", True)])
    assert served.endpoint.messages == [b"one"]


async def test_a_long_reason_is_cut_between_characters(serve):
    served = await serve()
    peer = await served.peer()
    served.endpoint.connections[0].close(4001, "é" * 100)
    assert await peer.closed() == (4001, "é" * 61)


async def test_a_peer_that_does_not_answer_our_close_is_cut_off(serve):
    served = await serve(close_seconds=0.1)
    peer = await served.peer()
    served.endpoint.connections[0].close(4200, "drain")
    assert await peer.next() == (CLOSE, (4200).to_bytes(2, "big") + b"drain")
    await peer.ended()
    await until(lambda: served.endpoint.closes == [(4200, "drain", True)])


async def test_a_socket_that_breaks_is_1006(serve):
    served = await serve()
    peer = await served.peer()
    peer.drop()
    await until(lambda: served.endpoint.closes == [(1006, "", False)])
    assert not served.endpoint.connections[0].is_open
    served.endpoint.connections[0].send(b"to nobody")
    served.endpoint.connections[0].close(1000)


async def test_an_exception_closes_that_connection_only(serve, caplog):
    class Broken(Recorder):
        def received(self, connection, payload):
            if payload == b"bad":
                raise RuntimeError("secret password hunter2")
            super().received(connection, payload)

    served = await serve(Broken())
    bad, good = await served.peer(), await served.peer()
    bad.text(b"bad")
    assert await bad.closed() == (1011, "internal error")
    good.text(b"good")
    assert await good.next() == (TEXT, b"good")
    assert "hunter2" in caplog.text


async def test_sends_of_all_sizes_arrive_in_order_through_a_full_socket(serve):
    served = await serve(send_limit_bytes=8_000_000, slow_seconds=60)
    peer = await served.peer(receive_buffer=4096)
    connection = served.endpoint.connections[0]
    sizes = [20, 9_000, 30, 70_000, 3, 8_192, 8_193, 125, 126] * 12
    for size in sizes:
        connection.send(size.to_bytes(4, "big").hex().encode() * (size // 8 + 1))
    assert connection.is_slow
    for size in sizes:
        assert await peer.next() == (TEXT, size.to_bytes(4, "big").hex().encode() * (size // 8 + 1))
    await until(lambda: served.endpoint.writables >= 1 and not connection.is_slow)


# The message layer without sockets: whatever frames come, in whatever order, it delivers whole valid messages or closes.


class Wire:
    def __init__(self):
        self.sent, self.close = [], None

    def send_close(self, code, reason):
        assert self.close is None
        assert len(reason) <= 123
        self.close = code

    def send_pong(self, payload):
        self.sent.append(payload)

    def finish(self):
        pass

    abort = finish

    def buffered_bytes(self):
        return 0


frames_of_any_kind = st.tuples(
    st.sampled_from([TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG]),
    st.booleans(),
    st.sampled_from([False] * 9 + [True]),
    st.one_of(st.text(max_size=20).map(str.encode), st.binary(max_size=20)),
)


@pytest.mark.asyncio(loop_factories=["asyncio"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(frames_of_any_kind, max_size=30))
async def test_any_frames_are_messages_or_a_close(frames):
    endpoint, wire = Recorder(), Wire()
    endpoint.received = lambda connection, payload: endpoint.messages.append(payload)
    listener = Listener(endpoint, ConnectionSettings(max_fragments=4, message_limit_bytes=50), lambda *_: None)
    connection = Connection(listener, "id", "", None)
    connection._wire = wire
    parts, expected = None, []
    for opcode, fin, rsv, payload in frames:
        if not connection.is_open:
            break
        if opcode == TEXT and parts is None and not rsv:
            parts = [payload]
        elif opcode == CONTINUATION and parts is not None and not rsv:
            parts.append(payload)
        if opcode in (TEXT, CONTINUATION) and fin and parts is not None:
            expected.append(b"".join(parts))
            parts = None
        if opcode == TEXT and fin and not rsv and connection._parts is None:
            connection._message(payload)
        else:
            connection._frame(opcode, fin, rsv, payload)
    assert endpoint.messages == expected[: len(endpoint.messages)]
    for message in endpoint.messages:
        message.decode()
    assert wire.close in (None, 1000, 1002, 1003, 1007, 1008, 1009) or 1000 <= wire.close <= 4999
    if wire.close is None:
        assert endpoint.messages == expected
