"""`@connections` over HTTP: how functions post to, look at and close connections.

Answers as the API reference of the API Gateway Management API says (PostToConnection, GetConnection,
DeleteConnection). Where it is silent: an empty or non-UTF-8 message is a BadRequestException, and a deleted connection
is closed with code 1000.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import unquote

import msgspec

from adapters.lambda_apigw.local import sigv4
from adapters.lambda_apigw.local.gateway import Connection, Gateway
from adapters.lambda_apigw.local.http_server import Request, Response
from adapters.lambda_apigw.local.settings import GatewaySettings
from adapters.lambda_apigw.local.throttle import TokenBucket


class Management:
    """Answers requests for the connections of one gateway."""

    def __init__(self, settings: GatewaySettings, gateway: Gateway, account: TokenBucket) -> None:
        self._settings = settings
        self._gateway = gateway
        self._account = account

    def handle(self, request: Request) -> Response:
        """Answer one request and count it by status."""
        response = self._answer(request)
        counters = self._gateway.counters
        counted = counters.posts if request.method == "POST" else counters.other_management_calls
        counted[str(response.status)] += 1
        return response

    def _answer(self, request: Request) -> Response:
        credentials = self._settings.credentials
        try:
            sigv4.verify(
                request.method,
                request.target,
                request.headers,
                request.body,
                access_key_id=credentials.access_key_id,
                secret=credentials.secret_access_key,
                session_token=credentials.session_token,
                region=self._settings.region,
                service="execute-api",
                now=time.time(),
            )
        except sigv4.SignatureRefused as refused:
            return self._error(403, refused.code, refused.message)
        connection_id = self._connection_id(request.target)
        if connection_id is None:
            return self._error(403, "ForbiddenException", "Forbidden")
        if not self._account.take():
            return self._error(429, "LimitExceededException", "Too Many Requests")
        connection = self._gateway.connections.get(connection_id)
        if request.method == "POST":
            return self._post(connection, request.body)
        if request.method not in ("GET", "DELETE"):
            return self._error(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        if connection is None or not connection.is_open:
            return self._gone()
        return self._get(connection) if request.method == "GET" else self._delete(connection)

    def _connection_id(self, target: str) -> str | None:
        segments = [unquote(segment) for segment in target.partition("?")[0].strip("/").split("/")]
        if segments[0] == self._settings.stage:
            segments = segments[1:]
        return segments[1] if len(segments) == 2 and segments[0] == "@connections" else None

    def _post(self, connection: Connection | None, data: bytes) -> Response:
        limits = self._settings.limits
        if len(data) > limits.message_bytes:
            return self._error(413, "PayloadTooLargeException", "Message too long")
        if connection is None or not connection.is_open:
            return self._gone()
        if not _is_text(data):
            return self._error(400, "BadRequestException", "The message must be text and not empty")
        if self._gateway.refuses_post():
            return self._error(429, "LimitExceededException", "Too Many Requests")
        if connection.unsent_bytes + len(data) > limits.client_buffer_bytes:
            return self._error(429, "LimitExceededException", "The WebSocket client side buffer is full")
        self._gateway.send(connection, data)
        return Response(200, request_id=self._gateway.next_id())

    def _get(self, connection: Connection) -> Response:
        identity = {"sourceIp": connection.upgrade.source_ip, "userAgent": connection.upgrade.user_agent}
        body = {
            "connectedAt": _iso(connection.connected_at),
            "identity": identity,
            "lastActiveAt": _iso(connection.last_active_at),
        }
        return Response(200, msgspec.json.encode(body), request_id=self._gateway.next_id())

    def _delete(self, connection: Connection) -> Response:
        connection.close(1000, "Connection Closed Normally")
        return Response(204, request_id=self._gateway.next_id())

    def _gone(self) -> Response:
        # As on AWS without a message: the exception has no members.
        return Response(410, b"{}", "GoneException", self._gateway.next_id())

    def _error(self, status: int, code: str, message: str) -> Response:
        return Response(status, msgspec.json.encode({"message": message}), code, self._gateway.next_id())


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def _iso(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
