"""Whole deployments, started once a session: every scenario runs on each of them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deployments import QUICK, ClusterDeployment, Deployment, ServerlessDeployment

from adapters.ec2_cluster.config import new_secret
from adapters.ec2_cluster.local import LocalCluster
from adapters.lambda_apigw.local.exam_stack import LocalServerless

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=["cluster-picows", "cluster-websockets", "serverless"])
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A deployment's processes, shared by the scenarios of a session."""
    if request.param == "serverless":
        secret = new_secret()
        async with LocalServerless(token_secret=secret, policy=QUICK, sweep_seconds=1.0) as stack:
            yield lambda quiz_id: ServerlessDeployment(stack, secret, quiz_id)
        return
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
