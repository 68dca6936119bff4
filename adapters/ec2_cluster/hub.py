"""The proctors connected to this worker: who watches which exam, and what they are shown when.

A worker subscribes only to exams that one of its proctors watches, so that cost does not grow with the fleet. Joining subscribes
first and reads the snapshot then. Publications of one tick become one frame. A hole in an origin's numbers, or a reconnected
subscriber, means that something was lost: the exam is read again. A proctor who can't keep up is shown things less and less
often, each student as last published; whose socket is full gets nothing until it has drained, and then one snapshot.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Protocol

import msgspec

from adapters.ec2_cluster.connection import Connection
from adapters.ec2_cluster.keys import exam_keys, exam_of
from adapters.ec2_cluster.metrics import Histogram
from adapters.ec2_cluster.redis_client import RedisError, Subscriber
from adapters.ec2_cluster.redis_cluster import ClusterSubscriber
from core import messages
from core.exam import Exam
from core.messages import View
from core.participant import ExamKey, Participant
from core.snapshot import in_groups, newer, pages, view

log = logging.getLogger(__name__)

_LINGER_SECONDS = 30.0
_RETRY_SECONDS = 0.5
_BACKED_UP_BYTES = 4 * 1024
_PACES_SECONDS = (0.1, 0.25, 0.5, 1.0)


class Records(Protocol):
    """Where snapshots are read."""

    async def participants(self, key: ExamKey) -> list[Participant]:
        """All records of the exam."""

    async def shown(self, key: ExamKey) -> list[View]:
        """Views of participants whose home is the other side of a move."""

    async def load_exam(self, key: ExamKey) -> Exam | None:
        """The exam."""


class _Slowed:
    """A proctor whose socket is backed up: which of `_PACES_SECONDS` updates have, and what waits for the next one."""

    __slots__ = ("since", "step", "timer", "views")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.step = 0
        self.timer = timer
        self.views: dict[str, View] = {}
        self.since: list[float] = []


class _Watched:
    """One exam: its watchers with their groups (none: all), what waits for the next tick, and the last number an origin used."""

    __slots__ = ("again", "frames", "heard", "lagging", "leaving", "reading", "since", "slowed", "views", "watchers")

    def __init__(self) -> None:
        self.watchers: dict[Connection, tuple[str, ...]] = {}
        self.lagging: set[Connection] = set()
        self.slowed: dict[Connection, _Slowed] = {}
        self.since: list[float] = []  # when what is in the publications of `views` began
        self.views: list[bytes] = []
        self.frames: list[tuple[str, bytes]] = []
        self.heard: dict[bytes, int] = {}
        self.reading: set[Connection] = set()
        self.again: set[Connection] = set()
        self.leaving: asyncio.TimerHandle | None = None


class Hub:
    """The proctors of one worker."""

    def __init__(
        self,
        records: Records,
        now: Callable[[], float],
        spawn: Callable[[Coroutine[None, None, None]], None],
        tick_seconds: float,
    ) -> None:
        self.subscriber: Subscriber | ClusterSubscriber | None = None
        self._records = records
        self._now = now
        self._spawn = spawn
        self._tick_seconds = tick_seconds
        self._loop = asyncio.get_running_loop()
        self._exams: dict[ExamKey, _Watched] = {}
        self._dirty: set[ExamKey] = set()
        self._next_tick = 0.0
        self._ticking = False
        self._snapshots = 0
        self.delivered_frames = 0
        self.holes = 0
        self.slowed_total = self.conflated = self.left_out = 0
        self.deliveries = Histogram()

    @property
    def slowed(self) -> int:
        """Proctors whose updates are further apart, by exam."""
        return sum(len(watched.slowed) for watched in self._exams.values())

    # --- watching ---

    async def join(self, exam: ExamKey, connection: Connection, groups: Sequence[str]) -> None:
        """Subscribe, and when that has taken hold send a snapshot. Asked again, it sends a fresh snapshot."""
        watched = self._exams.setdefault(exam, _Watched())
        if watched.leaving is not None:
            watched.leaving.cancel()
            watched.leaving = None
        watched.watchers[connection] = tuple(groups)
        assert self.subscriber is not None  # set before the worker accepts connections
        while connection.is_open:
            try:
                await self.subscriber.subscribe(exam_keys(exam).channel)
                break
            except RedisError:
                await asyncio.sleep(_RETRY_SECONDS)
        await self._send_snapshot(exam, [connection])

    def leave(self, exam: ExamKey, connection: Connection) -> None:
        """Stop showing the exam; the subscription lingers, against flapping."""
        watched = self._exams.get(exam)
        if watched is None:
            return
        watched.watchers.pop(connection, None)
        watched.lagging.discard(connection)
        if (slowed := watched.slowed.pop(connection, None)) is not None:
            slowed.timer.cancel()
        watched.reading.discard(connection)
        watched.again.discard(connection)
        if not watched.watchers and watched.leaving is None:
            watched.leaving = self._loop.call_later(_LINGER_SECONDS, self._forget, exam)

    def gone(self, connection: Connection) -> None:
        """A proctor's socket closed."""
        for exam in [exam for exam, watched in self._exams.items() if connection in watched.watchers]:
            self.leave(exam, connection)

    def writable(self, connection: Connection) -> None:
        """A slow proctor's socket has drained: show the exam as it is now."""
        for exam, watched in self._exams.items():
            if connection in watched.lagging:
                watched.lagging.discard(connection)
                self._spawn(self._send_snapshot(exam, [connection]))

    def _forget(self, exam: ExamKey) -> None:
        watched = self._exams.get(exam)
        if watched is not None and not watched.watchers:
            del self._exams[exam]
            if self.subscriber is not None:
                self._spawn(self._unsubscribe(exam))

    async def _unsubscribe(self, exam: ExamKey) -> None:
        assert self.subscriber is not None
        if exam not in self._exams:
            await self.subscriber.unsubscribe(exam_keys(exam).channel)

    # --- publications ---

    def published(self, channel: bytes, payload: bytes) -> None:
        """A publication: `origin number [began]`, views joined by commas, then frames, each after its group and a tab."""
        exam = _exam_of_channel(channel)
        watched = self._exams.get(exam)
        if watched is None:
            return
        header, views, *frames = payload.split(b"\n")
        origin, number_text, *began = header.split(b" ")
        number = int(number_text)
        expected = watched.heard.get(origin, number - 1) + 1
        watched.heard[origin] = number
        if number > expected:
            self.holes += 1
            self._spawn(self._send_snapshot(exam, list(watched.watchers)))
        if views:
            watched.views.append(views)
            if began:
                watched.since.append(float(began[0]))
        for frame in frames:
            if frame:
                group, _, body = frame.partition(b"\t")
                watched.frames.append((msgspec.json.decode(group, type=str), body))
        self._dirty.add(exam)
        self._schedule()

    def read_again(self) -> None:
        """The subscriber reconnected: publications may be lost, so every exam is read again."""
        for exam, watched in self._exams.items():
            watched.heard.clear()
            self._spawn(self._send_snapshot(exam, list(watched.watchers)))

    def _schedule(self) -> None:
        """The first change after a quiet tick goes at once, later ones together at the end of the tick."""
        if not self._ticking:
            self._ticking = True
            self._loop.call_at(max(self._next_tick, self._loop.time()), self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self._next_tick = self._loop.time() + self._tick_seconds
        dirty, self._dirty = self._dirty, set()
        for exam in dirty:
            watched = self._exams.get(exam)
            if watched is not None:
                self._show(exam, watched)

    def _show(self, exam: ExamKey, watched: _Watched) -> None:
        views, watched.views = b",".join(watched.views), []
        frames, watched.frames = watched.frames, []
        since, watched.since = watched.since, []
        shown_to = 0
        update = self._update(exam, views) if views else None
        by_groups: dict[tuple[str, ...], bytes | None] = {(): update}
        for connection, groups in list(watched.watchers.items()):
            if connection.is_slow:
                watched.lagging.add(connection)
                self.left_out += 1
                continue
            if connection in watched.slowed or connection.buffered_bytes > _BACKED_UP_BYTES:
                if views:
                    self._hold(exam, watched, connection, views, since)
            else:
                if groups not in by_groups:
                    by_groups[groups] = self._update_for(exam, views, groups) if views else None
                shown = by_groups[groups]
                if shown is not None:
                    connection.send(shown)
                    self.delivered_frames += 1
                    shown_to += 1
            for group, frame in frames:
                if not group or in_groups(group, groups):
                    connection.send(frame)
                    self.delivered_frames += 1

        if shown_to:
            self._delivered(since, shown_to)

    def _delivered(self, since: Sequence[float], times: int) -> None:
        now = self._now()
        for began in since:
            self.deliveries.observe(max(0.0, now - began), times)

    def _hold(
        self, exam: ExamKey, watched: _Watched, connection: Connection, views: bytes, since: Sequence[float]
    ) -> None:
        """Keep views for a proctor whose socket is backed up, the newest of each student, until it is their time."""
        slowed = watched.slowed.get(connection)
        if slowed is None:
            timer = self._loop.call_later(_PACES_SECONDS[0], self._show_slowed, exam, connection)
            slowed = watched.slowed[connection] = _Slowed(timer)
            self.slowed_total += 1
        groups = watched.watchers[connection]
        for shown in _views.decode(b"[" + views + b"]"):
            if in_groups(shown.group, groups):
                known = slowed.views.get(shown.student_id)
                self.conflated += known is not None
                slowed.views[shown.student_id] = newer(known, shown)
        slowed.since += since

    def _show_slowed(self, exam: ExamKey, connection: Connection) -> None:
        """Show what was held, and go on further apart if the socket is backed up, closer together when it has drained."""
        watched = self._exams.get(exam)
        slowed = None if watched is None else watched.slowed.get(connection)
        if watched is None or slowed is None:
            return
        waiting = connection.buffered_bytes
        if waiting > _BACKED_UP_BYTES and slowed.step < len(_PACES_SECONDS) - 1:
            slowed.step += 1
            self.slowed_total += 1
        elif not waiting:
            slowed.step -= 1
        held, slowed.views = slowed.views, {}
        since, slowed.since = slowed.since, []
        if connection.is_slow:
            watched.lagging.add(connection)
        elif held:
            connection.send(self._update(exam, b",".join(messages.encode_value(v) for v in held.values())))
            self.delivered_frames += 1
            self._delivered(since, 1)
        if slowed.step < 0:
            del watched.slowed[connection]
        else:
            slowed.timer = self._loop.call_later(_PACES_SECONDS[slowed.step], self._show_slowed, exam, connection)

    def _update(self, exam: ExamKey, views: bytes) -> bytes:
        """An update frame around views that are encoded already. Its shape is tested against `messages.Update`."""
        return b"".join(
            (
                b'{"action":"lmsQuizMonitoringUpdate","data":{"quiz_id":',
                messages.encode_value(exam.quiz_id),
                b',"participants":[',
                views,
                b'],"incidents":[],"server_time":',
                messages.encode_value(messages.milliseconds(self._now())),
                b"}}",
            )
        )

    def _update_for(self, exam: ExamKey, views: bytes, groups: tuple[str, ...]) -> bytes | None:
        """The update for a proctor who watches only some groups."""
        kept = [v for v in _views.decode(b"[" + views + b"]") if in_groups(v.group, groups)]
        return self._update(exam, b",".join(messages.encode_value(v) for v in kept)) if kept else None

    # --- snapshots ---

    async def _send_snapshot(self, exam: ExamKey, connections: Sequence[Connection]) -> None:
        """Read the exam and send it. One read at a time for a proctor; what is published meanwhile merges by version."""
        watched = self._exams.get(exam)
        if watched is None:
            return
        there = [c for c in connections if c in watched.watchers]
        # A read that is under way may have been answered before that which this one is for.
        watched.again.update(c for c in there if c in watched.reading)
        wanted = [c for c in there if c not in watched.reading]
        if not wanted:
            return
        watched.reading.update(wanted)
        try:
            views, state = await self._read(exam)
        finally:
            watched.reading.difference_update(wanted)
            again = [c for c in wanted if c in watched.again]
            watched.again.difference_update(wanted)
            if again:
                self._spawn(self._send_snapshot(exam, again))
        incidents = state.incidents if state is not None else ()
        self._snapshots += 1
        snapshot_id = f"{self._snapshots:x}-{int(self._now() * 1000):x}"
        encoded: dict[tuple[str, ...], list[bytes]] = {}
        for connection in wanted:
            groups = watched.watchers.get(connection)
            if groups is None or not connection.is_open:
                continue
            if groups not in encoded:
                shown = (v for v in views if in_groups(v.group, groups))
                server_time = messages.milliseconds(self._now())
                cut = pages(exam.quiz_id, snapshot_id, shown, incidents, server_time)
                encoded[groups] = [messages.encode(page) for page in cut]
            for page in encoded[groups]:
                connection.send(page)

    async def _read(self, exam: ExamKey) -> tuple[list[View], Exam | None]:
        """The exam's records, and what is shown of the other side.

        Asked again until Redis answers, because a proctor without a snapshot sees nothing true.
        """
        while True:
            try:
                views = [view(record) for record in await self._records.participants(exam)]
                shown = await self._records.shown(exam)
                if shown:
                    newest = {v.student_id: v for v in views}
                    for other in shown:
                        newest[other.student_id] = newer(newest.get(other.student_id), other)
                    views = list(newest.values())
                return views, await self._records.load_exam(exam)
            except RedisError as error:
                log.warning("snapshot of %s: %s", exam.quiz_id, error)
                await asyncio.sleep(_RETRY_SECONDS)


@functools.lru_cache(maxsize=4096)
def _exam_of_channel(channel: bytes) -> ExamKey:
    return exam_of(channel.decode().split("}ex:", 1)[1])


_views = msgspec.json.Decoder(list[messages.View])
