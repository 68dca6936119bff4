"""A service for one student's page that does what a test says: it acks or keeps silent, and hangs up as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import websockets
from websockets.asyncio.server import ServerConnection, serve


class Line:
    """One connection, and what came over it."""

    def __init__(self, socket: ServerConnection) -> None:
        assert socket.request is not None  # the handshake is done
        self.socket = socket
        self.path = socket.request.path
        self.frames: list[dict[str, Any]] = []
        self.code: int | None = None

    def of(self, action: str) -> list[dict[str, Any]]:
        return [frame["data"] for frame in self.frames if frame["action"] == action]

    @property
    def reports(self) -> list[dict[str, Any]]:
        return self.of("lmsQuizMonitoringStudent")

    @property
    def heartbeats(self) -> list[dict[str, Any]]:
        return self.of("lmsQuizMonitoringHeartbeat")

    @property
    def receipts(self) -> list[tuple[str, str]]:
        return [(data["command_id"], data["outcome"]) for data in self.of("lmsQuizCommandReceipt")]

    async def send(self, action: str, **data: Any) -> None:
        await self.socket.send(json.dumps({"action": action, "data": data}))


class CannedService:
    """Every connection in the order of coming."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.is_mute = False
        self.max_age_s = 7_200.0
        self.url = ""
        self._news = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[CannedService]:
        async with serve(self._serve, "127.0.0.1", 0, subprotocols=["proctorwire"]) as server:  # type: ignore[list-item]
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
            yield self

    @property
    def line(self) -> Line:
        return self.lines[-1]

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for something that arrives here."""

        def holds() -> bool:
            return bool(condition())

        async with asyncio.timeout(10):
            async with self._news:
                await self._news.wait_for(holds)

    async def _serve(self, socket: ServerConnection) -> None:
        line = Line(socket)
        self.lines.append(line)
        await self._tell()
        with contextlib.suppress(websockets.ConnectionClosed):
            async for text in socket:
                frame = json.loads(text)
                line.frames.append(frame)
                if not self.is_mute:
                    await self._answer(line, frame["action"], frame["data"])
                await self._tell()
        line.code = socket.close_code
        await self._tell()

    async def _answer(self, line: Line, action: str, data: dict[str, Any]) -> None:
        now = time.time() * 1000
        if action == "lmsQuizMonitoringStudent":
            if len(line.reports) == 1:
                joined = {"session_id": data["tab_id"], "last_seq": 0, "lifecycle": "in_progress", "time_end": None}
                await line.send("joined", **joined, server_time=now, max_age_s=self.max_age_s)
            await line.send("ack", seq=data["seq"], server_time=now)
        elif action == "lmsQuizMonitoringHeartbeat" and data.get("echo"):
            await line.send("ack", seq=data["seq"], server_time=now)
        elif action in ("lmsQuizStudentMessage", "lmsQuizCommandReceipt"):
            name = "message_id" if action == "lmsQuizStudentMessage" else "command_id"
            await line.send("ack", **{name: data[name]}, server_time=now)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
