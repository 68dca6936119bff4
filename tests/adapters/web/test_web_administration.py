"""What a school administers, the same on both deployments: keys, proctors, rosters ahead of time, the audit log, purges."""

import time

import pytest
from msgspec.structs import replace
from web_api import NORTH, SECRET, SOUTH, ClusterApi

from adapters.lambda_apigw import http
from adapters.web.records import ExamRecord, RecordsUnavailable, SchoolKey
from core.identity import Principal, verify
from core.journal import Entry
from core.participant import ExamKey, ParticipantKey, Session, new_participant


@pytest.fixture
def api(request, monkeypatch, api):
    """Exams may be purged as soon as they are closed."""
    made = http.web_settings
    monkeypatch.setattr(http, "web_settings", lambda settings: replace(made(settings), purge_after_seconds=0.0))
    return api


def ok(answer, status=200):
    assert answer.status == status, answer.body
    return answer.json


def refused(answer, status, code, field=None):
    assert (answer.status, answer.json["code"], answer.json.get("field")) == (status, code, field), answer.body
    return answer.json["detail"]


def audited(api, query="", key=NORTH):
    """Lines of the audit log, oldest first."""
    return ok(api.get(f"/api/audit?order=oldest&limit=1000{query}", key=key))["entries"]


def acts(api, quiz):
    return [(line["actor"], line["cause"], line["reference"]) for line in audited(api, f"&quiz_id={quiz}")]


def proctor_token(api, quiz, proctor_id, **more):
    return api.post("/api/token", {"role": "proctor", "quiz_id": quiz, "proctor_id": proctor_id, **more})


# --- keys -------------------------------------------------------------------------------------------------------------------


def test_a_key_is_made_rotated_and_revoked(api, quiz):
    made = ok(api.post("/api/keys", {"label": "the LMS"}), 201)
    key, key_id = made["key"], made["key_id"]
    assert key.startswith("pwk_")
    assert ok(api.get("/api/school", key=key))["school"] == "north"
    (line,) = [line for line in ok(api.get("/api/keys"))["keys"] if line["key_id"] == key_id]
    assert (line["label"], line["state"], line["created_by"]) == ("the LMS", "active", "api")
    assert key not in api.get("/api/keys").body.decode()
    assert all(key not in str(record) for record in api.records.keys("north")), "only its digest is kept"

    ok(api.post(f"/api/exams/{quiz}/open", key=key), 201)
    assert acts(api, quiz) == [(f"api:{key_id}", "opened", "")], "what was done with a key names the key"

    fresh = ok(api.post(f"/api/keys/{key_id}/rotate", {"overlap_hours": 1}, key=key), 201)
    assert (fresh["replaces"], fresh["label"]) == (key_id, "the LMS")
    for one in (key, fresh["key"]):
        ok(api.get("/api/school", key=one))
    old = next(line for line in ok(api.get("/api/keys"))["keys"] if line["key_id"] == key_id)
    assert 3_500 < old["expires_at"] - time.time() < 3_610

    assert ok(api.post(f"/api/keys/{key_id}/revoke", {}))["state"] == "revoked"
    assert "counts no more" in refused(api.get("/api/school", key=key), 401, "unauthorized")
    ok(api.get("/api/school", key=fresh["key"]))
    assert refused(api.post(f"/api/keys/{key_id}/rotate"), 409, "not_active", "key_id")
    done = [line["cause"] for line in audited(api, "&quiz_id=") if line["reference"] in (key_id, fresh["key_id"])]
    assert done == ["key_made", "key_rotated", "key_revoked"]


def test_a_key_that_ends_counts_until_then(api):
    ends = ok(api.post("/api/keys", {"days": 30}), 201)
    assert 29.9 < (ends["expires_at"] - time.time()) / 86_400 < 30.1
    over = SchoolKey("north", "a0ver", "f" * 64, expires_at=time.time() - 1)
    api.records.add_key(over)
    assert next(line for line in ok(api.get("/api/keys"))["keys"] if line["key_id"] == "a0ver")["state"] == "expired"


def test_no_school_touches_anothers_keys(api):
    key_id = ok(api.post("/api/keys", key=SOUTH), 201)["key_id"]
    assert key_id not in [line["key_id"] for line in ok(api.get("/api/keys"))["keys"]]
    for action in ("rotate", "revoke"):
        refused(api.post(f"/api/keys/{key_id}/{action}"), 404, "not_found", "key_id")
    refused(api.get("/api/school", key="pwk_" + "x" * 43), 401, "unauthorized")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("keys", {"days": 0}, "days"),
        ("keys", {"lable": "x"}, "lable"),
        ("keys/k/rotate", {"overlap_hours": 1_000}, "overlap_hours"),
        ("school", {"retention_days": 0.5}, "retention_days"),
        ("exams/x/proctors", {"proctors": []}, "proctors"),
        ("exams/x/proctors", {"proctors": [{"name": "p"}]}, "proctors[0].proctor_id"),
        ("exams/x/purge", {"confirm": "y"}, "confirm"),
        ("exams/x/purge", {}, "confirm"),
        ("purge", {"confirm": "south", "older_than_days": 1}, "confirm"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(cluster, path, body, field):
    refused(cluster.post(f"/api/{path}", body), 422, "bad_field", field)


def test_a_school_goes_on_with_its_key_while_the_records_are_away(cluster, quiz, monkeypatch):
    key = ok(cluster.post("/api/keys"), 201)["key"]
    ok(cluster.get("/api/school", key=key))
    later = cluster.ports.now() + 60
    monkeypatch.setattr(cluster.ports, "now", lambda: later)

    def away(*_):
        raise RecordsUnavailable("away")

    for name in ("key_of", "put_exam", "exam", "assignments"):
        monkeypatch.setattr(cluster.records, name, away)
    student = {"role": "student", "quiz_id": quiz, "student_id": "s1", "quiz_attempt_id": "a1"}
    ok(cluster.post("/api/token", student, key=key))
    refused(cluster.post("/api/token", student, key="pwk_unknown"), 503, "unavailable")
    refused(proctor_token(cluster, quiz, "p1"), 503, "unavailable")  # who is assigned is not known


# --- proctors ---------------------------------------------------------------------------------------------------------------


def test_an_exam_with_assignments_is_for_those_who_are_assigned(api, quiz):
    ok(api.post(f"/api/exams/{quiz}/open"), 201)
    before = ok(proctor_token(api, quiz, "p9"))["token"]
    ok(api.get(f"/api/exams/{quiz}/timeline", key=before))
    assigned = {"proctors": [{"proctor_id": "p1", "name": "Sari"}, {"proctor_id": 2, "group": "A"}]}
    listed = ok(api.post(f"/api/exams/{quiz}/proctors", assigned))["proctors"]
    assert [(line["proctor_id"], line["name"], line["group"]) for line in listed] == [
        ("2", "", "A"),
        ("p1", "Sari", ""),
    ]
    assert "POST /api/exams" in refused(proctor_token(api, quiz, "p9"), 403, "not_assigned", "proctor_id")
    refused(api.get(f"/api/exams/{quiz}/timeline", key=before), 403, "not_assigned", "proctor_id")
    command = {"command_id": "c1", "command": "warn", "everyone": True}
    refused(api.post(f"/api/exams/{quiz}/commands", command, key=before), 403, "not_assigned", "proctor_id")

    own = ok(proctor_token(api, quiz, "p1"))["token"]
    ok(api.get(f"/api/exams/{quiz}/timeline", key=own))
    refused(proctor_token(api, quiz, "2", group="B"), 403, "not_assigned", "group")
    bound = ok(proctor_token(api, quiz, "2"))["token"]
    assert verify(bound, {"k2": SECRET}, time.time()).group == "A", "a token is bound to the group of the assignment"
    refused(api.post(f"/api/exams/{quiz}/commands", command, key=bound), 403, "forbidden")

    left = ok(api.delete(f"/api/exams/{quiz}/proctors/p1"))["proctors"]
    assert [line["proctor_id"] for line in left] == ["2"]
    assert api.get(f"/api/exams/{quiz}/timeline", key=own).status == 401, "their tokens are revoked, for sockets too"
    refused(api.delete(f"/api/exams/{quiz}/proctors/p1"), 404, "not_found", "proctor_id")
    ok(api.post(f"/api/exams/{quiz}/proctors", {"proctors": [{"proctor_id": "p1"}]}))
    ok(api.get(f"/api/exams/{quiz}/timeline", key=own))
    done = [act[1:] for act in acts(api, quiz)]
    assert done == [("opened", ""), ("assigned", "p1"), ("assigned", "2"), ("unassigned", "p1"), ("assigned", "p1")]


def test_one_token_has_one_group(api, quiz):
    other = f"{quiz}-b"
    for name, group in ((quiz, "A"), (other, "B")):
        ok(api.post(f"/api/exams/{name}/proctors", {"proctors": [{"proctor_id": "p1", "group": group}]}))
    assert "token for each" in refused(proctor_token(api, [quiz, other], "p1"), 422, "bad_field", "quiz_id")


# --- exams and rosters ------------------------------------------------------------------------------------------------------


def test_an_exam_is_planned_with_its_roster_opened_and_closed(api, quiz):
    csv = {"content_type": "text/csv"}
    refused(api.post(f"/api/exams/{quiz}/roster", b"student_id\ns1", **csv), 404, "not_found")
    assert ok(api.post(f"/api/exams/{quiz}", {"name": "Algebra"}))["name"] == "Algebra"
    roster = ok(api.post(f"/api/exams/{quiz}/roster", b"student_id,name,group\ns1,Budi,A\ns2,Sari,B", **csv))
    assert roster["roster"] == {"added": 2, "changed": 0, "unchanged": 0}
    again = ok(api.post(f"/api/exams/{quiz}/roster", b"student_id,name,group\ns1,Budi,A\ns2,Sari,C", **csv))
    assert again["roster"] == {"added": 0, "changed": 1, "unchanged": 1}
    page = ok(api.get(f"/api/exams/{quiz}/roster?limit=1"))
    assert page["students"] == [{"student_id": "s1", "name": "Budi", "group": "A"}]
    page = ok(api.get(f"/api/exams/{quiz}/roster?cursor={page['next_cursor']}"))
    assert (page["students"], page["next_cursor"]) == ([{"student_id": "s2", "name": "Sari", "group": "C"}], None)
    assert listed(api, quiz, "planned")["state"] == "planned"

    opened = ok(api.post(f"/api/exams/{quiz}/open"), 201)
    assert opened["roster"] == {"added": 2, "changed": 0, "unchanged": 0}
    views = ok(api.get(f"/api/exams/{quiz}/participants"))["participants"]
    assert {view["student_id"]: view["group"] for view in views} == {"s1": "A", "s2": "C"}
    assert "roster" not in ok(api.post(f"/api/exams/{quiz}/open")), "opened again it is as it is"
    line = listed(api, quiz, "open")
    assert (line["name"], line["state"], line["closed_at"]) == ("Algebra", "open", None)
    assert listed(api, quiz, "closed") is None

    ok(api.post(f"/api/exams/{quiz}/close"))
    line = listed(api, quiz, "closed")
    assert (line["state"], line["watched"]) == ("closed", False)
    assert line["opened_at"] <= line["closed_at"] <= time.time() + 5
    assert listed(api, quiz, "all") == line
    assert listed(api, quiz, "open") is None
    others = ok(api.get("/api/exams?state=all&limit=200", key=SOUTH))["exams"]
    assert quiz not in {line["quiz_id"] for line in others}


def listed(api, quiz, state):
    """The exam's line in the list of exams in this state, page by page."""
    query, found = f"?state={state}&limit=2", []
    while query:
        page = ok(api.get(f"/api/exams{query}"))
        found += page["exams"]
        query = f"?state={state}&limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    ids = [line["quiz_id"] for line in found]
    assert ids == sorted(set(ids))
    return next((line for line in found if line["quiz_id"] == quiz), None)


def test_a_large_roster_on_record_comes_in_parts(cluster, quiz, monkeypatch):
    monkeypatch.setattr("adapters.web.app.MAX_ROSTER_LINES", 2)
    ok(cluster.post(f"/api/exams/{quiz}"))
    for part in (b"s1\ns2", b"s3\ns4", b"s5"):
        ok(cluster.post(f"/api/exams/{quiz}/roster", b"student_id\n" + part, content_type="text/csv"))
    answer = ok(cluster.post(f"/api/exams/{quiz}/open"), 201)
    added = [answer["roster"]["added"]]
    while answer.get("roster_cursor"):
        answer = ok(cluster.post(f"/api/exams/{quiz}/open", {"roster_cursor": answer["roster_cursor"]}))
        added.append(answer["roster"]["added"])
    assert added == [2, 2, 1]


def test_an_exam_that_a_first_report_opened_is_on_the_list_for_good(api, quiz):
    student = {"role": "student", "quiz_id": quiz, "student_id": "s1", "quiz_attempt_id": "a1"}
    ok(api.post("/api/token", student))
    assert listed(api, quiz, "planned")["opened_at"] is None
    assert api.records.exam(ExamKey("north", quiz)) is not None


def test_who_has_joined_is_not_taken_off_a_roster(api, quiz):
    roster = [{"student_id": "s1"}, {"student_id": "s2"}]
    ok(api.post(f"/api/exams/{quiz}/open", {"roster": roster}), 201)
    api.joins(joined(api, quiz, "s2"))
    assert ok(api.delete(f"/api/exams/{quiz}/roster/s1"))["removed"]
    refused(api.delete(f"/api/exams/{quiz}/roster/s1"), 404, "not_found", "student_id")
    assert "terminate" in refused(api.delete(f"/api/exams/{quiz}/roster/s2"), 409, "has_joined", "student_id")
    assert [line["student_id"] for line in ok(api.get(f"/api/exams/{quiz}/roster"))["students"]] == ["s2"]
    assert ("api", "roster_removed", "s1") in acts(api, quiz)


def joined(api, quiz, student_id):
    session = Session("tab", "connection", time.time(), presence="connected", attention="focused")
    record = new_participant(ParticipantKey("north", quiz, student_id), api.ports.here)
    return replace(record, lifecycle="in_progress", sessions=(session,), version=1, quiz_attempt_id="a1")


# --- the audit log ----------------------------------------------------------------------------------------------------------


def test_what_people_did_is_told_in_the_order_of_time_and_in_pages(api, quiz):
    ok(api.post(f"/api/exams/{quiz}/open", {"roster": [{"student_id": "s1"}]}), 201)
    token = ok(proctor_token(api, quiz, "p1"))["token"]
    command = {"command_id": "c1", "command": "message", "everyone": True, "text": "Begin"}
    ok(api.post(f"/api/exams/{quiz}/commands", command, key=token), 202)
    ok(api.get(f"/api/exams/{quiz}/timeline", key=token))
    assert api.get(f"/api/exams/{quiz}/timeline.csv?student_id=s1", key=token).status == 200
    assert api.get(f"/api/exams/{quiz}/conversation.csv").status == 200
    ok(api.post(f"/api/exams/{quiz}/files", {"name": "students.csv", "rows": 1}, key=token))
    refused(api.post(f"/api/exams/{quiz}-b/files", {"name": "students.csv", "rows": 1}, key=token), 404, "not_found")
    now = api.ports.now()
    warned = Entry("north", quiz, "s1", int(now * 1000), 0, now, "command", "warn", after="accepted")
    api.happened(
        joined(api, quiz, "s1"), [replace(warned, actor="p1", reference="c2"), replace(warned, n=1, kind="label")]
    )
    ok(api.post(f"/api/exams/{quiz}/export", {"student_id": "s1"}))
    assert acts(api, quiz) == [
        ("api", "opened", ""),
        ("api", "roster", "1 students"),
        ("p1", "message", "c1"),
        ("p1", "file", "timeline.csv"),
        ("api", "file", "conversation.csv"),
        ("p1", "file", "students.csv"),
        ("p1", "warn", "c2"),
        ("api", "exported", "s1"),
    ]
    if isinstance(api, ClusterApi):  # the same once the journal process has carried it
        api.carry()
    everything = audited(api, f"&quiz_id={quiz}")
    assert len(everything) == 8
    seen, query = [], "?limit=2"
    while query:
        page = ok(api.get(f"/api/audit{query}&quiz_id={quiz}"))
        assert len(page["entries"]) <= 2
        seen += page["entries"]
        query = f"?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == everything[::-1], "newest first unless asked otherwise"
    timeline = ok(api.get(f"/api/exams/{quiz}/timeline"))["entries"]
    assert "audit" not in {line["kind"] for line in timeline}, "what only the log needs is in no timeline"
    assert "Begin" in [line["text"] for line in timeline]
    assert "Begin" not in str(everything), "words go with the exam, and the log stays"


def test_the_audit_log_is_the_schools_and_nobody_deletes_from_it(api, quiz):
    ok(api.post(f"/api/exams/{quiz}/open"), 201)
    token = ok(proctor_token(api, quiz, "p1"))["token"]
    assert api.get("/api/audit", key=token).status == 401
    assert all(line["quiz_id"] != quiz for line in audited(api, key=SOUTH))
    refused(api.delete("/api/audit"), 405, "method_not_allowed")
    refused(api.get("/api/audit?cursor=x"), 422, "bad_field", "cursor")


# --- purges -----------------------------------------------------------------------------------------------------------------


def test_a_closed_exam_is_purged_and_only_the_audit_log_tells_of_it(api, quiz):
    exam, other = ExamKey("north", quiz), f"{quiz}-kept"
    for name in (quiz, other):
        ok(api.post(f"/api/exams/{name}/open", {"roster": [{"student_id": "s1", "name": "Budi"}]}), 201)
        said = Entry("north", name, "s1", 1, 0, time.time(), "message", "chat", text="hello", actor="student")
        api.happened(joined(api, name, "s1"), [said])
    ok(api.post(f"/api/exams/{quiz}/proctors", {"proctors": [{"proctor_id": "p1"}]}))
    assert "close it first" in refused(api.post(f"/api/exams/{quiz}/purge", {"confirm": quiz}), 409, "not_closed")
    ok(api.post(f"/api/exams/{quiz}/close"))
    if isinstance(api, ClusterApi):
        api.carry()
    before = acts(api, quiz)
    token = api.post(f"/api/exams/{other}/close", key=NORTH)  # the other exam's journal waits in Redis
    assert token.status == 200

    answer = ok(api.post(f"/api/exams/{quiz}/purge", {"confirm": quiz}))
    assert (answer["done"], answer["deleted"] >= 5) == (True, True)
    assert api.ports.load_exam(exam) is None
    assert list(api.ports.participants(exam)) == []
    assert list(api.ports.timeline(exam, None, None, newest_first=False)) == []
    assert list(api.ports.conversation(exam, None, newest_first=False)) == []
    assert (list(api.records.lines(exam)), api.records.assignments(exam)) == ([], [])
    if isinstance(api, ClusterApi):
        api.carry()
        assert list(api.ports.timeline(exam, None, None, newest_first=False)) == [], "nothing comes after"
        assert api.client.keys(f"*{quiz}") == []
    assert listed(api, quiz, "closed")["purged_at"] is not None
    assert acts(api, quiz) == [*before, ("api", "purged", quiz)]
    assert "Budi" not in str(audited(api))
    ok(api.post(f"/api/exams/{quiz}/purge", {"confirm": quiz}))  # repeated
    student = Principal("student", "north", "s1", (quiz,), time.time() + 60, "a1")
    assert api.ports.is_revoked(student), "a page that is still open can't begin it anew"
    assert ok(api.post(f"/api/exams/{quiz}/open"), 201)["state"] == "open"
    assert not api.ports.is_revoked(student)

    kept = ExamKey("north", other)
    assert [entry.kind for entry in api.ports.conversation(kept, None, newest_first=False)] == ["message"]
    assert len(list(api.records.lines(kept))) == 1


def test_what_was_closed_this_minute_waits_for_what_is_on_its_way(cluster, quiz, monkeypatch):
    from web_api import settings

    from adapters.web.app import create_app

    client = create_app(cluster.ports, replace(settings(), records=cluster.records)).test_client()
    headers = {"Authorization": f"Bearer {NORTH}"}
    ok(cluster.post(f"/api/exams/{quiz}/open"), 201)
    ok(cluster.post(f"/api/exams/{quiz}/close"))
    answer = client.post(f"/api/exams/{quiz}/purge", headers=headers, json={"confirm": quiz})
    assert (answer.status_code, answer.json["code"]) == (409, "not_closed")
    assert 1 <= int(answer.headers["Retry-After"]) <= 61


def test_exams_that_closed_long_ago_are_purged_together(api, quiz):
    ended = time.time() - 100 * 86_400
    old, young = f"{quiz}-old", f"{quiz}-young"
    api.records.put_exam(ExamRecord("north", old, opened_at=ended - 1, closed_at=ended))
    api.records.put_exam(ExamRecord("north", young, opened_at=ended - 1, closed_at=time.time() - 86_400))
    ok(api.post(f"/api/exams/{quiz}/open"), 201)
    assert "retention_days" in refused(
        api.post("/api/purge", {"confirm": "north"}), 422, "bad_field", "older_than_days"
    )
    assert ok(api.post("/api/school", {"retention_days": 90, "name": "North"}))["retention_days"] == 90
    answer = ok(api.post("/api/purge", {"confirm": "north"}))
    assert (answer["done"], old in answer["purged"], young in answer["purged"], quiz in answer["purged"]) == (
        True,
        True,
        False,
        False,
    )
    assert ok(api.post("/api/purge", {"confirm": "north"}))["purged"] == []
    assert ok(api.post("/api/school", {"retention_days": None}))["name"] == "North", "what is absent stays"
