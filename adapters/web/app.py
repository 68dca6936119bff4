"""The HTTP API of a school's LMS: tokens for pages and dashboards, exams, and who takes them.

    GET  /healthz                          this process answers
    GET  /readyz                           it can serve requests
    POST /api/token                        a token for a student's page or a proctor's dashboard
    POST /api/exams/QUIZ                   put an exam on the school's list before it opens, or name it
    POST /api/exams/QUIZ/open              open an exam (again); with a policy, how many are expected, (a part of) its roster
    POST /api/exams/QUIZ/roster            (a part of) its roster as CSV
    POST /api/exams/QUIZ/commands          a command to students or to all; also for a proctor's token
    POST /api/exams/QUIZ/close             close it
    GET  /api/exams                        the open ones, and whether a proctor watches each; closed and planned ones too, if asked
    GET  /api/exams/QUIZ                   its state, how many are under each label, its incidents
    GET  /api/exams/QUIZ/participants      what a proctor sees of each, in pages
    GET  /api/exams/QUIZ/timeline          what happened, of one student or all; .csv too; also for a proctor's token (`history`)
    GET  /api/exams/QUIZ/conversation      what was said; .csv too; also for a proctor's token
    GET  /api/openapi.json                 all this as an OpenAPI document (`openapi`)
    .../school, keys, proctors, audit ...  what a school administers (`administration`)
    GET  /dashboard  /exam  /static/PATH   what people see (`pages`)

A school authenticates by its key, `Authorization: Bearer KEY` or `X-Api-Key: KEY`, and sees itself only: the key, never the
request, says which school it is. There are no cookies, so no other site can make a browser act for it. Requests may be repeated.
Errors are problem details (`problems`). Times are epoch seconds, `server_time` is milliseconds, as on the wire.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from flask import Flask, Response, request
from msgspec.structs import replace

from adapters.web import administration, audit, history, openapi, problems
from adapters.web.access import KeyRing, bounded, holder_of, key_of, proctor_of
from adapters.web.administration import remember_exam
from adapters.web.answers import (
    CommandAnswer,
    ExamAnswer,
    ExamCounts,
    ExamLine,
    ExamsPage,
    FullPolicy,
    Health,
    ParticipantsPage,
    PlannedAnswer,
    RosterAnswer,
    TokenAnswer,
)
from adapters.web.exams import close_exam, open_exam
from adapters.web.limits import RateLimit
from adapters.web.openapi import operation
from adapters.web.pages import pages
from adapters.web.ports import BadPosition, Enrolled, Ports, Unavailable
from adapters.web.problems import Problem
from adapters.web.records import ExamRecord, RecordsUnavailable
from adapters.web.requests import (
    LABELS,
    MAX_BODY_BYTES,
    MAX_ROSTER_LINES,
    CloseRequest,
    CommandRequest,
    ExamsQuery,
    ExamsRequest,
    OpenRequest,
    PageQuery,
    PlanRequest,
    TokenRequest,
    bad_cursor,
    checked_quiz_id,
    cursor_of,
    position_of_cursor,
    read_close_request,
    read_command_request,
    read_csv_body,
    read_exams_request,
    read_open_request,
    read_page_request,
    read_plan_request,
    read_token_request,
)
from adapters.web.roster_file import read_roster
from adapters.web.settings import KeyHolder, WebSettings
from core.errors import Forbidden, RemoteError
from core.exam import Exam
from core.identity import Principal, issue
from core.messages import OrderFrame
from core.migration import entrance
from core.participant import ExamKey
from core.policy import MAX_NAME_CHARACTERS
from core.revocation import Revocation
from core.roster import RosterLine
from core.routing import CommandToAll, CommandToSome, Source, route
from core.snapshot import in_groups, view

log = logging.getLogger(__name__)

_MAX_TOKEN_CHARACTERS = 4_096
"""A token travels in a header of the handshake; API Gateway takes 8 KB of headers in all (its quotas page), many proxies too."""

_MOST_LISTED = 10_000
_LIST_AGAIN_SECONDS = 30.0

_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(ports: Ports, settings: WebSettings) -> Flask:
    """The WSGI app over a deployment. Without records in the settings they are kept in this process's memory."""
    if settings.records is None:
        from adapters.web.records.sql import SqlRecords

        settings = replace(settings, records=SqlRecords("sqlite://"))
    assert settings.records is not None
    ring = KeyRing(settings.school_keys, settings.records, lambda: ports.now())
    settings = replace(settings, school_keys=ring)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    problems.register(app)
    api = _Api(ports, settings)
    app.add_url_rule("/healthz", view_func=api.alive)
    app.add_url_rule("/readyz", view_func=api.ready)
    app.add_url_rule("/api/token", view_func=api.token, methods=["POST"])
    app.add_url_rule("/api/exams", view_func=api.exams)
    app.add_url_rule("/api/exams/<quiz_id>/open", view_func=api.open, methods=["POST"])
    app.add_url_rule("/api/exams/<quiz_id>/roster", view_func=api.roster, methods=["POST"])
    app.add_url_rule("/api/exams/<quiz_id>/commands", view_func=api.command, methods=["POST"])
    app.add_url_rule("/api/exams/<quiz_id>/close", view_func=api.close, methods=["POST"])
    app.add_url_rule("/api/exams/<quiz_id>", view_func=api.exam)
    app.add_url_rule("/api/exams/<quiz_id>/participants", view_func=api.participants)
    app.add_url_rule("/api/exams/<quiz_id>", view_func=api.plan, methods=["POST"])
    history.register(app, ports, settings)
    administration.register(app, ports, settings, ring)
    app.register_blueprint(pages(settings))
    openapi.register(app)
    app.before_request(_limited(RateLimit(settings.requests_per_second, settings.request_burst, time.monotonic)))
    app.after_request(_secured)
    return app


class _Api:
    """The routes. Each checks the key first, then the request, then asks the ports."""

    def __init__(self, ports: Ports, settings: WebSettings) -> None:
        assert settings.records is not None  # `create_app` sees to it
        self._ports = ports
        self._settings = settings
        self._records = settings.records
        self._listed_exams: set[ExamKey] = set()
        self._list_again_at = 0.0

    # --- health ---

    @operation(answers={200: Health}, stores=False)
    def alive(self) -> Response:
        """This process answers."""
        return _json(Health("ok"))

    @operation(answers={200: Health})
    def ready(self) -> Response:
        """It reaches what it needs."""
        self._ports.check()
        self._records.check()
        return _json(Health("ready"))

    # --- tokens ---

    @operation(callers=("school",), body=TokenRequest, answers={200: TokenAnswer}, forbids=True)
    def token(self) -> Response:
        """A token for a student's page or a proctor's dashboard, and where to connect with it.

        For an exam with assignments a proctor must be assigned (403), and is bound to the group of the assignment.
        """
        school = self._holder().school
        wanted = read_token_request(request)
        settings = self._settings
        expires_at = int(self._ports.now() + wanted.hours * 3_600)
        subject = wanted.student_id if wanted.role == "student" else wanted.proctor_id
        principal = Principal(
            role=wanted.role,
            school=school,
            subject=str(subject),
            quiz_ids=wanted.quiz_ids,
            expires_at=expires_at,
            attempt_id="" if wanted.quiz_attempt_id is None else str(wanted.quiz_attempt_id),
            name=wanted.name[:MAX_NAME_CHARACTERS],
            group=wanted.group,
        )
        if principal.role == "proctor":
            principal = bounded(settings, principal)
        url, hosts = self._entrance(principal)
        kid, secret = next(iter(settings.token_secrets.items()))
        token = issue(replace(principal, endpoints=hosts), secret, kid, settings.audience)
        if len(token) > _MAX_TOKEN_CHARACTERS:
            detail = "quiz_id: too many or too long for one token; ask for several tokens"
            raise Problem(422, "bad_field", detail, field="quiz_id")
        for quiz_id in principal.quiz_ids:
            self._list(ExamKey(school, quiz_id))
        return _json(TokenAnswer(token, expires_at, hosts, url))

    def _entrance(self, principal: Principal) -> tuple[str, tuple[str, ...]]:
        """Where to connect, and all hosts that a `reconnect` may lead to: during a move those of both sides."""
        settings = self._settings
        try:
            move = self._ports.move()
        except Unavailable:
            move = None  # either side takes anybody, and sends on whom the other one should have
        if move is None:
            return settings.socket_url, settings.hosts
        sides = (urlsplit(move.lambda_url).netloc, urlsplit(move.ec2_url).netloc)
        url = entrance(move, principal.school, principal.quiz_ids, principal.subject, principal.group)
        return url, tuple(dict.fromkeys((*settings.hosts, *sides)))

    # --- exams ---

    @operation(callers=("school",), body=OpenRequest, answers={200: ExamAnswer, 201: ExamAnswer}, makes=True)
    def open(self, quiz_id: str) -> Response:
        """Open an exam, or change its rules, and add the students of this roster; to a new exam, those of the roster on record."""
        holder = self._holder()
        key = ExamKey(holder.school, checked_quiz_id(quiz_id))
        wanted, policy = read_open_request(request)
        after = position_of_cursor(wanted.roster_cursor)
        known = self._records.exam(key)
        if known is not None and known.purged_at is not None:
            self._ports.allow(Revocation(key.school, "student", quiz_id))
        exam, is_new = open_exam(self._ports, key, policy, max(wanted.students, len(wanted.roster)), holder.actor)
        remember_exam(self._records, key, exam.opened_at, opened_at=exam.opened_at, closed_at=None, purged_at=None)
        lines, cursor = wanted.roster, None
        if lines:
            self._keep_roster(holder, key, lines)
        elif is_new or after:
            found = list(itertools.islice(self._records.lines(key, after), MAX_ROSTER_LINES + 1))
            lines = found[:MAX_ROSTER_LINES]
            cursor = cursor_of(str(lines[-1].student_id)) if len(found) > len(lines) else None
        enrolled = self._ports.enroll(key, lines, holder.actor) if lines else None
        answer = ExamAnswer(**self._state(exam), roster=enrolled, roster_cursor=cursor)
        return _json(answer, 201 if is_new else 200)

    @operation(callers=("school",), body=PlanRequest, answers={200: PlannedAnswer}, makes=True)
    def plan(self, quiz_id: str) -> Response:
        """Put an exam on the school's list before it opens, so that it can have a roster and proctors; or give it another name."""
        key = self._key(quiz_id)
        name = read_plan_request(request)
        remember_exam(self._records, key, self._ports.now(), **({} if name is None else {"name": name}))
        known = self._records.exam(key)
        assert known is not None
        return _json(
            PlannedAnswer(
                known.quiz_id,
                known.name,
                known.created_at,
                known.opened_at,
                known.closed_at,
                known.purged_at,
                self._server_time(),
            )
        )

    @operation(callers=("school",), body="text/csv", answers={200: RosterAnswer})
    def roster(self, quiz_id: str) -> Response:
        """Add the students of a CSV file to an exam, or change their names and groups, also of those who have joined.

        While the exam is not open they are kept on record, and are in it when it opens.
        """
        holder = self._holder()
        key = ExamKey(holder.school, checked_quiz_id(quiz_id))
        lines = read_roster(read_csv_body(request), MAX_ROSTER_LINES)
        if self._ports.load_exam(key) is not None:
            self._keep_roster(holder, key, lines)
            return _json(RosterAnswer(quiz_id, self._ports.enroll(key, lines, holder.actor)))
        if self._records.exam(key) is None:
            self._known(key)  # says what to do
        known = {str(line.student_id): line for line in self._records.lines(key)}
        added = sum(str(line.student_id) not in known for line in lines)
        unchanged = sum(known.get(str(line.student_id)) == line for line in lines)
        self._keep_roster(holder, key, lines)
        return _json(RosterAnswer(quiz_id, Enrolled(added, len(lines) - added - unchanged, unchanged)))

    @operation(callers=("school", "proctor"), body=CommandRequest, answers={202: CommandAnswer})
    def command(self, quiz_id: str) -> Response:
        """A proctor's command to students or to all, under the rules of one that comes over a socket. Idempotent by its id."""
        principal = proctor_of(request, self._settings, self._ports, checked_quiz_id(quiz_id))
        order = read_command_request(request, quiz_id)
        now = self._ports.now()
        self._known(ExamKey(principal.school, quiz_id))
        try:
            routed = route(OrderFrame(order), Source("http", now, principal), now)
        except RemoteError as error:
            status = 403 if isinstance(error, Forbidden) else 422
            raise Problem(status, error.code, error.message.removeprefix("data.")) from error
        assert isinstance(routed, CommandToSome | CommandToAll)  # of an order nothing else follows
        self._ports.command(routed)
        return _json(CommandAnswer(str(order.command_id), self._server_time()), 202)

    @operation(callers=("school",), body=CloseRequest, answers={200: ExamAnswer})
    def close(self, quiz_id: str) -> Response:
        """Close an exam."""
        holder = self._holder()
        key = ExamKey(holder.school, checked_quiz_id(quiz_id))
        read_close_request(request)
        before = self._known(key)
        exam = close_exam(self._ports, key, holder.actor)
        if before.state != "closed":
            remember_exam(self._records, key, exam.opened_at, opened_at=exam.opened_at, closed_at=self._ports.now())
        return _json(ExamAnswer(**self._state(exam)))

    @operation(callers=("school",), query=ExamsQuery, answers={200: ExamsPage})
    def exams(self) -> Response:
        """The school's exams by id, and whether a proctor watches each; `watched=false`: those that nobody does.

        Without a `state` those that are open.
        """
        school = self._holder().school
        asked = read_exams_request(request.args)
        keys: Iterable[ExamKey] = sorted(key for key in self._ports.open_exams(school) if key.quiz_id > asked.after)
        if asked.state != "open":
            recorded = (record.key for record in self._records.exams(school, asked.after))
            keys = (key for key, _ in itertools.groupby(heapq.merge(keys, recorded)))
        found = itertools.islice(self._listed(keys, asked), asked.limit + 1)
        page = list(found)
        cursor = cursor_of(page[-2].quiz_id) if len(page) > asked.limit else None
        return _json(ExamsPage(page[: asked.limit], cursor, self._server_time()))

    def _listed(self, keys: Iterable[ExamKey], asked: ExamsRequest) -> Iterator[ExamLine]:
        for key in keys:
            exam = self._ports.load_exam(key)
            if exam is None and asked.state == "open":
                continue
            record = self._records.exam(key)
            if exam is not None and (record is None or record.opened_at is None):  # opened by a first report
                remember_exam(self._records, key, exam.opened_at, opened_at=exam.opened_at)
                record = None
            record = record or self._records.exam(key) or ExamRecord(*key)
            line = self._line(record, exam)
            wanted = "open" if line.state == "paused" else line.state
            if asked.state in ("all", wanted) and asked.watched in (None, line.watched):
                yield line

    def _line(self, record: ExamRecord, exam: Exam | None) -> ExamLine:
        """What the list says: of the live state while there is one, and after that of the record."""
        known = (record.quiz_id, record.name)
        if exam is None:
            state: Literal["closed", "planned"] = "planned" if record.opened_at is None else "closed"
            return ExamLine(*known, state, record.opened_at, record.closed_at, record.purged_at, None, False, 0)
        is_open = exam.state != "closed"
        closed_at = (
            None if is_open else record.closed_at or exam.version / 1000
        )  # an hour after its end it closes by itself
        return ExamLine(
            *known,
            exam.state,
            exam.opened_at,
            closed_at,
            record.purged_at,
            exam.last_time_end,
            is_open and self._ports.is_watched(record.key),
            sum(incident.ended_at is None for incident in exam.incidents),
        )

    @operation(callers=("school",), answers={200: ExamCounts})
    def exam(self, quiz_id: str) -> Response:
        """An exam's state, with how many are under each label. Reads every record of the exam."""
        key = self._key(quiz_id)
        exam = self._known(key)
        counted = Counter(record.label for _, record in self._ports.participants(key))
        counts = {label: counted[label] for label in LABELS}
        return _json(ExamCounts(**self._state(exam), participants=counted.total(), counts=counts))

    @operation(callers=("school",), query=PageQuery, answers={200: ParticipantsPage})
    def participants(self, quiz_id: str) -> Response:
        """A page of views, and the cursor of the next one."""
        key = self._key(quiz_id)
        asked = read_page_request(request.args)
        exam = self._known(key)
        try:
            matching = (
                (position, record)
                for position, record in self._ports.participants(key, asked.after)
                if in_groups(record.group, asked.groups) and (not asked.labels or record.label in asked.labels)
            )
            found = list(itertools.islice(matching, asked.limit + 1))
        except BadPosition:
            raise bad_cursor() from None
        page = found[: asked.limit]
        views = [view(record) for _, record in page]
        cursor = cursor_of(page[-1][0]) if len(found) > len(page) else None
        return _json(ParticipantsPage(exam.quiz_id, views, exam.incidents, cursor, self._server_time()))

    # --- inside ---

    def _holder(self) -> KeyHolder:
        """The school whose key came with the request, and who acts with it."""
        return holder_of(request, self._settings)

    def _key(self, quiz_id: str) -> ExamKey:
        """The exam of this id in the school whose key came with the request."""
        return ExamKey(self._holder().school, checked_quiz_id(quiz_id))

    def _list(self, key: ExamKey) -> None:
        """See that an exam is on the school's list, however it came about: once for each in this process.

        Tokens are issued while the records are away, so this may fail, and is not tried again for a while.
        """
        if key in self._listed_exams or time.monotonic() < self._list_again_at:
            return
        try:
            remember_exam(self._records, key, self._ports.now())
        except RecordsUnavailable as error:
            log.warning("exam %s of %s is not on the school's list: %s", key.quiz_id, key.school, error)
            self._list_again_at = time.monotonic() + _LIST_AGAIN_SECONDS
            return
        if len(self._listed_exams) >= _MOST_LISTED:
            self._listed_exams.clear()
        self._listed_exams.add(key)

    def _keep_roster(self, holder: KeyHolder, key: ExamKey, lines: Sequence[RosterLine]) -> None:
        audit.note(self._ports, key, holder.actor, "roster", f"{len(lines)} students")
        self._records.put_lines(key, lines)

    def _known(self, key: ExamKey) -> Exam:
        exam = self._ports.load_exam(key)
        if exam is None:
            detail = f"there is no exam {key.quiz_id}; open it with POST /api/exams/{key.quiz_id}/open"
            raise Problem(404, "not_found", detail)
        return exam

    def _state(self, exam: Exam) -> dict[str, Any]:
        """The fields of an `ExamAnswer`."""
        return {
            "quiz_id": exam.quiz_id,
            "state": exam.state,
            "opened_at": exam.opened_at,
            "last_time_end": exam.last_time_end,
            "policy": FullPolicy(**msgspec.structs.asdict(exam.policy)),
            "incidents": exam.incidents,
            "version": exam.version,
            "server_time": self._server_time(),
        }

    def _server_time(self) -> float:
        return round(self._ports.now() * 1000, 3)


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, content_type="application/json")


def _limited(limit: RateLimit) -> Callable[[], None]:
    """Refuse a key that asks too often; pages and health are not counted."""

    def check() -> None:
        if not request.path.startswith("/api/"):
            return
        wait = limit.wait_seconds(key_of(request) or f"address {request.remote_addr}")
        if wait > 0:
            seconds = str(math.ceil(wait))
            detail = f"this key asks too often; send the same request again in {seconds} s"
            raise Problem(429, "too_many_requests", detail, headers={"Retry-After": seconds})

    return check


def _secured(response: Response) -> Response:
    """Answers are for programs: nothing in them may be sniffed, framed, cached or run."""
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    return response
