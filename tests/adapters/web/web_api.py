"""The API as clients reach it on either deployment, and what a deployment shows of its state besides."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import redis
from flask import Flask
from msgspec.structs import replace

from adapters.ec2_cluster.journal import Carrier
from adapters.ec2_cluster.keys import MOVE, exam_keys, partition_keys
from adapters.ec2_cluster.ledger_sqlite import SqliteLedger
from adapters.ec2_cluster.web import RedisPorts
from adapters.lambda_apigw import http, resources
from adapters.lambda_apigw.aws_http import Credentials, Session
from adapters.lambda_apigw.handler import application
from adapters.lambda_apigw.records import RecordsTable
from adapters.web.app import create_app
from adapters.web.ports import Ports
from adapters.web.records import Records
from adapters.web.records.dynamodb import DynamoRecords
from adapters.web.records.sql import SqlRecords
from adapters.web.settings import WebSettings, read_school_keys
from core import journal, migration, participant
from core.journal import Entry
from core.migration import Move
from core.participant import ExamKey, Participant

SECRET = secrets.token_hex(32)
NORTH, NORTH_NEXT, SOUTH = "north-key-0123456789", "north-key-next-456789", "south-key-0123456789"
SCHOOL_KEYS = f"north:{NORTH},north:{NORTH_NEXT},south:{SOUTH}"
SOCKET_URL = "wss://live.example/ws"
ENDPOINTS = "abc123.execute-api.ap-southeast-1.amazonaws.com"


def settings() -> WebSettings:
    return WebSettings(
        school_keys=read_school_keys(SCHOOL_KEYS),
        token_secrets={"k2": SECRET, "k1": secrets.token_hex(32)},
        socket_url=SOCKET_URL,
        endpoints=(ENDPOINTS,),
    )


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Api:
    """A running deployment's API. `ports` are those that it uses."""

    ports: Ports
    records: Records

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        raise NotImplementedError

    def get(self, url: str, *, key: str | None = NORTH, **headers: str) -> Answer:
        return self.send("GET", url, _headers(key, headers), b"")

    def delete(self, url: str, *, key: str | None = NORTH) -> Answer:
        return self.send("DELETE", url, _headers(key, {}), b"")

    def post(self, url: str, body: Any = None, *, key: str | None = NORTH, **headers: str) -> Answer:
        """`body` is sent as JSON, bytes as they are."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if content:
            headers.setdefault("content_type", "application/json")
        return self.send("POST", url, _headers(key, headers), content)

    # --- what the deployment holds ---

    def joins(self, record: Participant) -> None:
        """The student has joined: the record is somebody's to decide about."""
        raise NotImplementedError

    def move(self, move: Move | None) -> None:
        """This move is under way; None: none is."""
        raise NotImplementedError

    def journal(self, exam: ExamKey) -> list[Entry]:
        raise NotImplementedError

    def happened(self, record: Participant, entries: list[Entry]) -> None:
        """A save of a student's record with its entries."""
        raise NotImplementedError


def _headers(key: str | None, headers: dict[str, str]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return named if key is None else {"authorization": f"Bearer {key}", **named}


class AppApi(Api):
    """The app in this process, over any ports."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.records: Records = SqlRecords("sqlite://")
        wanted = replace(settings(), records=self.records, purge_after_seconds=0.0)
        self.app: Flask = create_app(ports, wanted)

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        with self.app.test_client() as client:
            answer = client.open(url, method=method, headers=headers, data=body)
            return Answer(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.data)


class ClusterApi(AppApi):
    """Over the cluster's Redis."""

    def __init__(self, client: redis.Redis, journal_place: str = "") -> None:
        super().__init__(RedisPorts(client, journal_place))
        self.client = client
        self.journal_place = journal_place

    def carry(self) -> None:
        """Carry all that waits, as the journal process does."""
        ledger = SqliteLedger(self.journal_place)
        carrier = Carrier(self.client, ledger, "test")
        carrier.prepare()
        while carrier.carry(None):
            pass
        ledger.close()

    def happened(self, record: Participant, entries: list[Entry]) -> None:
        keys = exam_keys(record.key.exam)
        self.client.hset(keys.records, record.student_id, participant.encode(record))
        lines = b"\n".join(map(journal.encode, entries))
        self.client.xadd(partition_keys(keys.tag).journal, {"e": lines})

    def joins(self, record: Participant) -> None:
        keys = exam_keys(record.key.exam)
        self.client.hset(keys.owners, record.student_id, "worker 1")
        self.client.hset(keys.records, record.student_id, participant.encode(record))

    def move(self, move: Move | None) -> None:
        if move is None:
            self.client.delete(MOVE)
        else:
            self.client.set(MOVE, migration.encode(move))
        self.ports._move = (float("-inf"), None)

    def journal(self, exam: ExamKey) -> list[Entry]:
        stream: Any = self.client.xrange(partition_keys(exam_keys(exam).tag).journal)
        entries = [journal.decode(fields[b"e"]) for _, fields in stream]
        return [entry for entry in entries if (entry.school, entry.quiz_id) == exam and entry.kind != "audit"]


class ServerlessApi(Api):
    """The Lambda function, given the events of an HTTP API, over the DynamoDB that its environment names."""

    def __init__(self) -> None:
        app = application()
        self.app = app
        self.ports = http.DynamoPorts(app)
        self.records: Records = DynamoRecords(RecordsTable(app.database, app.settings.journal_table))

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = http.on_request(http_api_event(method, url, headers, body), Context())
        content = answer.get("body", "")
        decoded = base64.b64decode(content) if answer.get("isBase64Encoded") else content.encode()
        return Answer(answer["statusCode"], {k.lower(): v for k, v in answer["headers"].items()}, decoded)

    def joins(self, record: Participant) -> None:
        before = self.app.store.load(record.key)
        assert self.app.store.save(before, record, ())

    def move(self, move: Move | None) -> None:
        if move is not None:
            assert self.app.moves.save(self.app.moves.load(), move)
        else:
            key = {"pk": {"S": "move"}, "sk": {"S": "move"}}
            self.app.database.write("DeleteItem", {"TableName": self.app.settings.state_table, "Key": key})
        self.app.moves._known = (float("-inf"), None)

    def journal(self, exam: ExamKey) -> list[Entry]:
        return self.app.store.journal(exam)

    def happened(self, record: Participant, entries: list[Entry]) -> None:
        assert self.app.store.save(self.app.store.load(record.key), record, entries)


class Context:
    """What Lambda gives a handler beside the event."""

    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


def http_api_event(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """An event as an HTTP API makes it, payload format 2.0: header names in lower case, what is not text in base64."""
    parts = urlsplit(url)
    domain = "xyz987.execute-api.ap-southeast-1.amazonaws.com"
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": quote(parts.path, safe="/%"),
        "rawQueryString": parts.query,
        "headers": {
            "accept": "*/*",
            "content-length": str(len(body)),
            "host": domain,
            "user-agent": "lms/1.0",
            "x-amzn-trace-id": "Root=1-5e6722a7-cc56xmpl46db7ae02d4da47e",
            "x-forwarded-for": "203.0.113.9",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            **{name.lower(): value for name, value in headers.items()},
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "xyz987",
            "domainName": domain,
            "domainPrefix": "xyz987",
            "http": {
                "method": method,
                "path": parts.path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.9",
                "userAgent": "lms/1.0",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": "$default",
            "stage": "$default",
            "time": "10/Mar/2026:05:16:23 +0000",
            "timeEpoch": 1773119783000,
        },
        "isBase64Encoded": False,
    }
    if parts.query:
        event["queryStringParameters"] = dict(parse_qsl(parts.query))
    if body:
        is_text = event["headers"].get("content-type", "").startswith(("text/", "application/json"))
        event["isBase64Encoded"] = not is_text
        event["body"] = body.decode(errors="replace") if is_text else base64.b64encode(body).decode()
    return event


def create_tables(endpoint_url: str) -> dict[str, str]:
    """Tables and queues on a server that has none; the environment of a function that uses them."""
    with Session(Credentials("AKIDLOCAL", "local-secret"), "ap-southeast-1") as session:
        dynamodb, sqs = session.client("dynamodb", endpoint_url), session.client("sqs", endpoint_url)
        sweep, command = resources.create(dynamodb, sqs, resources.tables(), resources.queues())
    return {
        "AWS_REGION": "ap-southeast-1",
        "AWS_ACCESS_KEY_ID": "AKIDLOCAL",
        "AWS_SECRET_ACCESS_KEY": "local-secret",
        "AWS_ENDPOINT_URL": endpoint_url,
        "PROCTORWIRE_STATE_TABLE": "proctorwire-state",
        "PROCTORWIRE_JOURNAL_TABLE": "proctorwire-journal",
        "PROCTORWIRE_SWEEP_QUEUE_URL": sweep,
        "PROCTORWIRE_COMMAND_QUEUE_URL": command,
        "PROCTORWIRE_MANAGEMENT_URL": endpoint_url,
        "PROCTORWIRE_SHARDS": "3",
        "PROCTORWIRE_TOKEN_SECRET": f"k2:{SECRET},k1:{secrets.token_hex(32)}",
        "PROCTORWIRE_SCHOOL_KEYS": SCHOOL_KEYS,
        "PROCTORWIRE_SOCKET_URL": SOCKET_URL,
        "PROCTORWIRE_ENDPOINTS": ENDPOINTS,
    }
