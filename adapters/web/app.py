"""The HTTP API of a school's LMS: tokens for pages and dashboards, exams, and who takes them.

    GET  /healthz                          this process answers
    GET  /readyz                           it can serve requests
    POST /api/token                        a token for a student's page or a proctor's dashboard
    POST /api/exams/QUIZ/open              open an exam (again); with a policy, how many are expected, (a part of) its roster
    POST /api/exams/QUIZ/roster            (a part of) its roster as CSV
    POST /api/exams/QUIZ/commands          a command to students or to all; also for a proctor's token
    POST /api/exams/QUIZ/close             close it
    GET  /api/exams                        the open ones, and whether a proctor watches each
    GET  /api/exams/QUIZ                   its state, how many are under each label, its incidents
    GET  /api/exams/QUIZ/participants      what a proctor sees of each, in pages
    GET  /api/exams/QUIZ/timeline          what happened, of one student or all; .csv too; also for a proctor's token (`history`)
    GET  /api/exams/QUIZ/conversation      what was said; .csv too; also for a proctor's token
    GET  /api/openapi.json                 all this as an OpenAPI document (`openapi`)
    GET  /dashboard  /exam  /static/PATH   what people see (`pages`)

A school authenticates by its key, `Authorization: Bearer KEY` or `X-Api-Key: KEY`, and sees itself only: the key, never the
request, says which school it is. There are no cookies, so no other site can make a browser act for it. Requests may be repeated.
Errors are problem details (`problems`). Times are epoch seconds, `server_time` is milliseconds, as on the wire.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from flask import Flask, Response, request

from adapters.web import history, openapi, problems
from adapters.web.access import key_of, proctor_of, school_of
from adapters.web.answers import (
    CommandAnswer,
    ExamAnswer,
    ExamCounts,
    ExamLine,
    ExamsPage,
    FullPolicy,
    Health,
    ParticipantsPage,
    RosterAnswer,
    TokenAnswer,
)
from adapters.web.exams import close_exam, open_exam
from adapters.web.limits import RateLimit
from adapters.web.openapi import operation
from adapters.web.pages import pages
from adapters.web.ports import BadPosition, Ports
from adapters.web.problems import Problem
from adapters.web.requests import (
    LABELS,
    MAX_BODY_BYTES,
    MAX_ROSTER_LINES,
    CloseRequest,
    CommandRequest,
    ExamsQuery,
    OpenRequest,
    PageQuery,
    TokenRequest,
    bad_cursor,
    checked_quiz_id,
    cursor_of,
    read_close_request,
    read_command_request,
    read_csv_body,
    read_exams_request,
    read_open_request,
    read_page_request,
    read_token_request,
)
from adapters.web.roster_file import read_roster
from adapters.web.settings import WebSettings
from core.errors import Forbidden, RemoteError
from core.exam import Exam
from core.identity import Principal, issue
from core.messages import OrderFrame
from core.participant import ExamKey
from core.policy import MAX_NAME_CHARACTERS
from core.routing import CommandToAll, CommandToSome, Source, route
from core.snapshot import in_groups, view

_MAX_TOKEN_CHARACTERS = 4_096
"""A token travels in a header of the handshake; API Gateway takes 8 KB of headers in all (its quotas page), many proxies too."""

_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def create_app(ports: Ports, settings: WebSettings) -> Flask:
    """The WSGI app over a deployment."""
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
    history.register(app, ports, settings)
    app.register_blueprint(pages(settings))
    openapi.register(app)
    app.before_request(_limited(RateLimit(settings.requests_per_second, settings.request_burst, time.monotonic)))
    app.after_request(_secured)
    return app


class _Api:
    """The routes. Each checks the key first, then the request, then asks the ports."""

    def __init__(self, ports: Ports, settings: WebSettings) -> None:
        self._ports = ports
        self._settings = settings

    # --- health ---

    @operation(answers={200: Health}, stores=False)
    def alive(self) -> Response:
        """This process answers."""
        return _json(Health("ok"))

    @operation(answers={200: Health})
    def ready(self) -> Response:
        """It reaches what it needs."""
        self._ports.check()
        return _json(Health("ready"))

    # --- tokens ---

    @operation(callers=("school",), body=TokenRequest, answers={200: TokenAnswer}, stores=False)
    def token(self) -> Response:
        """A token for a student's page or a proctor's dashboard, and where to connect with it."""
        school = self._school()
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
            endpoints=settings.hosts,
        )
        kid, secret = next(iter(settings.token_secrets.items()))
        token = issue(principal, secret, kid, settings.audience)
        if len(token) > _MAX_TOKEN_CHARACTERS:
            detail = "quiz_id: too many or too long for one token; ask for several tokens"
            raise Problem(422, "bad_field", detail, field="quiz_id")
        return _json(TokenAnswer(token, expires_at, settings.hosts, settings.socket_url))

    # --- exams ---

    @operation(callers=("school",), body=OpenRequest, answers={200: ExamAnswer, 201: ExamAnswer}, makes=True)
    def open(self, quiz_id: str) -> Response:
        """Open an exam, or change its rules, and add the students of a roster."""
        key = self._key(quiz_id)
        wanted, policy = read_open_request(request)
        exam, is_new = open_exam(self._ports, key, policy, max(wanted.students, len(wanted.roster)))
        enrolled = self._ports.enroll(key, wanted.roster) if wanted.roster else None
        return _json(ExamAnswer(**self._state(exam), roster=enrolled), 201 if is_new else 200)

    @operation(callers=("school",), body="text/csv", answers={200: RosterAnswer})
    def roster(self, quiz_id: str) -> Response:
        """Add the students of a CSV file to an exam, or change those who have not joined."""
        key = self._key(quiz_id)
        lines = read_roster(read_csv_body(request), MAX_ROSTER_LINES)
        exam = self._known(key)
        return _json(RosterAnswer(exam.quiz_id, self._ports.enroll(key, lines)))

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
        key = self._key(quiz_id)
        read_close_request(request)
        self._known(key)
        return _json(ExamAnswer(**self._state(close_exam(self._ports, key))))

    @operation(callers=("school",), query=ExamsQuery, answers={200: ExamsPage})
    def exams(self) -> Response:
        """The school's open exams by id, and whether a proctor watches each; `watched=false`: those that nobody does."""
        school = self._school()
        asked = read_exams_request(request.args)
        keys = sorted(key for key in self._ports.open_exams(school) if key.quiz_id > asked.after)
        found = itertools.islice(self._listed(keys, asked.watched), asked.limit + 1)
        page = list(found)
        cursor = cursor_of(page[-2].quiz_id) if len(page) > asked.limit else None
        return _json(ExamsPage(page[: asked.limit], cursor, self._server_time()))

    def _listed(self, keys: Iterable[ExamKey], watched: bool | None) -> Iterator[ExamLine]:
        for key in keys:
            exam = self._ports.load_exam(key)
            if exam is None or exam.state == "closed":
                continue
            is_watched = self._ports.is_watched(key)
            if watched in (None, is_watched):
                incidents = sum(incident.ended_at is None for incident in exam.incidents)
                yield ExamLine(exam.quiz_id, exam.state, exam.opened_at, exam.last_time_end, is_watched, incidents)

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

    def _school(self) -> str:
        """The school whose key came with the request."""
        return school_of(request, self._settings)

    def _key(self, quiz_id: str) -> ExamKey:
        """The exam of this id in the school whose key came with the request."""
        return ExamKey(self._school(), checked_quiz_id(quiz_id))

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
