"""Silence, incidents and chains of sweeps, over ports in memory."""

from __future__ import annotations

import msgspec
import pytest
from lambda_fakes import T0, World

from adapters.lambda_apigw.ports import SweepTicket
from adapters.lambda_apigw.shell import Outbox
from adapters.lambda_apigw.sweep import Sweep, extra_sweeps
from core.errors import CloseCode
from core.events import ConnectionLost, ExamClosed, HeartbeatReceived
from core.messages import Heartbeat
from core.participant import new_participant
from core.revocation import Revocation


@pytest.fixture
def world() -> World:
    return World()


def sweep_of(world: World) -> Sweep:
    return Sweep(world.shell, world.store, world.subscriptions, world.connections, world.clock)


def test_silence_becomes_reconnecting_and_then_offline_within_the_lease_and_a_sweep(world: World) -> None:
    world.watch()
    world.report("ann", seq=1)
    world.sweep_until(12)
    assert world.record("ann").label == "active"
    world.sweep_until(12.5 + 10)
    assert world.record("ann").label == "reconnecting"
    world.sweep_until(25 + 10)
    assert world.record("ann").label == "offline"
    assert world.labels("ann") == ["active", "reconnecting", "offline"]
    shown = [u["participants"][0]["label"] for u in world.frames("c-proctor", "lmsQuizMonitoringUpdate")]
    assert shown == ["active", "reconnecting", "offline"]


def test_a_heartbeat_keeps_a_student_active(world: World) -> None:
    world.report("ann", seq=1)
    for moment in range(5, 60, 5):
        world.sweep_until(moment)
        world.send(world.student("ann"), "lmsQuizMonitoringHeartbeat", seq=1)
    assert world.labels("ann") == ["active"]


def test_a_deadline_of_a_student_who_goes_on_reporting_costs_no_write(world: World) -> None:
    world.report("ann", seq=1)
    world.sweep_until(7)
    world.send(world.student("ann"), "lmsQuizMonitoringHeartbeat", seq=1, next_ms=60_000)
    before = world.record("ann")
    assert before.check_at == T0 + 12.5
    world.sweep_until(100)
    assert world.record("ann") is before
    world.sweep_until(7 + 95 + 10)
    assert world.record("ann").label == "reconnecting"


def test_a_closed_socket_is_offline_twenty_seconds_and_a_sweep_later(world: World) -> None:
    world.report("ann", seq=1)
    world.shell.disconnected(world.student("ann"), ConnectionLost(received_at=T0, connection="c-ann"))
    world.sweep_until(30)
    assert world.labels("ann") == ["active", "reconnecting", "offline"]


def test_a_sweep_delivered_twice_ends_there(world: World) -> None:
    world.report("ann", seq=1)
    [(ticket, _)] = world.queue.sweeps
    world.clock.now = ticket.at
    assert sweep_of(world).sweep(ticket)
    assert not sweep_of(world).sweep(ticket)
    assert len(world.queue.sweeps) == 2


def test_a_lost_chain_is_started_again(world: World) -> None:
    world.report("ann", seq=1)
    world.queue.sweeps.clear()  # SQS lost it, or a crash came between the claim and the send
    world.clock.now = T0 + 25
    assert sweep_of(world).restart_lost() == 0
    world.clock.now = T0 + 31
    assert sweep_of(world).restart_lost() == 1
    world.sweep_until(60)
    assert world.record("ann").label == "offline"


def test_an_exam_whose_opening_crashed_before_its_first_sweep_is_found(world: World) -> None:
    world.report("ann", seq=1)
    world.queue.sweeps.clear()
    world.store.tickets[world.exam, 0] = 0.0
    assert sweep_of(world).restart_lost() == 1


def test_a_closed_exam_is_swept_no_more(world: World) -> None:
    world.report("ann", seq=1)
    outbox = Outbox()
    world.shell.apply_exam(world.exam, ExamClosed(received_at=T0, by="api"), outbox)
    world.shell.finish(outbox)
    [(ticket, _)] = world.queue.sweeps
    world.clock.now = ticket.at
    assert not sweep_of(world).sweep(ticket)
    assert sweep_of(world).restart_lost() == 0


def test_an_exam_closes_an_hour_after_its_end(world: World) -> None:
    world.report("ann", seq=1, time_end=T0 + 60, attempt_state="submitted")
    world.sweep_until(60 + 3_600 + 10)
    assert world.store.exams[world.exam].state == "closed"
    assert world.store.tickets == {}


@pytest.mark.parametrize("shards", [1, 3])
def test_a_mass_silence_is_one_incident_and_nobody_is_shown_offline_while_it_lasts(shards: int) -> None:
    world = World(shards)
    world.watch()
    students = [f"s{n:02d}" for n in range(40)]
    for student in students:
        world.report(student, seq=1)
    for moment in range(5, 61, 5):
        world.sweep_until(moment)
        for student in students[:20]:
            world.send(world.student(student), "lmsQuizMonitoringHeartbeat", seq=1)
    assert {world.record(s).label for s in students[:20]} == {"active"}
    assert {world.record(s).label for s in students[20:]} == {"reconnecting"}
    [incident] = world.store.exams[world.exam].incidents
    assert incident.kind == "silence"
    published = [i for u in world.frames("c-proctor", "lmsQuizMonitoringUpdate") for i in u["incidents"]]
    assert published[0]["kind"] == "silence"


def test_an_inbox_is_decided_by_the_sweep_and_emptied_in_the_save(world: World) -> None:
    world.report("ann", seq=1, tab_id="t")
    beat = HeartbeatReceived(received_at=T0 + 9, connection="c-ann", heartbeat=Heartbeat(seq=1))
    world.store.put_in_inbox(world.key("ann"), beat)
    world.store.put_in_inbox(world.key("ann"), beat)
    world.sweep_until(10)
    assert world.record("ann").last_seen == T0 + 9
    assert not world.store.inboxes[world.key("ann")]


def test_the_inbox_of_a_participant_who_lives_elsewhere_is_left_alone(world: World) -> None:
    world.report("ann", seq=1)
    moved = msgspec.structs.replace(new_participant(world.key("bob"), "ec2"), version=1)
    world.store.records[moved.key] = moved
    beat = HeartbeatReceived(received_at=T0 + 1, connection="c-bob", heartbeat=Heartbeat(seq=1))
    world.store.put_in_inbox(moved.key, beat)
    world.sweep_until(30)
    assert [item.event for item in world.store.inboxes[moved.key].values()] == [beat]


def test_a_silent_proctor_with_an_expired_token_is_hung_up(world: World) -> None:
    world.report("ann", seq=1)
    world.watch(world.proctor(expires_at=T0))
    world.sweep_until(50)
    assert world.connections.closed == []
    world.sweep_until(75)
    assert world.connections.closed == [("c-proctor", 4001)]


def test_a_message_of_a_sweep_that_was_never_planned_is_ignored(world: World) -> None:
    assert not sweep_of(world).sweep(SweepTicket(world.exam, 0, T0))


def test_who_turns_offline_between_two_sweeps_is_shown_then_and_not_a_sweep_later(world: World) -> None:
    world.watch()
    world.report("ann", seq=1, next_ms=19_000)
    world.report("bob", seq=1, next_ms=19_000)
    world.sweep_until(3)
    world.shell.disconnected(world.student("bob"), ConnectionLost(received_at=T0 + 3, connection="c-bob"))
    world.sweep_until(22.9)
    assert world.record("bob").label == "reconnecting"
    world.sweep_until(24)  # closed at 3, and 20 s of grace
    assert world.record("bob").label == "offline"
    world.sweep_until(52.9)
    assert world.record("ann").label == "reconnecting"
    world.sweep_until(54)  # 2 x 19 + 15
    assert world.record("ann").label == "offline"


def test_pages_that_keep_their_promises_need_no_extra_sweep(world: World) -> None:
    world.report("ann", seq=1)
    for moment in range(5, 100, 5):
        world.sweep_until(moment)
        assert not any(ticket.extra for ticket, _ in world.queue.sweeps)
        world.send(world.student("ann"), "lmsQuizMonitoringHeartbeat", seq=1)


def test_an_extra_sweep_plans_nothing_and_may_come_twice_or_never(world: World) -> None:
    world.report("ann", seq=1, next_ms=19_000)
    extra = SweepTicket(world.exam, 0, T0 + 53, extra=True)
    world.clock.now = T0 + 53
    planned, tickets = list(world.queue.sweeps), dict(world.store.tickets)
    assert sweep_of(world).sweep(extra)
    assert sweep_of(world).sweep(extra)
    assert (world.queue.sweeps, world.store.tickets) == (planned, tickets)
    assert world.labels("ann") == ["active", "offline"]


def test_extra_sweeps_are_two_seconds_apart_however_many_turn_offline() -> None:
    world = World()
    for number in range(40):
        world.report(f"s{number}", seq=1)
        world.shell.disconnected(
            world.student(f"s{number}"), ConnectionLost(received_at=T0 - 10 + number / 4, connection=f"c-s{number}")
        )
    records = list(world.store.participants(world.exam))
    planned = extra_sweeps(records, world.store.exams[world.exam], T0, 10.0)
    assert len(planned) == 0  # the first turns offline 10 s from now: the next sweep's
    planned = extra_sweeps(records, world.store.exams[world.exam], T0 + 10, 10.0)
    assert planned == [T0 + 11, T0 + 13, T0 + 15, T0 + 17, T0 + 19]


def test_what_a_sweep_finds_does_not_wait_in_the_queue_of_views() -> None:
    world = World(coalesce=True, direct_watchers=0)
    world.watch()
    world.report("ann", seq=1)
    assert len(world.queue.views) == 1
    world.sweep_until(26)
    shown = [u["participants"][0]["label"] for u in world.frames("c-proctor", "lmsQuizMonitoringUpdate")]
    assert shown == ["reconnecting", "offline"]
    assert len(world.queue.views) == 1


def test_who_is_revoked_is_hung_up_on_at_the_next_sweep_and_nobody_else(world: World) -> None:
    world.watch()
    world.watch(world.proctor("c-other"))
    for student in ("ann", "bob"):
        world.report(student, seq=1, next_ms=60_000)
    world.subscriptions.remember("c-proctor", T0, world.proctor().principal)
    world.subscriptions.revoked[Revocation(world.school, "student", subject="ann")] = T0 + 3_600
    world.subscriptions.revoked[Revocation(world.school, "student", "another exam", "bob")] = T0 + 3_600
    world.subscriptions.revoked[Revocation(world.school, "proctor", world.quiz, "pat")] = T0 + 3_600
    world.sweep_until(10)
    assert world.connections.closed == [("c-ann", CloseCode.TOKEN), ("c-proctor", CloseCode.TOKEN)]
    assert [connection for connection, _ in world.subscriptions.subscriptions(world.exam)] == ["c-other"]


def test_a_revocation_ends(world: World) -> None:
    world.report("ann", seq=1, next_ms=60_000)
    world.subscriptions.revoked[Revocation(world.school, "student", world.quiz)] = T0 + 5
    world.sweep_until(10)
    assert world.connections.closed == []
