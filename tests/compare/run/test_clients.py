"""Pages and dashboards against a scripted server: what they send, when they come back, what they believe."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from compare.run import clients
from compare.run.clients import Client, PaperStudent, Proctor, Student, Surroundings
from compare.run.recording import Clock, ProctorLog, StudentLog, Traffic
from compare.run.workload import ProctorPlan, ProctorStep, StudentPlan, StudentStep
from core import messages as m
from core.messages import View


class Script:
    """A server that records what comes, and answers what it is told to."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, m.ClientFrame]] = []
        self.sockets: list[ServerConnection] = []
        self.changed = asyncio.Condition()
        self.acks = True

    async def serve(self, socket: ServerConnection) -> None:
        number = len(self.sockets)
        self.sockets.append(socket)
        await self._changed()
        try:
            async for payload in socket:
                frame = m.decode(payload)
                self.frames.append((number, frame))
                await self._changed()
                if self.acks and (answer := self.answer(frame)):
                    await socket.send(m.encode(m.Ack(answer)).decode())
        except ConnectionClosed:
            pass
        finally:
            await self._changed()

    def answer(self, frame: m.ClientFrame) -> m.AckData | None:
        match frame:
            case m.StatusFrame() if frame.data.seq is not None:
                return m.AckData(server_time=1.0, seq=frame.data.seq)
            case m.StudentTextFrame():
                return m.AckData(server_time=1.0, message_id=str(frame.data.message_id))
            case m.ReceiptFrame() | m.OrderFrame():
                return m.AckData(server_time=1.0, command_id=str(frame.data.command_id))
        return None

    async def _changed(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)
        return condition()

    async def got(self, count: int) -> list[m.ClientFrame]:
        """The frames, once there are this many."""
        await self.until(lambda: len(self.frames) >= count)
        return [frame for _, frame in self.frames]

    async def say(self, frame: m.ServerFrame) -> None:
        await self.sockets[-1].send(m.encode(frame).decode())


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    it = Script()
    async with serve(it.serve, "127.0.0.1", 0, select_subprotocol=lambda *_: "proctorwire") as server:
        it.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield it


class People:
    """Clients of a test, stopped at its end; `seen` waits for something to become true."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._news = asyncio.Event()
        self.problems: list[str] = []
        self.around = Surroundings(Clock(), Traffic(), self.problems, self._news.set)
        self.all: list[Client] = []

    def student(self, kind: type[Student] = Student, part: Any = "stays") -> Student:
        log = StudentLog(StudentPlan("s-1", "a-1", "Student", "q-1", part, ()))
        page = kind(log, self._url, "token", self.around, 5.0, (1, 2))
        self.all.append(page)
        return page

    def proctor(self) -> Proctor:
        dashboard = Proctor(ProctorLog(ProctorPlan("p-1", "q-1", ())), self._url, "token", self.around, warns=True)
        self.all.append(dashboard)
        return dashboard

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(5):
            while not (value := condition()):
                self._news.clear()
                await self._news.wait()
        return value


@pytest.fixture
async def people(script: Script, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[People]:
    monkeypatch.setattr(clients, "RETRY_SECONDS", (0.02, 0.1))
    monkeypatch.setattr(clients, "CONFIRM_SECONDS", 0.01)
    it = People(script.url)
    yield it
    for client in it.all:
        client.stop()
    tasks = list(it.around.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def do(page: Student, act: Any, **more: Any) -> None:
    page.act(StudentStep(0.0, act, **more))


async def joined(script: Script, people: People, **more: Any) -> Student:
    page = people.student(**more)
    do(page, "join")
    await script.got(1)
    await people.until(lambda: not page.log.waiting)
    return page


async def test_the_token_travels_as_a_subprotocol(script: Script, people: People) -> None:
    await joined(script, people)
    assert script.sockets[0].request.headers["Sec-WebSocket-Protocol"] == "proctorwire, bearer.token"


async def test_the_first_report_says_everything_and_later_ones_what_may_have_changed(
    script: Script, people: People
) -> None:
    page = await joined(script, people)
    do(page, "tick", progressed=True)
    first, second = (frame.data for frame in await script.got(2))
    assert (first.seq, first.student_name, first.time_start, first.question_total) == (1, "Student", 1, 100)
    assert (second.seq, second.student_name, second.question_answered) == (2, None, 1)
    assert first.tab_id == second.tab_id
    assert first.next_ms == 5500


async def test_a_page_with_nothing_new_sends_heartbeats(script: Script, people: People) -> None:
    page = await joined(script, people)
    do(page, "tick")
    beat = (await script.got(2))[1]
    assert beat == m.HeartbeatFrame(m.Heartbeat(seq=1, next_ms=5500))


async def test_a_hidden_page_says_so_at_once_and_then_keeps_quiet_for_a_minute(script: Script, people: People) -> None:
    page = await joined(script, people)
    do(page, "away")
    do(page, "tick")
    do(page, "back")
    _, away, back = (frame.data for frame in await script.got(3))
    assert (away.user_status, away.next_ms) == ("away", 60_000)
    assert (back.user_status, back.next_ms) == ("active", 5500)


async def test_a_submission_carries_state_and_score(script: Script, people: People) -> None:
    page = await joined(script, people)
    do(page, "submit", score=80.0)
    report = (await script.got(2))[1].data
    assert (report.attempt_state, report.score) == ("submitted", 80.0)


async def test_reports_of_a_disconnected_page_wait_and_go_out_in_order_one_at_a_time(
    script: Script, people: People
) -> None:
    page = await joined(script, people)
    do(page, "drop")
    do(page, "tick", progressed=True)
    do(page, "away")
    assert page.log.waiting == 2
    script.acks = False
    do(page, "return")
    await script.got(2)
    assert [number for number, _ in script.frames] == [0, 1]
    await script.say(m.Ack(m.AckData(server_time=1.0, seq=2)))
    first, second, third = (frame.data for frame in await script.got(3))
    assert [first.seq, second.seq, third.seq] == [1, 2, 3]
    assert second.student_name == "Student"  # a new connection hears everything first
    assert page.log.lines[0].end == "dropped"


async def test_an_unacknowledged_report_goes_again_on_the_next_connection_with_its_number(
    script: Script, people: People
) -> None:
    script.acks = False
    page = people.student()
    do(page, "join")
    await script.got(1)
    await script.sockets[0].close(4200)
    await script.got(2)
    assert [frame.data.seq for _, frame in script.frames] == [1, 1]
    assert len(page.log.reports) == 1
    assert [attempt.line for attempt in page.log.reports[0].attempts] == [0, 1]
    assert (page.log.lines[0].end, page.log.lines[0].code) == ("cut", 4200)


async def test_a_report_without_answer_goes_again_on_the_same_connection_after_a_while(
    script: Script, people: People
) -> None:
    script.acks = False
    page = people.student()
    do(page, "join")
    await script.got(1)
    sent_at = page.log.reports[0].attempts[0].at
    page.patrol(sent_at + clients.RESEND_SECONDS - 0.1)
    page.patrol(sent_at + clients.RESEND_SECONDS)
    assert [frame.data.seq for frame in await script.got(2)] == [1, 1]


async def test_who_comes_back_with_nothing_new_reports_all_the_same(script: Script, people: People) -> None:
    page = await joined(script, people)
    do(page, "drop")
    do(page, "return")
    again = (await script.got(2))[1].data
    assert (again.seq, page.log.reports[1].changed) == (2, False)


async def test_a_goodbye_closes_with_4000(script: Script, people: People) -> None:
    page = await joined(script, people, part="leaves")
    do(page, "leave")
    await script.until(lambda: script.sockets[0].close_code)
    assert script.sockets[0].close_code == 4000
    assert page.log.gone
    assert page.log.lines[0].end == "left"


async def test_a_final_close_is_final(script: Script, people: People) -> None:
    page = await joined(script, people)
    await script.sockets[0].close(4009, "replaced")
    await people.until(lambda: people.problems)
    assert "for good (4009)" in people.problems[0]
    assert page.log.lines[0].end == "cut"
    assert len(script.sockets) == 1


async def test_an_order_to_reconnect_is_followed(script: Script, people: People) -> None:
    page = await joined(script, people)
    await script.say(m.Reconnect(m.ReconnectData(after_ms=1, reason="drain")))
    await script.got(2)
    assert len(script.sockets) == 2
    assert [line.end for line in page.log.lines] == ["cut", ""]


async def test_an_address_of_another_host_is_not_followed(script: Script, people: People) -> None:
    page = await joined(script, people)
    await script.say(m.Reconnect(m.ReconnectData(after_ms=1, reason="moved", url="ws://elsewhere.invalid/")))
    await script.got(2)
    assert len(page.log.lines) == 2


async def test_a_command_is_received_once_and_confirmed_once(script: Script, people: People) -> None:
    page = await joined(script, people)
    command = m.Command(m.CommandData("c-1", "warn", "Stay here."))
    await script.say(command)
    await script.got(3)
    await script.say(command)
    receipts = [frame.data for frame in (await script.got(3))[1:]]
    assert [(r.command_id, r.outcome) for r in receipts] == [("c-1", "delivered"), ("c-1", "confirmed")]
    await people.until(lambda: not page.log.waiting)
    assert page.log.commands[0].command_id == "c-1"


async def test_words_wait_for_the_join_and_are_said_again_until_acknowledged(script: Script, people: People) -> None:
    page = people.student()
    do(page, "say", kind="raise_hand")
    do(page, "join")
    report, words = await script.got(2)
    assert isinstance(report, m.StatusFrame)
    assert words == m.StudentTextFrame(m.StudentText("s-1-1", "raise_hand"))
    await people.until(lambda: not page.log.waiting)
    assert page.log.words[0].acked_at is not None


async def test_a_refused_report_is_written_down_and_does_not_block_the_next(script: Script, people: People) -> None:
    script.acks = False
    page = people.student()
    do(page, "join")
    do(page, "away")
    await script.got(1)
    do(page, "back")
    await script.say(m.Error(m.ErrorData("exam_closed", "the exam is closed", seq=1)))
    assert (await script.got(2))[1].data.seq == 2
    assert page.log.reports[0].refused == "exam_closed"


async def test_what_is_no_frame_is_written_down_and_nothing_else(script: Script, people: People) -> None:
    page = await joined(script, people)
    await script.sockets[0].send(json.dumps({"message": "Internal server error"}))
    do(page, "tick")
    await script.got(2)
    await script.say(m.Ack(m.AckData(server_time=1.0, seq=1)))
    await people.until(lambda: people.problems)
    assert "no frame of the protocol" in people.problems[0]


async def test_a_page_of_the_paper_sends_figure_4_each_interval_and_nothing_else(
    script: Script, people: People
) -> None:
    page = people.student(PaperStudent)
    do(page, "join")
    await script.got(1)
    do(page, "away")
    do(page, "say", text="hello")
    do(page, "tick")
    await script.say(m.Command(m.CommandData("c-1", "warn", "Stay here.")))
    do(page, "tick")
    do(page, "submit", score=70.0)
    do(page, "tick")
    reports = [frame.data for frame in await script.got(4)]
    assert [report.user_status for report in reports] == ["active", "away", "away", "away"]
    assert reports[-1].score == 70.0
    for report in reports:
        assert (report.seq, report.tab_id, report.next_ms, report.attempt_state) == (None, None, None, None)
        assert (report.student_name, report.time_end) == ("Student", 2)
    assert [report.changed for report in page.log.reports] == [True, True, False, True]


# --- the dashboard --------------------------------------------------------------------------------------------------------


def view(student_id: str, version: int, label: str = "active") -> View:
    values: dict[str, Any] = dict.fromkeys(View.__struct_fields__, "")
    values |= dict.fromkeys(
        ("question_number_current", "question_answered", "question_total", "away_count", "reconnects", "seq"), 0
    )
    values |= dict.fromkeys(("away_seconds", "offline_seconds", "last_seen"), 0.0)
    values |= dict.fromkeys(("score", "away_since", "offline_since", "time_start", "time_end", "label_since"))
    return View(**(values | {"student_id": student_id, "version": version, "label": label, "flags": ()}))


def update(*views: View) -> m.Update:
    return m.Update(m.UpdateData("q-1", views, (), 1.0))


def snapshot(name: str, page: int, pages: int, *views: View) -> m.Snapshot:
    return m.Snapshot(m.SnapshotData("q-1", name, page, pages, views, (), 1.0))


async def watching(script: Script, people: People, *views: View) -> Proctor:
    dashboard = people.proctor()
    dashboard.act(ProctorStep(0.0, "watch"))
    await script.got(1)
    await script.say(snapshot("one", 1, 1, *views))
    await people.until(lambda: dashboard.is_watching)
    return dashboard


async def test_the_newest_version_wins_whatever_the_order(script: Script, people: People) -> None:
    dashboard = await watching(script, people, view("a", 5))
    await script.say(update(view("a", 7, "away")))
    await script.say(update(view("a", 6, "reconnecting")))
    await people.until(lambda: len(dashboard.log.seen) == 3)
    assert dashboard.log.views["a"].label == "away"
    assert [seen.news for seen in dashboard.log.seen] == [True, True, False]


async def test_a_snapshot_is_complete_with_its_last_page_and_who_is_missing_is_gone(
    script: Script, people: People
) -> None:
    dashboard = await watching(script, people, view("a", 1), view("b", 1))
    dashboard.act(ProctorStep(0.0, "drop"))
    assert not dashboard.is_watching
    dashboard.act(ProctorStep(0.0, "return"))
    await script.got(2)
    await script.say(snapshot("two", 1, 2, view("a", 2)))
    await script.say(update(view("c", 1)))
    await people.until(lambda: "c" in dashboard.log.views)
    assert not dashboard.is_watching
    await script.say(snapshot("two", 2, 2, view("d", 1)))
    await people.until(lambda: dashboard.is_watching)
    assert sorted(dashboard.log.views) == ["a", "c", "d"]  # c joined while the snapshot was on its way


async def test_a_snapshot_in_several_websocket_frames_is_read(script: Script, people: People) -> None:
    dashboard = people.proctor()
    dashboard.act(ProctorStep(0.0, "watch"))
    await script.got(1)
    payload = m.encode(snapshot("one", 1, 1, view("a", 1))).decode()
    await script.sockets[0].send([payload[:20], payload[20:50], payload[50:]])
    await people.until(lambda: dashboard.is_watching)
    assert "a" in dashboard.log.views


async def test_a_dashboard_looks_again_after_a_minute(script: Script, people: People) -> None:
    dashboard = await watching(script, people)
    now = people.around.clock()
    dashboard.patrol(now + 1)
    dashboard.patrol(now + clients.WATCH_AGAIN_SECONDS + 1)
    assert all(isinstance(frame, m.WatchFrame) for frame in await script.got(2))


async def test_a_dashboard_that_lost_its_connection_comes_back_and_asks_again(script: Script, people: People) -> None:
    dashboard = await watching(script, people)
    await script.sockets[0].close(1012)
    await script.got(2)
    await script.say(snapshot("two", 1, 1))
    await people.until(lambda: dashboard.is_watching)
    assert len(dashboard.log.watches) == 2
    assert dashboard.log.watches[0].ended_at is not None


async def test_an_order_is_given_again_until_it_is_acknowledged(script: Script, people: People) -> None:
    dashboard = await watching(script, people)
    script.acks = False
    dashboard.act(ProctorStep(0.0, "warn", "a"))
    order = (await script.got(2))[1].data
    assert (order.command, order.student_ids) == ("warn", ("a",))
    dashboard.patrol(people.around.clock() + clients.RESEND_SECONDS + 0.1)
    again = (await script.got(3))[2].data
    assert again.command_id == order.command_id
    await script.say(m.Ack(m.AckData(server_time=1.0, command_id=str(order.command_id))))
    await people.until(lambda: dashboard.log.orders[0].acked_at)


async def test_what_proctors_hear_is_written_down(script: Script, people: People) -> None:
    dashboard = await watching(script, people)
    await script.say(m.StudentMessage(m.MessageData("m-1", "a", "chat", "Hello", 1.0)))
    await script.say(m.CommandStatus(m.CommandStatusData("c-1", "q-1", {"confirmed": 1}, {"a": "confirmed"})))
    await people.until(lambda: dashboard.log.statuses)
    assert [message_id for _, message_id in dashboard.log.messages] == ["m-1"]
    assert dashboard.log.statuses[0].outcome == "confirmed"


async def test_traffic_is_counted_where_it_passes(script: Script, people: People) -> None:
    page = await joined(script, people)
    traffic = people.around.traffic
    assert (traffic.frames_in, traffic.frames_out, traffic.reports, traffic.connects, traffic.open_now) == (
        1,
        1,
        1,
        1,
        1,
    )
    assert traffic.bytes_in > 200
    do(page, "drop")
    assert (traffic.open_now, traffic.disconnects, traffic.most_open) == (0, 1, 1)
    minutes = traffic.connection_minutes(people.around.clock())
    assert 0 < minutes < 0.1
    assert traffic.connection_minutes(people.around.clock() + 60) == minutes  # nobody is connected
