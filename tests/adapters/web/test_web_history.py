"""What happened in an exam: timelines and conversations, for schools and proctors, the same on both deployments."""

import csv
import io
import re
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest
from web_api import NORTH, SECRET, SOUTH

from adapters.web.csv_file import csv_line
from core.identity import Principal, issue
from core.journal import Entry, is_conversation
from core.participant import ExamKey, ParticipantKey, new_participant

START = 1_790_000_000.0


class Story:
    """A quiz in which Budi (room A) goes away and writes, and Sari (room B) is warned; the proctor speaks to everyone."""

    def __init__(self, api, quiz):
        self.api, self.exam = api, ExamKey("north", quiz)
        api.post(f"/api/exams/{quiz}/open")
        self.version = 0
        self.saved(
            "budi", "Budi", "A", self.label("", "active"), {"kind": "attempt", "cause": "reported", "after": "a1"}
        )
        self.saved("sari", "=Sari", "B", self.label("", "active"))
        self.saved("budi", "Budi", "A", self.label("active", "away"))
        self.saved("budi", "Budi", "A", {"kind": "message", "cause": "chat", "text": "=1+1, help", "actor": "student"})
        self.saved("budi", "Budi", "A", self.command("message", "Read the sheet", to_everyone=True))
        self.saved("sari", "=Sari", "B", self.command("warn", "Eyes here"))
        self.saved("sari", "=Sari", "B", self.command("warn", "Too late", after="refused"))
        self.saved("budi", "Budi", "A", self.label("away", "offline"))

    def label(self, before, after):
        return {"kind": "label", "cause": "reported", "before": before, "after": after}

    def command(self, cause, text, after="accepted", **more):
        return dict(kind="command", cause=cause, text=text, actor="p1", reference="c1", after=after, **more)

    def saved(self, student, name, group, *lines):
        self.version += 1
        at, version = START + self.version, self.version
        record = new_participant(ParticipantKey(*self.exam, student), self.api.ports.here)
        record = record.__class__(
            **{f: getattr(record, f) for f in record.__struct_fields__}
            | {"student_name": name, "group": group, "version": version}
        )
        entries = [Entry(*self.exam, student, version, n, at, **line) for n, line in enumerate(lines)]
        self.api.happened(record, entries)

    def path(self, what, **query):
        return f"/api/exams/{self.exam.quiz_id}/{what}?{urlencode(query)}"

    def lines(self, what, key=NORTH, **query):
        """All lines, page by page."""
        found, cursor = [], {}
        while True:
            answer = self.api.get(self.path(what, **query, **cursor), key=key)
            assert answer.status == 200, answer.body
            found += answer.json["entries" if what == "timeline" else "lines"]
            if answer.json["next_cursor"] is None:
                return found
            cursor = {"cursor": answer.json["next_cursor"]}

    def token(self, role="proctor", quiz=None, school="north", hours=1.0, **more):
        quizzes = (quiz or self.exam.quiz_id,)
        attempt = "a1" if role == "student" else ""
        expires_at = time.time() + hours * 3_600
        return issue(Principal(role, school, "p1", quizzes, expires_at, attempt_id=attempt, **more), SECRET, "k2")


@pytest.fixture
def story(api, quiz):
    return Story(api, quiz)


def brief(lines):
    return [(line["student_id"], line["kind"], line["text"] or line["after"]) for line in lines]


BUDI = [
    ("budi", "label", "active"),
    ("budi", "attempt", "a1"),
    ("budi", "label", "away"),
    ("budi", "message", "=1+1, help"),
    ("budi", "command", "Read the sheet"),
    ("budi", "label", "offline"),
]


@pytest.mark.parametrize("limit", [1, 2, 200])
def test_a_students_timeline_has_every_line_with_durations_in_pages_either_way(story, limit):
    found = story.lines("timeline", student_id="budi", limit=limit)
    assert brief(found) == BUDI
    assert [line["duration_seconds"] for line in found if line["kind"] == "label"] == [2.0, 5.0, None]
    assert {(line["student_name"], line["group"]) for line in found} == {("Budi", "A")}
    back = story.lines("timeline", student_id="budi", limit=limit, order="newest")
    assert back == found[::-1]


@pytest.mark.parametrize("limit", [1, 3, 200])
def test_the_timeline_of_an_exam_goes_student_by_student(story, limit):
    found = [line for line in story.lines("timeline", limit=limit) if line["kind"] != "exam"]
    students = [line["student_id"] for line in found]
    assert sorted(students) == ["budi"] * 6 + ["sari"] * 3
    assert len([n for n in range(1, 9) if students[n] != students[n - 1]]) == 1
    assert [line["kind"] for line in story.lines("timeline", limit=limit, student_id="")] == ["exam"]


@pytest.mark.parametrize("limit", [1, 200])
def test_the_conversation_is_in_the_order_of_time_each_word_once(story, limit):
    found = story.lines("conversation", limit=limit)
    assert [(line["by"], line["kind"], line["text"]) for line in found] == [
        ("student", "chat", "=1+1, help"),
        ("proctor", "warn", "Eyes here"),
    ]
    assert found[0]["actor"] == "budi"
    assert story.lines("conversation", limit=limit, order="newest") == found[::-1]
    assert [line["text"] for line in story.lines("conversation", student_id="sari")] == ["Eyes here"]


def test_what_waits_in_redis_and_what_was_carried_is_one_story(cluster, quiz):
    story = Story(cluster, quiz)
    cluster.carry()
    assert cluster.journal(story.exam) == []
    assert brief(story.lines("timeline", student_id="budi")) == BUDI
    story.saved(
        "budi", "Budi", "A", story.label("offline", "active"), {"kind": "message", "cause": "chat", "text": "back"}
    )
    for limit in (1, 200):
        found = story.lines("timeline", student_id="budi", limit=limit)
        assert brief(found) == [*BUDI, ("budi", "label", "active"), ("budi", "message", "back")]
        assert [line["text"] for line in story.lines("conversation", limit=limit)] == [
            "=1+1, help",
            "Eyes here",
            "back",
        ]


def test_a_token_reads_its_exams_and_its_group_and_no_more(story):
    everything = story.lines("timeline", key=story.token())
    assert everything == story.lines("timeline")
    room_b = story.lines("timeline", key=story.token(group="B"))
    assert {line["student_id"] for line in room_b} == {"", "sari"}
    assert [line["text"] for line in story.lines("conversation", key=story.token(group="B"))] == ["Eyes here"]
    assert story.lines("timeline", key=story.token(group="B"), student_id="budi") == []

    def status(key):
        return {story.api.get(story.path(what), key=key).status for what in ("timeline", "conversation.csv")}

    assert status(story.token(quiz="other")) == {404}
    assert status(story.token(school="south")) == {404}
    assert status(SOUTH) == {404}
    assert status(story.token(role="student")) == {403}
    assert status(story.token(hours=-1)) == {401}
    assert status("a.b.c") == {401}
    assert status(None) == {401}


def test_files_open_in_a_spreadsheet_and_run_nothing(story):
    answer = story.api.get(story.path("timeline.csv"))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{story.exam.quiz_id}-timeline.csv"'
    assert answer.body.startswith(b"\xef\xbb\xbfat,student_id,")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig"))))
    shown = story.lines("timeline")
    assert len(rows) == len(shown)
    assert [row["student_id"] for row in rows] == [line["student_id"] for line in shown]
    assert {row["student_name"] for row in rows} == {"", "Budi", "'=Sari"}
    assert "'=1+1, help" in {row["text"] for row in rows}
    said = story.api.get(story.path("conversation.csv", student_id="budi")).body.decode("utf-8-sig")
    assert [row["text"] for row in csv.DictReader(io.StringIO(said))] == ["'=1+1, help"]


def test_a_file_that_is_too_long_for_one_answer_goes_on_at_its_link(serverless, quiz, monkeypatch):
    story = Story(serverless, quiz)
    whole = serverless.get(story.path("timeline.csv")).body
    monkeypatch.setattr("adapters.lambda_apigw.http.DynamoPorts.max_answer_bytes", 200)
    parts, url = [], story.path("timeline.csv")
    while url:
        answer = serverless.get(url)
        parts.append(answer.body)
        link = re.match(r'<(.*)>; rel="next"', answer.headers.get("link", ""))
        url = link and link[1]
    assert len(parts) > 3
    assert [line[:60] for line in b"".join(parts).splitlines()] == [line[:60] for line in whole.splitlines()]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("order=up", "order"),
        ("student=s", "student"),
        ("cursor=eA", "cursor"),
        ("cursor=e", "cursor"),
    ],
)
def test_what_is_wrong_with_a_query_is_named(cluster, quiz, query, field):
    cluster.post(f"/api/exams/{quiz}/open")
    answer = cluster.get(f"/api/exams/{quiz}/timeline?{query}")
    assert (answer.status, answer.json["field"]) == (422, field)
    assert answer.json["detail"].startswith(field)


def test_while_the_journal_is_away_the_answer_says_to_come_again(cluster, quiz, tmp_path):
    cluster.post(f"/api/exams/{quiz}/open")
    broken = tmp_path / "journal.sqlite"
    broken.write_bytes(b"this is no database, but a text that is long enough to be read as one" * 20)
    cluster.ports._journal_place = str(broken)
    for what in ("timeline", "conversation", "timeline.csv"):
        assert cluster.get(f"/api/exams/{quiz}/{what}").status == 503


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@x", "\t=1", " =1", "\u00a0=1", "\uff1d1", "\r1", '=HYPERLINK("x")']
)
def test_no_cell_begins_like_a_formula(text):
    (cell,) = next(csv.reader(io.StringIO(csv_line([text]), newline="")))
    assert cell == f"'{text}"


def test_plain_cells_stay_as_they_are():
    assert csv_line(["a", 1, -2.5, None, True, 'b"c', "d,e", "Ünï"]) == 'a,1,-2.5,,true,"b""c","d,e",Ünï\r\n'


def test_a_conversation_has_each_word_once():
    def entry(kind, cause, student="s", **more):
        return Entry("n", "q", student, 1, 0, 1.0, kind, cause, **more)

    assert is_conversation(entry("message", "raise_hand"))
    assert is_conversation(entry("command", "warn", after="accepted"))
    assert is_conversation(entry("exam", "message", student="", to_everyone=True))
    assert not is_conversation(entry("command", "warn", after="refused"))
    assert not is_conversation(entry("command", "warn", after="accepted", to_everyone=True))
    assert not is_conversation(entry("command", "pause", after="accepted"))
    assert not is_conversation(entry("exam", "opened", student=""))


def test_all_about_a_student_is_exported_for_the_school_and_that_is_journalled(story):
    def export(key=NORTH, student="budi"):
        return story.api.post(story.path("export"), {"student_id": student}, key=key)

    answer = export()
    assert answer.status == 200
    assert brief(answer.json["entries"]) == BUDI
    assert answer.json["participant"]["student_name"] == "Budi"
    assert export(student="nobody").status == 404
    assert export(key=SOUTH).status == 404
    assert export(key=story.token()).status == 401
    assert story.api.post(story.path("export"), {}).json["field"] == "student_id"
    noted = [line for line in story.lines("timeline", student_id="") if line["cause"] == "exported"]
    assert [(line["actor"], line["reference"]) for line in noted] == [("api", "budi")]


def test_the_page_of_the_api_has_every_route_and_no_other(cluster):
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    told = {path.partition(" ")[2] or path for row in rows for path in re.findall("`([^`]+)`", row)}
    told = {f"/api/exams/QUIZ/{path}" if not path.startswith("/") else path for path in told}
    routes = {
        re.sub("<(quiz|student|proctor|key)_id>", lambda name: name[1].upper(), str(rule))
        for rule in cluster.app.url_map.iter_rules()
    }
    assert told == {route for route in routes if route.startswith("/api/")}
