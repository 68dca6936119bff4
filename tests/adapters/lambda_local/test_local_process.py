"""The gateway as a process of its own."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest
from toy_gateway import alive, ask, function
from websockets.asyncio.client import connect

from adapters.lambda_apigw.local.settings import GatewaySettings
from adapters.lambda_apigw.local.usage import Usage

COMMAND = [sys.executable, "-m", "adapters.lambda_apigw.local", "--settings"]


class Process:
    def __init__(self, path, *arguments):
        self.popen = subprocess.Popen([*COMMAND, path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        line = self.popen.stdout.readline()
        assert line, self.popen.stderr.read()
        self.ready = json.loads(line)

    def control(self, method, path, token=None):
        request = urllib.request.Request(
            self.ready["control_url"] + path,
            method=method,
            headers={"x-control-token": self.ready["control_token"] if token is None else token},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def settings_file(tmp_path):
    path = tmp_path / "settings.json"
    settings = GatewaySettings(functions={"message": function("message")}, routes={"$default": "message"})
    path.write_bytes(msgspec.json.encode(settings))
    return path


@pytest.fixture
def process(settings_file):
    process = Process(settings_file)
    yield process
    process.popen.kill()
    process.popen.communicate()


async def test_it_serves_tells_its_usage_and_takes_faults(process):
    async with connect(process.ready["websocket_url"]) as socket:
        first = await ask(socket)
        status, body = await asyncio.to_thread(process.control, "GET", "/usage")
        usage = msgspec.json.decode(body, type=Usage)
        assert (status, usage.messages_in, usage.functions["message"].invocations) == (200, 1, 1)
        assert usage.gateway_cpu_seconds > 0
        assert usage.gateway_memory_mb > 5
        assert (await asyncio.to_thread(process.control, "POST", "/kill-environment/message"))[0] == 200
        assert (await ask(socket))["pid"] != first["pid"]
        connection_id = first["event"]["requestContext"]["connectionId"]
        assert (await asyncio.to_thread(process.control, "POST", f"/drop-connection/{connection_id}"))[0] == 200
        await socket.wait_closed()
        assert socket.close_code == 1006
    assert (await asyncio.to_thread(process.control, "POST", f"/drop-connection/{connection_id}"))[0] == 404
    assert (await asyncio.to_thread(process.control, "POST", "/kill-environment/other"))[0] == 404
    assert (await asyncio.to_thread(process.control, "GET", "/logs/message"))[0] == 200


def test_control_needs_the_token(process):
    assert process.control("GET", "/usage", token="wrong")[0] == 403
    assert process.control("GET", "/usage", token="")[0] == 403
    assert process.control("GET", "/nothing")[0] == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_its_children_within_two_seconds(process, number):
    async with connect(process.ready["websocket_url"]) as socket:
        pid = (await ask(socket))["pid"]
        await socket.send(json.dumps({"data": {"sleep": 5}}))
        started = time.monotonic()
        process.popen.send_signal(number)
        assert await asyncio.to_thread(process.popen.wait, 5) == 0
        assert time.monotonic() - started < 2
    assert not alive(pid)
    assert process.popen.stderr.read() == b""


async def test_if_it_is_killed_its_children_die(process):
    async with connect(process.ready["websocket_url"]) as socket:
        pid = (await ask(socket))["pid"]
        await socket.send(json.dumps({"data": {"sleep": 5}}))
        await asyncio.to_thread(process.popen.kill)
        await socket.wait_closed()
    deadline = time.monotonic() + 2
    while alive(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's end on Linux only")
def test_die_with_parent(settings_file):
    script = (
        "import subprocess, sys, os\n"
        f"child = subprocess.Popen({[*COMMAND, str(settings_file), '--die-with-parent']!r}, stdout=subprocess.PIPE)\n"
        "sys.stdout.write(child.stdout.readline().decode())\n"
        "sys.stdout.flush()\n"
        "os._exit(0)\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    pid = json.loads(output)["pid"]
    deadline = time.monotonic() + 2
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "truncated"),
        ('{"functions": {}, "routes": {"$default": "f"}}', "no function 'f'"),
        ('{"functions": {}, "routes": {}, "prot": 1}', "prot"),
        ('{"functions": {}, "routes": {}, "port": "many"}', "port"),
        (None, "No such file"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(tmp_path, content, complaint):
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_text(content)
    done = subprocess.run([*COMMAND, str(path)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_taken_port_is_one_line_and_exit_code_2(process, tmp_path):
    port = int(process.ready["websocket_url"].split(":")[2].split("/")[0])
    path = tmp_path / "second.json"
    path.write_text(json.dumps({"functions": {}, "routes": {}, "port": port}))
    done = subprocess.run([*COMMAND, str(path)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_knows_nothing_of_what_runs_behind_it():
    code = (
        "import sys, adapters.lambda_apigw.local.service, adapters.lambda_apigw.local.ministack\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('core', 'compare', 'deploy', 'boto3', 'redis')])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
    assert os.path.isdir(root / "adapters")
