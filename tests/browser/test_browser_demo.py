"""`proctorwire demo`, from its first line to its end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys

from browser_pages import open_page
from playwright.async_api import Browser, expect


async def test_one_command_shows_a_running_exam_and_lets_one_take_part(browser: Browser) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "compare.proctorwire", "demo", "--students", "40", "--port", "0", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        links = json.loads(await process.stdout.readline())
        proctor = await open_page(browser, links["dashboard"])
        student = await open_page(browser, links["exam"])
        await student.page.get_by_role("button", name="start the exam").click()
        await proctor.page.get_by_placeholder("Search").fill("you, in the demo")
        await expect(proctor.page.locator(".rows .row")).to_contain_text("Active")
        await expect(
            proctor.page.locator("#strip").get_by_role("button", name=re.compile(r"^\d\d Active"))
        ).to_be_visible()
        assert not proctor.complaints
        assert not student.complaints
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
    assert process.returncode == 0
    assert said == b""
