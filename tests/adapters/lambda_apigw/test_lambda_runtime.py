"""Our zip as Lambda runs it: unpacked, on Lambda's Python, under awslambdaric, which is what the managed runtime runs."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from lambda_aws import MiniStackProcess
from lambda_zip import lambda_zip

from adapters.lambda_apigw import resources
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session
from adapters.lambda_apigw.claims import context_of
from adapters.lambda_apigw.store import DynamoStore
from core.identity import Principal, issue
from core.participant import ExamKey
from deploy import package

SECRET = "k" * 40
RUNTIME_CLIENT = "awslambdaric==4.2.2"


class RuntimeApi:
    """ "Using the Lambda runtime API for custom runtimes": hands out one event after the other, and takes the answers."""

    def __init__(self) -> None:
        self.events: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                event = api.events.get()
                body = json.dumps(event).encode() if event is not None else b""
                self.send_response(200 if event is not None else 410)
                self.send_header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + 10) * 1000)))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:ap-southeast-1:1:function:f")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                api.answers.put((self.path.rpartition("/")[2], json.loads(body or b"null")))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def invoke(self, event: Any) -> tuple[str, Any]:
        self.events.put(event)
        return self.answers.get(timeout=20)

    def close(self) -> None:
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/var/task, and beside it the runtime client."""
    if package.find_python(package.LAMBDA.python) is None:
        pytest.skip(f"Lambda's Python {package.LAMBDA.python} is not on this machine")
    folder = tmp_path_factory.mktemp("task")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    target = ["--only-binary=:all:", "--python-version", package.LAMBDA.python, "--target", str(folder / "runtime")]
    wheels = [RUNTIME_CLIENT, "simplejson>=3.20", "snapshot-restore-py>=1.0"]
    with subprocess.Popen([*command, *target, *wheels], stderr=subprocess.PIPE, text=True) as pip:
        with zipfile.ZipFile(lambda_zip("x86_64").path) as archive:
            archive.extractall(folder / "task")
        _, complaint = pip.communicate()
    if pip.returncode:
        pytest.skip(f"{RUNTIME_CLIENT} can't be installed here: {complaint.strip().splitlines()[-1]}")
    return folder


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    api = RuntimeApi()
    yield api
    api.close()


def start(task: Path, api: RuntimeApi, handler: str, **variables: str) -> subprocess.Popen[bytes]:
    python = package.find_python(package.LAMBDA.python)
    assert python is not None
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{task / 'task'}{os.pathsep}{task / 'runtime'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "LAMBDA_TASK_ROOT": str(task / "task"),
        "AWS_LAMBDA_FUNCTION_NAME": "message",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/message",
        "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
        "AWS_REGION": "ap-southeast-1",
        "AWS_ACCESS_KEY_ID": "AKIDLOCAL",
        "AWS_SECRET_ACCESS_KEY": "local-secret",
        "PROCTORWIRE_TOKEN_SECRET": SECRET,
        "PROCTORWIRE_STATE_TABLE": "runtime-state",
        "PROCTORWIRE_JOURNAL_TABLE": "runtime-journal",
        **variables,
    }
    command = [str(python), "-m", "awslambdaric", f"adapters.lambda_apigw.{handler}"]
    return subprocess.Popen(
        command, env=environment, cwd=task / "task", stderr=subprocess.STDOUT, stdout=subprocess.PIPE
    )


def test_a_report_is_decided_by_the_zip_under_the_real_runtime(
    task: Path, api: RuntimeApi, ministack: MiniStackProcess
) -> None:
    with Session(Credentials("a", "b"), "ap-southeast-1") as session:
        dynamodb, sqs = session.client("dynamodb", ministack.url), session.client("sqs", ministack.url)
        tables = resources.tables("runtime-state", "runtime-journal")
        urls = resources.create(dynamodb, sqs, tables, resources.queues("runtime-sweep", "runtime-command"))
        process = start(
            task,
            api,
            "handler.on_message",
            AWS_ENDPOINT_URL=ministack.url,
            PROCTORWIRE_MANAGEMENT_URL=f"{ministack.url}/nobody",
            PROCTORWIRE_SWEEP_QUEUE_URL=urls[0],
            PROCTORWIRE_COMMAND_QUEUE_URL=urls[1],
        )
        try:
            principal = Principal("student", "north", "ann", ("quiz",), time.time() + 60, attempt_id="a1")
            now = int(time.time() * 1000)
            context = {"connectionId": "c=", "routeKey": "$default", "requestTimeEpoch": now, "connectedAt": now}
            report = {
                "quiz_id": "quiz",
                "quiz_attempt_id": "a1",
                "student_id": "ann",
                "user_status": "active",
                "seq": 1,
            }
            body = json.dumps({"action": "lmsQuizMonitoringStudent", "data": report})
            event = {"requestContext": context | {"authorizer": context_of(principal)}, "body": body}
            assert api.invoke(event) == ("response", {"statusCode": 200})
            store = DynamoStore(DynamoDb(dynamodb), "runtime-state", "runtime-journal", time.time)
            [record] = store.participants(ExamKey("north", "quiz"))
            assert (record.student_id, record.label) == ("ann", "active")
        finally:
            process.kill()
            process.communicate()


def test_the_authorizer_refuses_with_the_word_that_api_gateway_wants(task: Path, api: RuntimeApi) -> None:
    process = start(task, api, "authorizer.on_authorize")
    try:
        principal = Principal("proctor", "north", "pat", ("quiz",), time.time() + 60)
        arn = "arn:aws:execute-api:ap-southeast-1:1:api/live/$connect"
        event: dict[str, Any] = {"methodArn": arn, "requestContext": {"connectionId": "c="}, "headers": {}}
        event["queryStringParameters"] = {"token": issue(principal, SECRET)}
        kind, answer = api.invoke(event)
        assert (kind, answer["principalId"]) == ("response", "pat")
        event["queryStringParameters"] = {"token": "nonsense"}
        kind, error = api.invoke(event)
        assert (kind, error["errorMessage"]) == ("error", "Unauthorized")
    finally:
        process.kill()
        process.communicate()
