"""Exams and rosters through the API, the same on both deployments."""

import http.server
import json
import threading
import time
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from web_api import NORTH_NEXT, SOUTH

from adapters.ec2_cluster.keys import exam_keys
from adapters.lambda_apigw.handler import application
from adapters.web.exams import close_exam, open_exam
from adapters.web.ports import Enrolled, Unavailable
from core import events
from core.exam import new_exam
from core.participant import ExamKey, ParticipantKey, Session, new_participant
from core.policy import Policy
from core.roster import RosterLine


def students(*ids, **fields):
    return [{"student_id": student_id, **fields} for student_id in ids]


def views(api, quiz, query=""):
    answer = api.get(f"/api/exams/{quiz}/participants{query}")
    assert answer.status == 200, answer.body
    return answer.json["participants"]


def active(quiz, student_id, **fields):
    """The record of a student who has joined."""
    session = Session("tab", "connection", time.time(), presence="connected", attention="focused")
    key = ParticipantKey("north", quiz, student_id)
    return replace(
        new_participant(key, fields.pop("home")), lifecycle="in_progress", sessions=(session,), version=1, **fields
    )


# --- open and close -------------------------------------------------------------------------------------------------------


def test_opening_makes_an_exam_and_says_so_once(api, quiz):
    before = time.time()
    answer = api.post(f"/api/exams/{quiz}/open")
    assert (answer.status, answer.json["quiz_id"], answer.json["state"]) == (201, quiz, "open")
    assert answer.json["policy"]["report_seconds"] == 5.0
    assert before - 5 < answer.json["opened_at"] < time.time() + 5
    again = api.post(f"/api/exams/{quiz}/open", {})
    assert (again.status, again.json["version"]) == (200, answer.json["version"])
    assert [(e.kind, e.cause, e.after, e.actor) for e in api.journal(ExamKey("north", quiz))] == [
        ("exam", "opened", "open", "api")
    ]


def test_an_exam_is_opened_under_rules_that_may_change_later(api, quiz):
    opened = api.post(f"/api/exams/{quiz}/open", {"policy": {"report_seconds": 10, "closed_grace_seconds": 5}}).json
    assert (opened["policy"]["report_seconds"], opened["policy"]["closed_grace_seconds"]) == (10, 5)
    kept = api.post(f"/api/exams/{quiz}/open", {"policy": None}).json
    assert kept["policy"] == opened["policy"]
    changed = api.post(f"/api/exams/{quiz}/open", {"policy": {"report_seconds": 8}}).json
    assert (changed["policy"]["report_seconds"], changed["policy"]["closed_grace_seconds"]) == (8, 20)
    assert [e.cause for e in api.journal(ExamKey("north", quiz))] == ["opened", "policy"]


def test_a_new_exam_is_laid_out_for_the_students_it_expects(api, quiz):
    key = ExamKey("north", quiz)
    opened = api.post(f"/api/exams/{quiz}/open", {"students": 10_000, "roster": students("s1")})
    assert (opened.status, opened.json["roster"]["added"]) == (201, 1)
    assert [student_id for student_id, _ in api.ports.participants(key)] != []
    if hasattr(api.ports, "_store"):  # the serverless side's
        assert api.ports._store.shards(key) == 10
    refused = api.post(f"/api/exams/{quiz}/open", {"students": -1})
    assert (refused.status, refused.json["field"]) == (422, "students")


def test_closing_twice_is_closing_once_and_an_exam_may_open_again(api, quiz):
    api.post(f"/api/exams/{quiz}/open")
    closed = api.post(f"/api/exams/{quiz}/close")
    assert (closed.status, closed.json["state"]) == (200, "closed")
    assert api.post(f"/api/exams/{quiz}/close", {}).json["version"] == closed.json["version"]
    assert api.get(f"/api/exams/{quiz}").json["state"] == "closed"
    again = api.post(f"/api/exams/{quiz}/open")
    assert (again.status, again.json["state"]) == (200, "open")
    assert [e.cause for e in api.journal(ExamKey("north", quiz))] == ["opened", "closed", "opened"]


@pytest.mark.parametrize(
    ("method", "path"), [("get", ""), ("get", "/participants"), ("post", "/close")], ids=["exam", "page", "close"]
)
def test_an_exam_that_nobody_opened_is_not_found(api, quiz, method, path):
    answer = getattr(api, method)(f"/api/exams/{quiz}{path}")
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert f"POST /api/exams/{quiz}/open" in answer.json["detail"]
    assert api.ports.load_exam(ExamKey("north", quiz)) is None


def test_ids_with_every_character_but_a_slash_are_ids(api, quiz):
    name = f"{quiz} ujian:#1 {{x}} é%3A"
    path = f"/api/exams/{quiz}%20ujian%3A%231%20%7Bx%7D%20%C3%A9%253A"
    assert api.post(f"{path}/open", {"roster": students("s:1#")}).json["quiz_id"] == name
    assert api.ports.load_exam(ExamKey("north", name)) is not None
    assert [view["student_id"] for view in api.get(f"{path}/participants").json["participants"]] == ["s:1#"]


def test_schools_see_themselves_only(api, quiz):
    api.post(f"/api/exams/{quiz}/open", {"roster": students("s1")})
    assert api.get(f"/api/exams/{quiz}", key=SOUTH).status == 404
    assert api.get(f"/api/exams/{quiz}/participants", key=SOUTH).status == 404
    assert api.post(f"/api/exams/{quiz}/close", key=SOUTH).status == 404
    assert api.post(f"/api/exams/{quiz}/open", key=SOUTH).status == 201
    assert api.get(f"/api/exams/{quiz}", key=SOUTH).json["participants"] == 0
    assert api.get(f"/api/exams/{quiz}", key=NORTH_NEXT).json["participants"] == 1


# --- rosters and participants ---------------------------------------------------------------------------------------------


def test_roster_students_have_not_joined(api, quiz):
    roster = [*students("s1", name="Budi Santoso", group="Room A"), *students(2)]
    opened = api.post(f"/api/exams/{quiz}/open", {"roster": roster})
    assert opened.json["roster"] == {"added": 2, "changed": 0, "unchanged": 0}
    shown = {view["student_id"]: view for view in views(api, quiz)}
    assert {(view["label"], view["user_status"]) for view in shown.values()} == {("not_joined", "offline")}
    assert (shown["s1"]["student_name"], shown["s1"]["group"]) == ("Budi Santoso", "Room A")
    assert (shown["2"]["student_name"], shown["2"]["group"]) == ("", "")
    summary = api.get(f"/api/exams/{quiz}").json
    assert (summary["participants"], summary["counts"]["not_joined"], summary["counts"]["active"]) == (2, 2, 0)


def test_a_roster_sent_again_changes_only_what_is_new_in_it(api, quiz):
    api.post(f"/api/exams/{quiz}/open", {"roster": students("s1", "s2", name="N", group="A")})
    roster = [*students("s1", name="N", group="A"), *students("s2", group="B"), *students("s3")]
    again = api.post(f"/api/exams/{quiz}/open", {"roster": roster})
    assert again.json["roster"] == {"added": 1, "changed": 1, "unchanged": 1}
    shown = {view["student_id"]: (view["student_name"], view["group"]) for view in views(api, quiz)}
    assert shown == {"s1": ("N", "A"), "s2": ("N", "B"), "s3": ("", "")}


def test_a_roster_is_brought_to_who_decides_for_those_who_have_joined(api, quiz):
    api.post(f"/api/exams/{quiz}/open", {"roster": students("s1", name="Old")})
    api.joins(active(quiz, "s1", home=api.ports.here, student_name="Real"))
    known = api.post(f"/api/exams/{quiz}/open", {"roster": students("s1", name="Real")})
    assert known.json["roster"] == {"added": 0, "changed": 0, "unchanged": 1}
    again = api.post(f"/api/exams/{quiz}/open", {"roster": students("s1", group="B")})
    assert again.json["roster"] == {"added": 0, "changed": 1, "unchanged": 0}
    (view,) = views(api, quiz)
    if hasattr(api, "client"):  # in the cluster the worker that owns the student decides: here it waits for one
        (waiting,) = api.client.lrange(exam_keys(ExamKey("north", quiz)).inbox("s1"), 0, -1)
        change = events.decode(waiting.partition(b" ")[2])
        assert (change.group, change.name, view["group"]) == ("B", "", "")
    else:
        assert (view["student_name"], view["group"], view["label"]) == ("Real", "B", "active")


def test_who_has_not_joined_is_removed_and_who_has_stays(api, quiz):
    exam = ExamKey("north", quiz)
    api.post(f"/api/exams/{quiz}/open", {"roster": students("s1", "s2")})
    api.joins(active(quiz, "s2", home=api.ports.here))
    assert [api.ports.remove(exam, who) for who in ("s1", "s1", "s2")] == ["removed", "unknown", "joined"]
    assert [view["student_id"] for view in views(api, quiz)] == ["s2"]


def test_participants_come_in_pages_each_once(api, quiz):
    api.post(f"/api/exams/{quiz}/open", {"roster": students(*(f"s{n}" for n in range(25)))})
    seen, query = [], "?limit=10"
    sizes = []
    while query:
        assert len(sizes) < 3, "there is no last page"
        page = api.get(f"/api/exams/{quiz}/participants{query}").json
        seen += [view["student_id"] for view in page["participants"]]
        sizes.append(len(page["participants"]))
        query = f"?limit=10&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert sorted(seen) == sorted(f"s{n}" for n in range(25))
    assert sizes == [10, 10, 5]


def test_the_last_page_says_that_it_is_the_last(api, quiz):
    api.post(f"/api/exams/{quiz}/open", {"roster": students("s1", "s2")})
    assert api.get(f"/api/exams/{quiz}/participants?limit=2").json["next_cursor"] is None
    assert api.get(f"/api/exams/{quiz}/participants").json["incidents"] == []


def test_participants_are_filtered_by_group_and_label(api, quiz):
    roster = [*students("a1", "a2", group="A"), *students("b1", group="B"), *students("c1", group="C")]
    api.post(f"/api/exams/{quiz}/open", {"roster": roster})
    api.joins(active(quiz, "a2", home=api.ports.here, group="A"))
    found = {
        query: sorted(view["student_id"] for view in views(api, quiz, query))
        for query in ("?group=A", "?group=A&group=B", "?label=active", "?group=A&label=not_joined", "?group=none")
    }
    assert found == {
        "?group=A": ["a1", "a2"],
        "?group=A&group=B": ["a1", "a2", "b1"],
        "?label=active": ["a2"],
        "?group=A&label=not_joined": ["a1"],
        "?group=none": [],
    }
    assert api.get(f"/api/exams/{quiz}").json["counts"]["active"] == 1


# --- the ports ------------------------------------------------------------------------------------------------------------


def test_an_exam_is_saved_only_over_the_version_it_was_decided_on(api, quiz):
    key, ports = ExamKey("north", quiz), api.ports
    first = replace(new_exam(key, ports.here, 1.0), version=5)
    assert ports.save_exam(None, first, ())
    assert not ports.save_exam(None, replace(first, version=6), ())
    assert not ports.save_exam(replace(first, version=4), replace(first, version=6), ())
    assert ports.save_exam(first, replace(first, version=7, state="paused"), ())
    assert ports.load_exam(key) == replace(first, version=7, state="paused")


class Interrupted:
    """Ports between whose load and save somebody else is quicker, so many times."""

    def __init__(self, ports, meanwhile, times=1):
        self._ports, self._meanwhile, self._times = ports, meanwhile, times

    def __getattr__(self, name):
        return getattr(self._ports, name)

    def load_exam(self, key):
        found = self._ports.load_exam(key)
        if self._times:
            self._times -= 1
            self._meanwhile(self._ports, key)
        return found


def test_two_who_open_at_once_open_one_exam(api, quiz):
    key = ExamKey("north", quiz)
    slow = Policy(report_seconds=30)
    exam, is_new = open_exam(Interrupted(api.ports, lambda ports, key: open_exam(ports, key, slow)), key, None)
    assert (exam.state, exam.policy, is_new) == ("open", slow, False)


def test_a_close_that_lost_a_race_is_decided_again(api, quiz):
    key = ExamKey("north", quiz)
    open_exam(api.ports, key, None)
    slow = Policy(report_seconds=30)
    exam = close_exam(Interrupted(api.ports, lambda ports, key: open_exam(ports, key, slow)), key)
    assert (exam.state, exam.policy) == ("closed", slow)
    assert api.ports.load_exam(key) == exam


def test_an_exam_that_others_change_all_the_time_is_unavailable(cluster, quiz):
    key = ExamKey("north", quiz)
    open_exam(cluster.ports, key, Policy(report_seconds=1_000))
    rules = iter(range(1, 1_000))
    busy = Interrupted(
        cluster.ports, lambda ports, key: open_exam(ports, key, Policy(report_seconds=next(rules))), times=500
    )
    with pytest.raises(Unavailable):
        close_exam(busy, key)


def test_opening_starts_the_sweep_of_every_shard_and_closing_ends_it(serverless, quiz):
    serverless.post(f"/api/exams/{quiz}/open")
    store, exam = serverless.app.store, ExamKey("north", quiz)

    def tickets(before):
        return [ticket.shard for ticket in store.late_sweeps(before) if ticket.exam == exam]

    assert tickets(time.time()) == []
    assert tickets(time.time() + 60) == [0, 1, 2]
    serverless.post(f"/api/exams/{quiz}/close")
    assert tickets(time.time() + 60) == []


def test_the_clock_is_that_of_redis(cluster):
    seconds, micros = cluster.client.time()
    assert abs(cluster.ports.now() - (seconds + micros / 1e6)) < 1


# --- races of a roster with those who join --------------------------------------------------------------------------------


def test_a_student_whom_a_worker_has_just_claimed_is_left_to_it(cluster, quiz):
    cluster.post(f"/api/exams/{quiz}/open")
    cluster.client.hset(exam_keys(ExamKey("north", quiz)).owners, "s1", "worker 1")
    lines = [RosterLine(student_id="s1"), RosterLine(student_id="s2")]
    assert cluster.ports.enroll(ExamKey("north", quiz), lines) == Enrolled(added=1, unchanged=1)
    assert [view["student_id"] for view in views(cluster, quiz)] == ["s2"]


def test_a_record_that_changed_since_it_was_read_is_not_overwritten(cluster, quiz, monkeypatch):
    exam = ExamKey("north", quiz)
    real = cluster.client.hmget

    def overtaken(*arguments):
        found = real(*arguments)
        cluster.joins(active(quiz, "s1", home="ec2", student_name="Real"))
        cluster.client.delete(exam_keys(exam).owners)
        return found

    monkeypatch.setattr(cluster.client, "hmget", overtaken)
    assert cluster.ports.enroll(exam, [RosterLine(student_id="s1", name="Old")]) == Enrolled(unchanged=1)
    ((_, record),) = cluster.ports.participants(exam)
    assert record.student_name == "Real"


def test_a_call_made_twice_because_its_answer_was_lost_counts_once(cluster, quiz, monkeypatch):
    real = cluster.ports._enroll
    monkeypatch.setattr(cluster.ports, "_enroll", lambda keys, args: [real(keys, args), real(keys, args)][1])
    assert cluster.ports.enroll(ExamKey("north", quiz), [RosterLine(student_id="s1")]) == Enrolled(added=1)


def test_on_lambda_who_watches_is_told_of_new_students(management, serverless, quiz):
    exam = ExamKey("north", quiz)
    serverless.app.subscriptions.subscribe(exam, "all=", ())
    serverless.app.subscriptions.subscribe(exam, "room-b=", ("B",))
    roster = [*students("s1", group="A"), *students("s2", group="B")]
    serverless.post(f"/api/exams/{quiz}/open", {"roster": roster})
    shown = {
        path: [(view["student_id"], view["label"]) for view in json.loads(frame)["data"]["participants"]]
        for path, frame in management.frames
    }
    assert shown == {
        "/@connections/all%3D": [("s1", "not_joined"), ("s2", "not_joined")],
        "/@connections/room-b%3D": [("s2", "not_joined")],
    }


class Management(http.server.BaseHTTPRequestHandler):
    """A management API that keeps what is posted to connections."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.frames.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def management(function, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Management) as server:
        server.frames = []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.setenv("PROCTORWIRE_MANAGEMENT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        application().session.close()
        server.shutdown()


def test_a_school_sees_its_open_exams_in_pages_and_that_nobody_watches_them(api, quiz):
    mine = [f"{quiz}-{name}#%" for name in "abc"]
    for quiz_id in (*mine, f"{quiz}-closed"):
        assert api.post(f"/api/exams/{quote(quiz_id)}/open").status == 201
    api.post(f"/api/exams/{quiz}-closed/close")
    api.post(f"/api/exams/{quiz}-south/open", key=SOUTH)
    found, cursor = [], ""
    while cursor is not None:
        answer = api.get(f"/api/exams?limit=2&watched=false&cursor={cursor}")
        assert answer.status == 200
        found += answer.json["exams"]
        cursor = answer.json["next_cursor"]
    listed = [exam for exam in found if exam["quiz_id"].startswith(f"{quiz}-")]
    assert [(exam["quiz_id"], exam["state"], exam["watched"]) for exam in listed] == [(q, "open", False) for q in mine]
    assert not {exam["quiz_id"] for exam in api.get("/api/exams?watched=true").json["exams"]} & set(mine)
    assert api.get("/api/exams?watched=maybe").json["field"] == "watched"
    assert api.get("/api/exams", key=None).status == 401


def test_on_the_serverless_side_a_subscription_is_watching(serverless, quiz):
    serverless.post(f"/api/exams/{quiz}/open")
    serverless.app.subscriptions.subscribe(ExamKey("north", quiz), "connection", (), time.time() + 60)
    assert quiz in {exam["quiz_id"] for exam in serverless.get("/api/exams?watched=true&limit=200").json["exams"]}
