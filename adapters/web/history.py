"""What happened in an exam, as lines and as CSV: a student's timeline, everybody's, the conversation with the proctors.

    GET  /api/exams/QUIZ/timeline          every journal entry of `student_id`, or of all, student by student
    GET  /api/exams/QUIZ/conversation      what students wrote, raised hands, what proctors told them, in the order of time
    GET  /api/exams/QUIZ/timeline.csv      the same as files that a spreadsheet opens
    GET  /api/exams/QUIZ/conversation.csv
    POST /api/exams/QUIZ/export            all about one student, for the school's key only; journalled
    POST /api/exams/QUIZ/files             a dashboard says which file it made by itself, for the audit log

For a school's key, and for a proctor's token within its exams and group. Names and groups come from the live records: the journal
has none. A label's duration is the time until the next one; there is none while it lasts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, urlencode

import msgspec
from flask import Flask, Response, request
from msgspec import Struct

from adapters.web import audit
from adapters.web.access import Reader, holder_of, reader_of
from adapters.web.answers import (
    ConversationLine,
    ConversationPage,
    ExportAnswer,
    NotedAnswer,
    TimelineLine,
    TimelinePage,
)
from adapters.web.csv_file import BOM, csv_line
from adapters.web.openapi import operation
from adapters.web.ports import Ports
from adapters.web.problems import Problem
from adapters.web.requests import (
    ExportRequest,
    FileRequest,
    HistoryQuery,
    HistoryRequest,
    checked_quiz_id,
    history_cursor_of,
    read_body,
    read_export_request,
    read_history_request,
)
from adapters.web.settings import WebSettings
from core.journal import Entry, position_of
from core.participant import ExamKey, Participant
from core.snapshot import view

_CHUNK = 100
_KNOWN = 1_000


class _Line(Struct):
    """An entry with the record of its student, if there is one; `until` is when the next label of the student began.

    `label_at`: going back in time, when the last label that was passed began.
    """

    entry: Entry
    record: Participant | None
    until: float | None = None
    label_at: float | None = None


def register(app: Flask, ports: Ports, settings: WebSettings) -> None:
    """Add the routes to the app."""
    history = _History(ports, settings)
    app.add_url_rule("/api/exams/<quiz_id>/timeline", view_func=history.timeline)
    app.add_url_rule("/api/exams/<quiz_id>/timeline.csv", view_func=history.timeline_file)
    app.add_url_rule("/api/exams/<quiz_id>/conversation", view_func=history.conversation)
    app.add_url_rule("/api/exams/<quiz_id>/conversation.csv", view_func=history.conversation_file)
    app.add_url_rule("/api/exams/<quiz_id>/export", view_func=history.export, methods=["POST"])
    app.add_url_rule("/api/exams/<quiz_id>/files", view_func=history.made_file, methods=["POST"])


class _History:
    def __init__(self, ports: Ports, settings: WebSettings) -> None:
        self._ports = ports
        self._settings = settings

    @operation(callers=("school", "proctor"), query=HistoryQuery, answers={200: TimelinePage})
    def timeline(self, quiz_id: str) -> Response:
        """Every entry of a student, or of the exam, student by student."""
        _, asked, lines = self._timeline(quiz_id)
        page, cursor = _page(lines, asked.limit)
        return _json(TimelinePage(quiz_id, [_event(line) for line in page], cursor, self._server_time()))

    @operation(callers=("school", "proctor"), query=HistoryQuery, answers={200: "text/csv"}, links=True)
    def timeline_file(self, quiz_id: str) -> Response:
        """The timeline as a file that a spreadsheet opens."""
        reader, asked, lines = self._timeline(quiz_id)
        return self._file(reader, asked, lines, _event, TimelineLine.__struct_fields__)

    @operation(callers=("school", "proctor"), query=HistoryQuery, answers={200: ConversationPage})
    def conversation(self, quiz_id: str) -> Response:
        """The conversation of an exam, or of one student in it, in the order of time."""
        _, asked, lines = self._conversation(quiz_id)
        page, cursor = _page(lines, asked.limit)
        return _json(ConversationPage(quiz_id, [_words(line) for line in page], cursor, self._server_time()))

    @operation(callers=("school", "proctor"), query=HistoryQuery, answers={200: "text/csv"}, links=True)
    def conversation_file(self, quiz_id: str) -> Response:
        """The conversation as a file that a spreadsheet opens."""
        reader, asked, lines = self._conversation(quiz_id)
        return self._file(reader, asked, lines, _words, ConversationLine.__struct_fields__)

    def _timeline(self, quiz_id: str) -> tuple[Reader, HistoryRequest, Iterator[_Line]]:
        reader, asked = self._begin(quiz_id)
        newest_first = asked.order == "newest"
        entries = self._ports.timeline(reader.exam, asked.student_id, asked.after, newest_first=newest_first)
        return reader, asked, _timed(self._seen(entries, reader), asked.label_at, newest_first=newest_first)

    def _conversation(self, quiz_id: str) -> tuple[Reader, HistoryRequest, Iterator[_Line]]:
        reader, asked = self._begin(quiz_id)
        entries = self._ports.conversation(reader.exam, asked.after, newest_first=asked.order == "newest")
        if asked.student_id is not None:
            entries = (e for e in entries if e.student_id in ("", asked.student_id))
        return reader, asked, self._seen(entries, reader)

    @operation(callers=("school",), body=ExportRequest, answers={200: ExportAnswer})
    def export(self, quiz_id: str) -> Response:
        """All that is kept about one student of an exam, for a request of theirs. Who asked is journalled first."""
        holder = holder_of(request, self._settings)
        exam = ExamKey(holder.school, checked_quiz_id(quiz_id))
        student_id = read_export_request(request)
        record = self._ports.records(exam, [student_id]).get(student_id)
        entries = list(self._ports.timeline(exam, student_id, None, newest_first=False))
        if record is None and not entries:
            raise Problem(404, "not_found", f"nothing is known of a student {student_id} in an exam {quiz_id}")
        audit.note(self._ports, exam, holder.actor, "exported", student_id, kind="exam")
        lines = _timed((_Line(entry, record) for entry in entries), None, newest_first=False)
        shown = None if record is None else view(record)
        return _json(ExportAnswer(quiz_id, student_id, shown, [_event(line) for line in lines], self._server_time()))

    @operation(callers=("school", "proctor"), body=FileRequest, answers={200: NotedAnswer})
    def made_file(self, quiz_id: str) -> Response:
        """A page says that somebody takes what it shows away as a file, which it makes by itself, for the audit log."""
        reader = reader_of(request, self._settings, self._ports, checked_quiz_id(quiz_id))
        made = read_body(request, FileRequest)
        audit.note(self._ports, reader.exam, reader.actor, "file", made.name, after=f"{made.rows} rows")
        return _json(NotedAnswer(quiz_id, self._server_time()))

    def _begin(self, quiz_id: str) -> tuple[Reader, HistoryRequest]:
        """Who asks, and for what; there is such an exam, and the student is one that they may see."""
        reader = reader_of(request, self._settings, self._ports, checked_quiz_id(quiz_id))
        asked = read_history_request(request.args)
        exam = reader.exam
        if self._ports.load_exam(exam) is None and next(self._entries_of(exam), None) is None:
            raise Problem(404, "not_found", f"nothing is known of an exam {quiz_id}")
        return reader, asked

    def _entries_of(self, exam: ExamKey) -> Iterator[Entry]:
        """The live record of an exam goes a day after its end, and its journal stays."""
        return self._ports.timeline(exam, None, None, newest_first=False)

    def _seen(self, entries: Iterable[Entry], reader: Reader) -> Iterator[_Line]:
        """What this reader may see, with names: of one group only those whose record says so, and what concerns all."""
        known: dict[str, Participant | None] = {}
        rest = iter(entries)
        while chunk := list(itertools.islice(rest, _CHUNK)):
            if len(known) > _KNOWN:
                known.clear()
            unknown = list({e.student_id for e in chunk if e.student_id and e.student_id not in known})
            if unknown:
                known |= dict.fromkeys(unknown) | dict(self._ports.records(reader.exam, unknown))
            for entry in chunk:
                record = known.get(entry.student_id)
                if not reader.group or not entry.student_id or (record is not None and record.group == reader.group):
                    yield _Line(entry, record)

    def _file(
        self,
        reader: Reader,
        asked: HistoryRequest,
        lines: Iterator[_Line],
        row: Callable[[_Line], Struct],
        columns: tuple[str, ...],
    ) -> Response:
        """A file, sent as it is made; where answers have an end, the header Link says where the next part is.

        Who takes the first part is noted before anything is sent.
        """
        name = request.path.rpartition("/")[2]
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", reader.exam.quiz_id)
        if asked.after is None:
            audit.note(self._ports, reader.exam, reader.actor, "file", name, after=asked.student_id or "")
        headers = {"Content-Disposition": f'attachment; filename="{safe}-{name}"'}
        head = BOM + csv_line(columns) if asked.after is None else ""
        most = self._ports.max_answer_bytes
        if most is None:
            first = list(itertools.islice(lines, 1))  # what can't be read is told before the answer begins
            parts = (csv_line(msgspec.structs.astuple(row(line))) for line in itertools.chain(first, lines))
            body = itertools.chain([head.encode()] if head else (), _in_blocks(parts))
            return Response(body, headers=headers, content_type="text/csv; charset=utf-8")
        content, last = bytearray(head.encode()), None
        for line in lines:
            if last is not None and len(content) > most:
                more = {"cursor": _cursor([last]), "order": asked.order}
                if asked.student_id is not None:
                    more["student_id"] = asked.student_id
                headers["Link"] = f'<{quote(request.path)}?{urlencode(more)}>; rel="next"'
                break
            content += csv_line(msgspec.structs.astuple(row(line))).encode()
            last = line
        return Response(bytes(content), headers=headers, content_type="text/csv; charset=utf-8")

    def _server_time(self) -> float:
        return round(self._ports.now() * 1000, 3)


def _json(body: Struct) -> Response:
    return Response(msgspec.json.encode(body), content_type="application/json")


def _page(lines: Iterator[_Line], limit: int) -> tuple[list[_Line], str | None]:
    """So many lines, and the cursor of the next page."""
    found = list(itertools.islice(lines, limit + 1))
    page = found[:limit]
    return page, _cursor(page) if len(found) > len(page) else None


def _in_blocks(parts: Iterator[str]) -> Iterator[bytes]:
    while block := "".join(itertools.islice(parts, _CHUNK)):
        yield block.encode()


def _cursor(page: list[_Line]) -> str:
    """Behind the last line; with the moment of its student's label there, for a reader who goes back in time."""
    return history_cursor_of(position_of(page[-1].entry), page[-1].label_at)


def _timed(lines: Iterator[_Line], label_at: float | None, *, newest_first: bool) -> Iterator[_Line]:
    """Each label with the moment at which the next one of its student began."""
    if newest_first:
        yield from _timed_backwards(lines, label_at)
        return
    held: list[_Line] = []  # the last label, and what came after it
    for line in lines:
        if held and (line.entry.kind == "label" or line.entry.student_id != held[0].entry.student_id):
            if line.entry.student_id == held[0].entry.student_id:
                held[0].until = line.entry.at
            yield from held
            held = []
        if held or line.entry.kind == "label":
            held.append(line)
        else:
            yield line
    yield from held


def _timed_backwards(lines: Iterator[_Line], label_at: float | None) -> Iterator[_Line]:
    student_id = None
    for line in lines:
        if student_id is not None and line.entry.student_id != student_id:
            label_at = None
        student_id = line.entry.student_id
        if line.entry.kind == "label":
            line.until, label_at = label_at, line.entry.at
        line.label_at = label_at
        yield line


def _event(line: _Line) -> TimelineLine:
    entry, record = line.entry, line.record
    return TimelineLine(
        at=entry.at,
        student_id=entry.student_id,
        student_name="" if record is None else record.student_name,
        group="" if record is None else record.group,
        kind=entry.kind,
        cause=entry.cause,
        before=entry.before,
        after=entry.after,
        duration_seconds=None if line.until is None else round(max(0.0, line.until - entry.at), 3),
        actor=entry.actor,
        reference=entry.reference,
        text=entry.text,
        to_everyone=entry.to_everyone,
    )


def _words(line: _Line) -> ConversationLine:
    entry, record = line.entry, line.record
    by_student = entry.kind == "message"
    return ConversationLine(
        at=entry.at,
        student_id=entry.student_id,
        student_name="" if record is None else record.student_name,
        group="" if record is None else record.group,
        kind=entry.cause,
        by="student" if by_student else "proctor",
        actor=entry.student_id if by_student else entry.actor,
        reference=entry.reference,
        text=entry.text,
        to_everyone=entry.to_everyone,
    )
