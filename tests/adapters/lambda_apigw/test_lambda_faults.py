"""Everything that AWS may do, at the same time, to the whole serverless side: what was acked is there, once, and in order."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets
from deployments import QUICK, ServerlessDeployment
from wire_clients import Client, Dashboard, Page

from adapters.lambda_apigw.local.exam_stack import LocalServerless
from adapters.lambda_apigw.local.settings import Faults, Limits
from core.policy import Policy

SECRET = "a token secret of enough bytes for HS256"
STUDENTS, REPORTS = 8, 12
FAULTS = Faults(
    disconnect_lost=0.5,
    post_throttled=0.1,
    queue_duplicated=0.3,
    invocation_killed=0.04,  # a timeout, or a crash, in the middle of any step
    killed_within_ms=40.0,
    message_delayed=0.3,
    table_throttled=0.05,
    table_answer_lost=0.03,
)


@pytest.fixture(scope="module", autouse=True)
async def long_exam() -> AsyncIterator[asyncio.Task[None]]:
    """The story of an old connection: most of it is waiting, which it does while the other test of this module runs."""
    task = asyncio.create_task(outlive_a_connection())
    yield task
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture(scope="module")
async def stack() -> AsyncIterator[LocalServerless]:
    async with LocalServerless(
        token_secret=SECRET,
        policy=Policy(closed_grace_seconds=2.0, lease_margin_seconds=2.0),
        sweep_seconds=1.0,
        minute_seconds=2.0,
        views_window_seconds=0.5,
        shards=2,
        environments=3,
        faults=FAULTS,
    ) as stack:
        yield stack


class _Patient(Client):
    """Told by API Gateway that a frame of its failed ("Internal server error"), it sends again at once."""

    failed = 0

    def received(self, frame: dict[str, Any]) -> None:
        if "action" in frame:  # API Gateway's own frames have none
            super().received(frame)
        else:
            self.failed += 1
            self._news.set()

    async def answered(self, **of: Any) -> None:
        """Wait for the ack; AssertionError if a frame failed meanwhile, be it this one or another."""
        before = self.failed
        await self.until(lambda: self.count("ack", **of) or self.failed > before, f"ack of {of}")
        assert self.count("ack", **of), "a frame failed"


class PatientPage(_Patient, Page):
    next_ms = 60_000


class PatientDashboard(_Patient, Dashboard):
    pass


async def again(act: Callable[[], Awaitable[None]], seconds: float = 2.0) -> None:
    """As a client does: try until it worked."""
    for _ in range(60):
        try:
            async with asyncio.timeout(seconds):
                await act()
                return
        except (TimeoutError, AssertionError, websockets.InvalidStatus):
            await asyncio.sleep(0.1)  # a client's pause
    raise AssertionError(f"{act} never worked")


async def acked(page: Page, seq: int) -> None:
    await page.report(seq=seq, question_answered=seq, next_ms=page.next_ms)
    await page.answered(seq=seq)


async def take_exam(page: Page) -> None:
    """Each report until it is acked; some twice at once, and the one before it late."""
    await again(page.connect)
    for seq in range(1, REPORTS + 1):
        if seq % 3 == 0:
            await page.report(seq=seq, question_answered=seq, next_ms=page.next_ms)
            await page.report(seq=seq - 1, question_answered=seq - 1, next_ms=page.next_ms)
        await again(lambda seq=seq: acked(page, seq))


async def test_what_was_acked_is_there_once_whatever_goes_wrong(stack: LocalServerless) -> None:
    deployment = ServerlessDeployment(stack, SECRET, "faulty")
    proctor = PatientDashboard(deployment)
    await again(proctor.connect)
    await again(proctor.watch)
    pages = [PatientPage(deployment, f"s{number}") for number in range(STUDENTS)]
    for page in pages[:2]:
        page.next_ms = 1_000  # these are going to vanish, and silence alone must be enough to see it
    await asyncio.gather(*(take_exam(page) for page in pages))

    async def order() -> None:
        await proctor.order("warn", "w1", student_ids=[page.student for page in pages], text="five minutes left")
        await proctor.answered(command_id="w1")

    await again(order)
    for page in pages[:2]:
        page.drop()
        page.next_ms = 60_000
    for page in pages[:2]:
        await again(lambda page=page: gone(proctor, page.student))
    for page in pages[:2]:
        await again(page.connect)
        await again(lambda page=page: acked(page, REPORTS))

    async def complete() -> None:
        await proctor.watch()
        for page in pages:
            await proctor.sees(page.student, label="active", question_answered=REPORTS, flags=["warned"])

    await again(complete, 4.0)
    records = {record.student_id: record for record in await stack.records(deployment.exam)}
    assert {s: r.question_answered for s, r in records.items()} == {p.student: REPORTS for p in pages}
    journal = await deployment.journal()
    assert len({(e.student_id, e.version, e.n) for e in journal}) == len(journal)
    for page in pages:
        # as a timeline reads them: a frame that was held back is decided after what came later
        mine = sorted((e for e in journal if e.student_id == page.student), key=lambda e: (e.version, e.n))
        labels = [entry.after for entry in mine if entry.kind == "label"]
        assert labels[0] == "active"
        assert all(a != b for a, b in itertools.pairwise(labels)), labels
        assert Counter(e.kind for e in mine)["command"] == 1
        assert all(a.after == b.before for a, b in itertools.pairwise(e for e in mine if e.kind == "label"))
        assert "offline" not in labels or page in pages[:2]
    for client in [proctor, *pages]:
        await client.close()
    usage = (await stack.usage()).gateway
    assert usage.functions["message"].environments_killed > 0
    assert usage.posts["429"] > 0


async def gone(proctor: Dashboard, student: str) -> None:
    await proctor.watch()
    assert proctor.shown[student]["label"] in ("offline", "reconnecting")


async def test_the_cut_of_an_old_connection_is_invisible(long_exam: asyncio.Task[None]) -> None:
    """API Gateway's two hours, here ten seconds: the server tells in time, the new connection opens before the old one goes."""
    await long_exam


async def outlive_a_connection() -> None:
    async with LocalServerless(
        token_secret=SECRET,
        policy=QUICK,
        sweep_seconds=1.0,
        environments=2,
        limits=Limits(duration_seconds=10.0),
    ) as stack:
        deployment = ServerlessDeployment(stack, SECRET, "long")
        proctor, old = await deployment.dashboard(), await deployment.page("s1")
        began = time.monotonic()
        while not old.count("reconnect"):
            await old.reported(next_ms=1_000)
            await asyncio.sleep(0.15)  # the page's beat
            assert time.monotonic() - began < 10.0, "nobody said that the connection is old"
        order = await old.frame("reconnect", reason="max_age")
        assert order["after_ms"] < 500
        new = await deployment.page("s1")
        new.seq = old.seq
        await new.reported(next_ms=1_000)
        await old.closed()
        for _ in range(4):
            await new.reported(next_ms=1_000)
            await asyncio.sleep(0.3)
        # the dashboard was told, too, and the new connection shows the same
        await proctor.until(lambda: proctor.count("reconnect", reason="max_age") or proctor.close_code, "word or cut")
        later = await deployment.dashboard()
        await later.sees("s1", label="active", reconnects=0)
        assert [label for _, label in proctor.labels] == ["active"]
        assert [e.after for e in await deployment.journal() if e.kind == "label"] == ["active"]
        for client in deployment.clients:
            await client.close()
