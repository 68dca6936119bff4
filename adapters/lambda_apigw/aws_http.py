"""A lean signed HTTP client for the four AWS APIs on the path of a message, and the meter of what they cost.

boto3 takes 2 ms of CPU a call and 300 ms to import, both billed by the millisecond; this takes a tenth of it, because it does less:
Signature Version 4 over one kept-alive connection per service, JSON in and out, errors by name, retries while the invocation has
time. A request that failed on a kept-alive connection before any answer is sent again on a new one; callers must therefore stand a
request that arrives twice, and `AwsError.retried` tells them when that may have happened.

Sources: "Create a signed AWS API request" (IAM user guide), RFC 9112 for the framing of answers.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.03
_TIMEOUT_SECONDS = 5.0
_KEPT_ALIVE_SECONDS = 50.0
"""A connection idle for longer is not tried again: something on the way may have dropped it in silence, and waiting costs."""

_THROTTLED = frozenset(
    (
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ThrottlingException",
        "Throttling",
        "TransactionInProgressException",
    )
)
_THROTTLED_REASONS = frozenset(("ThrottlingError", "ProvisionedThroughputExceeded"))
_EMPTY = hashlib.sha256(b"").hexdigest()
_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class AwsError(Exception):
    """An AWS API refused a request. `code` is the name of the exception, `data` what came with it."""

    def __init__(self, status: int, code: str, message: str, data: dict[str, Any], *, retried: bool) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.data = data
        self.retried = retried
        super().__init__(status, code, message)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


class Credentials(NamedTuple):
    """Whose requests these are: on Lambda the function's role."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""


class Response(NamedTuple):
    """An answer; `retried` if the request may have been carried out more than once."""

    status: int
    headers: dict[str, str]
    body: bytes
    retried: bool


class Meter:
    """Counts what is billed by the request: calls by kind, and DynamoDB's units as it returned them."""

    __slots__ = ("calls", "read_units", "write_units")

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.read_units = 0.0
        self.write_units = 0.0

    def call(self, kind: str) -> None:
        """Count one request."""
        self.calls[kind] = self.calls.get(kind, 0) + 1

    def take(self) -> dict[str, int | float]:
        """What was counted since the last call; zeros are left out."""
        counted: dict[str, int | float] = dict(self.calls)
        if self.read_units:
            counted["read_units"] = self.read_units
        if self.write_units:
            counted["write_units"] = self.write_units
        self.calls, self.read_units, self.write_units = {}, 0.0, 0.0
        return counted


class Session:
    """Credentials, region, meter and deadline that the clients of one execution environment share."""

    def __init__(
        self,
        credentials: Credentials,
        region: str,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.credentials = credentials
        self.region = region
        self.meter = Meter()
        self.clock = clock
        self.sleep = sleep
        self._deadline = float("inf")
        self._tls: Any = None
        self._clients: list[Client] = []

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all clients; they open new ones if they are used again."""
        for client in self._clients:
            client.close()

    def begin(self, seconds: float) -> None:
        """An invocation begins, and has this many seconds."""
        self._deadline = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds that the invocation has left."""
        return self._deadline - time.monotonic()

    def client(self, service: str, url: str) -> Client:
        """A client of one service at this URL, with its TLS context made now if it needs one."""
        parts = urlsplit(url)
        if parts.scheme == "https" and self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        tls = self._tls if parts.scheme == "https" else None
        port = parts.port or (80 if tls is None else 443)
        client = Client(self, service, parts.hostname or "", port, parts.path.rstrip("/"), tls)
        self.adopt(client)
        return client

    def adopt(self, client: Client) -> None:
        """Close this client, too, at the end."""
        self._clients.append(client)


class Client:
    """Requests to one service over one connection, which is kept open between invocations."""

    def __init__(self, session: Session, service: str, host: str, port: int, base: str, tls: Any) -> None:
        self.session = session
        self._service = service
        self._host = host
        self._port = port
        self._base = base
        self._tls = tls
        self._header = host if port in (80, 443) else f"{host}:{port}"
        self._socket: socket.socket | None = None
        self._used_at = 0.0
        self._signing_key: tuple[tuple[str, Credentials] | None, bytes] = (None, b"")

    def call(self, target: str, payload: dict[str, Any], kind: str) -> dict[str, Any]:
        """One call of a JSON 1.0 API such as DynamoDB's. Raises AwsError, or OSError if it can't be reached in time."""
        retried = False
        for attempt in range(_ATTEMPTS):
            response = self.request(
                "POST",
                "/",
                _encode(payload),
                kind,
                {"content-type": "application/x-amz-json-1.0", "x-amz-target": target},
            )
            if response.status == 200:
                answer: dict[str, Any] = _decode(response.body or b"{}")
                return answer
            error = _error(response, retried=retried or response.retried)
            if not (response.status >= 500 or _is_throttled(error)) or not self._pause(attempt):
                raise error
            retried = retried or response.status >= 500
        raise error

    def request(
        self, method: str, path: str, body: bytes, kind: str, headers: dict[str, str] | None = None
    ) -> Response:
        """One request, on a new connection if need be, and once more if a kept-alive one turned out to be dead."""
        message = self._signed(method, path, body, headers or {})
        retried = False
        if self.session.clock() - self._used_at > _KEPT_ALIVE_SECONDS:
            self.close()
        while True:
            is_new = self._socket is None
            self.session.meter.call(kind)
            try:
                status, answer_headers, answer = self._exchange(message)
            except OSError:
                self.close()
                if is_new or retried:
                    raise
                retried = True
                continue
            if answer_headers.get("connection", "").lower() == "close":
                self.close()
            return Response(status, answer_headers, answer, retried)

    def twin(self) -> Client:
        """Another client of the same service, with a connection of its own."""
        twin = Client(self.session, self._service, self._host, self._port, self._base, self._tls)
        self.session.adopt(twin)
        return twin

    def begin(self, method: str, path: str, body: bytes, kind: str) -> None:
        """Send a request and don't wait; `end` reads its answer. So several clients have several under way. Raises OSError."""
        if self.session.clock() - self._used_at > _KEPT_ALIVE_SECONDS:
            self.close()
        self.session.meter.call(kind)
        try:
            self._send(self._signed(method, path, body, {}))
        except OSError:
            self.close()
            raise

    def end(self) -> int:
        """The status that answers the request of `begin`. Raises OSError; the connection is closed then."""
        connection = self._socket
        if connection is None:
            raise ConnectionResetError("nothing was sent")
        try:
            connection.settimeout(self._seconds())
            status, headers, _ = _read_response(connection)
        except OSError:
            self.close()
            raise
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _pause(self, attempt: int) -> bool:
        """Wait before another attempt; False if there is none, or no time for it."""
        pause = _FIRST_PAUSE_SECONDS * 2**attempt * (0.5 + random.random())  # noqa: S311  jitter, no secret
        if attempt + 1 >= _ATTEMPTS or pause >= self.session.remaining():
            return False
        self.session.sleep(pause)
        return True

    def _exchange(self, message: bytes) -> tuple[int, dict[str, str], bytes]:
        return _read_response(self._send(message))

    def _send(self, message: bytes) -> socket.socket:
        """Send on the connection, a new one if there is none; the connection."""
        seconds, connection = self._seconds(), self._socket
        if connection is None:
            connection = self._socket = self._connect(seconds)
        self._used_at = self.session.clock()
        connection.settimeout(seconds)
        connection.sendall(message)
        return connection

    def _seconds(self) -> float:
        """How long to wait for the other side. Raises TimeoutError if the invocation has no time left."""
        seconds = min(_TIMEOUT_SECONDS, self.session.remaining())
        if seconds <= 0:
            raise TimeoutError("the invocation has no time left")
        return seconds

    def _connect(self, seconds: float) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        wrapped: socket.socket = self._tls.wrap_socket(connection, server_hostname=self._host)
        return wrapped

    def _signed(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        """The request as it goes over the wire. `headers` are lower-case, and all of them are signed."""
        session, path = self.session, self._base + path
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(session.clock()))
        signed = {**headers, "host": self._header, "x-amz-date": stamp}
        if session.credentials.session_token:
            signed["x-amz-security-token"] = session.credentials.session_token
        names = sorted(signed)
        # "URI-encoded path": encoded once more than on the wire, for every service but S3
        canonical = "\n".join(
            (
                method,
                quote(path, safe="/~"),
                "",
                *(f"{name}:{signed[name]}" for name in names),
                "",
                ";".join(names),
                hashlib.sha256(body).hexdigest() if body else _EMPTY,
            )
        )
        scope = f"{stamp[:8]}/{session.region}/{self._service}/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        signature = hmac.new(self._key(stamp[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in signed.items())]
        lines.append(f"content-length: {len(body)}")
        lines.append(
            f"authorization: AWS4-HMAC-SHA256 Credential={session.credentials.access_key_id}/{scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return "\r\n".join((*lines, "", "")).encode() + body

    def _key(self, date: str) -> bytes:
        """The signing key of a day; making it takes four hashes."""
        if self._signing_key[0] != (date, self.session.credentials):  # which may change: an instance's are renewed
            key = b"AWS4" + self.session.credentials.secret_access_key.encode()
            for part in (date, self.session.region, self._service, "aws4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            self._signing_key = ((date, self.session.credentials), key)
        return self._signing_key[1]


def _error(response: Response, *, retried: bool) -> AwsError:
    """The error that an answer stands for. The exception's name is in a header or in the body, perhaps behind a namespace."""
    try:
        data = _decode(response.body)
    except msgspec.DecodeError:
        data = {}
    if not isinstance(data, dict):
        data = {}
    name = str(response.headers.get("x-amzn-errortype") or data.get("__type") or "")
    code = name.partition(":")[0].rpartition("#")[2]
    message = str(data.get("message") or data.get("Message") or response.body[:200].decode(errors="replace"))
    return AwsError(response.status, code, message, data, retried=retried)


def _is_throttled(error: AwsError) -> bool:
    """Whether the same request may succeed in a moment: a cancelled transaction tells by the reasons of its items."""
    reasons = {reason.get("Code") for reason in error.data.get("CancellationReasons") or ()} - {"None", None}
    return error.code in _THROTTLED or (bool(reasons) and reasons <= _THROTTLED_REASONS)


def _read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer. Raises ConnectionError if the other side ends the connection within it."""
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        _receive(connection, received)
    status_line, *lines = received[:end].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(status_line.split(" ", 2)[1])
    del received[: end + 4]
    if "content-length" in headers:
        length = int(headers["content-length"])
        while len(received) < length:
            _receive(connection, received)
        return status, headers, bytes(received[:length])
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return status, headers, _read_chunks(connection, received)
    if status != 204:
        headers["connection"] = "close"  # the body ends with the connection, and none of our services does that
    return status, headers, b""


def _read_chunks(connection: socket.socket, received: bytearray) -> bytes:
    body = bytearray()
    while True:
        while (end := received.find(b"\r\n")) < 0:
            _receive(connection, received)
        size = int(received[:end].partition(b";")[0], 16)
        while len(received) < end + 2 + size + 2:
            _receive(connection, received)
        body += received[end + 2 : end + 2 + size]
        del received[: end + 2 + size + 2]
        if size == 0:
            return bytes(body)


def _receive(connection: socket.socket, into: bytearray) -> None:
    part = connection.recv(65_536)
    if not part:
        raise ConnectionResetError("the connection was closed before the answer was complete")
    into += part


_DELETE_ATTEMPTS = 5


class DynamoDb:
    """DynamoDB's API, metered: each request asks for the units it used."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._meter = client.session.meter

    def get(self, table: str, key: dict[str, Any], *, consistent: bool = True) -> dict[str, Any] | None:
        """The item as last written by anyone (or, at half the price, perhaps as it was before that), or None."""
        answer = self._read("GetItem", {"TableName": table, "Key": key, "ConsistentRead": consistent})
        item: dict[str, Any] | None = answer.get("Item")
        return item

    def get_many(self, table: str, keys: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The items of at most 100 different keys as last written by anyone, in any order; those that there are."""
        wanted: dict[str, Any] = {table: {"Keys": list(keys), "ConsistentRead": True}} if keys else {}
        found: list[dict[str, Any]] = []
        while wanted:  # what was left out for its size or for throttling is asked for again
            answer = self._read("BatchGetItem", {"RequestItems": wanted})
            found += answer["Responses"].get(table, ())
            wanted = answer.get("UnprocessedKeys") or {}
        return found

    def query(self, table: str, *, consistent: bool = True, **request: Any) -> Any:
        """Yield the items of a query, page by page as they are needed."""
        request |= {"TableName": table, "ConsistentRead": consistent}
        while True:
            answer = self._read("Query", request)
            yield from answer["Items"]
            following = answer.get("LastEvaluatedKey")
            if not following:
                return
            request["ExclusiveStartKey"] = following

    def write(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """PutItem, UpdateItem or DeleteItem. Raises AwsError."""
        request["ReturnConsumedCapacity"] = "TOTAL"
        try:
            answer = self._client.call(f"DynamoDB_20120810.{operation}", request, "dynamodb_write")
        except AwsError as error:
            if error.code == "ConditionalCheckFailedException":
                self._meter.write_units += 1  # billed all the same ("Read and write operations": conditional writes)
            raise
        self._meter.write_units += _units(answer)
        return answer

    def transact(self, writes: list[dict[str, Any]], token: str) -> None:
        """TransactWriteItems; repeated with the same token within ten minutes it is carried out once. Raises AwsError."""
        request = {"TransactItems": writes, "ClientRequestToken": token, "ReturnConsumedCapacity": "TOTAL"}
        try:
            answer = self._client.call("DynamoDB_20120810.TransactWriteItems", request, "dynamodb_transact")
        except AwsError as error:
            if error.code == "TransactionCanceledException":
                self._meter.write_units += 2 * len(writes)
            raise
        self._meter.write_units += _units(answer)

    def delete(self, table: str, keys: list[dict[str, Any]]) -> None:
        """Remove up to 25 items (BatchWriteItem); one that is not there is no error. Raises AwsError if the table is too busy."""
        requests = [{"DeleteRequest": {"Key": key}} for key in keys]
        for attempt in range(_DELETE_ATTEMPTS):
            request = {"RequestItems": {table: requests}, "ReturnConsumedCapacity": "TOTAL"}
            answer = self._client.call("DynamoDB_20120810.BatchWriteItem", request, "dynamodb_write")
            self._meter.write_units += _units(answer)
            requests = answer.get("UnprocessedItems", {}).get(table, [])
            if not requests:
                return
            time.sleep(0.05 * 2**attempt)
        raise AwsError(
            400, "ProvisionedThroughputExceededException", f"{len(requests)} items were left", {}, retried=True
        )

    def _read(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        request["ReturnConsumedCapacity"] = "TOTAL"
        answer = self._client.call(f"DynamoDB_20120810.{operation}", request, "dynamodb_read")
        self._meter.read_units += _units(answer)
        return answer


def _units(answer: dict[str, Any]) -> float:
    consumed = answer.get("ConsumedCapacity") or ()
    tables = consumed if isinstance(consumed, list) else [consumed] if consumed else []
    return sum(float(table["CapacityUnits"]) for table in tables)
