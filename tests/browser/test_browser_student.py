"""The student script in a real browser, watched by a proctor on the wire."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from browser_pages import Site, cut, hide, mend, open_exam
from deployments import QUICK, Deployment
from playwright.async_api import Browser

from adapters.web import pages

Place = tuple[Deployment, Site]


def test_the_script_stays_under_8_kilobytes_compressed() -> None:
    script = (pages.STATIC / "proctorwire.js").read_bytes()
    assert len(gzip.compress(script, 9)) < 8 * 1024


def test_the_script_needs_nothing_but_itself() -> None:
    script = Path(pages.STATIC / "proctorwire.js").read_text()
    assert "import" not in script
    assert "require(" not in script
    assert "http://" not in script
    assert "https://" not in script


async def test_a_proctor_sees_what_a_student_does(place: Place, browser: Browser) -> None:
    deployment, _ = place
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    student = await open_exam(browser, place, "s1", name="Budi Santoso")
    await proctor.sees("s1", label="active", student_name="Budi Santoso", question_number_current=1, question_total=10)

    await student.page.get_by_role("radio", name="Java").check()
    await student.page.get_by_role("button", name="Next").click()
    await proctor.sees("s1", question_answered=1, question_number_current=2)

    await hide(student.page, True)
    await proctor.sees("s1", label="away")
    await hide(student.page, False)
    await proctor.sees("s1", label="active")

    await student.page.get_by_role("button", name="Raise your hand").click()
    await proctor.sees("s1", flags=["hand_raised"])

    await proctor.order("warn", "w1", student_ids=["s1"], text="Please stay on this page")
    await student.page.get_by_text("Please stay on this page", exact=True).wait_for()
    await proctor.status_of("w1", "s1", "delivered")
    await student.page.get_by_role("button", name="I understand").click()
    await proctor.status_of("w1", "s1", "confirmed")

    await student.page.get_by_role("button", name="Hand in").click()
    await proctor.sees("s1", label="submitted", score=10.0)
    assert not student.complaints


async def test_what_happens_while_the_line_is_down_is_told_when_it_is_back(place: Place, browser: Browser) -> None:
    deployment, _ = place
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    student = await open_exam(browser, place, "s1")
    await proctor.sees("s1", label="active")
    await cut(student)
    await proctor.sees("s1", label="offline")
    await student.page.get_by_role("radio", name="Java").check()
    await mend(student)
    await proctor.sees("s1", label="active", question_answered=1, reconnects=1)
    assert not student.complaints


async def test_the_next_page_of_the_exam_is_no_departure_and_closing_it_is_one(place: Place, browser: Browser) -> None:
    deployment, _ = place
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    student = await open_exam(browser, place, "s1")
    await proctor.sees("s1", label="active")
    async with student.page.expect_navigation():
        await student.page.evaluate("location.reload()")
    await student.page.get_by_text("Connected").wait_for()
    await proctor.sees("s1", label="active", flags=[])
    assert ("s1", "offline") not in proctor.labels
    await student.page.close(run_before_unload=True)
    await proctor.sees("s1", label="offline", presence="left")


async def test_a_duplicated_tab_is_a_page_of_its_own(place: Place, browser: Browser) -> None:
    deployment, site = place
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    student = await open_exam(browser, place, "s1")
    await proctor.sees("s1", label="active")
    stored = await student.page.evaluate("JSON.stringify({...sessionStorage})")
    copy = await student.page.context.new_page()
    await copy.goto(f"{site.url}/static/icon.svg")
    await copy.evaluate("stored => Object.assign(sessionStorage, JSON.parse(stored))", stored)
    await copy.goto(f"{site.url}/exam")
    await copy.get_by_text("Connected").wait_for()
    await proctor.sees("s1", flags=["several_pages"])
    await copy.close(run_before_unload=True)
    await proctor.sees("s1", flags=[], label="active")


@pytest.fixture(autouse=True)
async def closed_contexts(browser: Browser):
    """Each test leaves the browser as it found it."""
    yield
    for context in browser.contexts:
        await context.close()
