"""What README.md says: every command in it is run here, every command that it names has help with an example."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import jwt
import pytest

from compare.cli import compare
from compare.proctorwire import main as proctorwire
from deploy.cli import deploy

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = {"compare": compare, "proctorwire": proctorwire, "deploy": deploy}
MODULES = {"compare": "compare.cli", "proctorwire": "compare.proctorwire", "deploy": "deploy.cli"}
SECRET = "0123456789abcdef" * 4


def shell_lines() -> list[str]:
    """The commands of README's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def ours(program: str) -> list[list[str]]:
    """The arguments of each call of one of our programs."""
    calls = [shlex.split(line) for line in shell_lines() if f".venv/bin/{program} " in line]
    return [call[1:] for call in calls]


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", MODULES[program], *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        check=False,
    )


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, click.Command]]:
    """Every command below a group, with its whole name."""
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += leaves(command, (*path, name))
        else:
            found.append((" ".join((*path, name)), command))
    return found


def test_every_line_of_the_shell_blocks_is_one_that_is_tested_here():
    known = ("make ", "export ", ".venv/bin/proctorwire ", ".venv/bin/deploy ")
    assert [line for line in shell_lines() if not line.startswith(known)] == []


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_knows_what_readme_calls(line: str):
    target = shlex.split(line)[1]
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "pytest" in done.stdout or "compare run" in done.stdout


def test_the_secret_is_one_that_the_commands_take():
    line = next(line for line in shell_lines() if "PROCTORWIRE_TOKEN_SECRET" in line)
    done = subprocess.run(
        ["sh", "-c", f"{line}; printf %s $PROCTORWIRE_TOKEN_SECRET"], capture_output=True, text=True, check=True
    )
    assert run("proctorwire", *ours("proctorwire")[1], PROCTORWIRE_TOKEN_SECRET=done.stdout).returncode == 0


@pytest.mark.parametrize("call", [call for call in ours("proctorwire") if call[0] == "token"], ids=lambda c: c[2])
def test_tokens_are_made_as_shown(call: list[str]):
    done = run("proctorwire", *call, PROCTORWIRE_TOKEN_SECRET=SECRET)
    assert done.returncode == 0, done.stderr
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])
    assert claims["role"] == call[call.index("--role") + 1]


def test_serve_runs_as_shown():
    call = next(call for call in ours("proctorwire") if call[0] == "serve")
    call[call.index("--port") + 1] = "0"  # the port itself may be somebody else's on the machine of a test
    with subprocess.Popen(
        [sys.executable, "-m", MODULES["proctorwire"], *call, "--json"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PROCTORWIRE_TOKEN_SECRET": SECRET},
    ) as server:
        try:
            assert server.stdout is not None
            assert json.loads(server.stdout.readline())["url"].endswith("/ws")
        finally:
            stopped_at = time.monotonic()
            server.send_signal(signal.SIGINT)
            assert server.wait(10) == 0
    assert time.monotonic() - stopped_at < 5


@pytest.mark.parametrize("call", ours("deploy"), ids=lambda c: c[0])
def test_deploy_says_what_it_needs_without_an_account(call: list[str], tmp_path: Path):
    done = run(
        "deploy",
        *call,
        AWS_REGION="ap-southeast-1",
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=str(tmp_path / "none"),
        AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "none"),
        HOME=str(tmp_path),
    )
    assert done.returncode != 0
    assert "credentials" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_every_command_in_the_table_exists():
    named = re.findall(r"^\| `([a-z]+) ([^`]+)`((?:, `[a-z]+`)*)", README, re.MULTILINE)
    assert len(named) > 10
    for program, first, others in named:
        known = {name for name, _ in leaves(COMMANDS[program])}
        assert {first, *re.findall(r"`([a-z]+)`", others)} <= known


@pytest.mark.parametrize(
    ("name", "command"),
    [(f"{program} {name}", command) for program, group in COMMANDS.items() for name, command in leaves(group)],
)
def test_every_command_has_help_with_an_example(name: str, command: click.Command):
    assert command.help, f"{name} has no help"
    assert "Example" in command.help, f"{name} shows no example"


def test_links_of_the_docs_lead_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
