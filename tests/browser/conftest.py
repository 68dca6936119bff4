"""A real browser, and deployments with the pages in front of them. Started once a session."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import tools
from browser_pages import WAIT_MS, Site, serve_pages
from deployments import QUICK, ClusterDeployment, Deployment, ServerlessDeployment
from playwright.async_api import Browser, async_playwright, expect

from adapters.ec2_cluster.config import new_secret
from adapters.ec2_cluster.local import LocalCluster
from adapters.ec2_cluster.web import RedisPorts, connect
from adapters.lambda_apigw import config
from adapters.lambda_apigw.local.exam_stack import LocalServerless
from compare.lambda_local import http_api

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = tools.program("chromium", "chromium-browser", "google-chrome", package="chromium")
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture(scope="session")
def secret() -> str:
    return new_secret()


@pytest.fixture(scope="session")
async def cluster(secret: str) -> AsyncIterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROCTORWIRE_ORIGINS", "*")  # the pages come from another port
        async with LocalCluster(workers=2, token_secret=secret) as running:
            yield running


@pytest.fixture(scope="session")
def cluster_ports(cluster: LocalCluster) -> Iterator[RedisPorts]:
    with connect(cluster.redis_url) as client:
        yield RedisPorts(client, cluster.journal_place)


@pytest.fixture(scope="session")
def cluster_site(cluster: LocalCluster, cluster_ports: RedisPorts, secret: str) -> Iterator[Site]:
    with serve_pages(cluster.urls[0], secret, cluster_ports) as site:
        yield site


@pytest.fixture(scope="session")
async def serverless(secret: str) -> AsyncIterator[LocalServerless]:
    async with LocalServerless(token_secret=secret, policy=QUICK, sweep_seconds=1.0) as stack:
        yield stack


@pytest.fixture(scope="session")
def serverless_site(serverless: LocalServerless) -> Iterator[Site]:
    environment = serverless.environment | {"PROCTORWIRE_SCHOOL_KEYS": f"north:{new_secret()}"}
    with http_api(config.from_environment(environment), 0) as url:
        yield Site(url, serverless.websocket_url)


@pytest.fixture
def quiz_id() -> str:
    return f"geo-{next(_numbers)}"


@pytest.fixture(params=["cluster", "serverless"])
def place(request: pytest.FixtureRequest, quiz_id: str, secret: str) -> tuple[Deployment, Site]:
    """A deployment with an exam of this test's own, and the site with its pages."""
    running: Any = request.getfixturevalue(request.param)
    site: Site = request.getfixturevalue(f"{request.param}_site")
    if request.param == "cluster":
        return ClusterDeployment(running, quiz_id), site
    return ServerlessDeployment(running, secret, quiz_id), site
