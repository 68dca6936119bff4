"""The pages as files: what may run in them, and that nothing comes from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from flask.testing import FlaskClient

from adapters.web.app import create_app
from adapters.web.pages import STATIC
from adapters.web.ports import Ports
from adapters.web.settings import SchoolKeys, WebSettings

OURS = sorted(
    path for path in STATIC.rglob("*") if path.suffix in (".html", ".js", ".css") and "vendor" not in path.parts
)


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    settings = WebSettings(
        school_keys=SchoolKeys([]),
        token_secrets={"": "x" * 32},
        socket_url="wss://exams.example/ws",
        endpoints=("other.example:8443",),
    )
    with create_app(cast(Ports, None), settings).test_client() as client:  # pages ask no store
        yield client


@pytest.mark.parametrize("path", ["/dashboard", "/exam", "/static/js/main.js"])
def test_a_page_may_run_only_what_is_here_and_connect_only_to_the_service(client: FlaskClient, path: str) -> None:
    response = client.get(path, buffered=True)
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert response.status_code == 200
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self' wss://exams.example wss://other.example:8443"
    assert policy["frame-ancestors"] == "'none'"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"


def test_only_the_student_script_may_be_loaded_by_others(client: FlaskClient) -> None:
    policy = "Cross-Origin-Resource-Policy"
    assert client.get("/static/proctorwire.js", buffered=True).headers[policy] == "cross-origin"
    assert client.get("/static/js/main.js", buffered=True).headers[policy] == "same-origin"


@pytest.mark.parametrize("path", ["/static/../pages.py", "/static/%2e%2e/pages.py", "/static/nothing.js", "/static/"])
def test_nothing_else_is_served(client: FlaskClient, path: str) -> None:
    assert client.get(path, buffered=True).status_code == 404


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(STATIC)))
def test_no_page_asks_anything_of_another_site(path: Path) -> None:
    text = path.read_text()
    addresses = set(re.findall(r"(?:https?|wss?)://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert all("example" in address or "${" in address or address.startswith("wss://...") for address in addresses)
    assert not re.search(
        r"\son\w+=\"|\sstyle=\"|<style|<script>|innerHTML|insertAdjacentHTML|document\.write|eval\(", text
    )


def test_what_is_vendored_has_its_licence_and_a_note() -> None:
    note = (STATIC / "vendor" / "README.md").read_text()
    for folder in (STATIC / "vendor").iterdir():
        if folder.is_dir():
            assert (folder / "LICENSE.txt").is_file()
            assert f"`{folder.name}`" in note
