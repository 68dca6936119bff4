"""A gateway in front of `toy_handlers`, and shortcuts to talk to it."""

import asyncio
import json
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from adapters.lambda_apigw.local.settings import Function

HERE = str(Path(__file__).parent)


def function(handler, **settings):
    settings.setdefault("env", {"MANAGEMENT_URL": "{management_url}"})
    return Function(handler=f"toy_handlers:{handler}", task_root=HERE, **settings)


async def until(condition, seconds=30.0):
    """Wait until `condition()` is true and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return result


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Toy:
    """A started gateway with toy handlers, and shortcuts to talk to it."""

    def __init__(self, gateway):
        self.gateway = gateway

    def connect(self, path="", **options):
        options.setdefault("compression", None)
        return connect(self.gateway.websocket_url + path, **options)

    async def refusal(self, path):
        """The status and body with which an upgrade is refused."""
        with pytest.raises(InvalidStatus) as refused:
            async with self.connect(path):
                pass
        return refused.value.response.status_code, refused.value.response.body

    def events(self, function_name):
        """Events that a function printed."""
        return [
            json.loads(line.removeprefix("event "))
            for line in self.gateway.log_lines(function_name)
            if line.startswith("event ")
        ]

    async def idle(self, function_name="message"):
        """Wait until no invocation runs: a function's post arrives before the function has returned."""
        await until(lambda: self.usage(function_name).invocations_running == 0)

    async def disconnect_event(self):
        return (await until(lambda: self.events("disconnect")))[0]

    def usage(self, function_name=None):
        usage = self.gateway.usage()
        return usage.functions[function_name] if function_name else usage

    def boto3_client(self, endpoint=None, **credentials):
        return boto3.client(
            "apigatewaymanagementapi",
            endpoint_url=endpoint or self.gateway.management_url,
            region_name="ap-southeast-1",
            aws_access_key_id=credentials.get("access_key_id", "AKIDLOCAL"),
            aws_secret_access_key=credentials.get("secret", "local-secret"),
            aws_session_token=credentials.get("session_token"),
            config=Config(retries={"total_max_attempts": 1}),
        )


def say(**data):
    """A message that tells `toy_handlers.message` what to do."""
    return json.dumps({"action": "anything", "data": data})


async def ask(socket, **data):
    """Send a message and return the next frame, decoded."""
    await socket.send(say(**data))
    return json.loads(await socket.recv())
