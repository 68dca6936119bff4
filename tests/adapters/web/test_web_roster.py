"""Rosters as CSV files: read as spreadsheets write them, refused whole with every fault by row."""

import pytest
from web_api import SOUTH

from adapters.web.problems import Problem
from adapters.web.roster_file import MAX_ERRORS, read_roster


def read(text, most=1_000):
    content = text if isinstance(text, bytes) else text.encode()
    return [(str(line.student_id), line.name, line.group) for line in read_roster(content, most)]


def faults(text, most=1_000):
    with pytest.raises(Problem) as caught:
        read(text, most)
    assert (caught.value.status, caught.value.code) == (422, "bad_roster")
    return [(error.row, error.column, error.detail) for error in caught.value.errors]


@pytest.mark.parametrize(
    "text",
    [
        "student_id,name,group\ns1,Budi,A\ns2,Sari,\n",
        "\ufeffstudent_id;name;group\r\ns1;Budi;A\r\ns2;Sari;\r\n;;\r\n",
        'Name , GROUP,student_id\n" Budi",A, s1\n"Sari",,s2',
    ],
)
def test_files_are_read_as_spreadsheets_write_them(text):
    assert read(text) == [("s1", "Budi", "A"), ("s2", "Sari", "")]


def test_a_quoted_cell_may_hold_commas_and_only_ids_are_needed():
    assert read('student_id,name\n1,"Santoso, Budi"\n') == [("1", "Santoso, Budi", "")]
    assert read("student_id\ns1\n") == [("s1", "", "")]


@pytest.mark.parametrize(
    ("text", "row", "column", "fix"),
    [
        ("", 1, "student_id", "the first row names the columns"),
        ("id,name\n", 1, "id", "the columns are student_id, name, group"),
        ("student_id,student_id\n", 1, "student_id", "named twice"),
        ("student_id\n", 2, "student_id", "no students"),
        ("student_id,name\ns1,B\n,Sari\n", 3, "student_id", "empty"),
        ("student_id,name\ns1,B\n\ns1,C\n", 4, "student_id", "the same as in row 2"),
        ("student_id,name\ns1,Santoso, Budi\n", 2, "", "quote cells"),
        ("student_id,group\ns1," + "g" * 65, 2, "group", "length <= 64"),
        ("student_id\n" + "s" * 129, 2, "student_id", "length <= 128"),
        (b"student_id,name\ns1,B\ns2,\xe9\n", 3, "", "CSV UTF-8"),
        ('student_id,name\ns1,"B"x\n', 2, "", "not CSV"),
    ],
)
def test_what_is_wrong_is_named_by_row_and_column(text, row, column, fix):
    first = faults(text)[0]
    assert first[:2] == (row, column)
    assert fix in first[2]


def test_all_faults_are_told_at_once_up_to_a_bound():
    assert [row for row, _, _ in faults("student_id,name\n,A\ns1,B\ns1,C\n,D\n")] == [2, 4, 5]
    assert len(faults("student_id,name\n" + ",A\n" * 100)) == MAX_ERRORS
    assert faults("student_id\na\nb\nc\n", most=2) == [
        (4, "", "more than 2 students; send the rest in another request")
    ]


def test_a_roster_is_uploaded_whole_or_not_at_all(api, quiz):
    api.post(f"/api/exams/{quiz}/open")
    url = f"/api/exams/{quiz}/roster"

    def upload(text, **more):
        return api.post(url, text.encode(), content_type="text/csv", **more)

    assert upload("student_id,name\ns1,Budi\n,Sari\n").json["errors"] == [
        {"row": 3, "column": "student_id", "detail": "empty; each student needs one"}
    ]
    assert api.get(f"/api/exams/{quiz}/participants").json["participants"] == []
    assert upload("student_id,name,group\ns1,Budi,A\ns2,Sari,B\n").json["roster"]["added"] == 2
    assert upload("student_id,group\ns1,C\ns2,B\n").json["roster"] == {"added": 0, "changed": 1, "unchanged": 1}
    views = {view["student_id"]: view for view in api.get(f"/api/exams/{quiz}/participants").json["participants"]}
    assert (views["s1"]["student_name"], views["s1"]["group"]) == ("Budi", "C")
    assert upload("student_id\ns1\n", key=SOUTH).status == 404
    assert upload("student_id\ns1\n", key=None).status == 401
    assert api.post(url, b"{}").status == 415
    assert api.post("/api/exams/nowhere/roster", b"student_id\ns1\n", content_type="text/csv").status == 404
