"""The sockets, which API Gateway holds: sending to them and hanging up over its management API.

Close codes can't be sent this way. So before a connection is deleted its page gets the reason as a frame: `error` with `final`, or
`reconnect` where it should come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

from adapters.lambda_apigw.aws_http import Client
from core import messages
from core.errors import CloseCode

_AT_ONCE = 16
"""Posts under way at a time when many proctors are told; each has a connection, which is kept."""

_BUSY_ATTEMPTS = 4
_BUSY_PAUSE_SECONDS = 0.025
_ERROR_CODES = {
    CloseCode.LEAVE: "leave",
    CloseCode.TOKEN: "token_invalid",
    CloseCode.FORBIDDEN: "forbidden",
    CloseCode.REPLACED: "replaced",
    CloseCode.OVERLOAD: "overload",
    CloseCode.RATE: "rate",
    CloseCode.SLOW: "slow",
    CloseCode.TOO_BIG: "too_big",
    CloseCode.UNSUPPORTED_DATA: "not_text",
}


class ApiGatewayConnections:
    """`Connections` over the management API. A frame that can't be sent now is a lost hint: told to `dropped`, not raised."""

    def __init__(self, client: Client, dropped: Callable[[str, int], None]) -> None:
        """`dropped` is called with the connection and the HTTP status, 0 if there was no answer."""
        self._client = client
        self._dropped = dropped
        self._clients: list[Client] = []

    def send(self, connection: str, payload: bytes) -> bool:
        """Post a frame; False if the connection is gone (410)."""
        status = self._request("POST", connection, payload)
        if status not in (200, 410):
            self._dropped(connection, status)
        return status != 410

    def send_all(self, frames: Sequence[tuple[str, Sequence[bytes]]]) -> list[str]:
        """Post to many connections, several at a time, to each its frames in their order; those that are gone (410).

        The time of the invocation is the deadline: what could not be posted until then is dropped, and found in the next snapshot.
        """
        while len(self._clients) < min(_AT_ONCE, len(frames)):
            self._clients.append(self._client.twin())
        gone: list[str] = []
        for start in range(0, len(frames), _AT_ONCE):
            self._send_together(frames[start : start + _AT_ONCE], gone)
        return gone

    def _send_together(self, frames: Sequence[tuple[str, Sequence[bytes]]], gone: list[str]) -> None:
        """The first frame of each, then the second of each that has one. Whatever goes wrong is done again by itself."""
        lanes = [(client, *frame) for client, frame in zip(self._clients, frames, strict=False)]
        for number in range(max(len(payloads) for _, payloads in frames)):
            lanes = [lane for lane in lanes if number < len(lane[2])]
            begun = [_begun(client, connection, payloads[number]) for client, connection, payloads in lanes]
            ended = [_ended(client) if was_sent else 0 for (client, _, _), was_sent in zip(lanes, begun, strict=True)]
            for lane, status in zip(list(lanes), ended, strict=True):
                _, connection, payloads = lane
                if status != 200 and (status == 410 or not self.send(connection, payloads[number])):
                    gone.append(connection)
                    lanes.remove(lane)

    def close(self, connection: str, code: int, reason: str) -> None:
        """Say why, then delete the connection."""
        if self.send(connection, messages.encode(_last_frame(code, reason))):
            self._request("DELETE", connection, b"")

    def _request(self, method: str, connection: str, payload: bytes) -> int:
        """The status of a request. After a 429 (the account or the client's buffer is busy) a moment may help."""
        session, path = self._client.session, _path(connection)
        for attempt in range(_BUSY_ATTEMPTS):
            try:
                status = self._client.request(method, path, payload, "post_to_connection").status
            except OSError:
                return 0
            pause = _BUSY_PAUSE_SECONDS * 2**attempt
            if status not in (429, 500, 503) or attempt + 1 == _BUSY_ATTEMPTS or pause > session.remaining():
                break
            session.sleep(pause)
        return status


def _path(connection: str) -> str:
    return f"/@connections/{quote(connection, safe='')}"


def _begun(client: Client, connection: str, payload: bytes) -> bool:
    try:
        client.begin("POST", _path(connection), payload, "post_to_connection")
    except OSError:
        return False
    return True


def _ended(client: Client) -> int:
    """The status of the post under way, 0 if there was no answer."""
    try:
        return client.end()
    except OSError:
        return 0


def _last_frame(code: int, reason: str) -> messages.ServerFrame:
    if code in (CloseCode.DRAIN, CloseCode.RESYNC, CloseCode.MOVED):
        return messages.Reconnect(messages.ReconnectData(after_ms=1_000, reason=reason))
    return messages.Error(messages.ErrorData(_ERROR_CODES.get(code, str(code)), reason, final=True))
