"""The shell over ports in memory: what is saved, sent and published, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from lambda_fakes import T0, FakeStore, World
from msgspec.structs import replace

from adapters.lambda_apigw.shell import Contended
from core import events
from core.errors import TokenRejected
from core.events import ConnectionLost
from core.identity import Principal
from core.participant import new_participant
from core.routing import Source


@pytest.fixture
def world() -> World:
    return World()


def test_a_first_report_opens_the_exam_and_starts_its_sweeps(world: World) -> None:
    world.report("ann", seq=1)
    assert world.store.exams[world.exam].state == "open"
    assert [(ticket.at, delay) for ticket, delay in world.queue.sweeps] == [(T0 + 10, 10.0)]
    world.report("bob", seq=1)
    assert len(world.queue.sweeps) == 1


def test_the_ack_comes_last_and_after_the_save(world: World) -> None:
    world.watch()
    world.report("ann", seq=1, tab_id="t")
    assert world.record("ann").label == "active"
    order = [(connection, frame["action"]) for connection, frame in world.connections.sent]
    assert order == [
        ("c-proctor", "lmsQuizMonitoringSnapshot"),
        ("c-ann", "joined"),
        ("c-proctor", "lmsQuizMonitoringUpdate"),
        ("c-ann", "ack"),
    ]


def test_a_client_of_the_paper_hears_nothing(world: World) -> None:
    world.report("ann")
    assert world.frames("c-ann") == []


def test_what_changes_nothing_visible_is_saved_but_not_published(world: World) -> None:
    world.watch()
    world.report("ann", seq=1)
    before = world.record("ann").version
    world.report("ann", seq=2)
    assert world.record("ann").version > before
    assert len(world.frames("c-proctor", "lmsQuizMonitoringUpdate")) == 1


def test_a_lost_race_is_decided_again_on_the_record_as_it_is(world: World) -> None:
    world.report("ann", seq=1)
    world.store.conflicts = 3
    world.report("ann", seq=2, question_answered=7)
    assert world.record("ann").question_answered == 7
    assert [ack["seq"] for ack in world.frames("c-ann", "ack")] == [1, 2]


def test_a_race_that_is_lost_again_and_again_is_raised_and_not_acked(world: World) -> None:
    world.store.conflicts = 1_000
    with pytest.raises(Contended):
        world.report("ann", seq=1)
    assert world.frames("c-ann", "ack") == []


def test_a_connection_that_is_gone_at_the_ack_is_lost_and_that_is_published(world: World) -> None:
    world.watch()
    world.connections.gone.add("c-ann")
    world.report("ann", seq=1)
    assert world.record("ann").label == "reconnecting"
    assert world.frames("c-proctor", "lmsQuizMonitoringUpdate")[-1]["participants"][0]["label"] == "reconnecting"


def test_a_gone_proctor_is_unsubscribed(world: World) -> None:
    world.watch()
    world.connections.gone.add("c-proctor")
    world.report("ann", seq=1)
    assert list(world.subscriptions.subscriptions(world.exam)) == []


def test_a_proctor_sees_the_groups_they_watch(world: World) -> None:
    world.watch(world.proctor("all"))
    world.watch(world.proctor("b"), groups=["B"])
    world.report("ann", source=world.student("ann", group="A"))
    world.report("bob", source=world.student("bob", group="B"))
    seen = {
        c: [v["student_id"] for u in world.frames(c, "lmsQuizMonitoringUpdate") for v in u["participants"]]
        for c in ("all", "b")
    }
    assert seen == {"all": ["ann", "bob"], "b": ["bob"]}


def test_who_stops_watching_gets_nothing_more(world: World) -> None:
    world.watch()
    world.watch(stop=True)
    world.report("ann")
    assert world.frames("c-proctor", "lmsQuizMonitoringUpdate") == []


def test_a_snapshot_of_an_exam_that_nobody_opened_is_empty_and_opens_nothing(world: World) -> None:
    world.watch()
    assert world.frames("c-proctor", "lmsQuizMonitoringSnapshot")[0]["participants"] == []
    assert world.store.exams == {}


def test_a_subscription_is_there_before_the_snapshot_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.report("ann", seq=1)
    read = FakeStore.participants

    def participants(store: FakeStore, exam: object) -> object:
        found = list(read(store, exam))  # a report is saved and published just after the snapshot was read
        world.report("ann", seq=2, question_answered=5)
        return found

    monkeypatch.setattr(FakeStore, "participants", participants)
    world.watch()
    assert world.frames("c-proctor", "lmsQuizMonitoringUpdate")[0]["participants"][0]["question_answered"] == 5


def test_a_warning_is_saved_then_sent_and_its_receipts_reach_the_proctors(world: World) -> None:
    world.watch()
    world.report("ann", seq=1, tab_id="t")
    world.order("warn", student_ids=["ann"])
    assert world.frames("c-ann", "lmsQuizCommand") == [
        {"command_id": "k1", "command": "warn", "text": "eyes on your own paper"}
    ]
    assert world.frames("c-proctor", "ack")[-1]["command_id"] == "k1"
    for outcome in ("delivered", "confirmed"):
        world.send(world.student("ann"), "lmsQuizCommandReceipt", command_id="k1", outcome=outcome)
    statuses = [status["students"]["ann"] for status in world.frames("c-proctor", "lmsQuizCommandStatus")]
    assert statuses == ["sent", "delivered", "confirmed"]


def test_a_command_to_several_is_one_status_frame(world: World) -> None:
    world.watch()
    world.report("ann", seq=1)
    world.report("bob", seq=1)
    world.order(student_ids=["ann", "bob", "nobody"])
    [status] = world.frames("c-proctor", "lmsQuizCommandStatus")
    assert status["students"] == {"ann": "sent", "bob": "sent", "nobody": "refused: not in this exam"}
    assert status["counts"] == {"sent": 2, "refused": 1}
    assert world.key("nobody") not in world.store.records


def test_a_repeated_command_is_acked_again_and_changes_nothing(world: World) -> None:
    world.report("ann", seq=1)
    world.order(student_ids=["ann"])
    once = world.record("ann")
    world.order(student_ids=["ann"])
    assert world.record("ann") == once
    assert len(world.frames("c-ann", "lmsQuizCommand")) == 1
    assert len(world.frames("c-proctor", "ack")) == 2


def test_a_command_to_someone_who_just_left_waits_for_their_return(world: World) -> None:
    world.watch()
    world.report("ann", seq=1, tab_id="t")
    world.connections.gone.add("c-ann")
    world.order(student_ids=["ann"])
    assert world.record("ann").label == "reconnecting"
    world.clock.now += 5
    back = world.student("ann", "c-ann-2")
    world.report("ann", seq=2, tab_id="t", source=back)
    assert [c["command_id"] for c in world.frames("c-ann-2", "lmsQuizCommand")] == ["k1"]


def test_a_command_to_everyone_goes_through_the_queue_and_stands_for_who_joins_later(world: World) -> None:
    world.watch()
    for student in ("ann", "bob"):
        world.report(student, seq=1)
    world.order("pause", everyone=True)
    assert world.frames("c-proctor", "ack")[-1]["command_id"] == "k1"
    for chunk in world.queue.commands:
        world.shell.carry_out(chunk)
        world.shell.carry_out(chunk)  # SQS may deliver twice
    world.report("late", seq=1)
    assert {world.record(s).lifecycle for s in ("ann", "bob", "late")} == {"paused"}
    assert [len(world.frames(f"c-{s}", "lmsQuizCommand")) for s in ("ann", "bob", "late")] == [1, 1, 1]


def test_a_join_in_another_environment_sees_a_pause_that_is_less_than_a_second_old(world: World) -> None:
    other = world.new_shell()
    world.report("ann", seq=1)
    source = world.student("bob")
    world.send(source, "lmsQuizMonitoringHeartbeat", shell=other)  # `other` has the exam now
    world.order("pause", everyone=True)
    ids = {"quiz_id": "quiz", "quiz_attempt_id": "a-bob", "student_id": "bob"}
    world.send(source, "lmsQuizMonitoringStudent", shell=other, user_status="active", **ids)
    assert world.record("bob").lifecycle == "paused"


def test_a_sweep_brings_a_fresh_command_to_who_was_joining_when_it_was_given(world: World) -> None:
    world.report("ann", seq=1)
    world.order("pause", everyone=True)
    [chunk] = world.queue.commands
    joined = world.record("ann")
    world.shell.carry_out(chunk)
    world.store.records[world.key("bob")] = type(joined)(
        *world.key("bob"), home="lambda", version=1, lifecycle="in_progress", sessions=joined.sessions
    )
    world.sweep_until(11)
    assert world.record("bob").lifecycle == "paused"


def test_the_parts_of_two_commands_to_everyone_may_come_in_the_wrong_order(world: World) -> None:
    other = world.new_shell()
    world.report("ann", seq=1)
    world.order("pause", "k1", everyone=True)
    other.exam(world.exam)
    world.order("resume", "k2", everyone=True)
    pause, resume = world.queue.commands
    world.shell.carry_out(resume)
    other.carry_out(pause)  # by an environment that has the exam as it was a moment ago
    assert world.labels("ann") == ["active"]


def test_a_sweep_does_not_pause_who_joins_after_everyone_was_resumed(world: World) -> None:
    world.report("ann", seq=1)
    for command, command_id in (("pause", "k1"), ("resume", "k2")):
        world.order(command, command_id, everyone=True)
        world.shell.carry_out(world.queue.commands.pop(0))
    world.report("bob", seq=1)
    world.sweep_until(11)
    assert world.labels("bob") == ["active"]
    assert world.frames("c-bob", "lmsQuizCommand") == []
    assert world.labels("ann") == ["active", "paused", "active"]


def test_a_command_to_many_is_queued_in_parts_before_it_is_acked(world: World) -> None:
    students = [f"s{n:03d}" for n in range(250)]
    for student in students:
        world.report(student)
    world.order(student_ids=students)
    assert [len(chunk.student_ids) for chunk in world.queue.commands] == [100, 100, 50]
    assert world.frames("c-proctor", "ack")[-1]["command_id"] == "k1"
    for chunk in world.queue.commands:
        world.shell.carry_out(chunk)
    assert all("warned" in world.record(student).flags for student in students)


def test_a_command_to_everyone_of_a_large_shard_is_carried_out_part_by_part() -> None:
    world = World(shards=2)
    students = [f"s{n:03d}" for n in range(250)]
    for student in students:
        world.report(student)
    world.order(everyone=True)
    parts = 0
    while world.queue.commands:
        world.shell.carry_out(world.queue.commands.pop(0))
        parts += 1
    assert parts == 4
    assert all("warned" in world.record(student).flags for student in students)


def test_a_chat_line_reaches_the_proctors_once_and_is_acked_each_time(world: World) -> None:
    world.watch()
    world.report("ann", seq=1)
    for _ in range(2):
        world.send(world.student("ann"), "lmsQuizStudentMessage", message_id="m1", kind="chat", text="may I leave?")
    assert [m["text"] for m in world.frames("c-proctor", "lmsQuizMonitoringMessage")] == ["may I leave?"]
    assert [a.get("message_id") for a in world.frames("c-ann", "ack")] == [None, "m1", "m1"]


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("x" * 8_193, "too_big"),
        ("ä" * 4_097, "too_big"),
        ("not json", "not_json"),
        ('{"action": "dance", "data": {}}', "unknown_action"),
        ('{"action": "lmsQuizMonitoringStudent", "data": {"quiz_id": "quiz"}}', "bad_field"),
        ('{"action": "lmsQuizMonitoringProctor", "data": {"quiz_id": "quiz"}}', "forbidden"),
        (
            '{"action": "lmsQuizMonitoringStudent", "data": {"quiz_id": "quiz", "quiz_attempt_id": "a-ann", '
            '"student_id": "bob", "user_status": "active"}}',
            "forbidden",
        ),
    ],
)
def test_a_faulty_frame_is_answered_and_changes_nothing(world: World, payload: str, code: str) -> None:
    world.shell.received(payload, world.student("ann"), T0)
    assert [error["code"] for error in world.frames("c-ann", "error")] == [code]
    assert world.store.records == {}
    assert world.connections.closed == []


def test_the_21st_faulty_frame_in_a_row_ends_the_socket(world: World) -> None:
    ann = world.student("ann")
    for _ in range(20):
        world.shell.received("?", ann, T0)
    world.report("ann")
    for _ in range(20):
        world.shell.received("?", ann, T0)
    assert world.connections.closed == []
    world.shell.received("?", ann, T0)
    assert world.connections.closed == [("c-ann", 4003)]


def test_proctors_of_another_exam_or_school_get_nothing(world: World) -> None:
    world.report("ann", seq=1)
    world.watch(world.proctor("elsewhere", quiz_ids=("other",)))
    assert [e["code"] for e in world.frames("elsewhere", "error")] == ["forbidden"]
    stranger = world.proctor("stranger")
    stranger = type(stranger)("stranger", T0, Principal("proctor", "south", "pat", ("quiz",), T0 + 60))
    world.watch(stranger)
    assert world.frames("stranger", "lmsQuizMonitoringSnapshot")[0]["participants"] == []


def test_a_proctor_whose_token_expired_over_a_minute_ago_is_hung_up(world: World) -> None:
    world.watch(world.proctor(expires_at=T0))
    assert len(world.frames("c-proctor", "lmsQuizMonitoringSnapshot")) == 1
    world.clock.now += 61
    world.watch(world.proctor(expires_at=T0))
    assert world.connections.closed == [("c-proctor", 4001)]
    assert list(world.subscriptions.expired(world.exam)) == []


def test_a_refreshed_token_is_remembered_and_acked_and_a_bad_one_is_an_error_that_is_not_final() -> None:
    def verify(token: str) -> Principal:
        if token == "bad":
            raise TokenRejected("the token has expired")
        return Principal("proctor", "north", "pat", ("quiz", "more"), T0 + 7_200)

    world = World(verify=verify)
    world.watch()
    world.send(world.proctor(), "lmsQuizToken", token="good")
    assert world.actions("c-proctor")[-1] == "ack"
    assert world.subscriptions.principal("c-proctor").quiz_ids == ("quiz", "more")
    world.send(world.proctor(), "lmsQuizToken", token="bad")
    [error] = world.frames("c-proctor", "error")
    assert (error["code"], error.get("final")) == ("token_invalid", None)


def test_a_participant_whose_home_is_elsewhere_is_not_decided_here(world: World) -> None:
    away = new_participant(world.key("ann"), "ec2")
    world.store.records[away.key] = away
    world.report("ann", seq=1)
    assert world.record("ann") is away
    assert world.frames("c-ann") == []
    [item] = world.store.inboxes[away.key].values()
    assert isinstance(item.event, events.StatusReported)


def test_a_closed_tab_is_reconnecting_and_a_goodbye_is_offline(world: World) -> None:
    world.report("ann", seq=1)
    world.shell.disconnected(world.student("ann"), ConnectionLost(received_at=T0, connection="c-ann"))
    assert world.record("ann").label == "reconnecting"
    world.report("bob", seq=1)
    world.shell.disconnected(world.student("bob"), ConnectionLost(received_at=T0, connection="c-bob", reason="left"))
    assert world.record("bob").label == "offline"


def test_a_student_who_connects_and_leaves_without_a_report_leaves_no_trace(world: World) -> None:
    ann = world.student("ann")
    world.shell.connected(ann)
    world.shell.disconnected(ann, ConnectionLost(received_at=T0, connection="c-ann"))
    assert (world.store.records, world.store.exams, world.subscriptions.known) == ({}, {}, {})


def test_a_reconnected_page_replaces_its_old_connection_which_is_closed(world: World) -> None:
    world.report("ann", seq=1, tab_id="t")
    world.clock.now += 1
    world.report("ann", seq=2, tab_id="t", source=world.student("ann", "c-new"))
    assert world.connections.closed == [("c-ann", 4009)]
    assert world.record("ann").label == "active"


def test_a_large_update_is_cut_into_frames_below_the_limit(world: World) -> None:
    world.watch()
    students = [f"s{n}" for n in range(400)]
    for student in students:
        world.store.records[world.key(student)] = new_participant(world.key(student), "lambda", name="N" * 80)
    world.connections.sent.clear()
    world.order("flag", everyone=True)
    outboxes = 0
    while world.queue.commands:
        world.shell.carry_out(world.queue.commands.pop(0))
        outboxes += 1
    updates = world.frames("c-proctor", "lmsQuizMonitoringUpdate")
    assert sum(len(u["participants"]) for u in updates) == 400
    assert outboxes == 4


# --- coalescing ---


def test_what_many_proctors_watch_is_published_together_and_the_newest_of_each_student_wins() -> None:
    world = World(coalesce=True)
    for number in range(4):
        world.watch(world.proctor(f"p{number}"), groups=["A"] if number == 3 else None)
    world.report("ann", seq=1, source=world.student("ann", group="B"))
    world.report("ann", seq=2, question_answered=7, source=world.student("ann", group="B"))
    world.report("bob", seq=1, source=world.student("bob", group="A"))
    assert world.frames("p0", "lmsQuizMonitoringUpdate") == []
    assert world.frames("c-ann", "ack") != []
    world.shell.publish(reversed(world.queue.views))
    world.shell.publish(world.queue.views[:1])  # SQS may deliver twice, and late: clients keep the higher version
    seen = {p: world.frames(p, "lmsQuizMonitoringUpdate")[0]["participants"] for p in ("p0", "p3")}
    assert {v["student_id"]: v["question_answered"] for v in seen["p0"]} == {"ann": 7, "bob": 0}
    assert [v["student_id"] for v in seen["p3"]] == ["bob"]
    assert len(world.frames("p0", "lmsQuizMonitoringUpdate")) == 2


def test_few_proctors_get_a_change_at_once() -> None:
    world = World(coalesce=True)
    for number in range(3):
        world.watch(world.proctor(f"p{number}"))
    world.report("ann", seq=1)
    assert len(world.frames("p0", "lmsQuizMonitoringUpdate")) == 1
    assert world.queue.views == []


def test_a_big_exam_is_published_together_but_words_and_statuses_go_out_at_once() -> None:
    world = World(shards=2, coalesce=True)
    world.watch()
    world.report("ann", seq=1)
    world.send(world.student("ann"), "lmsQuizStudentMessage", message_id="m1", kind="raise_hand")
    world.order(student_ids=["ann"])
    assert world.frames("c-proctor", "lmsQuizMonitoringUpdate") == []
    assert len(world.frames("c-proctor", "lmsQuizMonitoringMessage")) == 1
    assert len(world.frames("c-proctor", "lmsQuizCommandStatus")) == 1
    world.shell.publish(world.queue.views)
    [update] = world.frames("c-proctor", "lmsQuizMonitoringUpdate")
    assert update["participants"][0]["flags"] == ["hand_raised", "warned"]


def test_everything_is_published_together_if_the_deployer_wants_it_so() -> None:
    world = World(coalesce=True, direct_watchers=0)
    world.watch()
    world.report("ann", seq=1)
    assert world.frames("c-proctor", "lmsQuizMonitoringUpdate") == []
    world.shell.publish(world.queue.views)
    assert len(world.frames("c-proctor", "lmsQuizMonitoringUpdate")) == 1


# --- many proctors at a time, and the greatest age of a connection ---


def test_more_than_three_proctors_are_told_at_the_same_time_and_the_gone_are_pruned() -> None:
    told: list[list[str]] = []

    def fan_out(frames: Sequence[tuple[str, Sequence[bytes]]]) -> list[str]:
        told.append([connection for connection, _ in frames])
        return ["p2"]

    world = World(fan_out=fan_out)
    for number in range(3):
        world.watch(world.proctor(f"p{number}"))
    world.report("ann", seq=1)
    assert told == []
    world.watch(world.proctor("p3"))
    world.report("ann", seq=2, question_answered=1)
    assert told == [["p0", "p1", "p2", "p3"]]
    world.report("ann", seq=3, question_answered=2)
    assert told == [["p0", "p1", "p2", "p3"]]  # three are left
    assert [v["participants"][0]["seq"] for v in world.frames("p3", "lmsQuizMonitoringUpdate")] == [3]


def test_a_page_is_told_once_to_renew_a_connection_that_api_gateway_will_cut(world: World) -> None:
    world.report("ann", seq=1)
    world.clock.now += 0.93 * 7_200 - 1
    source = Source("c-ann", T0, world.student("ann").principal)
    world.report("ann", seq=2, source=source)
    assert world.frames("c-ann", "reconnect") == []
    world.clock.now += 2
    for seq in (3, 4):
        world.report("ann", seq=seq, source=source)
    [order] = world.frames("c-ann", "reconnect")
    assert order["reason"] == "max_age"
    assert 0 <= order["after_ms"] < 0.02 * 7_200_000
    assert world.actions("c-ann")[-1] == "ack"
    # whichever socket goes first, nobody is shown a departure
    world.shell.disconnected(source, ConnectionLost(received_at=world.clock.now + 5, connection="c-ann"))
    assert world.record("ann").label == "active"


def test_a_proctor_is_told_to_renew_too(world: World) -> None:
    world.clock.now += 7_000
    source = Source("c-proctor", T0, world.proctor(expires_at=T0 + 90_000).principal)
    for _ in range(2):
        world.watch(source)
    assert [order["reason"] for order in world.frames("c-proctor", "reconnect")] == ["max_age"]


# --- reads at half the price ---


@pytest.mark.parametrize("found", ["nothing yet", "before the away", "without its page"])
def test_a_heartbeat_decided_on_an_older_record_is_decided_again_on_the_latest(world: World, found: str) -> None:
    world.watch()
    world.report("ann", seq=1, tab_id="t")
    first = world.record("ann")
    world.clock.now += 5
    world.report("ann", "away", seq=2, tab_id="t")
    world.clock.now += 5
    world.send(world.student("ann"), "lmsQuizMonitoringHeartbeat", seq=2)  # the away counts now, and is published
    latest, told = world.record("ann"), len(world.connections.sent)
    old = {"nothing yet": None, "before the away": first, "without its page": replace(first, sessions=())}
    world.store.older[world.key("ann")] = old[found]
    world.clock.now += 5
    world.send(world.student("ann"), "lmsQuizMonitoringHeartbeat", seq=2, next_ms=60_000)
    after = world.record("ann")
    assert (after.label, after.away_since) == ("away", latest.away_since)
    assert after.sessions[0].lease_until == world.clock.now + 1.5 * 60 + 5
    assert len(world.connections.sent) == told  # nobody heard of what the older record would have made of it


def test_only_heartbeats_are_decided_on_reads_at_half_the_price(world: World) -> None:
    world.report("ann", seq=1, tab_id="t")
    world.store.older[world.key("ann")] = None
    world.report("ann", "away", seq=2, tab_id="t")
    assert world.record("ann").label == "away"
    [known] = world.record("ann").sessions
    assert known.seq == 2
