"""Consumers that do not read, peers that fall silent, floods, and loops that stand still."""

import asyncio
import sys
import time
from pathlib import Path

import pytest
from transport_peers import CLOSE, PING, PONG, TEXT, UPGRADE, Recorder, frame, until


async def test_a_slow_reader_is_told_closed_with_4108_and_costs_bounded_memory(serve):
    served = await serve(close_seconds=5.0)
    peer = await served.peer(receive_buffer=4096)
    connection = served.endpoint.connections[0]
    sent = most = 0
    while connection.is_open:
        connection.send(b"x" * 4000)
        sent += 1
        most = max(most, connection.buffered_bytes)
        assert sent < 1000
    assert connection.is_slow
    assert most < 256 * 1024 + 8192
    for _ in range(1000):
        connection.send(b"x" * 4000)
    assert connection.buffered_bytes < 256 * 1024 + 8192
    assert served.endpoint.writables == 0
    for _ in range(sent):  # a reader that comes back gets everything, and the reason
        assert await peer.next() == (TEXT, b"x" * 4000)
    assert await peer.closed() == (4108, "slow")
    await until(lambda: served.endpoint.closes == [(4108, "slow", True)])
    assert served.listener.counters["slow"] == 1
    assert served.listener.counters["closed_4108"] == 1


async def test_a_reader_that_never_comes_back_is_cut_off(serve):
    served = await serve(close_seconds=0.1)
    await served.peer(receive_buffer=4096)
    connection = served.endpoint.connections[0]
    while connection.is_open:
        connection.send(b"x" * 4000)
    await until(lambda: served.endpoint.closes == [(4108, "slow", True)])
    assert not served.listener.connections


async def test_a_connection_that_stays_slow_is_closed(serve):
    served = await serve(slow_seconds=0.2, close_seconds=0.1)
    await served.peer(receive_buffer=4096)
    connection = served.endpoint.connections[0]
    while not connection.is_slow:
        connection.send(b"x" * 4000)
        await asyncio.sleep(0)
    assert connection.is_open
    await until(lambda: served.endpoint.closes == [(4108, "slow", True)])


async def test_a_slow_connection_that_drains_stays(serve):
    served = await serve(slow_seconds=3.0)
    peer = await served.peer(receive_buffer=4096)
    connection = served.endpoint.connections[0]
    sent = 0
    while not connection.is_slow:
        connection.send(b"x" * 4000)
        sent += 1
        await asyncio.sleep(0)
    for _ in range(sent):
        await peer.next()
    await until(lambda: served.endpoint.writables == 1)
    assert not connection.is_slow
    connection.send(b"again")
    assert await peer.next() == (TEXT, b"again")


async def test_pings_nobody_reads_the_answers_of_are_slow_too(serve):
    served = await serve(close_seconds=0.1)
    peer = await served.peer(receive_buffer=4096)
    peer.writer.transport.pause_reading()
    ping = frame(PING, b"x" * 125) * 100
    while not served.endpoint.closes:
        if peer.writer.transport.get_write_buffer_size() < 1_000_000:
            peer.send(ping)
        await asyncio.sleep(0)
    assert served.endpoint.closes == [(4108, "slow", True)]


FLOOD = """
import socket, sys
frames = (b"\\x81\\xa8\\0\\0\\0\\0" + b"x" * 40) * 40_000
peers = []
for _ in range(6):
    peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    peer.sendall(sys.argv[2].encode())
    peer.recv(1000)
    peer.sendall(frames + b"\\x89\\x80abcd")  # a ping at the end: wait until everything before it was read
    assert peer.recv(2) == b"\\x8a\\0", "still open"
    peers.append(peer)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("transport", ["picows"])  # the other one keeps no read buffer
async def test_a_flood_of_frames_does_not_grow_the_process(serve):
    # Without a bound on what one read can return, the read buffer of each such connection grew by up to 1.3 MB, for good.
    served = await serve()
    served.endpoint.received = lambda connection, payload: None
    lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in UPGRADE.items()), "", ""]
    before = _resident_kb()
    pipe = asyncio.subprocess.PIPE
    flooder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FLOOD, str(served.port), "\r\n".join(lines), stdin=pipe, stdout=pipe
    )
    assert await flooder.stdout.readline() == b"done\n"
    grown = _resident_kb() - before
    flooder.stdin.close()
    await flooder.communicate()
    assert grown < 2 * 1024


async def test_a_silent_peer_is_pinged_and_lives_if_it_answers(serve):
    served = await serve(ping_seconds=0.1)
    peer = await served.peer()
    for _ in range(4):
        assert await peer.next() == (PING, b"")
        peer.frame(PONG)
    assert served.endpoint.connections[0].is_open


async def test_a_talking_peer_is_not_pinged(serve):
    served = await serve(ping_seconds=0.1)
    peer = await served.peer()
    for _ in range(15):
        peer.text(b"status")
        assert await peer.next() == (TEXT, b"status")
        await asyncio.sleep(0.02)


async def test_a_peer_without_a_sign_of_life_is_dead(serve):
    served = await serve(ping_seconds=0.1)
    peer = await served.peer()
    await until(lambda: served.endpoint.closes)
    assert [(code, by_us) for code, _, by_us in served.endpoint.closes] == [(1001, True)]
    assert served.listener.counters["dead"] == 1
    assert (await peer.next())[0] == PING


async def test_nobody_is_dead_because_we_stood_still(serve):
    class Stalling(Recorder):
        def received(self, connection, payload):
            if payload == b"stall":
                for peer in peers:
                    peer.frame(PONG)
                time.sleep(0.5)  # the answers wait in the sockets, and timers run before they are read
            super().received(connection, payload)

    served = await serve(Stalling(), ping_seconds=0.2)
    peers = [await served.peer() for _ in range(4)]  # one in each slot of the wheel
    other = await served.peer()
    for peer in peers:
        assert await peer.next() == (PING, b"")
    other.text(b"stall")
    while await other.next() != (TEXT, b"stall"):
        pass
    for peer in peers:
        peer.text(b"alive")
        while (message := await peer.next()) != (TEXT, b"alive"):
            assert message[0] != CLOSE
    assert served.listener.counters["dead"] == 0


def _resident_kb():
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1]
    return int(fields.split()[0])
