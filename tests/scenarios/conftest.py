"""Whole deployments, started once a session: every scenario runs on each of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deployments import ClusterDeployment, Deployment

from adapters.ec2_cluster.local import LocalCluster

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=["cluster-picows", "cluster-websockets"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A deployment's processes, shared by the scenarios of a session."""
    transport = request.param.removeprefix("cluster-")
    async with LocalCluster(instances=2, workers=2, transport=transport) as cluster:
        yield lambda quiz_id: ClusterDeployment(cluster, quiz_id)


@pytest.fixture
async def deployment(running: Any) -> AsyncIterator[Deployment]:
    """The deployment under test, with an exam that nothing else touches."""
    it: Deployment = running(f"quiz-{next(_numbers)}")
    yield it
    for client in it.clients:
        await client.close()
