"""The HTTP request that opens a WebSocket, and the two health pages on the same port.

We parse it ourselves because it arrives before anybody is known: bytes, headers and time are limited here, `Connection` is read
as the list of tokens it is (Firefox sends `keep-alive, Upgrade`), and an error body never carries the text of an exception.
Who may connect is the endpoint's decision (`admit`); frames are the transport's business.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl

_BEARER = "bearer."
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_ONCE = frozenset(
    ("host", "origin", "upgrade", "content-length", "sec-websocket-key", "sec-websocket-version"),
)


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
