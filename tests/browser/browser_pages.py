"""The pages as tests open them: served by the real app, with tokens in their fragments."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import waitress
from deployments import Deployment
from playwright.async_api import Browser, Page

from adapters.web.app import create_app
from adapters.web.ports import Ports
from adapters.web.settings import SchoolKeys, WebSettings

WAIT_MS = 15_000
_AXE = (Path(__file__).with_name("vendor") / "axe.min.js").read_text()
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Site:
    """Where the pages are, and where they connect."""

    def __init__(self, url: str, socket_url: str) -> None:
        self.url = url
        self.socket_url = socket_url

    def link(self, page: str, token: str, **more: str) -> str:
        return f"{self.url}/{page}#{urlencode({'token': token, 'url': self.socket_url, **more})}"


@contextlib.contextmanager
def serve_pages(socket_url: str, secret: str, ports: Ports | None = None) -> Iterator[Site]:
    """The app in a thread. The pages of students touch no store, so they need none."""
    settings = WebSettings(school_keys=SchoolKeys([]), token_secrets={"": secret}, socket_url=socket_url)
    server = cast(
        Any, waitress.create_server(create_app(cast(Ports, ports), settings), host="127.0.0.1", port=0, threads=16)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{server.effective_port}", socket_url)
    finally:
        server.trigger.pull_trigger(server.close)  # in its own loop, which would else wait for a socket that is gone
        thread.join(2)


class Opened:
    """A page in a profile of its own, with every complaint of the browser collected."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"{error} {error.stack}"))
        page.on("console", self._console)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "WebSocket" not in message.text:
            self.complaints.append(f"{message.text} {message.location}")


async def open_page(browser: Browser, url: str, **context: Any) -> Opened:
    context.setdefault("viewport", {"width": 1440, "height": 900})
    page = await (await browser.new_context(**context)).new_page()
    await page.add_init_script(_OWN_SOCKETS)
    page.set_default_timeout(WAIT_MS)
    opened = Opened(page)
    await page.goto(url)
    return opened


async def open_exam(browser: Browser, place: tuple[Deployment, Site], student: str, **token: Any) -> Opened:
    """The demo exam, started."""
    deployment, site = place
    opened = await open_page(
        browser, site.link("exam", deployment.student_token(student, f"attempt-{student}", **token))
    )
    await opened.page.get_by_role("button", name="start the exam").click()
    return opened


_OWN_SOCKETS = """
    window.testSockets = [];
    window.testIsCut = false;
    window.WebSocket = class extends WebSocket {
        constructor(url, ...more) {
            super(window.testIsCut ? `ws://${location.host}/nowhere` : url, ...more);
            window.testSockets.push(this);
        }
    };
"""


async def cut(opened: Opened) -> None:
    """Take the network away from the page's sockets: open ones end without a goodbye, new ones fail. (Chromium's own emulation
    of being offline leaves open sockets as they are.)
    """
    await opened.page.evaluate("window.testIsCut = true; window.testSockets.forEach(socket => socket.close())")


async def mend(opened: Opened) -> None:
    """Give the network back, and tell the page as the system would."""
    await opened.page.evaluate("window.testIsCut = false; window.dispatchEvent(new Event('online'))")


async def hide(page: Page, hidden: bool) -> None:
    """Put the page behind another tab, or in front again, as the page is told of it."""
    await page.evaluate(
        """hidden => {
            Object.defineProperty(document, 'visibilityState', {value: hidden ? 'hidden' : 'visible', configurable: true});
            Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


def contents(path: str | Path) -> bytes:
    """A file that the browser saved."""
    return Path(path).read_bytes()


async def no_violations(page: Page, where: str) -> None:
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(_AXE + "; 0")
    found = await page.evaluate(
        """async tags => (await axe.run({runOnly: tags})).violations.map(
            ({id, nodes}) => `${id}: ${nodes.map(node => node.target + ' ' + node.failureSummary).join(' | ')}`)""",
        _RULES,
    )
    assert found == [], where
