"""Commands over HTTP: the rules of the socket, the same on both deployments, kept and journalled with who gave them."""

import pytest
from web_api import SOUTH

from core.participant import ExamKey


def order(api, quiz, **body):
    key = {name: body.pop(name) for name in ("key",) if name in body}
    return api.post(f"/api/exams/{quiz}/commands", {"command_id": "c1", "command": "message", **body}, **key)


@pytest.fixture
def exam(api, quiz):
    roster = [{"student_id": "s1", "group": "A"}, {"student_id": "s2", "group": "B"}]
    api.post(f"/api/exams/{quiz}/open", {"roster": roster})
    return ExamKey("north", quiz)


def proctor(api, quiz, **more):
    answer = api.post("/api/token", {"role": "proctor", "quiz_id": quiz, "proctor_id": "p1", **more})
    return answer.json["token"]


def test_a_command_to_all_is_the_exams_and_says_who_gave_it(api, exam):
    answer = order(api, exam.quiz_id, everyone=True, text="Read the sheet", key=proctor(api, exam.quiz_id))
    assert (answer.status, answer.json["command_id"]) == (202, "c1")
    assert order(api, exam.quiz_id, everyone=True, text="Read the sheet").status == 202  # a repeat
    (line,) = [entry for entry in api.journal(exam) if entry.kind == "exam" and entry.cause == "message"]
    assert (line.actor, line.reference, line.text, line.to_everyone) == ("p1", "c1", "Read the sheet", True)
    said = api.get(f"/api/exams/{exam.quiz_id}/conversation").json["lines"]
    assert [(words["student_id"], words["actor"], words["text"]) for words in said] == [("", "p1", "Read the sheet")]


def test_who_may_not_is_refused_and_nothing_is_kept(api, exam):
    room_a = proctor(api, exam.quiz_id, group="A")
    assert order(api, exam.quiz_id, everyone=True, text="x", key=room_a).status == 403
    assert order(api, exam.quiz_id, student_ids=["s1"], text="x", key=SOUTH).status == 404
    assert order(api, exam.quiz_id, student_ids=["s1"], text="x", key=proctor(api, "other")).status == 404
    assert order(api, exam.quiz_id, student_ids=["s1"], text="x", key=None).status == 401
    assert order(api, "nowhere", student_ids=["s1"], text="x").status == 404
    assert [entry.kind for entry in api.journal(exam)] == ["exam"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "name either student_ids or everyone"),
        ({"everyone": True, "student_ids": ["s1"], "text": "x"}, "and not both"),
        ({"everyone": True}, "text: required for message"),
        ({"everyone": True, "command": "update"}, "extra_minutes: required"),
        ({"everyone": True, "command": "shout"}, "command: invalid enum value"),
        ({"everyone": True, "quiz_id": "q"}, "quiz_id: there is no such field"),
        ({"everyone": True, "command_id": None}, "command_id: "),
    ],
)
def test_what_is_wrong_is_named(api, exam, body, complaint):
    answer = order(api, exam.quiz_id, **body)
    assert (answer.status, answer.json["code"]) == (422, "bad_field")
    assert complaint in answer.json["detail"]


def test_on_the_serverless_side_the_record_decides_at_once(serverless, quiz):
    roster = [{"student_id": "s1"}]
    serverless.post(f"/api/exams/{quiz}/open", {"roster": roster})
    assert order(serverless, quiz, command="flag", student_ids=["s1", "stranger"]).status == 202
    (view,) = serverless.get(f"/api/exams/{quiz}/participants").json["participants"]
    assert view["flags"] == ["flagged"]
    (line,) = [e for e in serverless.journal(ExamKey("north", quiz)) if e.kind == "command"]
    assert (line.student_id, line.actor, line.after) == ("s1", "api", "accepted")
    (done,) = [e for e in serverless.get(f"/api/audit?quiz_id={quiz}").json["entries"] if e["kind"] == "command"]
    assert (done["student_id"], done["actor"], done["cause"], done["after"]) == ("s1", "api", "flag", "accepted")
