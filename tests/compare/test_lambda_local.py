"""`proctorwire lambda local` as its user sees it: links that work, and Ctrl-C that ends everything."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner
from websockets.sync.client import connect

from compare.proctorwire import main

COMMAND = [sys.executable, "-m", "compare.proctorwire", "lambda", "local", "--port", "0", "--http-port", "0", "--json"]


def descendants(pid: int) -> set[int]:
    children = {
        int(path.parent.name): int(path.read_text().rsplit(")", 1)[1].split()[1])
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.exists()
    }
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in children.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return found - {pid}


def test_pages_sockets_and_tokens_work_and_ctrl_c_ends_all() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            served = json.loads(process.stdout.readline())
            for path in ("/healthz", "/readyz", "/dashboard", "/exam", "/static/proctorwire.js"):
                with urllib.request.urlopen(served["http_url"] + path, timeout=10) as answer:
                    assert answer.status == 200
                    if path == "/exam":
                        assert served["websocket_url"].rpartition("/")[0] in answer.headers["content-security-policy"]
            for page, role in (("dashboard", "proctor"), ("exam", "student")):
                fragment = parse_qs(urlsplit(served[page]).fragment)
                assert fragment["url"] == [served["websocket_url"]]
                protocols = ["proctorwire", f"bearer.{fragment['token'][0]}"]
                with connect(served["websocket_url"], subprotocols=protocols) as socket:
                    assert socket.subprotocol == "proctorwire", role
            arguments = ["token", "--role", "student", "--school", served["school"], "--quiz", served["quiz_id"]]
            made = CliRunner().invoke(
                main, [*arguments, "--id", "s1", "--attempt", "a1", "--token-secret", served["token_secret"]]
            )
            with connect(f"{served['websocket_url']}?token={made.output.strip()}") as socket:
                report = {"quiz_id": served["quiz_id"], "quiz_attempt_id": "a1", "student_id": "s1", "seq": 1}
                socket.send(
                    json.dumps({"action": "lmsQuizMonitoringStudent", "data": report | {"user_status": "active"}})
                )
                assert json.loads(socket.recv())["action"] == "joined"
            request = urllib.request.Request(
                f"{served['http_url']}/api/exams/{served['quiz_id']}",
                headers={"Authorization": f"Bearer {served['school_key']}"},
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["state"] == "open"
            started = descendants(process.pid)
            assert len(started) > 2
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert not [pid for pid in started if (Path("/proc") / str(pid)).exists()]
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--token-secret", "short"], "--token-secret: the token secret (without kid) is shorter than 32 bytes"),
        (["--port", "99999"], "Invalid value for '--port'"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, ["lambda", "local", *arguments])
    assert result.exit_code == 2
    assert complaint in result.output


def test_each_command_has_help_with_an_example() -> None:
    for command in (["lambda", "local"], ["bench-lambda"]):
        result = CliRunner().invoke(main, [*command, "--help"])
        assert result.exit_code == 0
        assert "Example:" in result.output
