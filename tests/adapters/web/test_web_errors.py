"""Requests that can't be served: what clients are told, the same on both deployments."""

import json
import logging

import pytest
import redis
from web_api import NORTH, AppApi, ClusterApi, ServerlessApi, http_api_event

from adapters.lambda_apigw import http
from adapters.web.requests import MAX_ROSTER_BODY_BYTES

TOKEN = {"role": "student", "quiz_id": "math", "student_id": "s1", "quiz_attempt_id": "a1"}
OPEN = "/api/exams/math/open"


def is_problem(answer, status, code):
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, answer.json["status"], answer.json["code"]) == (status, status, code)
    assert answer.json["title"]
    return answer.json["detail"]


# --- who calls ------------------------------------------------------------------------------------------------------------

PATHS = [
    ("POST", "/api/token"),
    ("POST", "/api/exams/math/open"),
    ("POST", "/api/exams/math/close"),
    ("GET", "/api/exams/math"),
    ("GET", "/api/exams/math/participants"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("key", [None, "x" * 20, NORTH + "x", NORTH[:-1], ""])
def test_without_a_schools_key_nothing_is_told(api, method, path, key):
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = api.send(method, path, headers, b"")
    detail = is_problem(answer, 401, "unauthorized")
    assert "Authorization: Bearer KEY" in detail
    assert answer.headers["www-authenticate"] == 'Bearer realm="proctorwire"'


def test_the_key_may_come_in_either_header(api):
    assert api.post("/api/token", TOKEN, key=None, x_api_key=NORTH).status == 200
    assert api.post("/api/token", TOKEN, key=None, authorization=f"bearer {NORTH}").status == 200
    assert api.post("/api/token", TOKEN, key=None, authorization=f"Basic {NORTH}").status == 401
    assert api.post(f"/api/token?key={NORTH}", TOKEN, key=None).status == 401


# --- what they send -------------------------------------------------------------------------------------------------------


def test_a_body_is_json_and_says_so(api):
    for body in (b"{", b"role=student", b"\xff\xfe", b'{"role":"student"'):
        if isinstance(api, ServerlessApi) and not body.isascii():
            continue  # an HTTP API replaces what is no text in a body that is said to be text
        assert is_problem(api.post("/api/token", body), 400, "not_json").startswith("the body is not valid JSON")
    detail = is_problem(api.post("/api/token", b"role=student", content_type="text/plain"), 415, "not_json")
    assert "Content-Type: application/json" in detail
    assert is_problem(api.post("/api/token", b"\x00\x01", content_type="application/zip"), 415, "not_json")
    assert api.post("/api/token", TOKEN, content_type="application/json; charset=utf-8").status == 200


def test_a_deeply_nested_body_is_refused(api):
    assert is_problem(api.post(OPEN, b'{"policy":{"x":' + b"[" * 200_000), 400, "not_json")
    assert is_problem(api.post(OPEN, b'{"policy":' * 2 + b"[" * 900 + b"]" * 900 + b"}}"), 422, "bad_field")


def test_a_large_body_is_refused(api):
    assert is_problem(api.post("/api/token", b" " * 17_000), 413, "too_large")
    assert is_problem(api.post(OPEN, b" " * (MAX_ROSTER_BODY_BYTES + 1)), 413, "too_large")
    assert is_problem(api.post("/api/exams/math/close", b" " * 17_000), 413, "too_large")


@pytest.mark.parametrize(
    ("body", "field", "fix"),
    [
        ({"polisy": {}}, "polisy", "no such field"),
        ({"policy": {"report_second": 3}}, "policy.report_second", "the rules are report_seconds, "),
        ({"policy": {"report_seconds": 0}}, "policy.report_seconds", "> 0"),
        ({"policy": {"silence_share": 2}}, "policy.silence_share", "<= 1"),
        ({"policy": {"promise_min_seconds": 200}}, "policy", "must not exceed promise_max_seconds"),
        ({"policy": []}, "policy", "expected `object"),
        ({"roster": {}}, "roster", "expected `array`"),
        ({"roster": [{"student_id": "s"}, {"name": "N"}]}, "roster[1].student_id", "missing"),
        ({"roster": [{"student_id": "s", "room": "A"}]}, "roster[0].room", "no such field"),
        ({"roster": [{"student_id": "s", "name": 3}]}, "roster[0].name", "expected `str`"),
        ({"roster": [{"student_id": "1"}, {"student_id": 1}]}, "roster[1].student_id", "the same as in roster[0]"),
        ({"roster": [{"student_id": n} for n in range(1_001)]}, "roster", "length <= 1000"),
    ],
)
def test_what_is_wrong_with_an_opening_is_named_and_nothing_is_done(api, quiz, body, field, fix):
    answer = api.post(f"/api/exams/{quiz}/open", body)
    assert fix in is_problem(answer, 422, "bad_field")
    assert answer.json["field"] == field
    assert api.get(f"/api/exams/{quiz}").status == 404


def test_closing_has_nothing_to_say(api, quiz):
    api.post(f"/api/exams/{quiz}/open")
    answer = api.post(f"/api/exams/{quiz}/close", {"reason": "over"})
    assert is_problem(answer, 422, "bad_field") == "reason: there is no such field; leave it out"
    assert api.get(f"/api/exams/{quiz}").json["state"] == "open"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("label=missing", "label[0]"),
        ("page=2", "page"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=_w", "cursor"),
        ("cursor=a", "cursor"),
    ],
)
def test_what_is_wrong_with_a_query_is_named(api, quiz, query, field):
    api.post(f"/api/exams/{quiz}/open")
    answer = api.get(f"/api/exams/{quiz}/participants?{query}")
    is_problem(answer, 422, "bad_field")
    assert answer.json["field"] == field


@pytest.mark.parametrize("position", ["bm8", "eDox", "wrI6MQ"])
def test_a_position_that_the_tables_do_not_have_is_a_bad_cursor(serverless, quiz, position):
    serverless.post(f"/api/exams/{quiz}/open")
    is_problem(serverless.get(f"/api/exams/{quiz}/participants?cursor={position}"), 422, "bad_field")


def test_an_id_in_a_path_has_an_end(api):
    answer = api.post(f"/api/exams/{'q' * 129}/open")
    is_problem(answer, 422, "bad_field")
    assert answer.json["field"] == "quiz_id"


def test_other_paths_and_methods_are_problems_too(api):
    assert is_problem(api.get("/api/exam"), 404, "not_found")
    assert is_problem(api.get("/api/exams/a/b/open"), 404, "not_found")
    answer = api.send("DELETE", "/api/exams/math", {}, b"")
    assert is_problem(answer, 405, "method_not_allowed")
    assert "GET" in answer.headers["allow"]


# --- what we can't do -----------------------------------------------------------------------------------------------------


def test_health_is_told_to_anyone(api):
    assert api.get("/healthz", key=None).json == {"status": "ok"}
    assert api.get("/readyz", key=None).json == {"status": "ready"}


def away_from_redis():
    return ClusterApi(redis.Redis.from_url("unix:///nowhere.sock", retry=None))


@pytest.fixture(params=["cluster", "serverless"])
def cut_off(request, monkeypatch):
    """The API of a deployment whose store is away."""
    if request.param == "cluster":
        return away_from_redis()
    request.getfixturevalue("function")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    return ServerlessApi()


def test_while_the_store_is_away_the_process_answers_and_asks_to_come_again(cut_off, caplog):
    assert cut_off.get("/healthz").status == 200
    for answer in (
        cut_off.get("/readyz"),
        cut_off.get("/api/exams/math"),
        cut_off.get("/api/exams/math/participants"),
        cut_off.post(OPEN, {"roster": [{"student_id": "s"}]}),
        cut_off.post("/api/exams/math/close"),
    ):
        is_problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "1"
    assert "unavailable" in caplog.text


def test_tokens_are_issued_while_the_store_is_away(cut_off):
    assert cut_off.post("/api/token", TOKEN).status == 200


class Broken:
    here = "ec2"

    def now(self):
        return 0.0

    def load_exam(self, key):
        raise RuntimeError("a secret detail")


def test_a_failure_of_ours_is_logged_and_not_told(caplog):
    with caplog.at_level(logging.ERROR):
        answer = AppApi(Broken()).get("/api/exams/math")
    assert is_problem(answer, 500, "internal")
    assert b"secret detail" not in answer.body
    assert "a secret detail" in caplog.text


def test_keys_and_tokens_are_never_logged(cut_off, caplog):
    with caplog.at_level(logging.DEBUG):
        token = cut_off.post("/api/token", TOKEN).json["token"]
        cut_off.get("/api/exams/math")
        cut_off.post("/api/token", {"role": "x"})
    assert NORTH not in caplog.text
    assert token not in caplog.text


# --- headers --------------------------------------------------------------------------------------------------------------


def test_every_answer_is_safe_from_sniffing_framing_and_caches(api):
    for answer in (
        api.get("/healthz"),
        api.post("/api/token", TOKEN),
        api.get("/nowhere"),
        api.get("/api/exams/math", key=None),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers


def test_problems_leave_lambda_as_text(serverless):
    answer = http.on_request(http_api_event("GET", "/nowhere", {}, b""), _Context())
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (404, False)
    assert json.loads(answer["body"])["code"] == "not_found"


class _Context:
    aws_request_id = "1"

    def get_remaining_time_in_millis(self):
        return 29_000


def test_a_body_in_base64_is_read(serverless):
    event = http_api_event("POST", "/api/token", {"authorization": f"Bearer {NORTH}"}, json.dumps(TOKEN).encode())
    assert event["isBase64Encoded"]
    event["headers"]["content-type"] = "application/json"
    assert http.on_request(event, _Context())["statusCode"] == 200
