"""The OpenAPI document: of every route, and true of it, which schemathesis tries with good and bad requests."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from web_api import NORTH, ClusterApi

from adapters.web.openapi import operation
from adapters.web.records import SchoolKey
from core.journal import Entry
from core.participant import ExamKey

SECONDS = float(os.environ.get("PROCTORWIRE_FUZZ_SECONDS", "0"))
"""How long to go on with ever other requests (`make fuzz`); 0: a few requests to each route, always the same ones."""

QUIZ, CLOSED = "fuzzed", "over"
KEY_IDS = ("0123456789ab", "ba9876543210")
EXAMPLES = 2 if SECONDS == 0 else 25


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterApi]:
    """An exam in which something has happened."""
    place = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    with redis.Redis.from_url(redis_url) as client:
        it = ClusterApi(client, str(place))
        roster = [{"student_id": "s1", "name": "Budi", "group": "A"}, {"student_id": "s2"}]
        it.post(f"/api/exams/{QUIZ}/open", {"roster": roster})
        it.post(f"/api/exams/{CLOSED}/open")
        it.post(f"/api/exams/{CLOSED}/close")
        for key_id in KEY_IDS:
            it.records.add_key(SchoolKey("north", key_id, digest=key_id))
        exam = ExamKey("north", QUIZ)
        it.ports.note(Entry(*exam, "s1", 1, 0, 1_790_000_000.0, "label", "reported", after="active"))
        it.ports.note(Entry(*exam, "s1", 2, 0, 1_790_000_001.0, "message", "chat", text="=1", actor="student"))
        yield it


@pytest.fixture(scope="module")
def schema(api: ClusterApi) -> Any:
    refused = {"expected-statuses": ["400", "401", "403", "404", "409", "413", "415", "422"]}
    config = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": refused}})
    return schemathesis.openapi.from_wsgi("/api/openapi.json", api.app, config=config)


def operations(schema: Any) -> Iterator[Any]:
    """Those of the API; pages and files are for browsers."""
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        if not result.ok().path.startswith(("/static/", "/dashboard", "/exam")):
            yield result.ok()


def test_the_document_has_every_route_of_the_app(api: ClusterApi) -> None:
    document = api.get("/api/openapi.json", key=None).json
    told = {
        (re.sub(r"{(\w+_id)}", r"<\1>", path).replace("{path}", "<path:path>"), method.upper())
        for path, methods in document["paths"].items()
        for method in methods
    }
    rules = api.app.url_map.iter_rules()
    assert told == {(str(rule), method) for rule in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert "403" in document["paths"]["/api/token"]["post"]["responses"], "a proctor may not be assigned"
    names = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
    assert len(names) == len(set(names))


def test_a_route_that_says_nothing_about_itself_is_an_error(api: ClusterApi) -> None:
    from flask import Flask

    from adapters.web.openapi import document

    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/told", view_func=operation(answers={200: "text/html"})(lambda: ""))
    assert list(document(app)["paths"]) == ["/told"]
    app.add_url_rule("/silent", "silent", lambda: "")
    with pytest.raises(LookupError, match="/silent is not marked"):
        document(app)


GOOD: dict[str, dict[str, Any]] = {
    "GET /healthz": {},
    "GET /readyz": {},
    "POST /api/token": {"body": {"role": "student", "quiz_id": QUIZ, "student_id": 7, "quiz_attempt_id": "a"}},
    "GET /api/exams": {"query": {"limit": 1, "watched": "false"}},
    "GET /api/exams/{quiz_id}": {},
    "POST /api/exams/{quiz_id}/open": {
        "body": {"policy": {"report_seconds": 15}, "roster": [{"student_id": "s2"}], "students": 2}
    },
    "POST /api/exams/{quiz_id}/roster": {"body": "student_id,name\ns3,Sari\n"},
    "POST /api/exams/{quiz_id}/commands": {
        "body": {"command_id": "c1", "command": "message", "everyone": True, "text": "Hello"}
    },
    "POST /api/exams/{quiz_id}/close": {"body": {}},
    "GET /api/exams/{quiz_id}/participants": {"query": {"limit": 2, "group": ["A", ""], "label": ["not_joined"]}},
    "GET /api/exams/{quiz_id}/timeline": {"query": {"student_id": "s1", "limit": 1, "order": "newest"}},
    "GET /api/exams/{quiz_id}/timeline.csv": {},
    "GET /api/exams/{quiz_id}/conversation": {},
    "GET /api/exams/{quiz_id}/conversation.csv": {"query": {"student_id": "s1"}},
    "POST /api/exams/{quiz_id}/export": {"body": {"student_id": "s1"}},
    "POST /api/exams/{quiz_id}/files": {"body": {"name": "students.csv", "rows": 2}},
    "POST /api/exams/{quiz_id}": {"body": {"name": "Mathematics"}},
    "GET /api/exams/{quiz_id}/roster": {"query": {"limit": 1}},
    "DELETE /api/exams/{quiz_id}/roster/{student_id}": {"path_parameters": {"student_id": "s2"}},
    "POST /api/exams/{quiz_id}/proctors": {"body": {"proctors": [{"proctor_id": "p1", "group": "A"}]}},
    "GET /api/exams/{quiz_id}/proctors": {},
    "DELETE /api/exams/{quiz_id}/proctors/{proctor_id}": {"path_parameters": {"proctor_id": "p1"}},
    "GET /api/school": {},
    "POST /api/school": {"body": {"name": "North", "retention_days": 90}},
    "GET /api/keys": {},
    "POST /api/keys": {"body": {"label": "LMS", "days": 30}},
    "POST /api/keys/{key_id}/rotate": {"path_parameters": {"key_id": KEY_IDS[0]}, "body": {"overlap_hours": 1}},
    "POST /api/keys/{key_id}/revoke": {"path_parameters": {"key_id": KEY_IDS[1]}, "body": {}},
    "GET /api/audit": {"query": {"quiz_id": QUIZ, "limit": 1}},
    "POST /api/purge": {"body": {"confirm": "north", "older_than_days": 3_650}},
    "POST /api/exams/{quiz_id}/purge": {"path_parameters": {"quiz_id": CLOSED}, "body": {"confirm": CLOSED}},
}
"""A request that succeeds, for each route."""


def test_what_succeeds_is_answered_as_the_document_says(schema: Any) -> None:
    known = {each.label: each for each in operations(schema)}
    assert set(known) == set(GOOD)
    for label, good in GOOD.items():
        request = dict(good)
        named = {"quiz_id": QUIZ} if "{quiz_id}" in label else {}
        path = {"path_parameters": {**named, **request.pop("path_parameters", {})}}
        kind = "text/csv" if label == "POST /api/exams/{quiz_id}/roster" else "application/json"
        media = {"media_type": kind} if "body" in request else {}
        case = known[label].Case(**request, **path, **media)
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {NORTH}"})
        assert answer.status_code in (200, 201, 202), (label, answer.text)


def test_whatever_is_asked_the_answer_is_as_the_document_says(schema: Any) -> None:
    ends_at = time.monotonic() + SECONDS
    rounds = itertools.count() if SECONDS else range(1)
    for each in (each for _ in rounds for each in operations(schema)):
        if SECONDS and time.monotonic() > ends_at:
            return
        # known exams for good requests, else each would only be told that there is no such exam
        path = {"path_parameters": {"quiz_id": QUIZ}} if "{quiz_id}" in each.path else {}
        try_out(each.as_strategy(GenerationMode.POSITIVE, **path))
        if each.query or each.body or each.path_parameters:
            try_out(each.as_strategy(GenerationMode.NEGATIVE))


def try_out(cases: Any) -> None:
    headers = {"Authorization": f"Bearer {NORTH}"}

    @given(case=cases)
    @settings(
        max_examples=EXAMPLES,
        derandomize=SECONDS == 0,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    def one(case: Any) -> None:
        # what a schema can't say may be refused: a cursor is one of ours, a student's token has an attempt
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    one()
