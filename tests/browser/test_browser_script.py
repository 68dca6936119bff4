"""What the student script sends, frame by frame, and what it makes of everything that can happen to a connection."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from browser_pages import Opened, cut, hide, mend, open_page, serve_pages
from canned_service import CannedService
from playwright.async_api import Browser, expect
from wire_clients import student_token


@pytest.fixture
async def service() -> AsyncIterator[CannedService]:
    async with CannedService().running() as running:
        yield running


class Exam:
    """Starts the demo exam against a canned service."""

    def __init__(self, browser: Browser, secret: str, service: CannedService) -> None:
        self.browser = browser
        self.secret = secret
        self.service = service
        self.opened: Opened | None = None
        self._serving = serve_pages(service.url, secret)
        self._site = self._serving.__enter__()

    async def start(self, *, clock: bool = False, worker: bool = True, **token: Any) -> Opened:
        url = self._site.link("exam", student_token(self.secret, "north", "geo", "s1", "a1", **token))
        self.opened = await open_page(self.browser, f"{self._site.url}/static/icon.svg")
        if clock:
            await self.opened.page.clock.install()
        if not worker:
            await self.opened.page.add_init_script("window.Worker = class { constructor() { throw new Error('no'); } }")
        await self.opened.page.goto(url)
        await self.opened.page.get_by_role("button", name="start the exam").click()
        return self.opened

    async def join(self, **options: Any) -> Opened:
        opened = await self.start(**options)
        await opened.page.get_by_text("Connected").wait_for()
        return opened

    async def close(self) -> None:
        if self.opened is not None:
            await self.opened.page.context.close()
        self._serving.__exit__(None, None, None)


@pytest.fixture
async def exam(browser: Browser, secret: str, service: CannedService) -> AsyncIterator[Exam]:
    it = Exam(browser, secret, service)
    yield it
    await it.close()


async def test_every_report_carries_all_that_is_known(exam: Exam, service: CannedService) -> None:
    page = (await exam.join()).page
    await page.get_by_role("radio", name="Java").check()
    await page.get_by_role("button", name="Next").click()
    await service.until(lambda: service.line.reports[-1]["question_number_current"] == 2)
    first, last = service.line.reports[0], service.line.reports[-1]
    assert first["seq"] == 1
    assert last["question_answered"] == 1
    for name in ("quiz_id", "quiz_attempt_id", "student_id", "user_status", "question_total", "time_start", "time_end"):
        assert name in last
    assert last["tab_id"] == first["tab_id"]
    assert [report["seq"] for report in service.line.reports] == list(range(1, len(service.line.reports) + 1))


async def test_what_was_not_acknowledged_outlives_a_reload_in_its_order(exam: Exam, service: CannedService) -> None:
    opened = await exam.join()
    tab = service.line.reports[0]["tab_id"]
    await cut(opened)
    for hidden in (True, False, True, False):
        await hide(opened.page, hidden)
    await opened.page.get_by_role("button", name="Raise your hand").click()
    await opened.page.reload()
    await service.until(lambda: service.line.of("lmsQuizStudentMessage"))
    told = [report["user_status"] for report in service.line.reports]
    assert told[:4] == ["away", "active", "away", "active"]
    seqs = [report["seq"] for report in service.line.reports]
    assert seqs == sorted(set(seqs))
    assert seqs[0] > 1
    assert {report["tab_id"] for report in service.line.reports} == {tab}


async def test_a_report_without_an_ack_is_sent_again_with_its_number(exam: Exam, service: CannedService) -> None:
    opened = await exam.join()
    service.is_mute = True
    await hide(opened.page, True)
    await service.until(lambda: service.line.reports[-1]["user_status"] == "away")
    lost = service.line.reports[-1]["seq"]
    service.is_mute = False
    await service.line.socket.close(4201)
    await service.until(lambda: len(service.lines) == 2 and service.line.reports)
    assert service.line.reports[0]["seq"] == lost
    assert service.line.reports[0]["user_status"] == "away"


async def test_before_a_connection_is_too_old_a_new_one_is_open(exam: Exam, service: CannedService) -> None:
    service.max_age_s = 2.0
    opened = await exam.join()
    service.max_age_s = 7_200.0
    await service.until(lambda: len(service.lines) == 2 and service.lines[0].code is not None)
    assert service.lines[1].reports
    assert service.lines[0].code == 1000  # no goodbye: the same page goes on
    await expect(opened.page.get_by_text("Connected")).to_be_visible()


async def test_a_socket_that_only_looks_open_is_replaced(exam: Exam, service: CannedService) -> None:
    opened = await exam.join(clock=True)
    service.is_mute = True
    await hide(opened.page, True)
    await hide(opened.page, False)
    await service.until(lambda: service.line.reports[-1]["user_status"] == "away")
    await opened.page.clock.fast_forward(10_500)
    service.is_mute = False
    for _ in range(3):
        await opened.page.clock.fast_forward(2_000)
    await service.until(lambda: len(service.lines) == 2 and service.line.reports)


async def test_silence_is_filled_with_heartbeats_that_promise_the_next(exam: Exam, service: CannedService) -> None:
    opened = await exam.join(clock=True)
    assert service.line.reports[-1]["next_ms"] == 19_000
    await opened.page.clock.fast_forward(19_500)
    await service.until(lambda: service.line.heartbeats)
    assert service.line.heartbeats[0] == {"seq": service.line.reports[-1]["seq"], "next_ms": 19_000}
    await hide(opened.page, True)
    await service.until(lambda: service.line.reports[-1]["user_status"] == "away")
    assert service.line.reports[-1]["next_ms"] == 38_000  # its worker rings on time
    await opened.page.evaluate("document.dispatchEvent(new Event('freeze'))")
    await service.until(lambda: service.line.reports[-1]["next_ms"] == 300_000)


async def test_focus_elsewhere_counts_after_a_while_as_one_absence_with_the_tab_hidden_in_it(
    exam: Exam, service: CannedService
) -> None:
    page = (await exam.join(clock=True, worker=False)).page

    async def focus(has: bool) -> None:
        await page.evaluate(
            "has => { document.hasFocus = () => has; window.dispatchEvent(new Event(has ? 'focus' : 'blur')); }", has
        )

    await focus(False)
    await page.clock.fast_forward(1_500)
    await focus(True)  # a glance
    await page.clock.fast_forward(2_500)
    await focus(False)
    await page.clock.fast_forward(2_500)
    await service.until(lambda: service.line.reports[-1]["user_status"] == "away")
    await hide(page, True)
    await service.until(lambda: service.line.heartbeats)
    assert service.line.heartbeats[-1]["next_ms"] == 60_000  # without a worker its timers ring once a minute
    await hide(page, False)
    await focus(True)
    await service.until(lambda: service.line.reports[-1]["user_status"] == "active")
    told = [status for status, _ in itertools.groupby(report["user_status"] for report in service.line.reports)]
    assert told == ["active", "away", "active"]


async def test_it_follows_the_service_only_to_hosts_that_it_knows(exam: Exam, service: CannedService) -> None:
    async with CannedService().running() as stranger:
        await exam.join()
        await service.line.send("reconnect", after_ms=0, reason="moved", url=stranger.url)
        await service.until(lambda: len(service.lines) == 2)
        await service.line.send("reconnect", after_ms=0, reason="moved", url=service.url.replace("/ws", "/elsewhere"))
        await service.until(lambda: len(service.lines) == 3)
        assert service.line.path == "/elsewhere"
        assert not stranger.lines


async def test_a_final_close_is_final_and_a_drain_is_not(exam: Exam, service: CannedService) -> None:
    opened = await exam.join()
    await service.line.socket.close(4200)
    await service.until(lambda: len(service.lines) == 2 and service.line.reports)
    await service.line.socket.close(4003)
    await expect(opened.page.get_by_text("Monitoring has ended")).to_be_visible()
    assert len(service.lines) == 2


async def test_an_expired_token_is_told_to_the_student(exam: Exam, service: CannedService) -> None:
    opened = await exam.join(expires_at=time.time() + 1.5)
    await cut(opened)
    await expect(opened.page.get_by_text("Your link has expired")).to_be_visible()
    await mend(opened)
    assert len(service.lines) == 1


async def test_a_command_reaches_the_page_once_however_often_it_is_sent(exam: Exam, service: CannedService) -> None:
    opened = await exam.join()
    for _ in range(2):
        await service.line.send("lmsQuizCommand", command_id="c1", command="message", text="Five minutes left")
    await service.until(lambda: service.line.receipts == [("c1", "delivered")] * 2)
    await expect(opened.page.get_by_text("Five minutes left")).to_have_count(1)
    await service.line.send("lmsQuizCommand", command_id="c2", command="warn", text="Stay here")
    await opened.page.get_by_role("button", name="I understand").click()
    await service.until(lambda: ("c2", "confirmed") in service.line.receipts)


async def test_after_the_exam_is_handed_in_the_page_falls_silent(exam: Exam, service: CannedService) -> None:
    opened = await exam.join(clock=True)
    await opened.page.get_by_role("button", name="Hand in").click()
    await service.until(lambda: service.line.reports[-1].get("attempt_state") == "submitted")
    await opened.page.get_by_role("heading", name="Handed in").wait_for()
    await opened.page.clock.fast_forward(60_000)
    await service.line.socket.close(1011)
    await expect(opened.page.locator("#link")).to_have_attribute("data-link", "stopped")
    assert not service.line.heartbeats
