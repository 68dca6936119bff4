"""A student's page and a proctor's dashboard as tests drive them: the wire protocol, and waiting for conditions."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from core.identity import Principal, issue

WAIT_SECONDS = 20.0


class Client:
    """A connection that keeps every frame it got, and waits for one that satisfies a condition."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self.frames: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self.ssl: ssl.SSLContext | None = None
        self._socket: ClientConnection | None = None
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._socket = await websockets.connect(
            self.url,
            subprotocols=["proctorwire", f"bearer.{self.token}"],
            ping_interval=None,
            max_size=2**20,
            ssl=self.ssl,
        )
        self.close_code = None
        self._reader = asyncio.create_task(self._read(self._socket))

    async def until_let_in(self) -> None:
        """Connect, again and again until it is accepted."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                await self.connect()
                return
            except websockets.InvalidStatus:
                assert time.monotonic() < deadline, "still refused"
                await asyncio.sleep(0.02)

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for frame in socket:
                self.received(json.loads(frame))
        except websockets.ConnectionClosed:
            pass
        if socket is self._socket:
            self.close_code = socket.close_code
        self._news.set()

    def received(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        self._news.set()

    async def send(self, action: str, **data: Any) -> None:
        await self.send_raw(json.dumps({"action": action, "data": data}))

    async def send_raw(self, payload: str | bytes) -> None:
        assert self._socket is not None
        await self._socket.send(payload)

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until the condition holds, looking after each frame; return its value."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := condition()):
            self._news.clear()
            left = deadline - time.monotonic()
            assert left > 0, f"no {what} within {WAIT_SECONDS:.0f} s; frames: {self.frames[-5:]}"
            try:
                async with asyncio.timeout(min(left, 0.5)):
                    await self._news.wait()
            except TimeoutError:
                pass
        return value

    async def frame(self, action: str, **expected: Any) -> dict[str, Any]:
        """The data of the first frame of this action with these values; waits for it."""

        def found() -> dict[str, Any] | None:
            for frame in self.frames:
                data = frame["data"]
                if frame["action"] == action and all(data.get(k) == v for k, v in expected.items()):
                    return data
            return None

        return await self.until(found, f"{action} {expected}")

    def count(self, action: str, **expected: Any) -> int:
        return sum(
            frame["action"] == action and all(frame["data"].get(k) == v for k, v in expected.items())
            for frame in self.frames
        )

    async def closed(self) -> int:
        """Wait until the server has closed the socket; its code."""
        return await self.until(lambda: self.close_code, "close")

    def drop(self) -> None:
        """Cut the line without a goodbye."""
        assert self._socket is not None
        self._socket.transport.abort()

    async def close(self, code: int = 1000) -> None:
        if self._socket is not None:
            await self._socket.close(code)
        if self._reader is not None:
            await self._reader


class Page(Client):
    """A student's page that speaks our protocol; `tab_id=None, numbered=False` makes it the paper's own client."""

    def __init__(
        self, deployment: Any, student: str, *, tab_id: str | None = "tab", numbered: bool = True, **token: Any
    ):
        self.student = student
        self.tab_id = tab_id
        self.numbered = numbered
        self.seq = 0
        self.quiz_id = token.get("quiz_id", deployment.quiz_id)
        self.attempt = token.pop("attempt", f"attempt-{student}")
        super().__init__(deployment.url(), deployment.student_token(student, attempt=self.attempt, **token))

    async def report(self, status: str = "active", *, seq: int | None = None, **fields: Any) -> int:
        """Send a status report; the seq it had."""
        data: dict[str, Any] = {
            "quiz_id": self.quiz_id,
            "quiz_attempt_id": self.attempt,
            "student_id": self.student,
            "user_status": status,
            **fields,
        }
        if self.numbered:
            self.seq = seq or self.seq + 1
            data["seq"] = self.seq
        if self.tab_id:
            data["tab_id"] = self.tab_id
        await self.send("lmsQuizMonitoringStudent", **data)
        return self.seq

    async def reported(self, status: str = "active", **fields: Any) -> None:
        """Report, and wait for the ack."""
        await self.frame("ack", seq=await self.report(status, **fields))


class Dashboard(Client):
    """A proctor's dashboard: what it shows is merged by version."""

    def __init__(self, deployment: Any, proctor: str = "proctor", *, instance: int = -1, **token: Any) -> None:
        self.quiz_id = token.get("quiz_id", deployment.quiz_id)
        self.shown: dict[str, dict[str, Any]] = {}
        self.labels: list[tuple[str, str]] = []
        super().__init__(deployment.url(instance), deployment.proctor_token(proctor, **token))

    def received(self, frame: dict[str, Any]) -> None:
        if frame["action"] in ("lmsQuizMonitoringSnapshot", "lmsQuizMonitoringUpdate"):
            for view in frame["data"]["participants"]:
                known = self.shown.get(view["student_id"])
                if known is None or view["version"] > known["version"]:
                    self.shown[view["student_id"]] = view
                    if known is None or known["label"] != view["label"]:
                        self.labels.append((view["student_id"], view["label"]))
        super().received(frame)

    async def watch(self, **data: Any) -> None:
        """Subscribe, and wait for a whole snapshot."""
        before = self.count("lmsQuizMonitoringSnapshot")
        await self.send("lmsQuizMonitoringProctor", quiz_id=self.quiz_id, **data)
        await self.until(lambda: self.count("lmsQuizMonitoringSnapshot") > before, "snapshot")

    async def sees(self, student: str, **expected: Any) -> dict[str, Any]:
        """Wait until the student is shown with these values; the view."""

        def found() -> dict[str, Any] | None:
            view = self.shown.get(student)
            return view if view and all(view[k] == v for k, v in expected.items()) else None

        return await self.until(found, f"{student} {expected}, but {self.shown.get(student)}")

    async def order(self, command: str, command_id: str, **data: Any) -> None:
        await self.send("lmsQuizProctorCommand", quiz_id=self.quiz_id, command=command, command_id=command_id, **data)

    async def status_of(self, command_id: str, student: str, outcome: str) -> None:
        """Wait until a command has come this far for a student."""

        def found() -> bool:
            return any(
                frame["action"] == "lmsQuizCommandStatus"
                and frame["data"]["command_id"] == command_id
                and frame["data"]["students"].get(student, "").startswith(outcome)
                for frame in self.frames
            )

        await self.until(found, f"{outcome} of {command_id} for {student}")


def student_token(secret: str, school: str, quiz_id: str, student: str, attempt: str, **more: Any) -> str:
    expires_at = more.pop("expires_at", time.time() + 3600)
    return issue(Principal("student", school, student, (quiz_id,), expires_at, attempt_id=attempt, **more), secret)


def proctor_token(secret: str, school: str, quiz_id: str, proctor: str, **more: Any) -> str:
    expires_at = more.pop("expires_at", time.time() + 3600)
    return issue(Principal("proctor", school, proctor, (quiz_id,), expires_at, **more), secret)
