"""Targets of the fuzzers: each takes any bytes, and may raise nothing but what its module promises."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

import hiredis
import msgspec

from adapters.ec2_cluster.handshake import RequestError, origin_is_allowed, read_handshake, read_request
from core import exam, journal, messages, participant
from core.errors import RemoteError, TokenRejected
from core.identity import Principal, public_keys, verify
from core.policy import MAX_MESSAGE_BYTES
from core.routing import Source, route

_STUDENT = Source("w/1", 1.0, Principal("student", "north", "s1", ("q",), 2e9, attempt_id="a"))
_PROCTOR = Source("w/2", 1.0, Principal("proctor", "north", "p1", ("q",), 2e9))


def decode_frame(data: bytes) -> None:
    """A client's frame, and what it means from a student and from a proctor."""
    try:
        frame = messages.decode(data)
    except RemoteError as error:
        messages.encode(messages.error_frame(error))
        return
    for source in (_STUDENT, _PROCTOR):
        try:
            route(frame, source, 1_000_000.0)
        except RemoteError as error:
            messages.encode(messages.error_frame(error))


def parse_handshake(data: bytes) -> None:
    """The head of an HTTP request."""
    with contextlib.suppress(RequestError):
        handshake = read_handshake(read_request(data, 64), "127.0.0.1", secure=False)
        origin_is_allowed(handshake, ("https://school.example",))
        assert handshake.bearer is None or isinstance(handshake.bearer, str)


def verify_token(data: bytes) -> None:
    """A token, and a JWKS."""
    with contextlib.suppress(TokenRejected):
        verify(data.decode("latin-1"), {"": "s" * 32}, 0.0)
    with contextlib.suppress(TokenRejected):
        public_keys(data)


def decode_records(data: bytes) -> None:
    """What a store has kept."""
    for decode in (participant.decode, exam.decode, journal.decode):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, ValueError):
            decode(data)


def frames_of_a_connection(data: bytes) -> None:
    """Frames in any order: the first byte of each pair says what it is, the second how long."""
    asyncio.run(_frames(data))


async def _frames(data: bytes) -> None:
    from adapters.ec2_cluster.connection import Connection, ConnectionSettings
    from adapters.ec2_cluster.listener import Listener

    seen: list[bytes] = []

    class Endpoint:
        def received(self, connection: Connection, payload: bytes) -> None:
            payload.decode()
            assert len(payload) <= MAX_MESSAGE_BYTES
            seen.append(payload)

        def too_big(self, connection: Connection) -> None: ...
        def opened(self, connection: Connection) -> None: ...
        def writable(self, connection: Connection) -> None: ...
        def closed(self, connection: Connection, code: int, reason: str, by_us: bool) -> None: ...

    class Wire:
        ended = False

        def send_text(self, payload: bytes) -> None: ...
        def send_ping(self) -> None: ...
        def send_pong(self, payload: bytes) -> None: ...
        def send_close(self, code: int, reason: bytes) -> None:
            assert len(reason) <= 123

        def buffered_bytes(self) -> int:
            return 0

        def finish(self) -> None: ...
        def abort(self) -> None: ...

    listener = Listener(Endpoint(), ConnectionSettings(), lambda *_: None)  # type: ignore[arg-type]
    connection = listener.new_connection("127.0.0.1", None)
    connection._wire = Wire()  # type: ignore[assignment]
    listener.opened(connection)
    position = 0
    while position + 1 < len(data):
        head, length = data[position], data[position + 1]
        payload = data[position + 2 : position + 2 + length] * (1 + 400 * (head >> 7))
        position += 2 + length
        opcode, fin, rsv = head & 0x0F, bool(head & 0x40), bool(head & 0x20) and head & 0x10
        if opcode == 1 and fin and not rsv and connection._parts is None:
            connection._message(payload)
        else:
            connection._frame(opcode, fin, bool(rsv), payload)
    assert listener.counters["errors"] == 0
    connection._gone()
    listener._wheel.stop()


def replies_of_redis(data: bytes) -> None:
    """Whatever a server that is no Redis may say: the connection is given up, and nothing else."""
    reader = hiredis.Reader(notEnoughData=False)
    with contextlib.suppress(hiredis.ProtocolError, hiredis.ReplyError):
        reader.feed(data)
        for _ in range(100):
            if reader.gets() is False:
                break


_REPORT = {
    "action": "lmsQuizMonitoringStudent",
    "data": {
        "quiz_id": "q",
        "quiz_attempt_id": "a",
        "student_id": "s1",
        "user_status": "active",
        "seq": 1,
        "time_end": "2030-01-01T10:00:00Z",
    },
}
_ORDER = {
    "action": "lmsQuizProctorCommand",
    "data": {"command_id": "c", "quiz_id": "q", "command": "warn", "text": "x", "student_ids": ["s1", 2]},
}
_FRAMES = [
    json.dumps(frame).encode()
    for frame in (
        _REPORT,
        _ORDER,
        {"action": "lmsQuizMonitoringHeartbeat", "data": {"seq": 1, "next_ms": 5000}},
        {"action": "lmsQuizStudentMessage", "data": {"message_id": "m", "kind": "chat", "text": "hi"}},
        {"action": "lmsQuizCommandReceipt", "data": {"command_id": "c", "outcome": "delivered"}},
        {"action": "lmsQuizMonitoringProctor", "data": {"quiz_id": "q", "groups": ["a"]}},
        {"action": "lmsQuizToken", "data": {"token": "a.b.c"}},
    )
]
_REQUEST = (
    b"GET /ws?token=a.b.c HTTP/1.1\r\nHost: exam.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://[::1]:8\r\n"
    b"Sec-WebSocket-Protocol: proctorwire, bearer.a.b.c"
)

TARGETS: dict[str, Callable[[bytes], None]] = {
    "frame": decode_frame,
    "handshake": parse_handshake,
    "token": verify_token,
    "records": decode_records,
    "connection": frames_of_a_connection,
    "redis": replies_of_redis,
}
SEEDS: dict[str, list[bytes]] = {
    "frame": _FRAMES,
    "handshake": [_REQUEST],
    "token": [
        b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
        b'{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"AAAA","y":"AAAA"}]}',
        b'{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAB"}]}',
    ],
    "records": [
        participant.encode(participant.new_participant(participant.ParticipantKey("n", "q", "s"), "ec2")),
        b"\x85\xa1S\xa1n\xa1Q\xa1q\xa1I\xa1s\xa1h\xa3ec2\xa2sc\x09",
        exam.encode(exam.new_exam(participant.ExamKey("n", "q"), "ec2", 1.0)),
    ],
    "connection": [
        b"\x41\x05hello",
        b"\x01\x02ab\x00\x02cd\x40\x01e",
        b"\x49\x00\x4a\x01x\x48\x02\x03\xe8",
        b"\xc1\x10" + b"x" * 16,
    ],
    "redis": [b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nx\r\n", b"-ERR no\r\n", b":12\r\n+OK\r\n"],
}
