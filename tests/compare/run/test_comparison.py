"""Whole runs against the reference server: what is sound passes, and each fault is noticed under its own name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from reference_server import ReferenceServer

from compare.bill.usage import Mode
from compare.output import prepare_output, write_output
from compare.run.comparison import BadInput, Options, compare_and_keep
from compare.run.result import Result, decode_result
from compare.run.target import TargetError

SHORT = Options(
    students=16, exams=2, proctors_per_exam=2, interval=0.5, duration=2.5, mode="ec2", exams_per_month=1, hours=1
)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what never comes; the sound runs are over as soon as everything came, and have the usual patience."""
    monkeypatch.setattr("compare.run.measure.SEEN_SECONDS", 2.0)
    monkeypatch.setattr("compare.run.comparison._JOURNAL_SECONDS", 0.5)


class Steps:
    """Records the progress of a run."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def update(self, mode: Mode, phase: str, done: float, total: float, note: str) -> None:
        if phase not in self.phases:
            self.phases.append(phase)


async def run(server: ReferenceServer, options: Options = SHORT, **more) -> Result:
    return (await compare_and_keep(options, targets=[server], **more)).result


CLIENTS = ("proctorwire", "paper")
STOOD_STILL_MS = 300
MISSING = {
    "lose an update": {"lost"},
    "publish nothing": {"lost"},
    "no command": {"lost"},
    "journal gap": {"lost"},
    "false offline": {"wrongly offline", "lost"},  # the journal lacks what was shown
}
TWICE = {
    "update twice": {"doubled"},
    "journal twice": {"doubled"},
    "message twice": {"doubled"},
    "command twice": {"doubled"},
}


@pytest.fixture(scope="module")
async def sound() -> tuple[dict[str, tuple[Result, Steps]], Result]:
    """The runs that lose nothing, at the same time, as each of them mostly waits: one of each client, and one whose server dies."""
    steps = {client: Steps() for client in CLIENTS}
    died, *honest = await asyncio.gather(
        _dies_for_a_moment(),
        *(
            run(ReferenceServer(), msgspec.structs.replace(SHORT, client=client), progress=steps[client])
            for client in CLIENTS
        ),
    )
    found = {client: (result, steps[client]) for client, result in zip(CLIENTS, honest, strict=True)}
    for client, (result, step) in found.items():
        generator = result.modes["ec2"].generator
        assert generator is not None
        if generator.lag_ms_max > STOOD_STILL_MS:  # three at a time were too many for this machine now: then by itself
            found[client] = (
                await run(ReferenceServer(), msgspec.structs.replace(SHORT, client=client), progress=step),
                step,
            )
    return found, died


async def _dies_for_a_moment() -> Result:
    server = ReferenceServer()
    running = asyncio.create_task(run(server))
    while server.connection_count < 12:
        await server.changed.wait()
        server.changed.clear()
    await server.drop_everybody()
    return await running


@pytest.mark.parametrize("client", CLIENTS)
def test_an_honest_server_loses_nothing_and_everything_is_timed(client: str, sound) -> None:
    result, steps = sound[0][client]
    found = result.modes["ec2"]
    assert (found.lost, found.duplicates, found.false_offline) == (0, 0, 0), found.problems
    assert found.sent == found.delivered > 20
    assert found.latency_ms.delivery.count > 20
    assert found.latency_ms.message.count > 10
    assert found.latency_ms.round_trip.count == (found.sent if client == "proctorwire" else 0)
    assert found.offline_detection_s.summary.count == 2
    assert 1.5 <= found.offline_detection_s.summary.max < 3.5
    assert found.offline_detection_s.late == 0
    assert found.cost is not None
    assert found.opening_usage is not None
    assert found.opening_usage.duration_seconds < found.usage.duration_seconds
    assert found.usage.journal_entries > 16
    assert not result.partial
    assert not result.anything_lost
    assert steps.phases == ["starting", "running", "settling", "reading", "done"] or "settling" not in steps.phases


async def noticed(faults: dict[str, set[str]]) -> dict[str, set[str]]:
    """What runs with each of these faults call lost, doubled or wrongly offline; each run says that something is wrong."""
    few = msgspec.structs.replace(SHORT, students=12, exams=1)  # several at a time in one process, perhaps a traced one
    runs = await asyncio.gather(*(run(ReferenceServer(fault), few) for fault in faults))
    results = dict(zip(faults, runs, strict=True))
    for fault in [fault for fault, result in results.items() if not result.anything_lost]:
        # so late, on a busy machine, that a later view repaired it
        results[fault] = await run(ReferenceServer(fault), few)
    found = {}
    for fault, result in results.items():
        mode = result.modes["ec2"]
        assert mode.problems
        assert result.anything_lost
        counts = {"lost": mode.lost, "doubled": mode.duplicates, "wrongly offline": mode.false_offline}
        found[fault] = {name for name, count in counts.items() if count}
    return found


async def test_what_does_not_come_is_noticed_and_taken_for_nothing_else() -> None:
    assert await noticed(MISSING) == MISSING


async def test_what_comes_twice_is_noticed_and_taken_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # everything comes, and may take its time on a busy machine
    assert await noticed(TWICE) == TWICE


def test_a_server_that_dies_for_a_moment_loses_nothing(sound) -> None:
    found = sound[1].modes["ec2"]
    assert (found.lost, found.duplicates, found.false_offline) == (0, 0, 0), found.problems
    assert any("was closed (1006)" in problem for problem in found.problems)


async def test_a_stopped_run_keeps_what_was_measured_and_says_that_it_is_partial() -> None:
    server, stop = ReferenceServer(), asyncio.Event()
    running = asyncio.create_task(run(server, stop=stop))
    while server.connection_count < 8:
        await server.changed.wait()
        server.changed.clear()
    stop.set()
    async with asyncio.timeout(3):
        result = await running
    assert result.partial
    assert result.modes["ec2"].sent > 0
    assert not result.anything_lost, result.modes["ec2"].problems


async def test_a_run_stopped_before_it_began_measures_nothing() -> None:
    stop = asyncio.Event()
    stop.set()
    result = await run(ReferenceServer(), stop=stop)
    assert result.partial
    assert not result.modes


class Broken(ReferenceServer):
    stopped = False

    async def start(self) -> None:
        raise TargetError("no room for a server", "--workers")

    async def stop(self) -> None:
        self.stopped = True


async def test_a_target_that_does_not_start_is_one_line_and_is_stopped() -> None:
    broken = Broken()
    with pytest.raises(BadInput, match="--workers: no room for a server"):
        await run(broken)
    assert broken.stopped


class Foreign(ReferenceServer):
    token_secret = "another secret than the server's and long enough"


async def test_a_server_that_refuses_the_proctors_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compare.run.comparison._JOIN_SECONDS", 0.5)
    with pytest.raises(BadInput, match=r"no picture of their exams.*401"):
        await run(Foreign())


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"students": 0}, "--students"),
        ({"exams": 17}, "--exams"),
        ({"instances": 0}, "--instances"),
        ({"workers": 65}, "--workers"),
        ({"region": "mars-north-1"}, "--region"),
        ({"hours": 0.0}, "--hours"),
        ({"exams_per_month": 900.0}, "--exams-per-month"),
        ({"token_secret": "short"}, "--token-secret"),
        ({"ec2_url": "ws://127.0.0.1:1/"}, "--token-secret"),
    ],
)
async def test_bad_options_are_refused_before_anything_starts(changes: dict[str, object], option: str) -> None:
    options = msgspec.structs.replace(SHORT, **changes)
    server = ReferenceServer()
    with pytest.raises(BadInput, match=option):
        await run(server, options)
    assert not server.urls


async def test_results_are_written_and_can_be_read_again(tmp_path: Path) -> None:
    stop = asyncio.Event()
    stop.set()
    result = await run(ReferenceServer(), stop=stop)
    folder = tmp_path / "some" / "where"
    prepare_output(folder)
    json_path, report_path = write_output(folder, result)
    assert decode_result(json_path.read_bytes()) == result
    assert report_path.read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "result.json"]


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"--output: can't write to .*file/below"):
        prepare_output(tmp_path / "file" / "below")


async def test_urls_go_into_the_result_without_their_query() -> None:
    stop = asyncio.Event()
    stop.set()
    changes = {"ec2_url": "wss://exam.example/ws?token=abc", "token_secret": "s" * 32}
    options = msgspec.structs.replace(SHORT, **changes)
    assert (await run(ReferenceServer(), options, stop=stop)).workload.ec2_url == "wss://exam.example/ws"
