"""Both deployments of the API: the cluster's over a real Redis, the serverless one over MiniStack."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import permissions
import pytest
import redis
from web_api import Api, ClusterApi, ServerlessApi, create_tables

from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.lambda_apigw import http
from adapters.lambda_apigw.handler import application
from adapters.lambda_apigw.local.ministack import MiniStack

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    with EmbeddedRedis.start() as server:
        yield server.url


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path) -> Iterator[ClusterApi]:
    with redis.Redis.from_url(redis_url) as client:
        yield ClusterApi(client, str(tmp_path / "journal.sqlite"))


@pytest.fixture(scope="session")
def function_environment() -> Iterator[dict[str, str]]:
    server = MiniStack()
    with asyncio.Runner() as runner:
        runner.run(server.start())
        try:
            yield create_tables(server.endpoint_url)
        finally:
            runner.run(server.stop())


@pytest.fixture
def function(function_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fresh execution environment of the function. Tests may change its variables before they first call it."""
    for name, value in function_environment.items():
        monkeypatch.setenv(name, value)
    application.cache_clear()
    http._app.cache_clear()
    with permissions.enforced():
        yield
    if application.cache_info().currsize:
        application().session.close()
    application.cache_clear()
    http._app.cache_clear()


@pytest.fixture
def serverless(function: None) -> ServerlessApi:
    return ServerlessApi()


@pytest.fixture(params=["cluster", "serverless"])
def api(request: pytest.FixtureRequest) -> Api:
    it: Api = request.getfixturevalue(request.param)
    return it


@pytest.fixture
def quiz() -> str:
    """An exam that no other test touches."""
    return f"quiz-{next(_numbers)}"
