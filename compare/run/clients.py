"""The students' pages and the proctors' dashboards of a run: the same code against both deployments.

A page follows its `StudentPlan` and turns what happens to it into frames; a dashboard keeps the newest view of each student, as
any dashboard must. Both write down what they send and see (`recording`) and judge nothing. Two kinds of page:

proctorwire   our protocol: numbered reports when something changed, heartbeats when not, an outbox that is sent again until
              acknowledged, receipts for commands. One report at a time is in flight, so that a server which runs the messages
              of one connection at the same time still sees them in order.
paper         the paper's Figure 4 every interval, and nothing else.

Sockets are picows's on one event loop: thousands of pages fit into one process.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from compare.run.recording import (
    Attempt,
    Clock,
    Got,
    Line,
    LineEnd,
    Order,
    PageState,
    ProctorLog,
    Report,
    Seen,
    Status,
    StudentLog,
    Traffic,
    Watch,
    Words,
)
from compare.run.workload import QUESTIONS, ProctorStep, StudentStep
from core import messages as m
from core.errors import CloseCode
from core.snapshot import newer

RESEND_SECONDS = 5.0
WATCH_AGAIN_SECONDS = 60.0
HIDDEN_PROMISE_MS = 60_000  # browsers throttle a hidden page's timers to one a minute
CONFIRM_SECONDS = 0.5  # from a command's arrival to the student's click
RETRY_SECONDS = (0.5, 15.0)  # full jitter: any time up to the first, doubled with each failure, at most the second
HANDSHAKE_SECONDS = 10.0
MAX_FRAME_BYTES = 2**20
_MAX_PROBLEMS = 50
_UNIT_BYTES = 32 * 1024

_decoder: msgspec.json.Decoder[m.ServerFrame] = msgspec.json.Decoder(m.ServerFrame)
_silent = logging.getLogger("compare.run.clients.sockets")
_silent.setLevel(logging.CRITICAL + 1)  # picows logs each connection; what matters is recorded


class Surroundings:
    """What all clients of a run share."""

    def __init__(self, clock: Clock, traffic: Traffic, problems: list[str], changed: Callable[[], None]) -> None:
        self.clock = clock
        self.traffic = traffic
        self.problems = problems
        self.changed = changed
        """Called when a dashboard saw something new or a page's outbox emptied."""
        self.rng = random.Random()  # noqa: S311  spreads reconnects
        self.tasks: set[asyncio.Task[None]] = set()

    def problem(self, text: str) -> None:
        """Write down what should not happen in a run; the first few are enough."""
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(text)


class _Socket(WSListener):
    """One WebSocket of a client: whole messages up, text down."""

    _transport: WSTransport

    def __init__(self, client: Client, line: int) -> None:
        self._client = client
        self._parts: list[bytes] = []
        self.line = line
        self.code = 1006
        self.was_open = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        self.was_open = True
        self._client._opened(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame; big messages may come in several."""
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            self.code = int.from_bytes(payload[:2]) if len(payload) >= 2 else 1005
            transport.send_close()
            transport.disconnect()
        elif kind is WSMsgType.TEXT or kind is WSMsgType.CONTINUATION:
            payload = frame.get_payload_as_bytes()
            if not frame.fin or self._parts:
                self._parts.append(payload)
                if not frame.fin:
                    return
                payload = b"".join(self._parts)
                self._parts.clear()
            self._client._message(self, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The socket is gone."""
        self._client._closed(self)

    def send(self, payload: bytes) -> None:
        """Send one text message."""
        self._transport.send(WSMsgType.TEXT, payload)

    def close(self, code: int) -> None:
        """Say goodbye; the server closes the socket."""
        self.code = code
        self._transport.send_close(code)  # type: ignore[arg-type]  # any integer is taken

    def abort(self) -> None:
        """Cut the network."""
        self._transport.disconnect(False)


class Client(ABC):
    """What pages and dashboards have in common: one connection at a time, and the will to get it back."""

    def __init__(self, name: str, url: str, token: str, surroundings: Surroundings) -> None:
        self._name = name
        self._home = self._url = url
        self._others: list[str] = []
        self._headers = {"Sec-WebSocket-Protocol": f"proctorwire, bearer.{token}"}
        self._around = surroundings
        self._clock = surroundings.clock
        self._socket: _Socket | None = None
        self._wanted = False  # whether there ought to be a connection
        self._ending: LineEnd = ""  # how the present connection is meant to end
        self._failures = 0
        self._lines = 0
        self._opened_at = 0.0
        self._timers: set[asyncio.TimerHandle] = set()

    def roam(self, urls: Sequence[str]) -> None:
        """Go to the next of these addresses when a connection is lost, as a balancer would have it."""
        self._others = [url for url in urls if url != self._home]

    def connect(self) -> None:
        """Get a connection, however long it takes."""
        self._wanted = True
        self._later(0.0, self._dial)

    def drop(self) -> None:
        """Lose the network, until `connect`."""
        self._end("dropped", lambda socket: socket.abort())

    def cut(self) -> None:
        """Lose the connection unasked, as when a server or the network ends it, and try to get it back."""
        if self._socket is not None:
            self._socket.abort()

    def leave(self, code: int) -> None:
        """Say goodbye and go."""
        self._end("left" if code == CloseCode.LEAVE else "dropped", lambda socket: socket.close(code))

    def stop(self) -> None:
        """End everything at once: the run is over, and what happens from here on is not part of it."""
        self._wanted = False
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.abort()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def patrol(self, now: float) -> None:  # noqa: B027 - most have nothing that waits
        """Look after what waits; called about once a second."""

    def _end(self, how: LineEnd, end: Callable[[_Socket], None]) -> None:
        self._wanted = False
        if self._socket is not None:
            self._ending = how
            socket = self._socket
            self._lost(socket, how)
            end(socket)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call after a while, unless stopped before."""

        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = asyncio.get_running_loop().call_later(seconds, run)
        self._timers.add(timer)

    def _dial(self) -> None:
        if self._wanted and self._socket is None:
            task = asyncio.get_running_loop().create_task(self._open())
            self._around.tasks.add(task)
            task.add_done_callback(self._around.tasks.discard)

    async def _open(self) -> None:
        socket = _Socket(self, self._lines)
        try:
            await ws_connect(
                lambda: socket,
                self._url,
                extra_headers=self._headers,
                logger_name=_silent,
                websocket_handshake_timeout=HANDSHAKE_SECONDS,
                max_frame_size=MAX_FRAME_BYTES,
                read_buffer_init_size=2048,
            )
            if not socket.was_open:  # picows returns like this too
                raise ConnectionResetError("closed during the handshake")
        except (OSError, WSError, TimeoutError) as exc:
            self._around.problem(f"{self._name}: could not connect: {exc!s:.200}")
            self._url = self._home
            self._retry()

    def _retry(self) -> None:
        first, most = RETRY_SECONDS
        if self._others:
            self._others.append(self._home)
            self._home = self._url = self._others.pop(0)
        self._later(self._around.rng.uniform(0.0, min(first * 2**self._failures, most)), self._dial)
        self._failures += 1

    def _opened(self, socket: _Socket) -> None:
        if not self._wanted or self._socket is not None:
            socket.abort()
            return
        now, traffic = self._clock(), self._around.traffic
        self._socket, self._ending, self._opened_at = socket, "", now
        self._lines += 1
        self._failures = 0
        traffic.connects += 1
        traffic.open_now += 1
        traffic.opened_seconds += now
        traffic.most_open = max(traffic.most_open, traffic.open_now)
        self._on_open(now)

    def _closed(self, socket: _Socket) -> None:
        if self._socket is not socket:
            return
        self._lost(socket, "cut")
        code = socket.code
        if not self._wanted:
            return
        if 4000 <= code <= 4099:
            self._wanted = False
            self._around.problem(f"{self._name}: the server closed the connection for good ({code})")
            return
        self._around.problem(f"{self._name}: the connection was closed ({code})")
        if 4100 <= code <= 4199:
            self._failures += 2
        self._retry()

    def _lost(self, socket: _Socket, how: LineEnd) -> None:
        """The present connection is no more, whoever ended it."""
        now, traffic = self._clock(), self._around.traffic
        self._socket = None
        traffic.disconnects += 1
        traffic.open_now -= 1
        traffic.opened_seconds -= self._opened_at
        traffic.closed_seconds += now - self._opened_at
        self._on_close(now, how, socket.code)

    def _send(self, frame: m.ClientFrame) -> Attempt:
        """Send a frame on the present connection."""
        assert self._socket is not None  # callers look before
        payload = m.encode_value(frame)
        traffic = self._around.traffic
        traffic.frames_in += 1
        traffic.bytes_in += len(payload)
        traffic.units_in += -(-len(payload) // _UNIT_BYTES)
        attempt = Attempt(self._clock(), self._socket.line)
        self._socket.send(payload)
        return attempt

    def _message(self, socket: _Socket, payload: bytes) -> None:
        now, traffic = self._clock(), self._around.traffic
        traffic.frames_out += 1
        traffic.bytes_out += len(payload)
        traffic.units_out += -(-len(payload) // _UNIT_BYTES)
        if self._socket is not socket:
            return
        try:
            frame = _decoder.decode(payload)
        except msgspec.DecodeError:
            self._around.problem(f"{self._name}: received what is no frame of the protocol: {payload[:120]!r}")
            return
        if isinstance(frame, m.Reconnect):
            self._move(frame.data)
        else:
            self._on_frame(now, frame)

    def _move(self, order: m.ReconnectData) -> None:
        """The server wants this page elsewhere, or back in a moment. Another address only if its host is known."""
        if order.url is not None and urlsplit(order.url).hostname == urlsplit(self._home).hostname:
            self._url = order.url

        def go() -> None:
            if self._socket is not None:
                socket = self._socket
                self._lost(socket, "cut")
                socket.close(1000)
            self._dial()

        self._later(order.after_ms / 1000, go)

    @abstractmethod
    def _on_open(self, now: float) -> None:
        """There is a connection."""

    @abstractmethod
    def _on_close(self, now: float, how: LineEnd, code: int) -> None:
        """It is no more."""

    @abstractmethod
    def _on_frame(self, now: float, frame: m.ServerFrame) -> None:
        """A frame came on it."""


class Student(Client):
    """A student's page that speaks our protocol."""

    def __init__(
        self, log: StudentLog, url: str, token: str, surroundings: Surroundings, interval: float, times: tuple[int, int]
    ) -> None:
        super().__init__(log.plan.student_id, url, token, surroundings)
        self.log = log
        self._state = PageState()
        self._reported: PageState | None = None
        self._promise_ms = round(interval * 1100)  # the interval and its jitter
        self._times = times
        self._outbox: deque[Report] = deque()
        self._flying: Report | None = None
        self._joined = False  # this connection's first report was acknowledged
        self._words: dict[str, Words] = {}
        self._receipts: dict[tuple[str, str], Attempt | None] = {}
        self._settled: set[str] = set()

    def act(self, step: StudentStep) -> None:
        """Do what the schedule says."""
        match step.act:
            case "join" | "return":
                self.connect()
            case "drop":
                self._leaving(step)
                self.drop()
            case "leave":
                self._leaving(step)
                self._goodbye()
            case "tick":
                self._progress(step)
                self._tick()
            case "away" | "back":
                self._turn(msgspec.structs.replace(self._state, status="away" if step.act == "away" else "active"))
            case "submit":
                self._turn(msgspec.structs.replace(self._state, submitted=True, score=step.score))
            case "say":
                self._say(step)

    def _leaving(self, step: StudentStep) -> None:
        plan = self.log.plan
        if plan.part in ("vanishes", "leaves") and step.at >= (plan.goes_at or 0.0):
            self.log.gone = True

    def _goodbye(self) -> None:
        self.leave(CloseCode.LEAVE)

    def _progress(self, step: StudentStep) -> None:
        if step.progressed and self._state.status == "active" and self._state.answered < QUESTIONS:
            self._state = msgspec.structs.replace(self._state, answered=self._state.answered + 1)

    def _tick(self) -> None:
        if self._state != self._reported:
            self._report()
        elif self._socket is not None and self._joined and self._state.status == "active" and not self._outbox:
            seq = self.log.reports[-1].seq
            self.log.beats.append(self._send(m.HeartbeatFrame(m.Heartbeat(seq=seq, next_ms=self._promise_ms))))

    def _turn(self, state: PageState) -> None:
        """Something that a page reports at once."""
        self._state = state
        self._report()

    def _report(self) -> None:
        """Put the present state into the outbox. Before the first connection there is nobody to tell."""
        if not self.log.lines:
            return
        report = Report(self._state, len(self.log.reports) + 1, self._state != self._reported, created_at=self._clock())
        self._reported = self._state
        self.log.reports.append(report)
        self._outbox.append(report)
        self._count_waiting()
        self._pump()

    def _pump(self) -> None:
        """Send the oldest report, unless one is on its way."""
        if self._socket is not None and self._flying is None and self._outbox:
            self._flying = self._outbox[0]
            self._fly(self._flying)

    def _fly(self, report: Report) -> None:
        state = report.state
        first = not report.attempts
        attempt = self._send(
            m.StatusFrame(
                msgspec.structs.replace(
                    self._figure_4(state) if not self._joined else self._essentials(state),
                    seq=report.seq,
                    tab_id=f"tab-{self.log.plan.student_id}",
                    next_ms=HIDDEN_PROMISE_MS if state.status == "away" else self._promise_ms,
                    attempt_state="submitted" if state.submitted else None,
                )
            )
        )
        report.attempts.append(attempt)
        self._around.traffic.reports += first

    def _essentials(self, state: PageState) -> m.Report:
        """The fields that a report needs, and those that may have changed."""
        plan = self.log.plan
        return m.Report(
            plan.quiz_id,
            plan.attempt_id,
            plan.student_id,
            state.status,
            question_answered=state.answered,
            question_number_current=min(state.answered + 1, QUESTIONS),
            score=state.score,
        )

    def _figure_4(self, state: PageState) -> m.Report:
        """All of the paper's fields."""
        plan = self.log.plan
        begins, ends = self._times
        return msgspec.structs.replace(
            self._essentials(state),
            question_total=QUESTIONS,
            quiz_participant_id=f"participant-{plan.student_id}",
            quiz_result_id=f"result-{plan.student_id}",
            student_name=plan.name,
            time_start=begins,
            time_end=ends,
            topic_uuid="5f0c9a52-7d60-4b0e-9d5a-3f3a6c1f5b11",
        )

    def _say(self, step: StudentStep) -> None:
        number = len(self.log.words) + 1
        words = Words(f"{self.log.plan.student_id}-{number}", step.kind, step.text, self._clock())
        self.log.words.append(words)
        self._words[words.message_id] = words
        self._count_waiting()
        if self._socket is not None and self._joined:
            self._utter(words)

    def _utter(self, words: Words) -> None:
        words.attempts.append(self._send(m.StudentTextFrame(m.StudentText(words.message_id, words.kind, words.text))))

    def _acknowledge(self, command_id: str, outcome: str) -> None:
        """Tell that a command arrived, or was confirmed, until the server says that it knows."""
        if (command_id, outcome) not in self._receipts:
            self._receipts[command_id, outcome] = None
            self._count_waiting()
            if self._socket is not None and self._joined:
                self._sign(command_id, outcome)

    def _sign(self, command_id: str, outcome: Any) -> None:
        self._receipts[command_id, outcome] = self._send(m.ReceiptFrame(m.Receipt(command_id, outcome)))

    def _count_waiting(self) -> None:
        self.log.waiting = len(self._outbox) + len(self._words) + len(self._receipts)
        if not self.log.waiting:
            self._around.changed()

    def patrol(self, now: float) -> None:
        """Send again what was not acknowledged in time."""
        if self._socket is None:
            return
        line = self._socket.line
        if self._flying is not None:
            last = self._flying.attempts[-1]
            if last.line == line and now - last.at >= RESEND_SECONDS:
                self._fly(self._flying)
        if self._joined:
            for words in self._words.values():
                if (
                    not words.attempts
                    or words.attempts[-1].line != line
                    or now - words.attempts[-1].at >= RESEND_SECONDS
                ):
                    self._utter(words)
            for (command_id, outcome), sent in self._receipts.items():
                if sent is None or sent.line != line or now - sent.at >= RESEND_SECONDS:
                    self._sign(command_id, outcome)

    def _on_open(self, now: float) -> None:
        self.log.lines.append(Line(now))
        self._joined = False
        self._flying = None
        if self._outbox:
            self._pump()
        else:
            self._report()

    def _on_close(self, now: float, how: LineEnd, code: int) -> None:
        line = self.log.lines[-1]
        line.closed_at, line.end, line.code = now, how, code
        self._flying = None

    def _on_frame(self, now: float, frame: m.ServerFrame) -> None:
        match frame:
            case m.Ack():
                self._acked(now, frame.data)
            case m.Command():
                self._commanded(now, frame.data)
            case m.Error():
                self._refused(frame.data)

    def _acked(self, now: float, ack: m.AckData) -> None:
        if ack.seq is not None:
            report = self._flying
            if report is not None and report.seq == ack.seq:
                report.acked_at, report.server_time = now, ack.server_time / 1000
                self._landed()
        elif ack.message_id is not None:
            words = self._words.pop(ack.message_id, None)
            if words is not None:
                words.acked_at = now
        elif ack.command_id is not None:
            known = [outcome for outcome in ("delivered", "confirmed") if self._receipts.get((ack.command_id, outcome))]
            if known:
                del self._receipts[ack.command_id, known[0]]
                self._settled.add(ack.command_id)
        self._count_waiting()

    def _landed(self) -> None:
        """The report in flight was answered: on to the next, and to what waited for the join."""
        self._outbox.popleft()
        self._flying = None
        if not self._joined:
            self._joined = True
            self.patrol(self._clock())
        self._pump()

    def _commanded(self, now: float, command: m.CommandData) -> None:
        command_id = command.command_id
        assert self._socket is not None  # frames of a lost connection are not heard
        fresh = all(got.command_id != command_id for got in self.log.commands)
        self.log.commands.append(Got(now, self._socket.line, command_id, command_id in self._settled))
        self._acknowledge(command_id, "delivered")
        if fresh:
            self._later(CONFIRM_SECONDS, lambda: self._acknowledge(command_id, "confirmed"))

    def _refused(self, error: m.ErrorData) -> None:
        self._around.problem(f"{self._name}: {error.code}: {error.message}")
        if self._flying is not None and error.seq == self._flying.seq:
            self._flying.refused = error.code
            self._landed()
        if error.message_id is not None:
            self._words.pop(error.message_id, None)
        self._count_waiting()


class PaperStudent(Student):
    """A page as in the paper: Figure 4 every interval, no number, no outbox, no answer expected."""

    def _goodbye(self) -> None:
        self.leave(1000)

    def _tick(self) -> None:
        if self._socket is None:
            return
        state = self._state
        report = Report(state, 0, state != self._reported, created_at=self._clock())
        self._reported = state
        report.attempts.append(self._send(m.StatusFrame(self._figure_4(state))))
        self.log.reports.append(report)
        self._around.traffic.reports += 1

    def _turn(self, state: PageState) -> None:
        self._state = state

    def _say(self, step: StudentStep) -> None:
        pass

    def _on_open(self, now: float) -> None:
        self.log.lines.append(Line(now))
        self._tick()

    def _on_frame(self, now: float, frame: m.ServerFrame) -> None:
        if isinstance(frame, m.Error):
            self._around.problem(f"{self._name}: {frame.data.code}: {frame.data.message}")


class Proctor(Client):
    """A proctor's dashboard."""

    def __init__(self, log: ProctorLog, url: str, token: str, surroundings: Surroundings, warns: bool) -> None:
        super().__init__(log.plan.proctor_id, url, token, surroundings)
        self.log = log
        self._warns = warns
        self._watch: Watch | None = None
        self._asked_at = 0.0
        self._snapshot_id = ""
        self._pages: dict[int, set[str]] = {}
        self._heard_at: dict[str, float] = {}
        self._order: Order | None = None

    @property
    def is_watching(self) -> bool:
        """Whether the exam is on the screen."""
        return self._watch is not None and self._watch.complete_at is not None

    def act(self, step: ProctorStep) -> None:
        """Do what the schedule says."""
        match step.act:
            case "watch" | "return":
                self.connect()
            case "drop":
                self.drop()
            case "warn":
                if self._warns:
                    self._order = Order(f"warn-{self.log.plan.quiz_id}", step.student_id, self._clock())
                    self.log.orders.append(self._order)
                    self._warn()

    def patrol(self, now: float) -> None:
        """Look at the exam afresh now and then, and give an order again that nobody acknowledged."""
        if self._socket is None:
            return
        if now - self._asked_at >= WATCH_AGAIN_SECONDS:
            self._ask()
        if self._order is not None and self._order.acked_at is None and now - self._order.sent_at >= RESEND_SECONDS:
            self._warn()

    def _warn(self) -> None:
        order = self._order
        assert order is not None  # it was just made
        if self._socket is not None:
            plan = self.log.plan
            order.sent_at = self._send(
                m.OrderFrame(
                    m.Order(
                        order.command_id,
                        plan.quiz_id,
                        "warn",
                        student_ids=(order.student_id,),
                        text="Please stay on this page.",
                    )
                )
            ).at

    def _ask(self) -> None:
        self._asked_at = self._send(m.WatchFrame(m.Watch(self.log.plan.quiz_id))).at

    def _on_open(self, now: float) -> None:
        self._ask()
        self._watch = Watch(self._asked_at)
        self.log.watches.append(self._watch)

    def _on_close(self, now: float, how: LineEnd, code: int) -> None:
        if self._watch is not None:
            self._watch.ended_at = now
            self._watch = None

    def _on_frame(self, now: float, frame: m.ServerFrame) -> None:
        match frame:
            case m.Update():
                for view in frame.data.participants:
                    self._see(now, view, update=True)
                self._note_incidents(now, frame.data.incidents)
            case m.Snapshot():
                self._page(now, frame.data)
                self._note_incidents(now, frame.data.incidents)
            case m.StudentMessage():
                self.log.messages.append((now, frame.data.message_id))
            case m.CommandStatus():
                for student_id, outcome in frame.data.students.items():
                    self.log.statuses.append(Status(now, frame.data.command_id, student_id, outcome))
            case m.Ack():
                if self._order is not None and frame.data.command_id == self._order.command_id:
                    self._order.acked_at = now
            case m.Error():
                self._around.problem(f"{self._name}: {frame.data.code}: {frame.data.message}")
        self._around.changed()

    def _see(self, now: float, view: Any, update: bool) -> None:
        known = self.log.views.get(view.student_id)
        merged = newer(known, view)
        self.log.views[view.student_id] = merged
        self._heard_at[view.student_id] = now
        self.log.seen.append(Seen(now, view, len(self.log.watches) - 1, update, merged is not known))

    def _page(self, now: float, page: m.SnapshotData) -> None:
        """Collect a snapshot; whoever is missing from all of its pages is gone."""
        if page.snapshot_id != self._snapshot_id:
            self._snapshot_id, self._pages = page.snapshot_id, {}
        for view in page.participants:
            self._see(now, view, update=False)
        self._pages[page.page] = {view.student_id for view in page.participants if isinstance(view, m.View)}
        if len(self._pages) == page.pages:
            there = set().union(*self._pages.values())
            for student_id in self.log.views.keys() - there:
                if self._heard_at[student_id] < self._asked_at:
                    del self.log.views[student_id]
            if self._watch is not None and self._watch.complete_at is None:
                self._watch.complete_at, self._watch.server_time = now, page.server_time / 1000

    def _note_incidents(self, now: float, incidents: tuple[m.Incident, ...]) -> None:
        for incident in incidents:
            state = "open" if incident.ended_at is None else "ended"
            self.log.incidents.append((now, f"{incident.kind} {state}, {incident.count} participants"))
