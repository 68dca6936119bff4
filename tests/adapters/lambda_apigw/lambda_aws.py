"""Two DynamoDBs that we did not write: MiniStack as a process, and moto behind boto3."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import sys
import tempfile
import time
import urllib.request
from typing import Any, NamedTuple

from adapters.lambda_apigw.aws_http import AwsError, DynamoDb, Session
from adapters.lambda_apigw.local import child_process


class Tables(NamedTuple):
    dynamodb: DynamoDb
    state: str
    journal: str


class MiniStackProcess:
    """A MiniStack on a free port, as a context manager."""

    def __enter__(self) -> MiniStackProcess:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._directory = tempfile.TemporaryDirectory(prefix="ministack-")
        self._process = child_process.start(  # which ends with us, however we end
            [sys.executable, "-m", "ministack"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": self._directory.name,
                "TMPDIR": self._directory.name,
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(port),
                "LOG_LEVEL": "ERROR",
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
            },
            cwd=self._directory.name,
        )
        deadline = time.monotonic() + 20
        while not self._is_healthy():
            assert self._process.poll() is None, "MiniStack ended"
            assert time.monotonic() < deadline, "MiniStack did not start"
            time.sleep(0.05)
        return self

    def _is_healthy(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.url}/_localstack/health", timeout=2) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def __exit__(self, *_: object) -> None:
        child_process.kill_group(self._process)  # it keeps everything in memory: there is nothing to save
        self._process.wait()
        self._directory.cleanup()


class MotoClient:
    """`aws_http.Client.call` over boto3, so that moto can answer: the same requests, binary values turned into bytes."""

    def __init__(self, session: Session) -> None:
        import boto3

        self.session = session
        self._client = boto3.client(
            "dynamodb", region_name=session.region, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def call(self, target: str, payload: dict[str, Any], kind: str) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        self.session.meter.call(kind)
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", target.rpartition(".")[2]).lower()
        try:
            answer = getattr(self._client, name)(**_binary(payload, base64.b64decode))
        except ClientError as exc:
            response = _binary(exc.response, lambda value: base64.b64encode(value).decode())
            error = response["Error"]
            status = response["ResponseMetadata"]["HTTPStatusCode"]
            raise AwsError(status, error["Code"], error.get("Message", ""), response, retried=False) from exc
        result: dict[str, Any] = _binary(answer, lambda value: base64.b64encode(value).decode())
        return result


def _binary(value: Any, convert: Any) -> Any:
    """The value with what stands under `B` converted."""
    if isinstance(value, dict):
        return {k: convert(v) if k == "B" else _binary(v, convert) for k, v in value.items()}
    return [_binary(v, convert) for v in value] if isinstance(value, list) else value
