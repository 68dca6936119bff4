"""Who calls: a school by its key, or a proctor's page by the token that it watches with.

A school sees all of its exams. A proctor reads the exams, and if the token has one the group, that the token is for; what is not
theirs is answered as what is not there.
"""

from __future__ import annotations

import math

from flask import Request
from msgspec import Struct

from adapters.web.ports import Ports
from adapters.web.problems import Problem
from adapters.web.settings import WebSettings
from core.errors import TokenRejected
from core.identity import Principal, verify
from core.participant import ExamKey

SCHOOL_ACTOR = "api"
"""Who acts with a school's key, as the journal says it."""


class Reader(Struct, frozen=True):
    """Who reads an exam. A `group` bounds what they see; `actor` is a proctor's id or `api`."""

    exam: ExamKey
    actor: str
    group: str = ""


def key_of(request: Request) -> str:
    """The key or token that came with a request, if any did."""
    given = request.authorization
    if given is not None and given.type == "bearer" and given.token:
        return given.token
    return request.headers.get("X-Api-Key", "")


def school_of(request: Request, settings: WebSettings) -> str:
    """The school whose key came with the request. Raises `Problem`."""
    key = key_of(request)
    school = settings.school_keys.school_of(key) if key else None
    if school is None:
        what = "is not known" if key else "is missing"
        raise _unauthorized(f"the school's key {what}; send it as Authorization: Bearer KEY, or as X-Api-Key")
    return school


def reader_of(request: Request, settings: WebSettings, ports: Ports, quiz_id: str) -> Reader:
    """Who wants to read this exam: a school, or a proctor of it. Raises `Problem`."""
    principal = proctor_of(request, settings, ports, quiz_id)
    return Reader(ExamKey(principal.school, quiz_id), principal.subject, principal.group)


def proctor_of(request: Request, settings: WebSettings, ports: Ports, quiz_id: str) -> Principal:
    """The proctor of this exam whose token came with the request; with a school's key, the school itself. Raises `Problem`."""
    given = key_of(request)
    if given.count(".") != 2 or settings.school_keys.school_of(given) is not None:  # a token has three parts
        return Principal("proctor", school_of(request, settings), SCHOOL_ACTOR, (quiz_id,), math.inf)
    try:
        principal = verify(given, settings.token_secrets, ports.now(), settings.audience)
    except TokenRejected as error:
        raise _unauthorized(error.message) from error
    if principal.role != "proctor":
        detail = "only a proctor's token is good for this; ask POST /api/token for one"
        raise Problem(403, "forbidden", detail)
    if not principal.may_watch(ExamKey(principal.school, quiz_id)):
        raise Problem(404, "not_found", f"there is no exam {quiz_id} that this token is for")
    if ports.is_revoked(principal):
        raise _unauthorized("the token was revoked; ask for a new one")
    return principal


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="proctorwire"'})
