"""The errors of the core, and the close codes of a connection.

ProctorwireError
+-- RemoteError            the peer's fault: answered with an `error` frame and counted, never a traceback
|   +-- Malformed          the frame can't be read, or a field of it is wrong
|   +-- Forbidden          the frame is fine, but this peer may not say it
|   +-- TokenRejected      the token is missing, malformed, expired (401) or not for this (403)
+-- LocalError             our bug: loud, never answered to a peer
"""

from __future__ import annotations


class ProctorwireError(Exception):
    """Base of every error that this package raises on purpose."""


class RemoteError(ProctorwireError):
    """The peer's fault. `code` is for programs, `message` names the field and the fix, for people.

    `action` and `reference` (one of `seq`, `command_id`, `message_id` and its value) say what the error answers.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        action: str | None = None,
        reference: dict[str, int | str] | None = None,
        final: bool = False,
    ) -> None:
        self.code = code
        self.message = message
        self.action = action
        self.reference = reference or {}
        self.final = final
        super().__init__(code, message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Malformed(RemoteError):
    """The frame can't be read, or one of its fields has the wrong type or value."""


class Forbidden(RemoteError):
    """The frame is well-formed, but the token does not allow it."""

    def __init__(self, message: str, *, action: str | None = None, reference: dict[str, int | str] | None = None):
        super().__init__("forbidden", message, action=action, reference=reference)


class TokenRejected(RemoteError):
    """The token does not admit its bearer; `status` is the HTTP status of a refused handshake (401 or 403)."""

    def __init__(self, message: str, *, status: int = 401):
        self.status = status
        super().__init__("token_invalid", message, final=True)


class LocalError(ProctorwireError):
    """A bug of ours: a state that the code promises can't happen."""


class CloseCode:
    """Close codes by class, so that a client knows from the number alone whether to come back.

    4000-4099: final. 4100-4199: back off, then reconnect. 4200-4299: reconnect now, with jitter.
    """

    LEAVE = 4000
    TOKEN = 4001
    FORBIDDEN = 4003
    REPLACED = 4009
    OVERLOAD = 4100
    RATE = 4101
    SLOW = 4108
    DRAIN = 4200
    RESYNC = 4201
    MOVED = 4202
    # from RFC 6455 section 7.4.1
    UNSUPPORTED_DATA = 1003
    TOO_BIG = 1009
