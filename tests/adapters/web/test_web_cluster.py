"""The API beside a running cluster: what it changes reaches the workers, their proctors and students."""

import asyncio

import pytest
import redis
from web_api import SECRET, ClusterApi
from wire_clients import Dashboard, Page

from adapters.ec2_cluster.local import LocalCluster
from core.participant import ExamKey


@pytest.fixture(scope="module")
def running(redis_url):
    """A cluster, over the Redis that the API uses too."""
    cluster = LocalCluster(workers=1, redis_url=redis_url, token_secret=f"k2:{SECRET}")
    with asyncio.Runner() as runner:
        runner.run(cluster.start())
        try:
            yield cluster
        finally:
            runner.run(cluster.stop())


class School:
    """A school's LMS: its pages and dashboards get their tokens from the API."""

    def __init__(self, api, url, quiz_id):
        self.api, self._url, self.quiz_id = api, url, quiz_id
        self.clients = []

    def url(self, _instance=0):
        return self._url

    def student_token(self, student, attempt, **more):
        return self._token(role="student", student_id=student, quiz_attempt_id=attempt, **more)

    def proctor_token(self, proctor, **more):
        return self._token(role="proctor", proctor_id=proctor, **more)

    def _token(self, **wanted):
        answer = self.api.post("/api/token", {"quiz_id": self.quiz_id, **wanted})
        assert answer.status == 200, answer.body
        return answer.json["token"]

    def post(self, action, body=None):
        answer = self.api.post(f"/api/exams/{self.quiz_id}/{action}", body)
        assert answer.status in (200, 201), answer.body
        return answer.json

    async def dashboard(self, **token):
        dashboard = Dashboard(self, **token)
        self.clients.append(dashboard)
        await dashboard.connect()
        await dashboard.watch()
        return dashboard

    async def page(self, student):
        page = Page(self, student)
        self.clients.append(page)
        await page.connect()
        return page


@pytest.fixture
async def school(running, redis_url, quiz):
    with redis.Redis.from_url(redis_url) as client:
        it = School(ClusterApi(client, running.journal_place), running.urls[0], quiz)
        yield it
        for connected in it.clients:
            await connected.close()


async def test_roster_students_are_in_a_proctors_snapshot(school):
    school.post("open", {"roster": [{"student_id": "s1", "name": "Budi", "group": "A"}, {"student_id": "s2"}]})
    dashboard = await school.dashboard()
    assert {student: view["label"] for student, view in dashboard.shown.items()} == {
        "s1": "not_joined",
        "s2": "not_joined",
    }
    assert (dashboard.shown["s1"]["student_name"], dashboard.shown["s1"]["group"]) == ("Budi", "A")


async def test_students_added_while_a_proctor_watches_appear(school):
    school.post("open")
    everything, room_b = await school.dashboard(), await school.dashboard(proctor="p2", group="B")
    school.post("open", {"roster": [{"student_id": "s1", "group": "A"}, {"student_id": "s2", "group": "B"}]})
    await everything.sees("s1", label="not_joined", group="A")
    await room_b.sees("s2", label="not_joined")
    school.post("open", {"roster": [{"student_id": "s2", "name": "Sari"}]})
    await room_b.sees("s2", student_name="Sari", group="B")
    assert "s1" not in room_b.shown


async def test_a_roster_student_joins_with_a_token_of_the_api_and_keeps_name_and_group(school):
    school.post("open", {"roster": [{"student_id": "s1", "name": "Budi", "group": "A"}]})
    dashboard = await school.dashboard()
    page = await school.page("s1")
    await page.reported(question_answered=1)
    view = await dashboard.sees("s1", label="active", question_answered=1)
    assert (view["student_name"], view["group"]) == ("Budi", "A")
    again = [{"student_id": "s1", "name": "Budi W", "group": "B"}, {"student_id": "s2"}]
    assert school.post("open", {"roster": again})["roster"] == {"added": 1, "changed": 1, "unchanged": 0}
    await dashboard.sees("s1", group="B", student_name="Budi W")
    await page.reported(question_answered=2)
    await dashboard.sees("s1", question_answered=2, group="B", student_name="Budi W")
    await dashboard.sees("s2", label="not_joined")
    exam, before = ExamKey("north", school.quiz_id), dashboard.count("lmsQuizMonitoringSnapshot")
    assert school.api.ports.remove(exam, "s1") == "joined"
    assert school.api.ports.remove(exam, "s2") == "removed"
    await dashboard.until(lambda: dashboard.count("lmsQuizMonitoringSnapshot") > before, "snapshot without s2")
    snapshot = [frame for frame in dashboard.frames if frame["action"] == "lmsQuizMonitoringSnapshot"][-1]["data"]
    assert [view["student_id"] for view in snapshot["participants"]] == ["s1"]
    summary = school.api.get(f"/api/exams/{school.quiz_id}").json
    assert (summary["participants"], summary["counts"]["active"]) == (1, 1)


async def test_commands_over_a_socket_are_in_the_audit_log_with_who_gave_them(school):
    school.post("open")
    page, dashboard = await school.page("s1"), await school.dashboard(proctor="p1")
    await page.reported()
    await dashboard.sees("s1", label="active")
    await dashboard.order("warn", "c1", student_ids=["s1"], text="Eyes on your own paper")
    await dashboard.status_of("c1", "s1", "sent")
    await dashboard.order("pause", "c2", everyone=True)
    await dashboard.sees("s1", label="paused")
    entries = school.api.get(f"/api/audit?order=oldest&quiz_id={school.quiz_id}").json["entries"]
    done = [(line["actor"], line["cause"], line["student_id"], line["after"], line["reference"]) for line in entries]
    assert done == [
        ("api", "opened", "", "open", ""),
        ("p1", "warn", "s1", "accepted", "c1"),
        ("p1", "pause", "", "paused", "c2"),
    ]
    assert "paper" not in str(entries)


async def test_what_becomes_of_open_pages_and_dashboards_when_they_are_shut_out(school):
    school.post("open")
    page, dashboard = await school.page("s1"), await school.dashboard(proctor="p1")
    await page.reported()
    await dashboard.sees("s1", label="active")
    school.post("proctors", {"proctors": [{"proctor_id": "p1"}]})
    assert school.api.delete(f"/api/exams/{school.quiz_id}/proctors/p1").status == 200
    await dashboard.closed()
    school.post("close")
    # in a thread, because this one answers when the page's socket is closed
    purged = await asyncio.to_thread(school.post, "purge", {"confirm": school.quiz_id})
    assert purged["done"]
    await page.closed()
    exam = ExamKey("north", school.quiz_id)
    assert school.api.ports.load_exam(exam) is None
    assert list(school.api.ports.participants(exam)) == []


async def test_a_command_reaches_a_student_who_was_only_on_the_roster(school):
    school.post("open", {"roster": [{"student_id": "s1"}]})
    dashboard = await school.dashboard()
    await dashboard.order("message", "c1", student_ids=["s1"], text="Welcome")
    await dashboard.status_of("c1", "s1", "accepted")
    page = await school.page("s1")
    await page.report()
    await page.frame("lmsQuizCommand", command_id="c1", text="Welcome")


async def test_closing_stops_the_reports_of_students_who_are_connected_until_it_opens_again(school):
    school.post("open")
    page = await school.page("s1")
    await page.reported()
    school.post("close")
    await reports_until(page, "error", code="exam_closed")
    school.post("open")
    page.frames.clear()
    await reports_until(page, "ack")


async def reports_until(page, action, **expected):
    """Report again and again until one is answered so; the news of an exam takes a moment to its workers."""
    async with asyncio.timeout(10):
        while not page.count(action, **expected):
            answered = len(page.frames)
            await page.report()
            await page.until(lambda seen=answered: len(page.frames) > seen, "answer")


async def test_a_command_over_http_reaches_the_page_and_the_dashboards(school):
    school.post("open")
    dashboard, page = await school.dashboard(), await school.page("s1")
    await page.reported()
    answer = school.api.post(
        f"/api/exams/{school.quiz_id}/commands",
        {"command_id": "h1", "command": "warn", "student_ids": ["s1"], "text": "Eyes on your own paper"},
    )
    assert answer.status == 202
    await page.frame("lmsQuizCommand", command_id="h1", text="Eyes on your own paper")
    await dashboard.sees("s1", flags=["warned"])


async def test_an_exam_is_watched_while_a_dashboard_shows_it(school):
    school.post("open")

    def watched():
        listed = school.api.get("/api/exams?limit=200").json["exams"]
        return {exam["quiz_id"]: exam["watched"] for exam in listed}[school.quiz_id]

    assert not watched()
    await school.dashboard()
    assert watched()
