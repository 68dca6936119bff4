"""The WebSocket front: what API Gateway does between a socket and the functions behind it.

Decides whether a connection may open (authorizer, `$connect`), which function a message goes to, and when a connection
ends. Leaves running functions to `environments`, and what they post to `management`. Everything AWS documents is
enforced; where it is silent: a throttled message is answered with a "Too Many Requests" frame, client pings are answered
but do not keep a connection from being idle, and messages in both directions do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine
from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Any

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from adapters.lambda_apigw.local.environments import FunctionPool, InvocationFailed
from adapters.lambda_apigw.local.events import ContextTemplate, Event, Ids, Upgrade
from adapters.lambda_apigw.local.settings import GatewaySettings
from adapters.lambda_apigw.local.throttle import TokenBucket

UNIT_BYTES = 32 * 1024
#: TCP and IPv4 headers with timestamps, of the one segment a small frame needs.
_SEGMENT_BYTES = 52
_AUTHORIZER_RESULT_BYTES = 8 * 1024
#: "Quotas for configuring and running a WebSocket API"; the status of the refusal is ours.
_URL_CHARACTERS = 4096
#: How long a client may take to answer our close frame.
_CLOSE_SECONDS = 1.0

_encode = msgspec.json.encode
_silent = logging.getLogger(__name__ + ".websockets")
_silent.setLevel(logging.CRITICAL + 1)


class Counters:
    """What the front and the management endpoint count; see `Usage` for the meaning of each."""

    def __init__(self) -> None:
        self.messages_in = self.messages_in_units = self.bytes_in = 0
        self.messages_out = self.messages_out_units = 0
        self.bytes_out = self.bytes_out_with_overhead = 0
        self.connects = self.disconnects = self.disconnects_lost = 0
        self.throttled_messages = 0
        self.closed_connection_seconds = 0.0
        self.closed_connection_minutes_rounded_up = 0
        self.error_frames: Counter[str] = Counter()
        self.connects_refused: Counter[str] = Counter()
        self.close_codes: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.other_management_calls: Counter[str] = Counter()


class Connection:
    """One open WebSocket connection."""

    __slots__ = ("_timer", "closed_by_us", "connected_at", "context", "id", "last_active_at", "socket", "upgrade")

    def __init__(
        self, connection_id: str, socket: ServerConnection, context: ContextTemplate, upgrade: Upgrade
    ) -> None:
        self.id = connection_id
        self.socket = socket
        self.context = context
        self.upgrade = upgrade
        self.connected_at = self.last_active_at = time.time()
        self.closed_by_us: Close | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.socket.protocol.state is State.OPEN

    @property
    def unsent_bytes(self) -> int:
        """Bytes waiting because the client does not read them."""
        return self.socket.transport.get_write_buffer_size()

    def send_text(self, data: bytes, frame_bytes: int) -> int:
        """Send a text message without waiting for the client, in frames of at most `frame_bytes`; how many frames."""
        protocol = self.socket.protocol
        frames = max(1, -(-len(data) // frame_bytes))
        if frames == 1:
            protocol.send_text(data)
        else:
            protocol.send_text(data[:frame_bytes], fin=False)
            for i in range(1, frames):
                protocol.send_continuation(data[i * frame_bytes : (i + 1) * frame_bytes], fin=i == frames - 1)
        self.socket.transport.write(b"".join(protocol.data_to_send()))
        self.last_active_at = time.time()
        return frames

    def watch(self, idle_seconds: float, duration_seconds: float) -> None:
        """Close with 1001 when idle or open for too long."""
        due = min(self.last_active_at + idle_seconds, self.connected_at + duration_seconds)
        loop = asyncio.get_running_loop()
        remaining = due - time.time()
        if remaining > 0:
            self._timer = loop.call_later(remaining, self.watch, idle_seconds, duration_seconds)
        else:
            self._timer = None
            self.close(1001, "Going away")

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; the connection is gone within a second, whatever the client does."""
        self.unwatch()
        if self.is_open:
            self.closed_by_us = Close(code, reason)
            protocol = self.socket.protocol
            protocol.send_close(code, reason)
            self.socket.transport.write(b"".join(protocol.data_to_send()))
            asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self.socket.transport.abort)

    def unwatch(self) -> None:
        """Stop the timer of `watch`."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def drop(self) -> None:
        """Cut the TCP connection, as a failing network would."""
        self.unwatch()
        self.socket.transport.abort()

    def disconnect_code(self) -> Close:
        """Why it ended, as `$disconnect` tells it."""
        protocol = self.socket.protocol
        if self.closed_by_us:
            return self.closed_by_us
        if protocol.close_rcvd and (protocol.close_rcvd_then_sent or not protocol.close_sent):
            # Seen on AWS for a client that closes without a code.
            no_code = protocol.close_rcvd.code == 1005
            return Close(1005, "Client-side close frame status not set") if no_code else protocol.close_rcvd
        return protocol.close_sent or Close(1006, "")


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class _Proxy(msgspec.Struct):
    """A Lambda proxy response. A result that does not fit is malformed, which AWS treats as an error."""

    statusCode: int  # noqa: N815  the field's name on AWS
    headers: dict[str, Any] | None = None
    body: str | None = None


class _Action(msgspec.Struct):
    action: Any = None


_decode_proxy = msgspec.json.Decoder(_Proxy, strict=False).decode
_decode_action = msgspec.json.Decoder(_Action).decode


class Gateway:
    """The front of one API. `pools` holds a pool for every function the settings name."""

    def __init__(
        self, settings: GatewaySettings, pools: dict[str, FunctionPool], account: TokenBucket, rng: random.Random
    ) -> None:
        self.counters = Counters()
        self.connections: dict[str, Connection] = {}
        self._settings = settings
        self._pools = pools
        self._account = account
        limits = settings.limits
        self._new_connections = TokenBucket(limits.connects_per_second, max(1.0, limits.connects_per_second))
        self._ids = Ids(random.Random(rng.getrandbits(64)))  # noqa: S311  ids, not secrets
        self._faults = random.Random(rng.getrandbits(64))  # noqa: S311  a reproducible fault
        self._opening: dict[ServerConnection, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server | None = None
        self._stopping = False
        self._paths = {"/", "/ws", f"/{settings.stage}", f"/{settings.stage}/"}

    async def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        limits = self._settings.limits
        self._server = await serve(
            self._serve,
            self._settings.host,
            self._settings.port,
            process_response=self._open,
            compression=None,
            server_header=None,
            open_timeout=2 * limits.integration_timeout_seconds + 10,
            ping_interval=None,
            close_timeout=_CLOSE_SECONDS,
            max_size=(limits.message_bytes, limits.frame_bytes),
            write_limit=max(limits.client_buffer_bytes, 1),
            logger=_silent,
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._server  # known only after start
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening and cut every connection; no `$disconnect` follows."""
        self._stopping = True
        if self._server:
            self._server.close(close_connections=False)
            for connection in [*self.connections.values(), *self._opening.values()]:
                connection.drop()
            for socket in self._server.connections:
                socket.transport.abort()
            await self._server.wait_closed()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def refuses_post(self) -> bool:
        """Fault: whether this POST is to be answered 429."""
        return self._faults.random() < self._settings.faults.post_throttled

    def next_id(self) -> str:
        """A request id."""
        return self._ids.next()

    def drop_connection(self, connection_id: str) -> bool:
        """Fault: the client's network fails. False if there is no such connection."""
        connection = self.connections.get(connection_id)
        if connection:
            connection.drop()
        return connection is not None

    # Opening.

    async def _open(self, socket: ServerConnection, request: Request, response: Response) -> Response | None:
        """Between a valid upgrade request and its answer: authorizer, `$connect`, subprotocol."""
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        connection_id, request_id = self._ids.next(), self._ids.next()
        path, _, query = request.path.partition("?")
        try:
            if len(request.path) > _URL_CHARACTERS:
                raise _Refused(414, "URI Too Long")
            if path not in self._paths:
                raise _Refused(403, "Forbidden")
            if not self._new_connections.take() or not self._account.take():
                raise _Refused(429, "Too Many Requests")
            connection = self._connection(connection_id, socket, request, query)
            await self._authorize(connection, request_id)
            subprotocol = await self._connect(connection, request_id)
        except _Refused as refused:
            self.counters.connects_refused[str(refused.status)] += 1
            return _refusal(refused, connection_id, request_id)
        self.counters.connects += 1
        if subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
            socket.protocol.subprotocol = Subprotocol(subprotocol)
        if socket.protocol.state is State.CONNECTING:
            self._opening[socket] = connection
        else:
            self._count_closed(connection, Close(1006, ""))  # the client did not wait; $connect has run
            self._background(self._disconnected(connection, Close(1006, "")))
        return None

    def _connection(self, connection_id: str, socket: ServerConnection, request: Request, query: str) -> Connection:
        settings = self._settings
        peer = socket.remote_address or ("127.0.0.1", 0)
        trace_id = f"Root=1-{int(time.time()):08x}-{random.getrandbits(96):024x}"
        upgrade = Upgrade(request.headers.raw_items(), query, peer[0], self.port, trace_id)
        context = ContextTemplate(
            connection_id=connection_id,
            connected_at_ms=int(time.time() * 1000),
            api_id=settings.api_id,
            stage=settings.stage,
            domain_name=settings.domain_name,
            account_id=settings.account_id,
            region=settings.region,
            upgrade=upgrade,
            stage_variables=settings.stage_variables,
        )
        return Connection(connection_id, socket, context, upgrade)

    async def _authorize(self, connection: Connection, request_id: str) -> None:
        """Source: "Control access to WebSocket APIs with AWS Lambda REQUEST authorizers"."""
        authorizer = self._settings.authorizer
        if authorizer is None:
            return
        if not all(_identity(source, connection.upgrade) for source in authorizer.identity_sources):
            raise _Refused(401, "Unauthorized")
        started = time.monotonic()
        event = connection.context.authorize(request_id, time.time())
        try:
            result = await self._invoke(authorizer.function, event)
        except InvocationFailed as failed:
            unauthorized = failed.message == "Unauthorized"
            raise (_Refused(401, "Unauthorized") if unauthorized else _Refused(500, "Internal server error")) from None
        except TimeoutError:
            raise _Refused(500, "Internal server error") from None
        if len(result) > _AUTHORIZER_RESULT_BYTES:
            raise _Refused(500, "Internal server error")
        answer = msgspec.json.decode(result)
        if not isinstance(answer, dict) or not isinstance(answer.get("principalId"), str):
            raise _Refused(403, "Forbidden")
        if not _allows(answer.get("policyDocument"), connection.context.method_arn):
            raise _Refused(403, "Forbidden")
        values = answer.get("context") or {}
        if not isinstance(values, dict) or any(isinstance(value, dict | list) for value in values.values()):
            raise _Refused(500, "Internal server error")
        connection.context.authorizer = {
            **{name: _as_text(value) for name, value in values.items() if value is not None},
            "principalId": answer["principalId"],
            "integrationLatency": int((time.monotonic() - started) * 1000),
        }

    async def _connect(self, connection: Connection, request_id: str) -> str | None:
        """Run `$connect`; the subprotocol it chose. Source: "Managing connected users: $connect and $disconnect"."""
        function = self._settings.routes.get("$connect")
        if function is None:
            return None
        try:
            result = await self._invoke(function, connection.context.connect(request_id, time.time()))
            proxy = _decode_proxy(result)
        except (InvocationFailed, TimeoutError, msgspec.MsgspecError):
            raise _Refused(502, "Internal server error") from None
        if not 100 <= proxy.statusCode <= 599:
            raise _Refused(502, "Internal server error")
        if not 200 <= proxy.statusCode < 300:
            raise _Refused(proxy.statusCode, "Forbidden" if proxy.statusCode == 403 else "Connection refused")
        headers = {name.lower(): value for name, value in (proxy.headers or {}).items()}
        subprotocol = headers.get("sec-websocket-protocol")
        return None if subprotocol is None else _as_text(subprotocol)

    # Open.

    async def _serve(self, socket: ServerConnection) -> None:
        connection = self._opening.pop(socket)
        connection.connected_at = connection.last_active_at = time.time()
        self.connections[connection.id] = connection
        connection.watch(self._settings.limits.idle_seconds, self._settings.limits.duration_seconds)
        try:
            while True:
                self._receive(connection, await socket.recv())
        except ConnectionClosed:
            pass
        finally:
            connection.unwatch()
            self.connections.pop(connection.id, None)
            why = connection.disconnect_code()
            self._count_closed(connection, why)
            if not self._stopping:
                self._background(self._disconnected(connection, why))

    def _receive(self, connection: Connection, message: str | bytes) -> None:
        """One message; it runs beside the connection's other messages, in no particular order."""
        if isinstance(message, bytes):
            connection.close(1003, "Unsupported data")
            return
        counters = self.counters
        size = len(message) if message.isascii() else len(message.encode())
        counters.messages_in += 1
        counters.messages_in_units += max(1, -(-size // UNIT_BYTES))
        counters.bytes_in += size
        now = connection.last_active_at = time.time()
        request_id = self._ids.next()
        if not self._account.take():
            counters.throttled_messages += 1
            self._send_error(connection, "Too Many Requests", request_id)
            return
        route_key = self._route(message)
        if route_key is None:
            self._send_error(connection, "Forbidden", request_id)
            return
        event = connection.context.message(route_key, message, request_id, self._ids.next(), now)
        self._background(self._run(connection, route_key, event, request_id))

    def _route(self, message: str) -> str | None:
        """`$request.body.action`, else `$default` if there is one. Source: "Working with routes for WebSocket APIs"."""
        routes = self._settings.routes
        try:
            action = _decode_action(message).action
        except msgspec.MsgspecError:
            action = None
        if isinstance(action, str) and action in routes and not action.startswith("$"):
            return action
        return "$default" if "$default" in routes else None

    async def _run(self, connection: Connection, route_key: str, event: Event, request_id: str) -> None:
        faults = self._settings.faults
        if self._faults.random() < faults.message_delayed:
            await asyncio.sleep(self._faults.random() * faults.delayed_within_ms / 1000)
        try:
            result = await self._invoke(self._settings.routes[route_key], event)
            proxy = _decode_proxy(result)
        except (InvocationFailed, TimeoutError, msgspec.MsgspecError):
            self._send_error(connection, "Internal server error", request_id)
            return
        if proxy.body and route_key in self._settings.route_responses and connection.is_open:
            self.send(connection, proxy.body.encode())

    def send(self, connection: Connection, data: bytes) -> None:
        """Send a message to an open connection and count it."""
        frames = connection.send_text(data, self._settings.limits.frame_bytes)
        counters = self.counters
        counters.messages_out += 1
        counters.messages_out_units += max(1, -(-len(data) // UNIT_BYTES))
        self._count_bytes_out(len(data), frames)

    def _send_error(self, connection: Connection, message: str, request_id: str) -> None:
        if connection.is_open:
            # The spacing is AWS's: a blank after the first colon only.
            text = f'{{"message": "{message}", "connectionId":"{connection.id}", "requestId":"{request_id}"}}'
            self.counters.error_frames[message] += 1
            self._count_bytes_out(len(text), connection.send_text(text.encode(), self._settings.limits.frame_bytes))

    def _count_bytes_out(self, size: int, frames: int) -> None:
        header = 2 if size < 126 else 4 if size < 65_536 else 10
        self.counters.bytes_out += size
        self.counters.bytes_out_with_overhead += size + frames * (header + _SEGMENT_BYTES)

    # Closed.

    def _count_closed(self, connection: Connection, why: Close) -> None:
        seconds = time.time() - connection.connected_at
        self.counters.close_codes[str(why.code)] += 1
        self.counters.closed_connection_seconds += seconds
        self.counters.closed_connection_minutes_rounded_up += _minutes_rounded_up(seconds)

    async def _disconnected(self, connection: Connection, why: Close) -> None:
        """Best effort: "API Gateway will try its best to deliver the $disconnect event, but it cannot guarantee it"."""
        function = self._settings.routes.get("$disconnect")
        if function is None:
            return
        if self._faults.random() < self._settings.faults.disconnect_lost:
            self.counters.disconnects_lost += 1
            return
        self.counters.disconnects += 1
        event = connection.context.disconnect(why.code, why.reason, self._ids.next(), time.time())
        with contextlib.suppress(InvocationFailed, TimeoutError):  # counted by the pool; nobody is left to tell
            await self._invoke(function, event)

    def open_seconds(self) -> tuple[float, int]:
        """Seconds of all connections since the start, and their minutes with each connection rounded up."""
        now = time.time()
        durations = [now - connection.connected_at for connection in self.connections.values()]
        return (
            self.counters.closed_connection_seconds + sum(durations),
            self.counters.closed_connection_minutes_rounded_up + sum(map(_minutes_rounded_up, durations)),
        )

    def _invoke(self, function: str, event: Event) -> Awaitable[bytes]:
        """Run a function on an event. Raises InvocationFailed, or TimeoutError after the integration timeout."""
        pool = self._pools[function]
        limit = self._settings.limits.integration_timeout_seconds
        if pool.function.timeout_seconds <= limit:
            return pool.invoke(_encode(event))
        return asyncio.wait_for(pool.invoke(_encode(event)), limit)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _minutes_rounded_up(seconds: float) -> int:
    return max(1, -int(-seconds // 60))


def _refusal(refused: _Refused, connection_id: str, request_id: str) -> Response:
    body = _encode({"message": refused.message, "connectionId": connection_id, "requestId": request_id})
    try:
        phrase = HTTPStatus(refused.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = Headers()
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    headers["x-amzn-RequestId"] = request_id
    return Response(refused.status, phrase, headers, body)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _identity(source: str, upgrade: Upgrade) -> str:
    """The value of an identity source such as `route.request.querystring.token`; empty if the request lacks it."""
    _, _, name = source.partition("route.request.")
    kind, _, key = name.partition(".")
    if kind == "querystring":
        return upgrade.multi_query.get(key, [""])[-1]
    return upgrade.header(key) if kind == "header" else ""


def _allows(policy: object, method_arn: str) -> bool:
    """Whether an IAM policy lets `$connect` be invoked: some statement allows it and none denies it."""
    statements = policy.get("Statement") if isinstance(policy, dict) else None
    effects = set()
    for statement in statements if isinstance(statements, list) else [statements]:
        if isinstance(statement, dict):
            actions, resources = _listed(statement.get("Action")), _listed(statement.get("Resource"))
            if any(fnmatchcase("execute-api:invoke", action.lower()) for action in actions) and any(
                fnmatchcase(method_arn, resource) for resource in resources
            ):
                effects.add(statement.get("Effect"))
    return "Allow" in effects and "Deny" not in effects


def _listed(value: object) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
