"""Nobody reaches what is not theirs: another's record, another exam, another school's keys. And nothing is parsed too early."""

from __future__ import annotations

import contextlib
import json
import time
from types import SimpleNamespace
from typing import Any

import permissions
import pytest
from lambda_aws import Tables
from lambda_fakes import T0, World

from adapters.lambda_apigw import handler, rights
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session
from adapters.lambda_apigw.store import DynamoStore
from adapters.lambda_apigw.subscriptions import DynamoSubscriptions
from core import messages
from core.identity import Principal, Role
from core.participant import ExamKey, ParticipantKey, new_participant
from core.revocation import Revocation
from core.routing import Source


@pytest.fixture
def world() -> World:
    world = World()
    for student in ("ann", "bob"):
        world.report(student, seq=1)
    world.connections.sent.clear()
    return world


@pytest.mark.parametrize(
    "changed",
    [{"student_id": "bob"}, {"quiz_id": "another"}, {"quiz_attempt_id": "a-bob"}],
    ids=["another student", "another exam", "another attempt"],
)
def test_a_report_is_taken_for_the_tokens_student_exam_and_attempt_only(world: World, changed: dict[str, str]) -> None:
    before = dict(world.store.records)
    data = {"quiz_id": "quiz", "quiz_attempt_id": "a-ann", "student_id": "ann", "user_status": "away", "seq": 2}
    world.send(world.student("ann"), "lmsQuizMonitoringStudent", **data | changed)
    assert world.store.records == before
    assert [error["code"] for error in world.frames("c-ann", "error")] == ["forbidden"]
    assert set(world.store.exams) == {world.exam}


@pytest.mark.parametrize(
    ("action", "data"),
    [
        ("lmsQuizMonitoringHeartbeat", {"seq": 9, "student_id": "bob"}),
        ("lmsQuizStudentMessage", {"message_id": "m", "kind": "raise_hand", "student_id": "bob"}),
        ("lmsQuizCommandReceipt", {"command_id": "k1", "outcome": "confirmed", "student_id": "bob"}),
    ],
)
def test_what_else_a_page_says_is_about_its_own_student(world: World, action: str, data: dict[str, Any]) -> None:
    world.order("warn", student_ids=["bob"])
    before = world.record("bob")
    world.send(world.student("ann"), action, **data)
    assert world.record("bob") == before


@pytest.mark.parametrize(
    ("action", "data"),
    [
        ("lmsQuizMonitoringProctor", {}),
        ("lmsQuizProctorCommand", {"command": "terminate", "command_id": "k1", "student_ids": ["ann"]}),
        ("lmsQuizProctorCommand", {"command": "terminate", "command_id": "k1", "everyone": True}),
    ],
    ids=["watch", "command", "command to everyone"],
)
@pytest.mark.parametrize("who", ["a proctor of another exam", "a student"])
def test_an_exam_is_watched_and_commanded_by_its_proctors_only(
    world: World, who: str, action: str, data: dict[str, Any]
) -> None:
    before, exams = dict(world.store.records), dict(world.store.exams)
    source = world.student("ann") if who == "a student" else world.proctor(quiz_ids=("another",))
    world.send(source, action, quiz_id="quiz", **data)
    assert [error["code"] for error in world.frames(source.connection, "error")] == ["forbidden"]
    assert (world.store.records, world.store.exams, world.queue.commands) == (before, exams, [])
    assert world.subscriptions.rows == {}


def test_a_proctor_of_one_group_neither_sees_nor_commands_the_others() -> None:
    world = World()
    for student, group in (("ann", "A"), ("bob", "B")):
        world.report(student, source=world.student(student, group=group), seq=1)
    proctor = world.proctor(group="B")
    world.watch(proctor, groups=["A"])
    world.watch(proctor)
    shown = {v["student_id"] for s in world.frames("c-proctor", "lmsQuizMonitoringSnapshot") for v in s["participants"]}
    assert shown <= {"bob"}
    world.order("terminate", student_ids=["ann"], source=proctor)
    world.order("terminate", "k2", everyone=True, source=proctor)
    for chunk in world.queue.commands:
        world.shell.carry_out(chunk)
    assert world.record("ann").label == "active"


def test_two_schools_with_the_same_ids_share_nothing(wire: Tables) -> None:
    """The same exam, student and proctor ids in two schools, and a school whose name holds the separator."""
    store = DynamoStore(wire.dynamodb, wire.state, wire.journal, time.time)
    schools = ("north", "south", "north#quiz")
    for school in schools:
        record = new_participant(ParticipantKey(school, "quiz", "ann"), "lambda", name=f"Ann of {school}")
        assert store.save(None, record, ())
    for school in schools:
        [record] = store.participants(ExamKey(school, "quiz"))
        assert record.student_name == f"Ann of {school}"
        assert list(store.participants(ExamKey(school, "quiz#0"))) == []
    subscriptions = DynamoSubscriptions(wire.dynamodb, wire.state, time.time)
    subscriptions.subscribe(ExamKey("north", "quiz"), "c-north", ())
    assert list(subscriptions.subscriptions(ExamKey("south", "quiz"))) == []
    subscriptions.revoke(Revocation("north", "student", subject="ann"), 60)
    assert not subscriptions.is_revoked(Principal("student", "south", "ann", ("quiz",), 0.0, attempt_id="a"))


def test_a_command_of_one_school_does_not_reach_the_other() -> None:
    world = World()
    world.report("ann", seq=1)
    south = Principal("proctor", "south", "pat", ("quiz",), T0 + 3_600)
    world.order("terminate", student_ids=["ann"], source=Source("c-south", T0, south))
    world.order("terminate", "k2", everyone=True, source=Source("c-south", T0, south))
    for chunk in world.queue.commands:
        world.shell.carry_out(chunk)
    assert world.record("ann").label == "active"
    assert world.frames("c-ann", "lmsQuizCommand") == []


def test_what_is_too_big_is_refused_before_it_is_parsed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "decode", lambda payload: pytest.fail("it was parsed"))
    payload = json.dumps({"action": "lmsQuizMonitoringStudent", "data": {"filler": "x" * 9_000}})
    world.shell.received(payload, world.student("ann"), T0)
    assert [error["code"] for error in world.frames("c-ann", "error")] == ["too_big"]


def test_a_revocation_is_of_a_bearer_or_of_an_exam_and_no_more(wire: Tables) -> None:
    subscriptions = DynamoSubscriptions(wire.dynamodb, wire.state, time.time)

    def refused(role: Role, subject: str, *quiz_ids: str) -> bool:
        return subscriptions.is_revoked(Principal(role, "east", subject, quiz_ids, 0.0, attempt_id="a"))

    subscriptions.revoke(Revocation("east", "student", "maths", "a#nn"), 60)
    subscriptions.revoke(Revocation("east", "student", "physics"), 60)
    subscriptions.revoke(Revocation("east", "proctor", "maths", "pat"), 60)
    subscriptions.revoke(Revocation("east", "proctor", subject="gone"), -1)
    assert refused("student", "a#nn", "maths")
    assert not refused("student", "a#nn", "art")
    assert not refused("student", "bob", "maths")
    assert refused("student", "bob", "physics")
    assert refused("proctor", "pat", "maths")
    assert not refused("proctor", "pat", "maths", "art")
    assert not refused("proctor", "gone", "maths")


def test_a_request_that_is_not_declared_beside_its_handler_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no test of this folder passes with one."""
    monkeypatch.setitem(rights.DECLARED, "adapters.lambda_apigw.handler.on_minute", ())
    with Session(Credentials("a", "b"), "eu-west-1") as session:
        store = DynamoStore(DynamoDb(session.client("dynamodb", "http://127.0.0.1:9")), "state", "journal", time.time)
        sweep = SimpleNamespace(restart_lost=lambda: list(store.late_sweeps(1.0)))
        app = SimpleNamespace(invocation=contextlib.nullcontext, sweep=sweep)
        monkeypatch.setattr(handler, "application", lambda: app)
        with pytest.raises(permissions.NotDeclared, match=r"on_minute does \('dynamodb:Query', 'StateTable'\)"):
            handler.on_minute({}, None)
