"""The serverless side as a whole, over real sockets: what only it has. `tests/scenarios` runs what both deployments promise."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets
from deployments import QUICK, ServerlessDeployment
from msgspec.structs import replace
from wire_clients import WAIT_SECONDS

from adapters.lambda_apigw.config import ConfigError
from adapters.lambda_apigw.local.exam_stack import LocalServerless, StackError, StackUsage
from adapters.lambda_apigw.local.settings import Faults, Limits
from core.participant import ExamKey

SECRET = "a token secret of enough bytes for HS256"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[LocalServerless]:
    """Every second `$disconnect` is lost, connections last 100 seconds, and sweeps come each second. A page that promises a second
    is offline after four of silence; one that promises nothing has a minute.
    """
    async with LocalServerless(
        token_secret=SECRET,
        policy=replace(QUICK, lease_margin_seconds=1.0, silent_grace_seconds=1.0, report_seconds=60.0),
        sweep_seconds=1.0,
        minute_seconds=2.0,
        views_window_seconds=0.3,
        shards=2,
        environments=3,
        limits=Limits(duration_seconds=100.0),
        faults=Faults(disconnect_lost=0.5),
    ) as stack:
        yield stack


@pytest.fixture
async def deployment(stack: LocalServerless) -> AsyncIterator[ServerlessDeployment]:
    it = ServerlessDeployment(stack, SECRET, f"quiz-{next(_numbers)}")
    yield it
    for client in it.clients:
        await client.close()


async def eventually(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until the condition holds; its value."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"no {what} within {WAIT_SECONDS:.0f} s"
        await asyncio.sleep(0.1)
    return value


async def settled(stack: LocalServerless) -> StackUsage:
    """The usage, once no invocation is under way: an ack is sent before its invocation has written what it used."""
    last: list[StackUsage] = []

    async def is_quiet() -> bool:
        last.append(await stack.usage())
        return len(last) > 2 and last[-1].meters["message"] == last[-3].meters["message"]

    await eventually(is_quiet, "quiet moment")
    return last[-1]


@pytest.mark.parametrize(("how", "status"), [("none", 401), ("nonsense", 401), ("expired", 401), ("no attempt", 403)])
async def test_a_refused_token_is_an_http_status(deployment: ServerlessDeployment, how: str, status: int) -> None:
    token = {
        "none": "",
        "nonsense": "?token=nonsense",
        "expired": f"?token={deployment.student_token('s1', 'a1', expires_at=time.time() - 60)}",
        "no attempt": f"?token={deployment.student_token('s1', '')}",
    }[how]
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(deployment.url() + token)
    assert refused.value.response.status_code == status


async def test_a_client_of_the_paper_connects_with_a_token_in_the_url(deployment: ServerlessDeployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1", tab_id=None, numbered=False)
    await page.close()
    page.url += f"?token={page.token}"
    async with websockets.connect(page.url) as socket:
        assert socket.subprotocol is None
        page._socket = socket
        await page.report("away", question_answered=4)
        await proctor.sees("s1", label="away", question_answered=4)


async def test_a_drop_is_found_though_its_disconnect_is_lost_and_sweeps_die(
    deployment: ServerlessDeployment, stack: LocalServerless
) -> None:
    """API Gateway does not promise `$disconnect`: here each drop has an even chance to go without. A sweep that is killed
    after it has used its ticket ends its chain, until the rule of each minute (here two seconds) starts it again.
    """
    proctor = await deployment.dashboard()
    pages = [await deployment.page(f"s{n}") for n in range(6)]
    await asyncio.gather(*(page.reported(next_ms=1_000) for page in pages))
    for page in pages:
        page.drop()
    for _ in range(5):
        await asyncio.sleep(0.4)
        await stack.kill_environment("sweep")
    # One that died between the save and the publication leaves dashboards behind until they ask again, as they do each minute.
    async with asyncio.timeout(60):
        while not all(proctor.shown[page.student]["label"] == "offline" for page in pages):
            await asyncio.sleep(1)
            await proctor.watch()
    lines = [e.after for e in await deployment.journal() if e.student_id == "s0" and e.kind == "label"]
    assert lines == ["active", "reconnecting", "offline"]


async def test_killed_environments_lose_nothing_that_was_acked(
    deployment: ServerlessDeployment, stack: LocalServerless
) -> None:
    """A page sends again what was not acked; the record, and the picture after a fresh snapshot, have the last report."""
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    for number in range(1, 31):
        await page.report(question_answered=number)
        if number % 10 == 5:
            await stack.kill_environment("message")
    last = page.seq
    acked = 0
    while acked < last:
        await page.report(seq=last, question_answered=30)
        await asyncio.sleep(0.2)
        # API Gateway's own frames, such as "Internal server error", have no action
        acked = max(frame["data"]["seq"] for frame in page.frames if frame.get("action") == "ack")
    await proctor.watch()
    await proctor.sees("s1", question_answered=30, label="active")


async def test_a_command_to_everyone_reaches_both_shards_and_who_joins_later(
    deployment: ServerlessDeployment,
) -> None:
    proctor = await deployment.dashboard()
    pages = [await deployment.page(f"s{n}") for n in range(6)]
    for page in pages:
        await page.reported()
    await proctor.order("pause", "pause-1", everyone=True)
    await proctor.frame("ack", command_id="pause-1")
    late = await deployment.page("late")
    await late.reported()
    for page in [*pages, late]:
        await page.frame("lmsQuizCommand", command_id="pause-1")
        await proctor.sees(page.student, label="paused")


async def test_in_a_big_exam_updates_come_together(deployment: ServerlessDeployment, stack: LocalServerless) -> None:
    """This stack spreads every exam over two shards, as an exam of more than 1,000 students."""
    proctor = await deployment.dashboard()
    pages = [await deployment.page(f"s{n}") for n in range(8)]
    for number in range(1, 4):
        for page in pages:
            await page.reported(question_answered=number)
    for page in pages:
        await proctor.sees(page.student, question_answered=3)
    assert proctor.count("lmsQuizMonitoringUpdate") < 24
    usage = await stack.usage()
    assert usage.meters["views"].calls["post_to_connection"] >= 1


async def test_a_gone_proctor_is_pruned_and_the_others_go_on(
    deployment: ServerlessDeployment, stack: LocalServerless
) -> None:
    leaving, staying = await deployment.dashboard("leaving"), await deployment.dashboard("staying")
    page = await deployment.page("s1")
    await page.reported()
    await leaving.sees("s1", label="active")
    leaving.drop()
    for number in range(5):
        await page.reported(question_answered=number)
    await staying.sees("s1", question_answered=4)
    usage = await stack.usage()
    assert usage.gateway.functions["message"].errors <= 3  # the kills of another test


async def test_a_token_is_refreshed_in_band(deployment: ServerlessDeployment) -> None:
    proctor = await deployment.dashboard(expires_at=time.time() + 30)
    await proctor.send("lmsQuizToken", token=deployment.proctor_token("proctor"))
    await proctor.until(lambda: proctor.count("ack"), "ack")
    await proctor.send("lmsQuizToken", token="nonsense")
    assert not (await proctor.frame("error", code="token_invalid")).get("final")


async def test_another_page_of_the_same_session_closes_the_old_one(deployment: ServerlessDeployment) -> None:
    old = await deployment.page("s1")
    await old.reported()
    new = await deployment.page("s1")
    await new.reported(seq=2)
    await old.frame("error", code="replaced", final=True)
    await old.closed()


async def test_a_report_of_a_watched_student_costs_what_we_say(deployment: ServerlessDeployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    before = await settled(deployment.stack)
    for number in range(40):
        await page.reported(question_answered=number)
    await proctor.sees("s1", question_answered=39)
    after = await settled(deployment.stack)
    used, was = after.meters["message"], before.meters["message"]
    assert 40 <= used.write_units - was.write_units <= 44
    assert 40 <= used.read_units - was.read_units <= 50  # the record; the exam every two seconds
    posts = used.calls["post_to_connection"] - was.calls["post_to_connection"]
    assert 40 <= posts <= 44  # the acks; updates are queued here, in a request each
    assert used.calls["sqs"] - was.calls["sqs"] == pytest.approx(39, abs=2)  # the first changed nothing
    assert after.log_bytes >= 0
    assert after.sqs_requests > 0


async def test_records_and_connections_can_be_looked_at(
    deployment: ServerlessDeployment, stack: LocalServerless
) -> None:
    page = await deployment.page("s1")
    await page.reported()
    [record] = await stack.records(deployment.exam)
    assert record.label == "active"
    connection = record.sessions[0].connection
    assert connection in await stack.connections()
    assert await stack.drop_connection(connection)
    assert not await stack.drop_connection(connection)
    assert await page.closed() == 1006


async def test_a_short_secret_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="shorter than 32 bytes"):
        LocalServerless(token_secret="short")


async def test_a_taken_port_is_one_line_and_leaves_nothing(stack: LocalServerless) -> None:
    port = int(stack.websocket_url.rpartition(":")[2].partition("/")[0])
    second = LocalServerless(token_secret=SECRET, port=port)
    with pytest.raises(StackError, match="address already in use"):
        await second.start()
    assert not second._directory.exists() or second._directory.samefile(".")
    assert await stack.journal(ExamKey("north", "nobody")) == []
