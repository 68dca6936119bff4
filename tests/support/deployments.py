"""Deployments as tests see them: where to connect, whose tokens, and what was journalled."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import redis
from wire_clients import WAIT_SECONDS, Dashboard, Page, proctor_token, student_token

from adapters.ec2_cluster.keys import exam_keys
from adapters.ec2_cluster.local import LocalCluster
from adapters.lambda_apigw.local.exam_stack import LocalServerless
from core import exam as exams
from core.exam import new_exam
from core.journal import Entry
from core.participant import ExamKey
from core.policy import Policy

QUICK = Policy(closed_grace_seconds=1.0, lost_by_us_grace_seconds=4.0, planned_quiet_seconds=2.0)
"""Closed sockets are decided after a second here, so that a test sees what takes twenty in an exam."""


class Deployment:
    """One way to deploy, running; each test has an exam of its own, because `quiz_id` is."""

    school = "north"

    def __init__(self, token_secret: str, quiz_id: str) -> None:
        self.token_secret = token_secret
        self.quiz_id = quiz_id
        self.clients: list[Page | Dashboard] = []

    @property
    def exam(self) -> ExamKey:
        return ExamKey(self.school, self.quiz_id)

    def url(self, instance: int = 0) -> str:
        raise NotImplementedError

    async def open_exam(self, policy: Policy) -> None:
        raise NotImplementedError

    async def journal(self) -> list[Entry]:
        raise NotImplementedError

    def student_token(self, student: str, attempt: str, **more: Any) -> str:
        school, quiz_id = more.pop("school", self.school), more.pop("quiz_id", self.quiz_id)
        return student_token(self.token_secret, school, quiz_id, student, attempt, **more)

    def proctor_token(self, proctor: str, **more: Any) -> str:
        school, quiz_id = more.pop("school", self.school), more.pop("quiz_id", self.quiz_id)
        return proctor_token(self.token_secret, school, quiz_id, proctor, **more)

    async def until_journalled(self, kind: str, count: int) -> None:
        """Wait until the journal has so many entries of this kind."""
        deadline = time.monotonic() + WAIT_SECONDS
        while sum(entry.kind == kind for entry in await self.journal()) < count:
            assert time.monotonic() < deadline, f"not {count} of {kind} in the journal"
            await asyncio.sleep(0.05)

    async def page(self, student: str, **options: Any) -> Page:
        page = Page(self, student, **options)
        self.clients.append(page)
        await page.connect()
        return page

    async def dashboard(self, proctor: str = "proctor", **options: Any) -> Dashboard:
        dashboard = Dashboard(self, proctor, **options)
        self.clients.append(dashboard)
        await dashboard.connect()
        await dashboard.watch()
        return dashboard


class ClusterDeployment(Deployment):
    def __init__(self, cluster: LocalCluster, quiz_id: str) -> None:
        super().__init__(cluster.token_secret, quiz_id)
        self.cluster = cluster

    def url(self, instance: int = 0) -> str:
        return self.cluster.urls[instance]

    async def open_exam(self, policy: Policy) -> None:
        keys = exam_keys(self.exam)
        with redis.Redis.from_url(self.cluster.redis_url) as client:
            client.set(keys.exam, exams.encode(new_exam(self.exam, "ec2", time.time(), policy)))

    async def journal(self) -> list[Entry]:
        return self.cluster.journal(self.exam)


class ServerlessDeployment(Deployment):
    """The emulated serverless side; its exams all have the policy that it was started with."""

    def __init__(self, stack: LocalServerless, token_secret: str, quiz_id: str) -> None:
        super().__init__(token_secret, quiz_id)
        self.stack = stack

    def url(self, instance: int = 0) -> str:
        return self.stack.websocket_url

    async def open_exam(self, policy: Policy) -> None:
        assert policy == QUICK, "the stack was started with this policy"

    async def journal(self) -> list[Entry]:
        return await self.stack.journal(self.exam)
