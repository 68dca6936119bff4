"""The student script in a real browser, watched by a proctor on the wire."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from browser_pages import Site, contents, cut, hide, mend, no_violations, open_exam, open_page
from deployments import QUICK, Deployment
from playwright.async_api import Browser, expect
from wire_clients import student_token

from adapters.lambda_apigw.http import DynamoPorts
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


async def test_a_student_in_one_page_is_seen_in_the_dashboard_in_another(
    place: Place, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, site = place
    await deployment.open_exam(QUICK)
    proctor = await open_page(browser, site.link("dashboard", deployment.proctor_token("p1")))
    await expect(proctor.page.locator("#nothing")).to_contain_text("Students appear here by themselves")
    student = await open_exam(browser, place, "s1", name="Budi Santoso")
    row = proctor.page.locator(".rows .row")
    for text in ("Budi Santoso", "Active", "Q1", "0/10"):
        await expect(row).to_contain_text(text)

    await student.page.get_by_role("radio", name="Java").check()
    await student.page.get_by_role("button", name="Next").click()
    for text in ("Q2", "1/10"):
        await expect(row).to_contain_text(text)

    await hide(student.page, True)
    await expect(row).to_contain_text("Away")
    await hide(student.page, False)
    await expect(row).to_contain_text("Active")

    await cut(student)
    await expect(row).to_contain_text("Offline")
    await mend(student)
    await expect(row).to_contain_text("Active")

    await student.page.get_by_role("button", name="Raise your hand").click()
    await expect(proctor.page.locator("#attention-list")).to_contain_text("Hand raised")
    await student.page.get_by_placeholder("Write to the proctor").fill("I lost my pen")
    await student.page.keyboard.press("Enter")
    await expect(proctor.page.locator("#count-messages")).to_have_text("1")

    await row.locator(".tick").click()
    await proctor.page.locator("#selection-acts").get_by_role("button", name="Warn").click()
    await proctor.page.get_by_label("Your words").fill("Please stay on this page")
    await proctor.page.get_by_role("button", name="Send").click()
    await student.page.get_by_text("Please stay on this page", exact=True).wait_for()
    await proctor.page.get_by_role("tab", name="Commands").click()
    await expect(proctor.page.locator("#panel-commands")).to_contain_text("1 delivered")
    await student.page.get_by_role("button", name="I understand").click()
    await expect(proctor.page.locator("#panel-commands")).to_contain_text("1 confirmed")

    await proctor.page.locator("#selection-acts").get_by_role("button", name="Pause").click()
    await proctor.page.get_by_role("button", name="Send").click()
    await expect(student.page.get_by_text("The exam is paused")).to_be_visible()
    await expect(row).to_contain_text("Paused")
    await proctor.page.locator("#selection-acts").get_by_role("button", name="Resume").click()
    await proctor.page.get_by_role("button", name="Send").click()
    await expect(student.page.get_by_text("The exam is paused")).to_be_hidden()

    await proctor.page.locator("#selection-acts").get_by_role("button", name="Extra time").click()
    await proctor.page.get_by_label("Minutes more").fill("10")
    await proctor.page.get_by_role("button", name="Send").click()
    await expect(student.page.locator("#left")).to_contain_text(re.compile("39:|40:"))
    await expect(row).to_contain_text(re.compile("39:|40:"))

    await student.page.get_by_role("button", name="Hand in").click()
    await expect(row).to_contain_text("Submitted")

    # who comes later sees it all, whoever did it
    late = await open_page(browser, site.link("dashboard", deployment.proctor_token("p2")))
    await late.page.get_by_role("tab", name="Messages").click()
    await expect(late.page.locator("#panel-messages")).to_contain_text("I lost my pen")
    late_row = late.page.locator(".rows .row")
    await expect(late_row.locator(".since")).to_have_text(re.compile(r"^0:\d\d$"))  # since when it is submitted
    await late_row.click()
    for text in (
        "opened the exam",
        "Away",
        "heard again",
        "Please stay on this page · p1",
        "Warn: confirmed",
        "handed in",
    ):
        await expect(late.page.locator("#drawer-timeline")).to_contain_text(text)
    await expect(late.page.locator("#drawer-talk")).to_contain_text("I lost my pen")
    monkeypatch.setattr(DynamoPorts, "max_answer_bytes", 400)  # there, a file comes in several answers
    async with late.page.expect_download() as download:
        await late.page.locator("#drawer-export").click()
    head, *lines = contents(await (await download.value).path()).decode("utf-8-sig").splitlines()
    assert head.startswith("at,student_id,")
    assert len(lines) == len({tuple(line.split(",")) for line in lines}) > 15
    assert [line.split(",")[5] for line in lines if "Please stay" in line] == ["warn"]
    for opened in (student, proctor, late):
        assert not opened.complaints


@pytest.mark.parametrize(
    ("scheme", "locale", "start", "connected", "submit", "done"),
    [
        ("light", "en-US", "start the exam", "Connected", "Hand in", "Handed in. Thank you."),
        ("dark", "id-ID", "mulai ujian", "Tersambung", "Kumpulkan", "Sudah dikumpulkan. Terima kasih."),
    ],
    ids=["light, English", "dark, Indonesian"],
)
async def test_the_exam_page_passes_axe_in_both_languages(
    cluster_site: Site,
    secret: str,
    browser: Browser,
    scheme: Any,
    locale: str,
    start: str,
    connected: str,
    submit: str,
    done: str,
) -> None:
    token = student_token(secret, "north", "axe", f"s-{scheme}", "a1")
    student = await open_page(browser, cluster_site.link("exam", token), color_scheme=scheme, locale=locale)
    await no_violations(student.page, "before")
    assert await student.page.evaluate("Object.keys(WORDS.en).filter(key => !(key in WORDS.id))") == []
    await student.page.get_by_role("button", name=start).click()
    await student.page.get_by_text(connected).wait_for()
    await no_violations(student.page, "during")
    await student.page.get_by_role("button", name=submit).click()
    await expect(student.page.get_by_role("heading", name=done)).to_be_focused()
    await no_violations(student.page, "after")
    await student.page.locator("#language").select_option("en")
    await expect(student.page.get_by_role("heading", name="Handed in")).to_be_visible()
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
