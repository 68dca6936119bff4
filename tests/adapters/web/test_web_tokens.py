"""Tokens for pages and dashboards, the same on both deployments, and good for the sockets' own check."""

import time

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from web_api import ENDPOINTS, NORTH, NORTH_NEXT, SECRET, SOCKET_URL, SOUTH, settings

from adapters.web.app import create_app
from compare.proctorwire import main
from core.errors import TokenRejected
from core.identity import verify
from core.migration import Move, target
from core.participant import ParticipantKey

STUDENT = {"role": "student", "quiz_id": "math", "student_id": "s1", "quiz_attempt_id": "a1"}
PROCTOR = {"role": "proctor", "quiz_id": "math", "proctor_id": "p1"}


def bearer(token, now=None):
    return verify(token, {"k2": SECRET}, now or time.time())


def test_a_students_token_admits_to_one_attempt(api):
    answer = api.post("/api/token", {**STUDENT, "name": "Budi Santoso", "group": "Room A", "hours": 2})
    assert answer.status == 200
    assert answer.json["url"] == SOCKET_URL
    assert answer.json["endpoints"] == ["live.example", ENDPOINTS]
    principal = bearer(answer.json["token"])
    assert principal.participant == ("north", "math", "s1")
    assert (principal.role, principal.attempt_id, principal.name, principal.group) == (
        "student",
        "a1",
        "Budi Santoso",
        "Room A",
    )
    assert principal.endpoints == ("live.example", ENDPOINTS)
    assert principal.expires_at == answer.json["expires_at"] == pytest.approx(time.time() + 7_200, abs=5)
    with pytest.raises(TokenRejected):
        bearer(answer.json["token"], principal.expires_at + 31)


def test_during_a_move_a_new_client_is_told_the_side_it_belongs_on(api):
    """By percentage, exam and group of the step; pages may be sent to either side."""
    move = Move("wss://serverless.example/live", "wss://cluster.example/ws", percent=40, exams=("math",))

    def asked(**fields):
        return api.post("/api/token", {**STUDENT, **fields}).json

    def sides(**fields):
        return {who: asked(student_id=f"s{who}", **fields)["url"] for who in range(12)}

    api.move(move)
    try:
        shares = sides()
        expected = {who: move.url(target(move, ParticipantKey("north", "math", f"s{who}"))) for who in range(12)}
        assert shares == expected
        assert set(shares.values()) == {move.lambda_url, move.ec2_url}
        assert set(sides(quiz_id="physics").values()) == {move.lambda_url}
        both = ["live.example", ENDPOINTS, "serverless.example", "cluster.example"]
        answer = asked()
        assert answer["endpoints"] == both
        assert list(bearer(answer["token"]).endpoints) == both
        api.move(replace(move, percent=100, groups=("Room A",), version=2))
        assert asked(group="Room A")["url"] == move.ec2_url
        assert asked(group="Room B")["url"] == move.lambda_url
        body = {**PROCTOR, "quiz_id": ["physics", "math"], "group": "Room A"}
        assert api.post("/api/token", body).json["url"] == move.ec2_url
        api.move(replace(move, percent=0, state="rolled_back", version=3))
        assert set(sides().values()) == {move.lambda_url}
    finally:
        api.move(None)
    assert asked()["url"] == SOCKET_URL


def test_a_proctors_token_may_be_for_several_exams_and_one_group(api):
    body = {**PROCTOR, "quiz_id": ["math", 7, "math"], "group": "Room A", "name": "Ibu Sari"}
    principal = bearer(api.post("/api/token", body).json["token"])
    assert (principal.role, principal.subject, principal.quiz_ids) == ("proctor", "p1", ("math", "7"))
    assert (principal.group, principal.name, principal.attempt_id) == ("Room A", "Ibu Sari", "")


def test_ids_may_be_numbers_and_a_long_name_is_cut(api):
    body = {**STUDENT, "quiz_id": 9, "student_id": 12, "quiz_attempt_id": 0, "name": "n" * 200}
    principal = bearer(api.post("/api/token", body).json["token"])
    assert (principal.participant, principal.attempt_id, len(principal.name)) == (("north", "9", "12"), "0", 80)


def test_an_audience_is_signed_into_tokens_and_wanted_of_them(api):
    client = create_app(api.ports, replace(settings(), audience="exams")).test_client()
    headers = {"Authorization": f"Bearer {NORTH}"}
    token = client.post("/api/token", json=PROCTOR, headers=headers).json["token"]
    assert verify(token, {"k2": SECRET}, time.time(), "exams").subject == "p1"
    with pytest.raises(TokenRejected, match="aud"):
        bearer(token)
    url = "/api/exams/math/timeline"
    assert client.get(url, headers={"Authorization": f"Bearer {token}"}).status_code != 401
    without = api.post("/api/token", PROCTOR).json["token"]
    assert client.get(url, headers={"Authorization": f"Bearer {without}"}).status_code == 401


def test_the_command_signs_for_an_audience_too():
    command = [
        "token",
        "--role",
        "proctor",
        "--school",
        "north",
        "--quiz",
        "math",
        "--id",
        "p1",
        "--token-secret",
        SECRET,
    ]
    made = CliRunner().invoke(main, [*command, "--audience", "exams"])
    assert verify(made.output.strip(), {"": SECRET}, time.time(), "exams").subject == "p1"


def test_the_key_says_which_school_it_is(api):
    schools = {key: bearer(api.post("/api/token", STUDENT, key=key).json["token"]).school for key in KEYS}
    assert schools == KEYS


KEYS = {NORTH: "north", NORTH_NEXT: "north", SOUTH: "south"}


@pytest.mark.parametrize(
    ("body", "field", "fix"),
    [
        ({**STUDENT, "role": "bridge"}, "role", "invalid enum value"),
        ({**STUDENT, "student_id": None}, "student_id", "missing; a student's token needs it"),
        ({**STUDENT, "quiz_attempt_id": None}, "quiz_attempt_id", "missing"),
        ({**STUDENT, "proctor_id": "p"}, "proctor_id", "leave it out"),
        ({**STUDENT, "quiz_id": ["a", "b"]}, "quiz_id", "one token for each"),
        ({**STUDENT, "quiz_id": []}, "quiz_id", "length >= 1"),
        ({**STUDENT, "student_id": ""}, "student_id", "length >= 1"),
        ({**STUDENT, "student_id": "s" * 129}, "student_id", "length <= 128"),
        ({**STUDENT, "hours": 0}, "hours", "> 0"),
        ({**STUDENT, "hours": 10_000}, "hours", "<= 744"),
        ({**STUDENT, "hours": "2"}, "hours", "expected `float`"),
        ({**STUDENT, "school": "south"}, "school", "no such field"),
        ({**PROCTOR, "proctor_id": None}, "proctor_id", "missing"),
        ({**PROCTOR, "student_id": "s"}, "student_id", "leave it out"),
        ({**PROCTOR, "quiz_attempt_id": 1}, "quiz_attempt_id", "leave it out"),
        ({**PROCTOR, "quiz_id": [f"{n:0>128}" for n in range(50)]}, "quiz_id", "several tokens"),
        ({**PROCTOR, "group": "g" * 65}, "group", "length <= 64"),
        ({"quiz_id": "math"}, "role", "missing; this field is required"),
        ({}, "role", "missing"),
        ([], "", "expected `object`"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(cluster, body, field, fix):
    answer = cluster.post("/api/token", body)
    assert (answer.status, answer.json["code"], answer.json.get("field", "")) == (422, "bad_field", field)
    assert answer.json["detail"].startswith(f"{field}: " if field else "")
    assert fix in answer.json["detail"]
