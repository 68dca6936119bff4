"""Who calls: a school by its key, or a proctor's page by the token that it watches with.

A school sees all of its exams. A proctor reads the exams, and if the token has one the group, that the token is for; what is not
theirs is answered as what is not there. An exam with assignments is only for the proctors who are assigned to it.

Keys are configured (by the operator, for a start) or recorded (made, rotated and revoked by the school itself). What was read of a
recorded one holds for half a minute in each process, so a revocation does, too.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable

from flask import Request
from msgspec import Struct
from msgspec.structs import replace

from adapters.web.ports import Ports
from adapters.web.problems import Problem
from adapters.web.records import Assignment, Records, RecordsUnavailable, SchoolKey
from adapters.web.settings import KeyHolder, Keys, WebSettings
from core.errors import TokenRejected
from core.identity import Principal, verify
from core.participant import ExamKey

SCHOOL_ACTOR = "api"
"""Who acts with a school's configured key, as the journal says it; with a recorded one it is `api:` and the key's id."""

KEY_PREFIX = "pwk_"
"""What every recorded key begins with, so that scanners for secrets find it and nothing else is looked up."""
_KEY_SECONDS = 30.0
_MOST_KEYS = 10_000


class Reader(Struct, frozen=True):
    """Who reads an exam. A `group` bounds what they see; `actor` is a proctor's id or `api`."""

    exam: ExamKey
    actor: str
    group: str = ""


class KeyRing:
    """The keys of all schools: those configured, and those on record. Safe to use from several threads."""

    def __init__(self, configured: Keys, records: Records, clock: Callable[[], float]) -> None:
        self._configured = configured
        self._records = records
        self._clock = clock
        self._read: OrderedDict[str, tuple[SchoolKey | None, float]] = OrderedDict()
        self._lock = threading.Lock()

    def holder_of(self, presented: str) -> KeyHolder | None:
        """The school of this key, and who acts with it; None if it does not count. May raise `RecordsUnavailable`."""
        configured = self._configured.holder_of(presented)
        if configured is not None:
            return configured
        if not presented.startswith(KEY_PREFIX):
            return None
        key, now = self._key_of(digest_of(presented)), self._clock()
        if key is None or key.state(now) != "active":
            return None
        return KeyHolder(key.school, f"{SCHOOL_ACTOR}:{key.key_id}")

    def forget(self, digest: str) -> None:
        """Read this key again: it was changed here."""
        with self._lock:
            self._read.pop(digest, None)

    def _key_of(self, digest: str) -> SchoolKey | None:
        now = self._clock()
        with self._lock:
            known = self._read.get(digest)
        if known is not None and now < known[1]:
            return known[0]
        try:
            key = self._records.key_of(digest)
        except RecordsUnavailable:
            if known is None:
                raise
            return known[0]  # a school goes on with its key while the records are away
        with self._lock:
            self._read[digest] = (key, now + _KEY_SECONDS)
            if len(self._read) > _MOST_KEYS:
                self._read.popitem(last=False)
        return key


def digest_of(key: str) -> str:
    """What is kept of a recorded key."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_of(request: Request) -> str:
    """The key or token that came with a request, if any did."""
    given = request.authorization
    if given is not None and given.type == "bearer" and given.token:
        return given.token
    return request.headers.get("X-Api-Key", "")


def holder_of(request: Request, settings: WebSettings) -> KeyHolder:
    """The school whose key came with the request, and who acts with it. Raises `Problem`."""
    key = key_of(request)
    holder = settings.school_keys.holder_of(key) if key else None
    if holder is None:
        what = "is not known, or counts no more" if key else "is missing"
        raise _unauthorized(f"the school's key {what}; send it as Authorization: Bearer KEY, or as X-Api-Key")
    return holder


def school_of(request: Request, settings: WebSettings) -> str:
    """The school whose key came with the request. Raises `Problem`."""
    return holder_of(request, settings).school


def reader_of(request: Request, settings: WebSettings, ports: Ports, quiz_id: str) -> Reader:
    """Who wants to read this exam: a school, or a proctor of it. Raises `Problem`."""
    principal = proctor_of(request, settings, ports, quiz_id)
    return Reader(ExamKey(principal.school, quiz_id), principal.subject, principal.group)


def proctor_of(request: Request, settings: WebSettings, ports: Ports, quiz_id: str) -> Principal:
    """The proctor of this exam whose token came with the request; with a school's key, the school itself. Raises `Problem`."""
    given = key_of(request)
    if given.count(".") != 2 or settings.school_keys.holder_of(given) is not None:  # a token has three parts
        holder = holder_of(request, settings)
        return Principal("proctor", holder.school, holder.actor, (quiz_id,), math.inf)
    try:
        principal = verify(given, settings.token_secrets, ports.now(), settings.audience)
    except TokenRejected as error:
        raise _unauthorized(error.message) from error
    if principal.role != "proctor":
        detail = "only a proctor's token is good for this; ask POST /api/token for one"
        raise Problem(403, "forbidden", detail)
    exam = ExamKey(principal.school, quiz_id)
    if not principal.may_watch(exam):
        raise Problem(404, "not_found", f"there is no exam {quiz_id} that this token is for")
    if ports.is_revoked(principal):
        raise _unauthorized("the token was revoked; ask for a new one")
    own = check_assigned(settings.records, exam, principal.subject, principal.group)
    return principal if own is None or not own.group else replace(principal, group=own.group)


def check_assigned(records: Records | None, exam: ExamKey, proctor_id: str, group: str) -> Assignment | None:
    """The proctor's assignment to an exam; None if nobody is assigned to it, so that any proctor of the school may watch.

    Raises `Problem` for a proctor who is not assigned, or to another group only.
    """
    assigned = records.assignments(exam) if records is not None else []
    if not assigned:
        return None
    own = next((each for each in assigned if each.proctor_id == proctor_id), None)
    if own is None:
        detail = (
            f"proctor_id: {proctor_id} is not assigned to exam {exam.quiz_id}; "
            f"assign them with POST /api/exams/{exam.quiz_id}/proctors"
        )
        raise Problem(403, "not_assigned", detail, field="proctor_id")
    if own.group and group and group != own.group:
        detail = f"group: {proctor_id} is assigned to group {own.group} of exam {exam.quiz_id}"
        raise Problem(403, "not_assigned", detail, field="group")
    return own


def bounded(settings: WebSettings, principal: Principal) -> Principal:
    """The proctor whom a token is for, bounded by their assignments. Raises `Problem` if they are not assigned to an exam of it."""
    groups = set()
    for quiz_id in principal.quiz_ids:
        exam = ExamKey(principal.school, quiz_id)
        own = check_assigned(settings.records, exam, principal.subject, principal.group)
        groups.add(principal.group if own is None else own.group or principal.group)
    if len(groups) > 1:
        detail = f"quiz_id: {principal.subject} has other groups in these exams; ask for a token for each"
        raise Problem(422, "bad_field", detail, field="quiz_id")
    return replace(principal, group=groups.pop())


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="proctorwire"'})
