"""The signed HTTP client against servers that misbehave, and its signature against botocore's."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from adapters.lambda_apigw.aws_http import AwsError, Credentials, Session
from adapters.lambda_apigw.gateway import ApiGatewayConnections
from core.errors import CloseCode

CREDENTIALS = Credentials("AKIDEXAMPLE", "secret", "the/session=token")


class Server:
    """Answers each request with the next of `answers` (raw bytes); None closes the connection without one."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while request := self._read(connection):
                    self.requests.append(request)
                    answer = self.answers.pop(0)
                    if answer is None:
                        break
                    connection.sendall(answer)

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65_536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        while len(body) < length:
            body += connection.recv(65_536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def session(server: Server) -> Iterator[Session]:  # asks for the server, so that its connections close first
    with Session(CREDENTIALS, "eu-west-1", sleep=lambda seconds: None) as session:
        yield session


def answer(status: str, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def throttled() -> bytes:
    body = json.dumps({"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slow down"})
    return answer("400 Bad Request", body.encode())


def test_one_connection_serves_many_requests(server: Server, session: Session) -> None:
    server.answers = [answer("200 OK")] * 3
    client = session.client("dynamodb", server.url)
    for _ in range(3):
        assert client.call("DynamoDB_20120810.GetItem", {}, "dynamodb_read") == {}
    assert server.connections == 1
    assert session.meter.take() == {"dynamodb_read": 3}


def test_a_dead_kept_alive_connection_is_replaced_once(server: Server, session: Session) -> None:
    server.answers = [answer("200 OK"), None, answer("200 OK")]
    client = session.client("dynamodb", server.url)
    client.call("X.A", {}, "read")
    assert client.call("X.A", {}, "read") == {}
    assert server.connections == 2


def test_a_server_that_says_close_is_obeyed(server: Server, session: Session) -> None:
    server.answers = [answer("200 OK", b"{}", "Connection: close"), answer("200 OK")]
    client = session.client("dynamodb", server.url)
    client.call("X.A", {}, "read")
    client.call("X.A", {}, "read")
    assert server.connections == 2


def test_a_new_connection_that_fails_is_an_error(server: Server, session: Session) -> None:
    server.answers = [None]
    with pytest.raises(ConnectionError):
        session.client("dynamodb", server.url).call("X.A", {}, "read")


def test_a_connection_that_was_idle_for_long_is_not_tried_again(server: Server) -> None:
    server.answers = [answer("200 OK")] * 3
    now = [0.0]
    with Session(CREDENTIALS, "eu-west-1", clock=lambda: now[0]) as session:
        client = session.client("dynamodb", server.url)
        for moment, connections in ((1_000.0, 1), (1_049.0, 1), (1_100.0, 2)):
            now[0] = moment
            client.call("X.A", {}, "read")
            assert server.connections == connections


def test_a_transaction_cancelled_by_throttling_is_tried_again(server: Server, session: Session) -> None:
    reasons = {"CancellationReasons": [{"Code": "None"}, {"Code": "ThrottlingError"}]}
    body = json.dumps({"__type": "TransactionCanceledException", "message": "cancelled", **reasons}).encode()
    server.answers = [answer("400 Bad Request", body), answer("200 OK")]
    assert session.client("dynamodb", server.url).call("X.A", {}, "transact") == {}


def test_chunked_answers_are_read(server: Server, session: Session) -> None:
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n3;x=y\r\n 1}\r\n0\r\n\r\n'
    server.answers = [chunked, answer("200 OK")]
    client = session.client("dynamodb", server.url)
    assert client.call("X.A", {}, "read") == {"a": 1}
    assert client.call("X.A", {}, "read") == {}


def test_throttling_and_server_errors_are_tried_again(server: Server, session: Session) -> None:
    server.answers = [throttled(), answer("500 Oops"), throttled(), answer("200 OK", b'{"done": true}')]
    assert session.client("dynamodb", server.url).call("X.A", {}, "read") == {"done": True}


def test_throttling_that_does_not_end_is_raised_by_name(server: Server, session: Session) -> None:
    server.answers = [throttled()] * 5
    with pytest.raises(AwsError) as caught:
        session.client("dynamodb", server.url).call("X.A", {}, "read")
    assert (caught.value.code, caught.value.status) == ("ThrottlingException", 400)
    assert len(server.requests) == 5


def test_a_refusal_is_not_tried_again(server: Server, session: Session) -> None:
    body = b'{"__type": "ConditionalCheckFailedException", "message": "The conditional request failed", "Item": {}}'
    server.answers = [answer("400 Bad Request", body)]
    with pytest.raises(AwsError) as caught:
        session.client("dynamodb", server.url).call("X.A", {}, "write")
    assert caught.value.code == "ConditionalCheckFailedException"
    assert not caught.value.retried


def test_a_refusal_after_a_lost_answer_says_that_the_request_may_have_been_carried_out(
    server: Server, session: Session
) -> None:
    refused = answer("400 Bad Request", b'{"__type": "ConditionalCheckFailedException"}')
    server.answers = [answer("200 OK"), None, refused]
    client = session.client("dynamodb", server.url)
    client.call("X.A", {}, "write")
    with pytest.raises(AwsError) as caught:
        client.call("X.A", {}, "write")
    assert caught.value.retried


def test_no_request_begins_after_the_deadline(server: Server, session: Session) -> None:
    session.begin(-1.0)
    with pytest.raises(TimeoutError):
        session.client("dynamodb", server.url).call("X.A", {}, "read")
    assert server.requests == []


@pytest.mark.parametrize(
    ("service", "method", "path", "body"),
    [
        ("dynamodb", "POST", "/", b'{"TableName":"t"}'),
        ("execute-api", "POST", "/@connections/TXzPWdnOjoECGjA%3D", "Grüße".encode()),
        ("execute-api", "DELETE", "/@connections/a-b_c%3D", b""),
    ],
)
def test_the_signature_is_botocores(
    server: Server, session: Session, service: str, method: str, path: str, body: bytes
) -> None:
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials

    server.answers = [answer("200 OK")]
    session.client(service, f"{server.url}/live").request(method, path, body, "any", {"x-amz-target": "X.A"})
    head = server.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    sent = dict(line.split(": ", 1) for line in head[1:])
    request = botocore.awsrequest.AWSRequest(method, f"{server.url}/live{path}", data=body)
    request.headers["x-amz-target"] = "X.A"
    request.context["timestamp"] = sent["x-amz-date"]
    signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials(*CREDENTIALS), service, "eu-west-1")
    request.headers["X-Amz-Date"] = sent["x-amz-date"]
    request.headers["X-Amz-Security-Token"] = CREDENTIALS.session_token
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert sent["authorization"].rpartition("Signature=")[2] == expected


# --- the management API ---


@pytest.fixture
def dropped() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def connections(server: Server, session: Session, dropped: list[tuple[str, int]]) -> ApiGatewayConnections:
    def note(connection: str, status: int) -> None:
        dropped.append((connection, status))

    return ApiGatewayConnections(session.client("execute-api", f"{server.url}/live"), note)


def test_a_gone_connection_is_told_from_a_busy_one(
    server: Server, connections: ApiGatewayConnections, dropped: list[tuple[str, int]]
) -> None:
    gone = answer("410 Gone", b"{}", "x-amzn-ErrorType: GoneException")
    busy = answer("429 Too Many Requests", b"{}", "x-amzn-ErrorType: LimitExceededException")
    server.answers = [answer("200 OK", b""), gone, busy, busy, answer("200 OK", b"")]
    assert [connections.send("abc=", b"{}") for _ in range(3)] == [True, False, True]
    assert dropped == []
    assert server.requests[0].startswith(b"POST /live/@connections/abc%3D HTTP/1.1\r\n")


def test_a_connection_that_stays_busy_loses_the_frame_and_is_told(
    server: Server, connections: ApiGatewayConnections, dropped: list[tuple[str, int]]
) -> None:
    server.answers = [answer("429 Too Many Requests")] * 4
    assert connections.send("abc=", b"{}")
    assert dropped == [("abc=", 429)]


def test_a_management_api_that_can_not_be_reached_loses_the_frame_and_is_told(
    session: Session, dropped: list[tuple[str, int]]
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    connections = ApiGatewayConnections(session.client("execute-api", url), lambda c, s: dropped.append((c, s)))
    assert connections.send("abc=", b"{}")
    assert dropped == [("abc=", 0)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (CloseCode.REPLACED, {"action": "error", "data": {"code": "replaced", "message": "why", "final": True}}),
        (CloseCode.TOKEN, {"action": "error", "data": {"code": "token_invalid", "message": "why", "final": True}}),
        (CloseCode.MOVED, {"action": "reconnect", "data": {"after_ms": 1000, "reason": "why"}}),
    ],
)
def test_before_a_connection_is_deleted_it_is_told_why(
    server: Server, connections: ApiGatewayConnections, code: int, expected: object
) -> None:
    server.answers = [answer("200 OK", b""), b"HTTP/1.1 204 No Content\r\n\r\n"]
    connections.close("abc=", code, "why")
    assert json.loads(server.requests[0].partition(b"\r\n\r\n")[2]) == expected
    assert server.requests[1].startswith(b"DELETE /live/@connections/abc%3D HTTP/1.1\r\n")


class TogetherServer:
    """Answers a first post only when as many as `parties` are under way, so that one after the other would fail."""

    def __init__(self, parties: int, statuses: dict[str, bytes]) -> None:
        self.posts: list[tuple[str, bytes]] = []
        self.statuses = statuses
        self.barrier = threading.Barrier(parties)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            while line := file.readline():
                length = 0
                while header := file.readline().strip():
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                who = line.split()[1].decode().rpartition("/")[2]
                self.posts.append((who, payload := file.read(length)))
                if payload == b"1":
                    self.barrier.wait(5)
                connection.sendall(self.statuses.get(who, answer("200 OK", b"")))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def test_many_connections_are_told_at_the_same_time_each_in_order(dropped: list[tuple[str, int]]) -> None:
    server = TogetherServer(3, {"p1": answer("410 Gone")})
    with Session(CREDENTIALS, "eu-west-1") as session:
        connections = ApiGatewayConnections(
            session.client("execute-api", server.url), lambda c, s: dropped.append((c, s))
        )
        gone = connections.send_all([(who, [b"1", b"2"]) for who in ("p0", "p1", "p2")])
        assert gone == ["p1"]
        connections.send_all([(f"p{n}", [b"3"]) for n in range(20)])
    server.close()
    assert not dropped
    assert [payload for who, payload in server.posts if who == "p0"] == [b"1", b"2", b"3"]
    assert [payload for who, payload in server.posts if who == "p1"] == [b"1", b"3"]
    assert len([1 for who, payload in server.posts if payload == b"3"]) == 20


def test_a_post_among_many_that_fails_is_sent_again(
    server: Server, connections: ApiGatewayConnections, dropped: list[tuple[str, int]]
) -> None:
    server.answers = [None, answer("200 OK", b"")]
    assert connections.send_all([("abc=", [b"{}"])]) == []
    assert dropped == []


def test_a_post_among_many_that_is_refused_is_dropped(dropped: list[tuple[str, int]]) -> None:
    server = TogetherServer(1, {"p1": answer("413 Payload Too Large")})
    with Session(CREDENTIALS, "eu-west-1") as session:
        client = session.client("execute-api", server.url)
        connections = ApiGatewayConnections(client, lambda c, s: dropped.append((c, s)))
        assert connections.send_all([("p0", [b"2"]), ("p1", [b"2"])]) == []
    server.close()
    assert dropped == [("p1", 413)]


def test_when_the_invocation_has_no_time_left_the_rest_is_dropped(
    connections: ApiGatewayConnections, session: Session, dropped: list[tuple[str, int]]
) -> None:
    session.begin(0)
    assert connections.send_all([("a=", [b"{}"]), ("b=", [b"{}"])]) == []
    assert dropped == [("a=", 0), ("b=", 0)]
