"""`proctorwire web` as a process: a real server, over real sockets."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tools
from click.testing import CliRunner
from web_api import NORTH, SCHOOL_KEYS, SECRET

from compare.proctorwire import main

PAGE = Path(__file__).parents[3] / "docs" / "api.md"

ENVIRONMENT = {"PROCTORWIRE_TOKEN_SECRET": SECRET, "PROCTORWIRE_SCHOOL_KEYS": SCHOOL_KEYS}
STUDENT = {"role": "student", "quiz_id": "math", "student_id": "s1", "quiz_attempt_id": "a1"}
HEADERS = {"Authorization": f"Bearer {NORTH}", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Where the server keeps its records."""
    return f"sqlite:///{tmp_path_factory.mktemp('records')}/records.sqlite"


@pytest.fixture(scope="module")
def server(redis_url, records):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from compare.proctorwire import main; main()",
            *("web", "--redis", redis_url, "--port", "0", "--json", "--records", records),
        ],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        process_group=0,
    )
    with process:
        try:
            yield json.loads(process.stdout.readline()) | {"process": process}
        finally:
            process.kill()


def ask(server, method, path, body=None, headers=HEADERS):
    connection = http.client.HTTPConnection("127.0.0.1", server["port"], timeout=10)
    try:
        connection.request(method, path, body, headers, encode_chunked=not isinstance(body, str | bytes | None))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), dict(answer.getheaders())
    finally:
        connection.close()


def test_it_serves_the_api(server, quiz):
    assert ask(server, "GET", "/readyz")[:2] == (200, {"status": "ready"})
    status, body, headers = ask(server, "POST", "/api/token", json.dumps(STUDENT))
    assert (status, body["url"]) == (200, "ws://127.0.0.1:8080/ws")
    assert "Server" not in headers
    status, body, _ = ask(
        server, "POST", f"/api/exams/{quiz}/open", json.dumps({"roster": [{"student_id": n} for n in range(1_000)]})
    )
    assert (status, body["roster"]["added"]) == (201, 1_000)
    assert ask(server, "GET", f"/api/exams/{quiz}")[1]["counts"]["not_joined"] == 1_000


def test_the_commands_of_the_page_about_the_api_run_as_shown(server, tmp_path):
    tools.program("curl", package="curl")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    commands = [line for line in re.split(r"\n(?=curl )", script.strip()) if line]
    assert len(commands) >= 7
    (tmp_path / "roster.csv").write_text("student_id,name,group\ns2,Sari,Room 2\n")
    token = ask(server, "POST", "/api/token", '{"role": "proctor", "quiz_id": "math", "proctor_id": "p1"}')[1]["token"]
    for command in commands:
        asked = command.replace("https://api.example", server["url"]).replace("curl ", "curl -sS --fail-with-body ", 1)
        done = subprocess.run(
            ["sh", "-c", asked],
            env={"PATH": os.environ["PATH"], "KEY": NORTH, "TOKEN": token},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, command + done.stdout + done.stderr


def test_an_operator_makes_a_schools_first_key_and_purges_its_exams(server, records, tmp_path, quiz, monkeypatch):
    def command(*arguments):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        return done.output.strip()

    monkeypatch.setenv("PROCTORWIRE_RECORDS", records)
    key = command("records", "key", "--school", "west", "--label", "LMS")
    west = HEADERS | {"Authorization": f"Bearer {key}"}
    roster = json.dumps({"roster": [{"student_id": "s1"}]})
    assert ask(server, "POST", f"/api/exams/{quiz}/open", roster, west)[0] == 201
    assert ask(server, "POST", f"/api/exams/{quiz}/close", "{}", west)[0] == 200

    there = f"sqlite:///{tmp_path}/copy.sqlite"
    assert command("records", "copy", "--school", "west", "--from", records, "--to", there) == (
        "1 keys, 1 exams, 1 students, 0 proctors"
    )
    (listed,) = json.loads(command("records", "keys", "--school", "west", "--at", there, "--json"))
    assert (listed["label"], listed["state"]) == ("LMS", "active")

    monkeypatch.setenv("PROCTORWIRE_SCHOOL_KEY", key)
    purge = ["purge", "--url", server["url"], "--school", "west"]
    early = CliRunner().invoke(main, [*purge, "--exam", quiz, "--yes"])
    assert (early.exit_code, "refuses (409)" in early.output) == (1, True)
    wrong = CliRunner().invoke(main, [*purge, "--older-than-days", "0"], input="north\n")
    assert "nothing was deleted" in wrong.output
    assert command(*purge, "--older-than-days", "1", "--yes") == "0 items of 0 exams deleted"

    command("records", "revoke", "--school", "west", "--id", listed["key_id"])
    assert "revoked" in command("records", "keys", "--school", "west")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["records", "keys", "--school", "x", "--at", "sqlite://"], "ends with this command"),
        (["records", "keys", "--school", "x", "--at", "records.txt"], "not a database URL"),
        (["records", "revoke", "--school", "x", "--id", "k1", "--at", "sqlite:///{there}"], "x has no key k1"),
        (["records", "keys", "--school", "x", "--at", "postgresql://u@127.0.0.1:9/x"], "the records' database"),
        (["purge", "--url", "ftp://x", "--school", "x", "--key", "k", "--yes"], "it must begin with https://"),
        (["purge", "--url", "http://127.0.0.1:9", "--school", "x", "--key", "k", "--yes"], "can't be reached"),
        (
            ["purge", "--url", "http://x", "--school", "x", "--key", "k", "--exam", "e", "--older-than-days", "1"],
            "give one of them",
        ),
    ],
)
def test_what_is_wrong_with_a_command_about_records_is_told_in_a_line(arguments, complaint, tmp_path):
    given = [argument.replace("{there}", f"{tmp_path}/r.sqlite") for argument in arguments]
    done = CliRunner().invoke(main, given)
    assert (done.exit_code, complaint in done.output) == (1, True), done.output
    assert "Traceback" not in done.output


def test_a_body_in_chunks_is_read_and_its_size_bounded(server):
    headers = HEADERS | {"Transfer-Encoding": "chunked"}
    assert ask(server, "POST", "/api/token", iter([json.dumps(STUDENT).encode()]), headers)[0] == 200
    status, body, _ = ask(server, "POST", "/api/token", iter([b" " * 10_000] * 2), headers)
    assert (status, body["code"]) == (413, "too_large")


def test_a_slow_client_holds_up_nobody(server):
    slow = [socket.create_connection(("127.0.0.1", server["port"])) for _ in range(12)]
    try:
        for sock in slow:
            sock.sendall(b"POST /api/token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        begun = time.monotonic()
        assert ask(server, "GET", "/healthz")[0] == 200
        assert time.monotonic() - begun < 2
    finally:
        for sock in slow:
            sock.close()


def test_sigterm_ends_it_with_exit_code_0(redis_url):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from compare.proctorwire import main; main()",
            *("web", "--redis", redis_url, "--port", "0"),
        ],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline().startswith("serving the API on http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def run(*arguments, **environment):
    return CliRunner().invoke(main, ["web", *arguments], env=ENVIRONMENT | environment)


def test_help_has_an_example():
    assert "proctorwire web --port 8090" in run("--help").output


def test_a_taken_port_is_one_line_and_exit_code_2(server, redis_url):
    result = run("--redis", redis_url, "--port", str(server["port"]))
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
    assert "choose another --port" in result.output


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        ([], {}, "no Redis"),
        (["--redis", "nowhere"], {}, "redis_url is 'nowhere'"),
        (["--redis", "redis://x"], {"PROCTORWIRE_SCHOOL_KEYS": ""}, "no school keys"),
        (["--redis", "redis://x", "--token-secret", "short"], {}, "shorter than 32 bytes"),
        (["--redis", "redis://x", "--host", "192.0.2.1"], {}, "can't be used"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(arguments, environment, complaint):
    result = run(*arguments, **environment)
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
    assert complaint in result.output
