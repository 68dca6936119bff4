"""What students and proctors experience, over real sockets, the same on every deployment."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import websockets
from deployments import QUICK, Deployment


async def test_a_student_joins_and_the_proctor_sees_them(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1", name="Budi Santoso", group="Room A")
    sent_at = time.time()
    await page.report(question_total=40, question_answered=0, question_number_current=1)
    joined = await page.frame("joined", session_id="tab", last_seq=0, lifecycle="in_progress")
    ack = await page.frame("ack", seq=1)
    assert sent_at - 2 < ack["server_time"] / 1000 < time.time() + 2
    assert joined["max_age_s"] == 7200
    view = await proctor.sees("s1", label="active", seq=1)
    assert (view["student_name"], view["group"], view["question_total"]) == ("Budi Santoso", "Room A", 40)


async def test_away_and_back_are_shown_at_once_and_counted(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    await page.reported("away")
    await proctor.sees("s1", label="away", user_status="away", attention="away")
    await asyncio.sleep(
        2.1
    )  # an away counts when it is two seconds old: this is time itself, not a wait for a condition
    await page.reported("active", question_answered=3)
    view = await proctor.sees("s1", label="active", away_count=1, question_answered=3)
    assert view["away_seconds"] == pytest.approx(2.1, abs=1.0)


async def test_a_proctor_who_joins_late_gets_everyone_in_the_snapshot(deployment: Deployment) -> None:
    pages = [await deployment.page(f"s{n}") for n in range(5)]
    for page in pages:
        await page.reported("away" if page.student == "s3" else "active")
    late = await deployment.dashboard()
    assert {student: view["label"] for student, view in late.shown.items()} == {
        "s0": "active",
        "s1": "active",
        "s2": "active",
        "s3": "away",
        "s4": "active",
    }


async def test_a_proctor_of_one_group_sees_only_that(deployment: Deployment) -> None:
    everything = await deployment.dashboard("head")
    room_b = await deployment.dashboard("room-b", group="B")
    for student, group in (("s1", "A"), ("s2", "B")):
        page = await deployment.page(student, group=group)
        await page.reported()
    await everything.sees("s1", label="active")
    await everything.sees("s2", label="active")
    await room_b.sees("s2", label="active")
    await room_b.order("warn", "not-mine", student_ids=["s1"], text="look at your own paper")
    await everything.status_of("not-mine", "s1", "refused")
    assert set(room_b.shown) == {"s2"}


async def test_a_dropped_line_is_reconnecting_then_offline_and_a_return_is_active(deployment: Deployment) -> None:
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    await proctor.sees("s1", label="active")
    page.drop()
    await proctor.sees("s1", label="reconnecting", presence="reconnecting")
    await proctor.sees("s1", label="offline", user_status="offline")
    await asyncio.sleep(0.2)  # time itself: the clocks of two workers may be some milliseconds apart
    await page.connect()
    await page.reported(next_ms=60_000)
    view = await proctor.sees("s1", label="active", reconnects=1)
    assert view["offline_since"] is None
    assert view["offline_seconds"] > 0
    assert [label for _, label in proctor.labels] == ["active", "reconnecting", "offline", "active"]


async def test_a_page_that_says_goodbye_has_left_at_once(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    await page.report("offline")
    await proctor.sees("s1", label="offline", presence="left")


async def test_the_same_page_on_a_new_connection_replaces_the_old_one_silently(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    old = await deployment.page("s1")
    await old.reported()
    await proctor.sees("s1", label="active")
    new = await deployment.page("s1")
    new.seq = old.seq
    await new.reported(question_answered=7)
    assert (await new.frame("joined"))["last_seq"] == 1
    await old.closed()
    await proctor.sees("s1", question_answered=7)
    assert [label for _, label in proctor.labels] == ["active"]
    assert proctor.shown["s1"]["flags"] == []


async def test_a_second_page_is_a_flag_and_a_fourth_closes_the_oldest(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    pages = []
    for number in range(4):
        page = await deployment.page("s1", tab_id=f"tab-{number}")
        await page.reported()
        pages.append(page)
        if number == 1:
            await proctor.sees("s1", flags=["several_pages"])
    await pages[0].closed()
    await proctor.sees("s1", label="active", flags=["several_pages"])
    assert [page.close_code for page in pages[1:]] == [None] * 3


async def test_a_resent_report_is_acked_again_and_applied_once(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported(question_answered=1)
    await page.reported(question_answered=2)
    await page.report(seq=1, question_answered=1)
    await page.until(lambda: page.count("ack", seq=1) == 2, "second ack")
    page.seq = 2
    await page.reported(question_answered=3)
    view = await proctor.sees("s1", question_answered=3)
    assert view["seq"] == 3


async def test_the_papers_own_client_is_shown_and_hears_nothing_new(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1", tab_id=None, numbered=False)
    await page.report(question_answered="2", score="1.5", question_total=10, time_end="2099-01-01T10:00:00Z")
    view = await proctor.sees("s1", label="active", question_answered=2)
    assert view["score"] == 1.5
    assert view["time_end"] == 4070944800
    assert page.frames == []


async def test_a_warning_is_sent_delivered_and_confirmed(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    await proctor.order("warn", "w1", student_ids=["s1", "nobody"], text="Eyes on your own paper")
    await proctor.frame("ack", command_id="w1")
    command = await page.frame("lmsQuizCommand", command_id="w1")
    assert (command["command"], command["text"]) == ("warn", "Eyes on your own paper")
    await proctor.status_of("w1", "s1", "sent")
    await proctor.status_of("w1", "nobody", "refused")
    await proctor.sees("s1", flags=["warned"])
    for outcome in ("delivered", "confirmed"):
        await page.send("lmsQuizCommandReceipt", command_id="w1", outcome=outcome)
        await proctor.status_of("w1", "s1", outcome)
    await proctor.order("warn", "w1", student_ids=["s1"], text="Eyes on your own paper")
    await proctor.until(lambda: proctor.count("ack", command_id="w1") == 2, "second ack")
    await page.reported()
    assert page.count("lmsQuizCommand") == 1


async def test_a_command_to_an_absent_student_waits_for_them(deployment: Deployment) -> None:
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported(time_end=int(time.time() + 3600))
    page.drop()
    await proctor.sees("s1", label="offline")
    await proctor.order("update", "more", student_ids=["s1"], extra_minutes=10)
    await proctor.status_of("more", "s1", "accepted")
    await page.connect()
    await page.report()
    command = await page.frame("lmsQuizCommand", command_id="more")
    assert command["extra_minutes"] == 10
    await proctor.status_of("more", "s1", "sent")
    view = await proctor.sees("s1", label="active")
    assert view["time_end"] == pytest.approx(time.time() + 4200, abs=30)


async def test_a_command_nobody_receives_expires(deployment: Deployment) -> None:
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    page.drop()
    await proctor.sees("s1", label="offline")
    await proctor.order("message", "m1", student_ids=["s1"], text="hello?", expires_seconds=1)
    await proctor.status_of("m1", "s1", "expired")


async def test_everyone_is_paused_and_resumed_also_who_joins_later(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    pages = [await deployment.page(f"s{n}") for n in range(3)]
    for page in pages:
        await page.reported()
    await proctor.order("pause", "fire-drill", everyone=True)
    for page in pages:
        await page.frame("lmsQuizCommand", command_id="fire-drill")
        await proctor.sees(page.student, label="paused")
    late = await deployment.page("late")
    await late.reported()
    await proctor.sees("late", label="paused")
    await proctor.order("resume", "drill-over", everyone=True)
    for student in ("s0", "s1", "s2", "late"):
        await proctor.sees(student, label="active")


async def test_chat_and_a_raised_hand_reach_the_proctor_once(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    for _ in range(2):
        await page.send("lmsQuizStudentMessage", message_id="m1", kind="chat", text="my mouse is broken")
    await page.until(lambda: page.count("ack", message_id="m1") == 2, "two acks")
    message = await proctor.frame("lmsQuizMonitoringMessage", message_id="m1")
    assert (message["student_id"], message["text"]) == ("s1", "my mouse is broken")
    await page.send("lmsQuizStudentMessage", message_id="m2", kind="raise_hand")
    await proctor.sees("s1", flags=["hand_raised"])
    await page.send("lmsQuizStudentMessage", message_id="m3", kind="lower_hand")
    await proctor.sees("s1", flags=[])
    assert proctor.count("lmsQuizMonitoringMessage", message_id="m1") == 1


async def test_submission_ends_alarms(deployment: Deployment) -> None:
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    await page.reported(attempt_state="submitted", score=87.5)
    await proctor.sees("s1", label="submitted", score=87.5)
    page.drop()
    await proctor.sees("s1", presence="reconnecting")
    assert proctor.shown["s1"]["label"] == "submitted"


async def test_heartbeats_keep_a_page_alive_and_are_acked_if_asked(deployment: Deployment) -> None:
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported(next_ms=1000)
    await proctor.sees("s1", label="active")
    for _ in range(3):
        await page.send("lmsQuizMonitoringHeartbeat", seq=1, next_ms=1000, echo=True)
    await page.until(lambda: page.count("ack", seq=1) == 4, "three echoes")
    assert [label for _, label in proctor.labels] == ["active"]
    stranger = await deployment.page("s2")
    await stranger.send("lmsQuizMonitoringHeartbeat", seq=1)
    await stranger.frame("error", code="report_first")


async def test_a_frame_with_a_mistake_is_answered_with_field_and_fix(deployment: Deployment) -> None:
    page = await deployment.page("s1")
    await page.send_raw("{")
    await page.frame("error", code="not_json")
    await page.send("fly")
    await page.frame("error", code="unknown_action")
    await page.report("asleep")
    error = await page.frame("error", code="bad_field", seq=1)
    assert "data.user_status" in error["message"]
    await page.report(time_end="soon")
    error = await page.frame("error", code="bad_field", seq=2)
    assert "data.time_end" in error["message"]
    await page.send_raw(json.dumps({"action": "lmsQuizMonitoringStudent", "data": {"filler": "x" * 9000}}))
    await page.frame("error", code="too_big")
    await page.reported()


async def test_nobody_writes_for_somebody_else(deployment: Deployment) -> None:
    page = await deployment.page("s1")
    page.student = "s2"
    await page.report()
    error = await page.frame("error", code="forbidden")
    assert "student_id" in error["message"]
    await page.send("lmsQuizMonitoringProctor", quiz_id=deployment.quiz_id)
    await page.until(lambda: page.count("error", code="forbidden") == 2, "second refusal")
    proctor = await deployment.dashboard()
    await proctor.send("lmsQuizMonitoringProctor", quiz_id="another-exam")
    await proctor.frame("error", code="forbidden")


async def test_schools_do_not_see_each_other(deployment: Deployment) -> None:
    theirs = await deployment.dashboard("spy", school="south")
    ours = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    await ours.sees("s1", label="active")
    await theirs.watch()
    assert theirs.shown == {}


async def test_a_socket_survives_twenty_errors_in_a_row_and_no_more(deployment: Deployment) -> None:
    page = await deployment.page("s1")
    for _ in range(20):
        await page.send_raw("{}")
    await page.until(lambda: page.count("error") == 20, "20 errors")
    await page.reported()
    for _ in range(21):
        await page.send_raw("{}")
    await page.frame("error", final=True)
    await page.closed()


async def test_binary_and_oversized_frames_close_the_socket(deployment: Deployment) -> None:
    page = await deployment.page("s1")
    await page.send_raw(b"\x00\x01")
    assert await page.closed() == 1003
    page = await deployment.page("s2")
    await page.send_raw("x" * (33 * 1024))
    assert await page.closed() == 1009


async def test_tokens_are_asked_for_and_checked(deployment: Deployment) -> None:
    async def status(**headers: str) -> int:
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(deployment.url() + headers.pop("query", ""), **headers)  # type: ignore[arg-type]
        return caught.value.response.status_code

    assert await status() == 401
    assert await status(query="?token=nonsense") == 401
    expired = deployment.student_token("s1", "a1", expires_at=time.time() - 3600)
    assert await status(query=f"?token={expired}") == 401
    assert await status(query=f"?token={deployment.student_token('s1', '')}") == 403


async def test_every_change_of_label_is_in_the_journal_once(deployment: Deployment) -> None:
    await deployment.open_exam(QUICK)
    proctor = await deployment.dashboard()
    page = await deployment.page("s1")
    await page.reported()
    await page.reported("away")
    await page.reported("active")
    page.drop()
    await proctor.sees("s1", label="offline")
    expected = ["active", "away", "active", "reconnecting", "offline"]
    deadline = time.monotonic() + 10
    while True:
        labels = [entry.after for entry in await deployment.journal() if entry.kind == "label"]
        if labels == expected or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    assert labels == expected
