"""What a school administers: its keys, its exams' rosters and proctors, for how long data is kept, and who did what.

    GET    /api/school                         its name, and for how long it keeps exams
    POST   /api/school                         change these
    GET    /api/keys                           its keys on record, without the keys themselves
    POST   /api/keys                           a new one, shown this once
    POST   /api/keys/ID/rotate                 one in the place of another, which counts for a while more
    POST   /api/keys/ID/revoke                 it counts no more
    GET    /api/exams/QUIZ/roster              the roster, in pages
    DELETE /api/exams/QUIZ/roster/STUDENT      take off it who has not joined
    GET    /api/exams/QUIZ/proctors            who is assigned
    POST   /api/exams/QUIZ/proctors            assign
    DELETE /api/exams/QUIZ/proctors/PROCTOR    take off; their tokens for this exam count no more
    POST   /api/exams/QUIZ/purge               delete all about a closed exam's students
    POST   /api/purge                          the same for all exams that closed so many days ago
    GET    /api/audit                          who did what, in pages

For a school's key only. Whatever changes something is in the audit log, before it is done.
"""

from __future__ import annotations

import itertools
import secrets
import time
from typing import Annotated, Any

import msgspec
from flask import Flask, Response, request
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from adapters.web import audit
from adapters.web.access import KEY_PREFIX, KeyRing, digest_of, holder_of
from adapters.web.audit import AuditLine, audit_line
from adapters.web.openapi import operation
from adapters.web.ports import Ports, Purged
from adapters.web.problems import Problem
from adapters.web.records import Assignment, ExamRecord, Records, School, SchoolKey
from adapters.web.requests import (
    AuditQuery,
    ListQuery,
    audit_cursor_of,
    bad_field,
    checked_quiz_id,
    cursor_of,
    read_audit_request,
    read_body,
    read_list_request,
)
from adapters.web.settings import KeyHolder, WebSettings
from core.journal import audit_position
from core.messages import Id
from core.participant import ExamKey
from core.revocation import Revocation
from core.roster import RosterLine

_REVOKED_HOURS = 24.0 * 31
"""As long as a token may hold."""
_PURGE_SECONDS = 15.0
"""For one request: API Gateway waits for 30 s."""
_DAY_SECONDS = 86_400.0

_Name = Annotated[str, Meta(max_length=200)]


# --- bodies ------------------------------------------------------------------------------------------------------------------


class SchoolRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is absent stays. `retention_days` null: exams are kept until the deployment's own limit."""

    name: _Name | UnsetType = UNSET
    retention_days: Annotated[float, Meta(ge=1, le=3650)] | UnsetType | None = UNSET


class SchoolAnswer(Struct, frozen=True):
    """A school."""

    school: str
    name: str
    retention_days: float | None
    server_time: float


class KeyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A key for what its `label` says, for so many `days`; absent: until it is revoked."""

    label: _Name = ""
    days: Annotated[float, Meta(gt=0, le=3_650)] | None = None


class RotateRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """For how long the old key counts beside the new one."""

    overlap_hours: Annotated[float, Meta(ge=0, le=720)] = 24.0


class EmptyRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say, so far."""


class NewKeyAnswer(Struct, frozen=True):
    """A new key: `key` is shown this once. `replaces`: the id of the one that it was rotated in for."""

    key: str
    key_id: str
    label: str
    expires_at: float | None
    replaces: str | None
    server_time: float


class KeyLine(Struct, frozen=True):
    """A key on record. `state`: active, expired or revoked."""

    key_id: str
    label: str
    state: str
    created_at: float
    created_by: str
    expires_at: float | None
    revoked_at: float | None


class KeysAnswer(Struct, frozen=True):
    """A school's keys on record; those that the operator configured are not among them."""

    keys: list[KeyLine]
    server_time: float


class RosterPage(Struct, frozen=True):
    """A page of a roster, by student id."""

    quiz_id: str
    students: list[RosterLine]
    next_cursor: str | None
    server_time: float


class RemovedAnswer(Struct, frozen=True):
    """The student is off the roster and out of the exam."""

    quiz_id: str
    student_id: str
    removed: bool


class ProctorLine(Struct, frozen=True, forbid_unknown_fields=True):
    """A proctor to assign. With a `group` they see and act on that group only."""

    proctor_id: Id
    name: _Name = ""
    group: Annotated[str, Meta(max_length=64)] = ""


class ProctorsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Proctors to assign, beside those who are."""

    proctors: Annotated[list[ProctorLine], Meta(min_length=1, max_length=200)]


class ProctorsAnswer(Struct, frozen=True):
    """The proctors of an exam. None: any proctor of the school may watch it."""

    quiz_id: str
    proctors: list[Assignment]
    server_time: float


class PurgeExamRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`confirm`: the exam's id, because this can't be undone."""

    confirm: Id


class PurgeExamAnswer(Struct, frozen=True):
    """How many items are gone. Send the same request again while `done` is false."""

    quiz_id: str
    deleted: int
    done: bool


class PurgeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """`confirm`: the school's id. `older_than_days`: since they closed; absent: as the school's `retention_days` says."""

    confirm: str
    older_than_days: Annotated[float, Meta(ge=0, le=3_650)] | None = None


class PurgeAnswer(Struct, frozen=True):
    """Which exams are gone, and how many items. Send the same request again while `done` is false."""

    purged: list[str]
    deleted: int
    done: bool


class AuditPage(Struct, frozen=True):
    """A page of the audit log."""

    entries: list[AuditLine]
    next_cursor: str | None
    server_time: float


# --- routes ------------------------------------------------------------------------------------------------------------------


def register(app: Flask, ports: Ports, settings: WebSettings, ring: KeyRing) -> None:
    """Add the routes to the app."""
    assert settings.records is not None  # `create_app` sees to it
    routes = _Administration(ports, settings, settings.records, ring)
    exam = "/api/exams/<quiz_id>"
    for rule, view, method in (
        ("/api/school", routes.school, "GET"),
        ("/api/school", routes.change_school, "POST"),
        ("/api/keys", routes.keys, "GET"),
        ("/api/keys", routes.make_key, "POST"),
        ("/api/keys/<key_id>/rotate", routes.rotate_key, "POST"),
        ("/api/keys/<key_id>/revoke", routes.revoke_key, "POST"),
        (f"{exam}/roster", routes.roster_page, "GET"),
        (f"{exam}/roster/<student_id>", routes.remove_student, "DELETE"),
        (f"{exam}/proctors", routes.proctors, "GET"),
        (f"{exam}/proctors", routes.assign, "POST"),
        (f"{exam}/proctors/<proctor_id>", routes.unassign, "DELETE"),
        (f"{exam}/purge", routes.purge_exam, "POST"),
        ("/api/purge", routes.purge, "POST"),
        ("/api/audit", routes.audit, "GET"),
    ):
        app.add_url_rule(rule, view_func=view, methods=[method])


class _Administration:
    def __init__(self, ports: Ports, settings: WebSettings, records: Records, ring: KeyRing) -> None:
        self._ports = ports
        self._settings = settings
        self._records = records
        self._ring = ring

    # --- the school and its keys ---

    @operation(callers=("school",), answers={200: SchoolAnswer})
    def school(self) -> Response:
        """The school, and for how long it keeps exams after they closed."""
        return self._school_answer(self._known_school(self._holder().school))

    @operation(callers=("school",), body=SchoolRequest, answers={200: SchoolAnswer})
    def change_school(self) -> Response:
        """Change the school's name, or for how long it keeps exams."""
        holder = self._holder()
        wanted = read_body(request, SchoolRequest)
        school = self._known_school(holder.school)
        if wanted.name is not UNSET:
            school = replace(school, name=wanted.name)
        if wanted.retention_days is not UNSET:
            days = "" if wanted.retention_days is None else f"{wanted.retention_days:g}"
            self._note(holder, "", "retention", "retention_days", after=days)
            school = replace(school, retention_days=wanted.retention_days)
        self._records.put_school(school)
        return self._school_answer(school)

    @operation(callers=("school",), answers={200: KeysAnswer})
    def keys(self) -> Response:
        """The school's keys on record, without the keys themselves."""
        now = self._ports.now()
        lines = [_key_line(key, now) for key in self._records.keys(self._holder().school)]
        return _json(KeysAnswer(lines, self._server_time()))

    @operation(callers=("school",), body=KeyRequest, answers={201: NewKeyAnswer})
    def make_key(self) -> Response:
        """A new key for this school. The answer is the only one that shows it."""
        holder = self._holder()
        wanted = read_body(request, KeyRequest)
        now = self._ports.now()
        expires_at = None if wanted.days is None else now + wanted.days * _DAY_SECONDS
        return self._new_key(holder, wanted.label, expires_at, None)

    @operation(callers=("school",), body=RotateRequest, answers={201: NewKeyAnswer}, conflicts=True)
    def rotate_key(self, key_id: str) -> Response:
        """A new key in the place of this one, which counts for a while more: so that an LMS can change it without a gap."""
        holder = self._holder()
        wanted = read_body(request, RotateRequest)
        old, now = self._known_key(holder.school, key_id), self._ports.now()
        if old.state(now) != "active":
            detail = f"key {key_id} is {old.state(now)}; make a new one with POST /api/keys"
            raise Problem(409, "not_active", detail, field="key_id")
        answer = self._new_key(holder, old.label, None, key_id)
        until = now + wanted.overlap_hours * 3_600
        self._put_key(replace(old, expires_at=until if old.expires_at is None else min(until, old.expires_at)))
        return answer

    @operation(callers=("school",), body=EmptyRequest, answers={200: KeyLine})
    def revoke_key(self, key_id: str) -> Response:
        """The key counts no more: here at once, in other processes within half a minute."""
        holder = self._holder()
        read_body(request, EmptyRequest)
        key, now = self._known_key(holder.school, key_id), self._ports.now()
        if key.revoked_at is None:
            self._note(holder, "", "key_revoked", key_id)
            key = replace(key, revoked_at=now)
            self._put_key(key)
        return _json(_key_line(key, now))

    # --- who takes an exam, and who watches it ---

    @operation(callers=("school",), query=ListQuery, answers={200: RosterPage})
    def roster_page(self, quiz_id: str) -> Response:
        """The exam's roster in pages, by student id. Who joined without being on it is among the participants only."""
        exam = ExamKey(self._holder().school, checked_quiz_id(quiz_id))
        asked = read_list_request(request.args)
        self._known_exam(exam)
        found = list(itertools.islice(self._records.lines(exam, asked.after), asked.limit + 1))
        page = found[: asked.limit]
        cursor = cursor_of(str(page[-1].student_id)) if len(found) > len(page) else None
        return _json(RosterPage(quiz_id, page, cursor, self._server_time()))

    @operation(callers=("school",), answers={200: RemovedAnswer}, conflicts=True)
    def remove_student(self, quiz_id: str, student_id: str) -> Response:
        """Take a student off the roster and out of the exam, if they have not joined; else 409.

        Who has joined stays, with all that happened: end their attempt with the command `terminate`. A token that the student has
        already still lets them in.
        """
        holder = self._holder()
        exam = ExamKey(holder.school, checked_quiz_id(quiz_id))
        removed = self._ports.remove(exam, student_id)
        if removed == "joined":
            detail = f"student_id: {student_id} has joined; end their attempt with the command terminate instead"
            raise Problem(409, "has_joined", detail, field="student_id")
        if not self._records.drop_line(exam, student_id) and removed == "unknown":
            detail = (
                f"student_id: no student {student_id} in exam {quiz_id}; its roster is GET /api/exams/{quiz_id}/roster"
            )
            raise Problem(404, "not_found", detail, field="student_id")
        self._note(holder, quiz_id, "roster_removed", student_id)
        return _json(RemovedAnswer(quiz_id, student_id, True))

    @operation(callers=("school",), answers={200: ProctorsAnswer})
    def proctors(self, quiz_id: str) -> Response:
        """Who is assigned to the exam. If nobody is, any proctor of the school may watch it."""
        exam = ExamKey(self._holder().school, checked_quiz_id(quiz_id))
        self._known_exam(exam)
        return self._proctors_answer(exam)

    @operation(callers=("school",), body=ProctorsRequest, answers={200: ProctorsAnswer}, makes=True)
    def assign(self, quiz_id: str) -> Response:
        """Assign proctors. From the first one on, only those who are assigned get tokens, and read or act over HTTP."""
        holder = self._holder()
        exam = ExamKey(holder.school, checked_quiz_id(quiz_id))
        wanted = read_body(request, ProctorsRequest)
        remember_exam(self._records, exam, self._ports.now())
        for proctor in wanted.proctors:
            proctor_id = str(proctor.proctor_id)
            self._note(holder, quiz_id, "assigned", proctor_id, after=proctor.group)
            given = Assignment(proctor_id, proctor.name, proctor.group, self._ports.now(), holder.actor)
            self._records.assign(exam, given)
            self._ports.allow(Revocation(exam.school, "proctor", quiz_id, proctor_id))
        return self._proctors_answer(exam)

    @operation(callers=("school",), answers={200: ProctorsAnswer})
    def unassign(self, quiz_id: str, proctor_id: str) -> Response:
        """Take a proctor off the exam: their tokens for it count no more, and their sockets are closed."""
        holder = self._holder()
        exam = ExamKey(holder.school, checked_quiz_id(quiz_id))
        if all(each.proctor_id != proctor_id for each in self._records.assignments(exam)):
            detail = f"proctor_id: {proctor_id} is not assigned to exam {quiz_id}"
            raise Problem(404, "not_found", detail, field="proctor_id")
        self._note(holder, quiz_id, "unassigned", proctor_id)
        self._ports.revoke(Revocation(exam.school, "proctor", quiz_id, proctor_id), _REVOKED_HOURS)
        self._records.unassign(exam, proctor_id)
        return self._proctors_answer(exam)

    # --- what is kept ---

    @operation(callers=("school",), body=PurgeExamRequest, answers={200: PurgeExamAnswer}, conflicts=True)
    def purge_exam(self, quiz_id: str) -> Response:
        """Delete all that is kept about a closed exam's students: live records, journal, conversation, roster, assignments.

        The exam stays in the school's list, and what people did in the audit log. Students' tokens for it count no more until it
        is opened again.
        """
        holder = self._holder()
        exam = ExamKey(holder.school, checked_quiz_id(quiz_id))
        wanted = read_body(request, PurgeExamRequest)
        if str(wanted.confirm) != quiz_id:
            raise bad_field("confirm", f"not the id of the exam; to delete all about {quiz_id}, repeat it here")
        self._check_closed(exam)
        purged = self._purge(holder, exam, time.monotonic() + _PURGE_SECONDS)
        return _json(PurgeExamAnswer(quiz_id, purged.items, purged.done))

    @operation(callers=("school",), body=PurgeRequest, answers={200: PurgeAnswer})
    def purge(self) -> Response:
        """Purge every exam that closed so many days ago: for a scheduled job."""
        holder = self._holder()
        wanted = read_body(request, PurgeRequest)
        if wanted.confirm != holder.school:
            raise bad_field("confirm", "not the id of the school that this key is for")
        days = wanted.older_than_days
        if days is None:
            days = self._known_school(holder.school).retention_days
        if days is None:
            raise bad_field("older_than_days", "missing, and the school has no retention_days; give one of them")
        before, until = self._ports.now() - days * _DAY_SECONDS, time.monotonic() + _PURGE_SECONDS
        names, total = [], Purged(0, True)
        for record in self._records.exams(holder.school):
            if record.purged_at is not None or not self._closed_before(record, before):
                continue
            if time.monotonic() >= until:
                total += Purged(0, False)
                break
            purged = self._purge(holder, record.key, until)
            total += purged
            if purged.done:
                names.append(record.quiz_id)
        return _json(PurgeAnswer(names, total.items, total.done))

    @operation(callers=("school",), query=AuditQuery, answers={200: AuditPage})
    def audit(self) -> Response:
        """Who did what: commands, openings, keys, rosters, assignments, exports, files, purges; of an exam, or of all."""
        school = self._holder().school
        asked = read_audit_request(request.args)
        entries = self._ports.audit(school, asked.after, newest_first=asked.order == "newest")
        if asked.quiz_id is not None:
            entries = (entry for entry in entries if entry.quiz_id == asked.quiz_id)
        found = list(itertools.islice(entries, asked.limit + 1))
        page = found[: asked.limit]
        cursor = audit_cursor_of(audit_position(page[-1])) if len(found) > len(page) else None
        return _json(AuditPage([audit_line(entry) for entry in page], cursor, self._server_time()))

    # --- inside ---

    def _holder(self) -> KeyHolder:
        return holder_of(request, self._settings)

    def _note(self, holder: KeyHolder, quiz_id: str, cause: str, reference: str, **fields: Any) -> None:
        audit.note(self._ports, ExamKey(holder.school, quiz_id), holder.actor, cause, reference, **fields)

    def _known_school(self, school: str) -> School:
        return self._records.school(school) or School(school, created_at=self._ports.now())

    def _school_answer(self, school: School) -> Response:
        return _json(SchoolAnswer(school.school, school.name, school.retention_days, self._server_time()))

    def _new_key(self, holder: KeyHolder, label: str, expires_at: float | None, replaces: str | None) -> Response:
        key, given = new_key(holder.school, label, self._ports.now(), holder.actor, expires_at)
        self._note(holder, "", "key_made" if replaces is None else "key_rotated", key.key_id, before=replaces or "")
        if not self._records.add_key(key):
            raise AssertionError("two random keys are the same")
        return _json(NewKeyAnswer(given, key.key_id, label, expires_at, replaces, self._server_time()), 201)

    def _known_key(self, school: str, key_id: str) -> SchoolKey:
        found = next((key for key in self._records.keys(school) if key.key_id == key_id), None)
        if found is None:
            detail = f"key_id: there is no key {key_id} on record; GET /api/keys lists them"
            raise Problem(404, "not_found", detail, field="key_id")
        return found

    def _put_key(self, key: SchoolKey) -> None:
        self._records.put_key(key)
        self._ring.forget(key.digest)

    def _known_exam(self, exam: ExamKey) -> None:
        if self._records.exam(exam) is None and self._ports.load_exam(exam) is None:
            detail = f"there is no exam {exam.quiz_id}; open it with POST /api/exams/{exam.quiz_id}/open"
            raise Problem(404, "not_found", detail)

    def _proctors_answer(self, exam: ExamKey) -> Response:
        return _json(ProctorsAnswer(exam.quiz_id, self._records.assignments(exam), self._server_time()))

    def _check_closed(self, exam: ExamKey) -> None:
        """Raises `Problem` for an exam that is open, was closed this minute, or of which nothing is known."""
        live = self._ports.load_exam(exam)
        if live is None:
            known = self._records.exam(exam) is not None
            if not known and next(self._ports.timeline(exam, None, None, newest_first=False), None) is None:
                raise Problem(404, "not_found", f"nothing is known of an exam {exam.quiz_id}")
            return
        if live.state != "closed":
            detail = f"exam {exam.quiz_id} is {live.state}; close it first with POST /api/exams/{exam.quiz_id}/close"
            raise Problem(409, "not_closed", detail)
        wait = live.version / 1000 + self._settings.purge_after_seconds - self._ports.now()
        if wait > 0:
            detail = f"exam {exam.quiz_id} was closed a moment ago; what is on its way to the journal is there in {wait:.0f} s"
            raise Problem(409, "not_closed", detail, headers={"Retry-After": str(int(wait) + 1)})

    def _closed_before(self, record: ExamRecord, before: float) -> bool:
        live = self._ports.load_exam(record.key)
        if live is not None:
            closed_at = live.version / 1000 if live.state == "closed" else None
        else:
            closed_at = record.closed_at or record.opened_at
        return closed_at is not None and closed_at < min(before, self._ports.now() - self._settings.purge_after_seconds)

    def _purge(self, holder: KeyHolder, exam: ExamKey, until: float) -> Purged:
        self._note(holder, exam.quiz_id, "purged", exam.quiz_id)
        # a page that is still open would begin the exam anew with its next report
        self._ports.revoke(Revocation(exam.school, "student", exam.quiz_id), _REVOKED_HOURS)
        purged = self._ports.purge(exam, max(1.0, until - time.monotonic()))
        purged += Purged(self._records.purge(exam), True)
        if purged.done:
            known = self._records.exam(exam) or ExamRecord(*exam, created_at=self._ports.now())
            self._records.put_exam(replace(known, purged_at=self._ports.now()))
        return purged

    def _server_time(self) -> float:
        return round(self._ports.now() * 1000, 3)


def new_key(
    school: str, label: str, now: float, created_by: str, expires_at: float | None = None
) -> tuple[SchoolKey, str]:
    """A key's record, and the key itself, which is kept nowhere."""
    key_id, given = secrets.token_hex(6), KEY_PREFIX + secrets.token_urlsafe(32)
    return SchoolKey(school, key_id, digest_of(given), label, now, created_by, expires_at), given


def remember_exam(records: Records, exam: ExamKey, now: float, **changed: Any) -> None:
    """See that the school's list has the exam, with what changed."""
    known = records.exam(exam)
    wanted = replace(known or ExamRecord(*exam, created_at=now), **changed)
    if wanted != known:
        records.put_exam(wanted)


def _key_line(key: SchoolKey, now: float) -> KeyLine:
    return KeyLine(
        key.key_id, key.label, key.state(now), key.created_at, key.created_by, key.expires_at, key.revoked_at
    )


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, content_type="application/json")
