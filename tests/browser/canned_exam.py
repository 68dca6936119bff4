"""A service with a made-up exam of any size: it answers a dashboard as the real one does, and changes as often as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import websockets
from websockets.asyncio.server import ServerConnection, serve

# fmt: off
FIRST = [
    "Adi", "Agus", "Ayu", "Bagas", "Bayu", "Budi", "Citra", "Dewi", "Dian", "Dimas", "Eka", "Fajar", "Farah",
    "Fitri", "Gilang", "Hana", "Indah", "Intan", "Joko", "Kartika", "Laras", "Lestari", "Made", "Maya", "Nadia",
    "Nanda", "Nisa", "Putri", "Rafi", "Rahma", "Ratna", "Reza", "Rizki", "Salsa", "Sari", "Sinta", "Taufik",
    "Tika", "Wahyu", "Yoga", "Zahra",
]
LAST = [
    "Anggraini", "Hakim", "Halim", "Hidayat", "Kurniawan", "Kusuma", "Lestari", "Lubis", "Maulana", "Nasution",
    "Nugroho", "Permata", "Pratama", "Purnama", "Rahayu", "Ramadhan", "Santoso", "Saputra", "Setiawan",
    "Simanjuntak", "Siregar", "Sitorus", "Suryani", "Susanti", "Utami", "Wibowo", "Wijaya", "Wulandari",
]
# fmt: on
PAGE = 200
_numbers = itertools.count(1)


class CannedExam:
    """Views of `size` students in rooms, and the connections that watch them."""

    def __init__(self, size: int, *, rooms: int = 0, seed: int = 1) -> None:
        self.quiz_id = f"canned-{next(_numbers)}"  # its record is among others in a real store
        self.rng = random.Random(seed)
        self.started = time.time() - 1_260
        self.views = [self._view(number, rooms or max(1, size // 30)) for number in range(size)]
        self.incidents: list[dict[str, Any]] = []
        self.watchers: set[ServerConnection] = set()
        self.received: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.url = ""
        self.is_down = False
        self._news = asyncio.Condition()
        self.refuses: dict[str, str] = {}

    def _view(self, number: int, rooms: int) -> dict[str, Any]:
        rng, now = self.rng, time.time()
        label = rng.choices(
            ["active", "away", "reconnecting", "offline", "paused", "not_joined", "submitted"],
            [880, 24, 8, 10, 3, 40, 35],
        )[0]
        joined = label != "not_joined"
        lifecycle = label if label in ("paused", "not_joined", "submitted") else "in_progress"
        answered = min(40, max(0, round(rng.gauss(21, 6)))) if joined else 0
        aways = rng.choices([0, 1, 2, 3, 7], [70, 15, 8, 4, 2])[0] if joined else 0
        flags = [flag for flag, odds in (("warned", 0.01), ("several_pages", 0.004)) if joined and rng.random() < odds]
        return {
            "student_id": f"s{number + 1:05}",
            "student_name": f"{rng.choice(FIRST)} {rng.choice(LAST)}",
            "group": f"Room {number % rooms + 1}",
            "quiz_attempt_id": f"a{number + 1}" if joined else "",
            "label": label,
            "user_status": "away" if label == "away" else "offline" if label in ("offline", "not_joined") else "active",
            "presence": {"reconnecting": "reconnecting", "offline": "offline", "not_joined": "offline"}.get(
                label, "connected"
            ),
            "attention": "away" if label == "away" else "focused",
            "lifecycle": lifecycle,
            "question_number_current": min(40, answered + 1) if joined else 0,
            "question_answered": 40 if label == "submitted" else answered,
            "question_total": 40 if joined else 0,
            "score": round(rng.gauss(71, 12)) if label == "submitted" else None,
            "away_count": aways + (label == "away"),
            "away_seconds": round(aways * rng.uniform(4, 60), 1),
            "away_since": now - rng.uniform(3, 90) if label == "away" else None,
            "offline_seconds": rng.choice([0, 0, 0, 0, 42.5]) if joined else 0,
            "offline_since": now - rng.uniform(20, 200) if label == "offline" else None,
            "reconnects": rng.choice([0, 0, 0, 1]),
            "time_start": self.started if joined else None,
            "time_end": self.started + 3_600 + 600 * (rng.random() < 0.03) if joined else None,
            "last_seen": now,
            "version": int(now * 1000) - 60_000,
            "seq": 12,
            "flags": flags,
        }

    # --- what happens ---

    def change(self, number: int, **fields: Any) -> dict[str, Any]:
        """Change a student's view; the view, for an update."""
        view = self.views[number]
        view.update(fields)
        view["version"] = max(view["version"] + 1, int(time.time() * 1000))
        return view

    def turn(self, number: int, label: str, **fields: Any) -> dict[str, Any]:
        """A student's label changes, with all that follows."""
        now = time.time()
        return self.change(
            number,
            label=label,
            user_status="away" if label == "away" else "offline" if label == "offline" else "active",
            presence={"offline": "offline", "reconnecting": "reconnecting"}.get(label, "connected"),
            attention="away" if label == "away" else "focused",
            lifecycle=label if label in ("paused", "submitted", "terminated") else "in_progress",
            away_since=now if label == "away" else None,
            offline_since=now if label == "offline" else None,
            label_since=now,
            **fields,
        )

    def any_change(self) -> dict[str, Any]:
        """Something that students do: answer, leave the page, come back."""
        number = self.rng.randrange(len(self.views))
        view = self.views[number]
        if view["lifecycle"] != "in_progress":
            return self.change(number)
        if view["label"] == "active" and self.rng.random() < 0.9:
            answered = min(40, view["question_answered"] + 1)
            return self.change(number, question_answered=answered, question_number_current=min(40, answered + 1))
        return self.turn(number, "active" if view["label"] != "active" else self.rng.choice(["away", "reconnecting"]))

    async def publish(self, *views: dict[str, Any]) -> None:
        await self._tell("lmsQuizMonitoringUpdate", participants=views, incidents=[])

    async def publish_incident(self, **incident: Any) -> None:
        self.incidents = [each for each in self.incidents if each["started_at"] != incident["started_at"]] + [incident]
        await self._tell("lmsQuizMonitoringUpdate", participants=[], incidents=[incident])

    async def say(self, number: int, kind: str, text: str = "") -> None:
        data = {"message_id": f"m{self.rng.random()}", "student_id": self.views[number]["student_id"]}
        await self._tell("lmsQuizMonitoringMessage", kind=kind, text=text, **data)

    async def answer(self, command_id: str, students: dict[str, str]) -> None:
        await self._tell("lmsQuizCommandStatus", command_id=command_id, counts={}, students=students)

    async def _tell(self, action: str, **data: Any) -> None:
        frame = _frame(action, quiz_id=self.quiz_id, server_time=time.time() * 1000, **data)
        websockets.broadcast(self.watchers, frame)

    async def reconnect(self, url: str) -> None:
        await self._tell("reconnect", after_ms=0, reason="moved", url=url)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that arrives here."""
        async with asyncio.timeout(10):
            async with self._news:
                await self._news.wait_for(condition)

    # --- the service ---

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[CannedExam]:
        async with serve(self._serve, "127.0.0.1", 0, subprotocols=["proctorwire"], compression=None) as server:  # type: ignore[list-item]
            self.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
            yield self

    @contextlib.asynccontextmanager
    async def changing(self, per_second: float) -> AsyncIterator[None]:
        """So many changes a second, told every 50 ms as the service does."""

        async def go() -> None:
            start, done = time.monotonic(), 0
            while True:
                await asyncio.sleep(0.05)
                due = int((time.monotonic() - start) * per_second)
                changed = {view["student_id"]: view for view in (self.any_change() for _ in range(due - done))}
                done = due
                if changed:
                    await self.publish(*changed.values())

        task = asyncio.create_task(go())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def drop_everybody(self) -> None:
        for watcher in list(self.watchers):
            watcher.transport.abort()

    async def _serve(self, socket: ServerConnection) -> None:
        if self.is_down:
            socket.transport.abort()
            return
        assert socket.request is not None  # the handshake is done
        self.paths.append(socket.request.path)
        try:
            async for text in socket:
                frame = json.loads(text)
                self.received.append(frame)
                async with self._news:
                    self._news.notify_all()
                await self._take(socket, frame["action"], frame["data"])
        except websockets.ConnectionClosed:
            pass
        finally:
            self.watchers.discard(socket)

    async def _take(self, socket: ServerConnection, action: str, data: dict[str, Any]) -> None:
        now = time.time() * 1000
        if action == "lmsQuizToken":
            await socket.send(_frame("ack", server_time=now))
        elif action == "lmsQuizMonitoringProctor":
            self.watchers.add(socket)
            pages = [self.views[at : at + PAGE] for at in range(0, len(self.views), PAGE)] or [[]]
            for number, page in enumerate(pages, 1):
                common = {"quiz_id": self.quiz_id, "snapshot_id": str(now), "page": number, "pages": len(pages)}
                await socket.send(
                    _frame(
                        "lmsQuizMonitoringSnapshot",
                        **common,
                        participants=page,
                        incidents=self.incidents,
                        server_time=now,
                    )
                )
        elif action == "lmsQuizProctorCommand":
            await socket.send(_frame("ack", server_time=now, command_id=data["command_id"]))
            ids = [view["student_id"] for view in self.views] if data.get("everyone") else data["student_ids"]
            outcome = "confirmed" if data["command"] in ("acknowledge", "flag") else "delivered"
            await self.answer(data["command_id"], {student: self.refuses.get(student, outcome) for student in ids})


def _frame(action: str, **data: Any) -> str:
    return json.dumps({"action": action, "data": data})
