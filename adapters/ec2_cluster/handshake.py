"""The HTTP request that opens a WebSocket, and the plain pages on the same port.

We parse it ourselves because it arrives before anybody is known: bytes, headers and time are limited here, `Connection` is read
as the list of tokens it is (Firefox sends `keep-alive, Upgrade`), and an answer never carries the text of an exception.
Who may connect is the endpoint's decision (`admit`), frames are the transport's business, and reading from the socket is the
listener's: this module turns bytes into values and values into bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

_BEARER = "bearer."
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"/[\x21-\x7e]*")
# Two of one of these would let us and whoever stands before us read different requests.
_ONCE = frozenset(("host", "origin", "upgrade", "content-length", "sec-websocket-key", "sec-websocket-version"))


@dataclass(frozen=True, slots=True)
class Handshake:
    """A well-formed request to open a WebSocket. Header names are lower case; repeated headers are joined by commas."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    subprotocols: tuple[str, ...]
    origin: str | None
    peer: str
    """The address of the other end of the socket, without its port."""
    secure: bool
    """Whether TLS ended in this process."""
    key: str = field(repr=False)
    """`Sec-WebSocket-Key`, checked to be 16 bytes."""

    @property
    def bearer(self) -> str | None:
        """The token given as subprotocol `bearer.<token>`, else as `?token=`; never to be logged."""
        for name in self.subprotocols:
            if name.startswith(_BEARER):
                return name[len(_BEARER) :]
        return self.query.get("token")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The endpoint's yes: who it is (opaque here) and the subprotocol to answer, one of those offered or None."""

    principal: object
    subprotocol: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The endpoint's no, as an HTTP status and a short public reason; `retry_after` seconds for a 503."""

    status: int
    reason: str = ""
    retry_after: int | None = None


class RequestError(Exception):
    """The peer's request is at fault: answer `status` and hang up."""

    def __init__(self, status: int, reason: str = "", headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Request:
    """A well-formed HTTP request without a body."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def wants_websocket(self) -> bool:
        """Whether it asks for an upgrade to WebSocket, well-formed or not."""
        return "websocket" in _tokens(self.headers.get("upgrade", "")) and "upgrade" in _tokens(
            self.headers.get("connection", "")
        )


def read_request(head: bytes, max_headers: int) -> Request:
    """Parse everything before the empty line. RequestError for whatever a strict reader of RFC 9112 would not accept."""
    request_line, *lines = head.decode("latin-1").split("\r\n")
    match request_line.split(" "):
        case [method, target, "HTTP/1.1" | "HTTP/1.0" as version]:
            pass
        case [_, _, version] if version.startswith("HTTP/"):
            raise RequestError(505)
        case _:
            raise RequestError(400, "malformed request line")
    if method not in ("GET", "HEAD"):
        raise RequestError(405, headers=(("Allow", "GET, HEAD"),))
    if not _TARGET.fullmatch(target):
        raise RequestError(400, "malformed target")
    if len(lines) > max_headers:
        raise RequestError(431)
    headers = _read_headers(lines)
    if version == "HTTP/1.1" and "host" not in headers:
        raise RequestError(400, "no host")
    if headers.get("content-length", "0").strip("0") or "transfer-encoding" in headers:
        raise RequestError(400, "no body expected")
    path, _, query = target.partition("?")
    try:
        fields = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=max_headers))
    except ValueError:
        raise RequestError(400, "malformed query") from None
    return Request(method, path, fields, headers)


def _read_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RequestError(400, "malformed header")
        name = name.lower()
        value = value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise RequestError(400, "repeated header")
        else:
            headers[name] += ", " + value
    return headers


def read_handshake(request: Request, peer: str, secure: bool) -> Handshake:
    """Check what RFC 6455 section 4.2.1 demands of an upgrade."""
    headers = request.headers
    if request.method != "GET" or "host" not in headers:
        raise RequestError(400, "malformed upgrade")
    if headers.get("sec-websocket-version") != "13":
        raise RequestError(426, "unsupported version", (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")))
    key = headers.get("sec-websocket-key", "")
    try:
        key_is_valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        key_is_valid = False
    if not key_is_valid:
        raise RequestError(400, "malformed key")
    offered = headers.get("sec-websocket-protocol", "")
    subprotocols = tuple(name.strip(" \t") for name in offered.split(",")) if offered else ()
    if not all(_TOKEN.fullmatch(name) for name in subprotocols):
        raise RequestError(400, "malformed subprotocol")
    return Handshake(
        path=request.path,
        query=request.query,
        headers=headers,
        subprotocols=subprotocols,
        origin=headers.get("origin"),
        peer=peer,
        secure=secure,
        key=key,
    )


def origin_is_allowed(handshake: Handshake, allowed: tuple[str, ...]) -> bool:
    """Whether a page of this origin may connect: no browser, the host's own pages, or listed."""
    origin = handshake.origin
    if origin is None or "*" in allowed or origin in allowed:
        return True
    try:
        return urlsplit(origin).netloc.lower() == handshake.headers["host"].lower()
    except ValueError:
        return False  # it looks like an IPv6 address, and is none


def response(
    status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = (), *, head_only: bool = False
) -> bytes:
    """A whole HTTP answer that ends the connection."""
    lines = [
        f"HTTP/1.1 {status} {_phrase(status)}",
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (b"" if head_only else body)


def refusal(status: int, reason: str = "", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """An error answer; its body is the given reason or the standard phrase, never an exception's text."""
    if status == 401:
        headers = (*headers, ("WWW-Authenticate", "Bearer"))  # RFC 9110 section 11.6.1 wants it
    return response(status, (reason or _phrase(status)).encode() + b"\n", headers)


def switching_protocols(handshake: Handshake, subprotocol: str | None) -> bytes:
    """The answer that opens the WebSocket."""
    digest = hashlib.sha1(handshake.key.encode() + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    accept = base64.b64encode(digest).decode()
    answer = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    if subprotocol is not None:
        answer += f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
    return answer.encode("latin-1") + b"\r\n"


def canonical_request(handshake: Handshake) -> bytes:
    """The least request that opens a WebSocket with this key, for a transport that insists on reading one."""
    return (
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + handshake.key.encode() + b"\r\n\r\n"
    )


def _tokens(value: str) -> list[str]:
    return [token.strip(" \t").lower() for token in value.split(",")]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
