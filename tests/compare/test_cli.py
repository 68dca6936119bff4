"""The command as a user meets it: help, one line for every mistake, exit codes, and nothing left running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from reference_server import SECRET, ReferenceServer

from compare.cli import compare, main
from compare.run.meter import children
from compare.run.result import decode_result
from core.policy import Policy


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command says to this, with exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(["run", *arguments])
    assert exit_.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    return lines[0]


def command_paths(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from command_paths(command, *above, name)
        else:
            yield (*above, name)


@pytest.mark.parametrize("path", sorted(command_paths(compare)), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*path, "--help"])
    assert exit_.value.code == 0
    assert f"compare {' '.join(path)}" in capsys.readouterr().out.partition("Example")[2]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--students", "0"], "--students: 0"),
        (["--students", "many"], "'--students'"),
        (["--students", "3", "--exams", "4"], "--exams: 4 exams for 3 students"),
        (["--exams", "0"], "--exams: 0"),
        (["--proctors-per-exam", "0"], "--proctors-per-exam"),
        (["--interval", "0"], "--interval"),
        (["--duration", "-1"], "--duration"),
        (["--mode", "azure"], "'--mode'"),
        (["--client", "telnet"], "'--client'"),
        (["--transport", "carrier-pigeon"], "'--transport'"),
        (["--instances", "0"], "--instances"),
        (["--workers", "1000"], "--workers"),
        (["--region", "mars-north-1"], "--region: no prices for region 'mars-north-1'; there are"),
        (["--hours", "0"], "--hours"),
        (["--hours", "100", "--exams-per-month", "100"], "--exams-per-month"),
        (["--token-secret", "short"], "--token-secret"),
        (["--ec2-url", "ws://127.0.0.1:9/"], "--token-secret: missing"),
        (["--mode", "ec2", "--ec2-url", "http://127.0.0.1/", "--token-secret", SECRET], "--ec2-url: 'http://"),
        (["--colour", "blue"], "--colour"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_option(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert names in refused(capsys, *arguments, "--output", str(tmp_path))


def test_the_bare_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert capsys.readouterr().out.startswith("Usage: compare ")


def test_a_folder_that_can_not_be_written_is_named_before_anything_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert "--output: can't write to" in refused(capsys, "--output", str(tmp_path / "file" / "results"))


def test_an_address_where_nobody_listens_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}/"
        line = refused(
            capsys, "--mode", "lambda", "--lambda-url", url, "--token-secret", SECRET, "--output", str(tmp_path)
        )
    assert "--lambda-url: 127.0.0.1 can't be reached (" in line
    assert line.endswith("check the address")


# --- in a process of its own ------------------------------------------------------------------------------------------------


async def command(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from compare.cli import main; main()", "run", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def small(server: ReferenceServer, folder: Path, secret: str = SECRET) -> list[str]:
    """One student for two seconds, at a deployment that is there already."""
    return [
        *("--mode", "ec2", "--ec2-url", f"{server.urls[0]}?token=abc", "--token-secret", secret),
        *("--students", "1", "--exams", "1", "--duration", "2", "--interval", "0.5", "--output", str(folder)),
    ]


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    returncode: int | None
    out: bytes
    err: bytes
    folder: Path


@pytest.fixture(scope="module")
async def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Three commands at the same time, each against a server of its own: a sound one, one told twice, a wrong secret."""

    async def play(name: str, fault: str = "", secret: str = SECRET, *more: str) -> Ended:
        server, folder = ReferenceServer(policy=Policy()), tmp_path_factory.mktemp(name)
        await server.start()
        try:
            if fault:
                await server.inject(fault)
            process = await command(*small(server, folder, secret), *more)
            out, err = await process.communicate()
        finally:
            await server.stop()
        return Ended(process.returncode, out, err, folder)

    plays = {
        "sound": play("sound", "", SECRET, "--json"),
        "faulty": play("faulty", "command twice"),
        "refused": play("refused", "", "not the secret of this server but long"),
    }
    return dict(zip(plays, await asyncio.gather(*plays.values()), strict=True))


def test_a_run_against_a_given_address_prints_json_and_writes_both_files(ended: dict[str, Ended]) -> None:
    returncode, out, err, folder = ended["sound"]
    assert (returncode, err) == (0, b"")
    assert out == (folder / "result.json").read_bytes()
    result = decode_result(out)
    found = result.modes["ec2"]
    assert (found.sent, found.delivered, found.lost) == (found.sent, found.sent, 0)
    assert found.cost is None
    assert "tells nothing of its processes" in " ".join(found.problems)
    assert b"token=abc" not in out
    assert SECRET.encode() not in out
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_run_in_which_something_went_wrong_ends_with_1_and_still_prints_its_table(ended: dict[str, Ended]) -> None:
    returncode, out, err, folder = ended["faulty"]
    assert (returncode, err) == (1, b"")
    assert b"delivery to proctor" in out
    assert b"\x1b" not in out  # no colours where there is no terminal
    assert str(folder / "report.html").encode() in out.replace(b"\n", b"")


def test_a_wrong_secret_is_one_line_that_names_the_option(ended: dict[str, Ended]) -> None:
    returncode, out, err, _ = ended["refused"]
    assert (returncode, out) == (2, b"")
    assert err.decode().splitlines() == [
        "Error: --token-secret: 127.0.0.1 refused our token (401); give the secret that it was started with"
    ]


def test_an_interrupt_ends_every_process_in_time_and_keeps_what_was_measured(tmp_path: Path) -> None:
    arguments = [
        "--mode",
        "ec2",
        "--students",
        "8",
        "--exams",
        "1",
        "--duration",
        "10",
        "--output",
        str(tmp_path),
        "--json",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from compare.cli import main; main()", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        eventually(lambda: sockets(process.pid) >= 4)
        started = children(process.pid)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=3)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.decode().splitlines() == ["Stopped: the figures cover what there was."]
    assert json.loads(out)["partial"] is True
    assert decode_result((tmp_path / "result.json").read_bytes()).modes["ec2"].sent > 0
    assert started
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def sockets(pid: int) -> int:
    """How many TCP connections to WebSocket servers a process has."""
    own = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(str(link.readlink()))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(f"socket:[{row[9]}]" in own and row[3] == "01" for row in rows)
