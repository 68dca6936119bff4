"""A small honest server in this process: the loop of `core`, with faults that can be switched on to see them noticed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from itertools import count

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from compare.bill.usage import ClusterUsage, ProcessSplit
from compare.run.meter import Samples
from compare.run.target import Load
from core import Exam, ExamKey, Participant, ParticipantKey, decide, new_exam, new_participant
from core import effects as e
from core import messages as m
from core.errors import RemoteError, TokenRejected
from core.events import Addressed, CommandIssued, ConnectionLost, DeadlineReached, ParticipantEvent
from core.identity import Principal, token_of, verify
from core.journal import Entry
from core.policy import Policy
from core.routing import CommandToSome, Source, join_proctor, route
from core.snapshot import pages, view

SECRET = "a secret of the tests with 32 bytes or more"
FAST = Policy(closed_grace_seconds=1.5)


class ReferenceServer:
    """A `Target`. Faults hit one student: the first whose publication, update or deadline comes along."""

    name = "ec2"
    where = "this process"
    is_local = True
    token_secret = SECRET

    def __init__(self, fault: str = "", policy: Policy = FAST) -> None:
        self.policy = policy
        self.fault = fault
        self.victim = ""
        self.urls: list[str] = []
        self._records: dict[ParticipantKey, Participant] = {}
        self._exams: dict[ExamKey, Exam] = {}
        self._entries: list[Entry] = []
        self._sockets: dict[str, ServerConnection] = {}
        self._students: dict[str, ParticipantKey] = {}
        self._channels: dict[ExamKey, dict[str, tuple[str, ...]]] = {}
        self._names = count(1)
        self._published: Counter[ParticipantKey] = Counter()
        self._timers: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._cut: set[str] = set()
        self.changed = asyncio.Event()
        """Set when a connection comes."""

    async def start(self) -> None:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._admit, select_subprotocol=lambda *_: "proctorwire"
        )
        port = self._server.sockets[0].getsockname()[1]
        self.urls = [f"ws://127.0.0.1:{port}/"]

    async def stop(self) -> None:
        self._stopped = True
        for timer in self._timers:
            timer.cancel()
        self._server.close()
        await self._server.wait_closed()
        await asyncio.gather(*self._tasks)

    @property
    def connection_count(self) -> int:
        return len(self._sockets)

    async def drop_everybody(self) -> None:
        """Cut all connections, as a crash would."""
        self._cut |= self._sockets.keys()
        for socket in self._sockets.values():
            socket.transport.abort()

    async def say_to_students(self, frame: m.ServerFrame) -> None:
        for name in list(self._students):
            await self._send(name, frame)

    async def heal(self) -> None:
        pass

    async def inject(self, fault: str) -> None:
        self.fault = fault

    async def usage(self, load: Load) -> ClusterUsage:
        traffic = load.traffic
        return ClusterUsage(
            duration_seconds=load.seconds,
            students=load.students,
            proctors=load.proctors,
            reports=traffic.reports,
            cpu_seconds=ProcessSplit(workers=0.5),
            memory_bytes=ProcessSplit(workers=50e6),
            connections=traffic.most_open,
            connection_minutes=load.connection_minutes,
            connects=traffic.connects,
            frames_out=traffic.frames_out,
            ingress_bytes=traffic.bytes_in,
            egress_bytes=traffic.bytes_out,
            journal_entries=0,
        )

    def memory(self) -> dict[str, float]:
        return {"worker": 50e6}

    def samples(self) -> Samples:
        return Samples()

    async def journal(self, exam: ExamKey) -> list[Entry]:
        return [entry for entry in self._entries if (entry.school, entry.quiz_id) == tuple(exam)]

    def _admit(self, connection: ServerConnection, request):
        offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        try:
            connection.principal = verify(token_of(offered, None), {"": SECRET}, time.time())
        except TokenRejected as exc:
            return connection.respond(exc.status, f"{exc}\n")
        return None

    async def _serve(self, socket: ServerConnection) -> None:
        principal: Principal = socket.principal
        name = f"c{next(self._names)}"
        source = Source(name, time.time(), principal)
        self._sockets[name] = socket
        self.changed.set()
        try:
            async for payload in socket:
                received_at = time.time()
                try:
                    await self._routed(route(m.decode(payload), source, received_at), name, received_at)
                except RemoteError as exc:
                    await self._send(name, m.error_frame(exc))
        except ConnectionClosed:
            pass
        finally:
            del self._sockets[name]
            for watching in self._channels.values():
                watching.pop(name, None)
            key = self._students.pop(name, None)
            if key is not None and not self._stopped:
                lost = "lost_by_us" if name in self._cut else "dropped"
                reason = "left" if socket.close_code == 4000 else lost
                await self._happen(key, ConnectionLost(received_at=time.time(), connection=name, reason=reason))

    async def _routed(self, routed, name: str, received_at: float) -> None:
        match routed:
            case Addressed():
                self._students[name] = routed.key
                await self._happen(routed.key, routed.event)
            case CommandToSome():
                for key in routed.keys:
                    await self._happen(key, routed.event)
                await self._send(
                    name, m.Ack(m.AckData(server_time=received_at * 1000, command_id=routed.event.command_id))
                )
            case e.Subscribe():
                subscribe, snapshot = join_proctor(routed)
                self._channels.setdefault(subscribe.exam, {})[name] = subscribe.groups
                records = [p for p in self._records.values() if p.key.exam == snapshot.exam]
                for page in pages(
                    snapshot.exam.quiz_id, f"s{next(self._names)}", map(view, records), (), received_at * 1000
                ):
                    await self._send(name, page)
            case _:
                raise AssertionError(f"nobody sends this here: {routed}")

    async def _happen(self, key: ParticipantKey, event: ParticipantEvent) -> None:
        exam = self._exams.setdefault(key.exam, new_exam(key.exam, "ec2", time.time(), self.policy))
        record = self._records.get(key) or new_participant(key, "ec2")
        decision = decide(record, event, exam, time.time())
        for effect in decision.effects:
            if isinstance(effect, e.SetDeadline):
                self._later(effect)
        self._records[key] = decision.participant
        self._entries += [entry for entry in decision.entries if not self._forgets(entry)]
        if self.fault == "journal twice" and decision.entries and not self.victim:
            self.victim = key.student_id
            self._entries.append(decision.entries[0])
        for effect in decision.effects:
            await self._perform(key, effect)
        if isinstance(event, CommandIssued) and self.fault == "command twice":
            for effect in decision.effects:
                if isinstance(effect, e.Send):
                    await self._perform(key, effect)

    def _forgets(self, entry: Entry) -> bool:
        if self.fault == "journal gap" and entry.kind == "label" and entry.after == "away" and not self.victim:
            self.victim = entry.student_id
            return True
        return False

    def _later(self, deadline: e.SetDeadline) -> None:
        def due() -> None:
            self._timers.discard(timer)
            event = DeadlineReached(received_at=time.time(), at=deadline.at)
            task = asyncio.get_running_loop().create_task(self._happen(deadline.key, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        timer = asyncio.get_running_loop().call_later(max(0.0, deadline.at - time.time()), due)
        self._timers.add(timer)

    async def _perform(self, key: ParticipantKey, effect: e.Effect) -> None:
        match effect:
            case e.PublishView():
                await self._publish_view(key)
            case e.PublishMessage():
                await self._publish(effect.exam, effect.frame)
            case e.PublishCommandStatus():
                data = m.CommandStatusData(
                    effect.command_id, effect.exam.quiz_id, {effect.outcome: 1}, {effect.student_id: effect.outcome}
                )
                await self._publish(effect.exam, m.CommandStatus(data))
            case e.Send(frame=m.Command()) if self.fault == "no command":
                pass
            case e.Send() | e.Ack():
                await self._send(effect.connection, effect.frame)
            case e.Close():
                if effect.connection in self._sockets:
                    await self._sockets[effect.connection].close(effect.code, effect.reason)

    async def _publish_view(self, key: ParticipantKey) -> None:
        record = self._records[key]
        self._published[key] += 1
        shown = view(record)
        is_last, is_news = (
            shown.seq >= 3,
            shown.seq >= 2,
        )  # after the third report of a short run rarely another one follows
        if self.fault == "lose an update" and is_last and not self.victim:
            self.victim = key.student_id
            return
        if self.fault == "publish nothing" and self.victim in ("", key.student_id) and is_last:
            self.victim = key.student_id
            return
        frame = m.Update(m.UpdateData(key.quiz_id, (shown,), (), time.time() * 1000))
        await self._publish(key.exam, frame)
        if self.fault == "update twice" and is_news and not self.victim:
            self.victim = key.student_id
            await self._publish(key.exam, frame)
        if self.fault == "false offline" and is_news and shown.label == "active" and not self.victim:
            self.victim = key.student_id
            for label, version in (("offline", 1), ("active", 2)):
                wrong = msgspec.structs.replace(shown, label=label, version=shown.version + version)
                await self._publish(key.exam, m.Update(m.UpdateData(key.quiz_id, (wrong,), (), time.time() * 1000)))

    async def _publish(self, exam: ExamKey, frame: m.ServerFrame) -> None:
        repeats = 2 if self.fault == "message twice" and isinstance(frame, m.StudentMessage) else 1
        for _ in range(repeats):
            for name in list(self._channels.get(exam, {})):
                await self._send(name, frame)

    async def _send(self, name: str, frame: m.ServerFrame) -> None:
        socket = self._sockets.get(name)
        if socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await socket.send(m.encode(frame).decode())
