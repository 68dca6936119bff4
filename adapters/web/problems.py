"""Errors as RFC 9457 problem details: `application/problem+json` with a `code` for programs, and a `detail` that names the fix.

`type` is absent, which means `about:blank` (section 4.2.1): the status says what kind of problem it is, `code` which one. `field`
is where it is, as in `roster[3].student_id`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from flask import Flask, Response
from msgspec import Struct
from werkzeug.exceptions import HTTPException

from adapters.web.ports import Unavailable
from adapters.web.records import RecordsUnavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_SECONDS = "1"
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_DETAILS = {
    404: "there is nothing at this path",
    405: "this path does not take this method; the header Allow names those that it does",
    413: "the body is larger than this request may have; send less at a time",
}


class ProblemDetails(Struct, frozen=True, omit_defaults=True):
    """The body of an error. `errors`: each fault of a file, with its row and column."""

    title: str
    status: int
    code: str
    detail: str
    field: str = ""
    errors: tuple[dict[str, str | int], ...] = ()


class Problem(Exception):
    """A request that can't be served, told to the client."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str = "",
        headers: dict[str, str] | None = None,
        errors: Sequence[Struct] = (),
    ) -> None:
        """`errors`: each fault of a file, if there may be several."""
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = headers or {}
        self.errors = errors
        super().__init__(status, code, detail)

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"


def response_of(problem: Problem) -> Response:
    """The answer that a problem stands for."""
    body = ProblemDetails(
        HTTPStatus(problem.status).phrase,
        problem.status,
        problem.code,
        problem.detail,
        problem.field,
        tuple(map(msgspec.structs.asdict, problem.errors)),
    )
    return Response(msgspec.json.encode(body), problem.status, problem.headers, content_type=MEDIA_TYPE)


def register(app: Flask) -> None:
    """Answer every error of the app as a problem. What we did not expect is logged, and told without details."""
    app.register_error_handler(Problem, response_of)
    app.register_error_handler(Unavailable, _unavailable)
    app.register_error_handler(RecordsUnavailable, _unavailable)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _unavailable(error: Unavailable | RecordsUnavailable) -> Response:
    log.warning("unavailable: %s", error)
    detail = "the service can't reach its store right now; send the same request again"
    return response_of(Problem(503, "unavailable", detail, headers={"Retry-After": _RETRY_AFTER_SECONDS}))


def _http(error: HTTPException) -> Response:
    """What the framework refuses: unknown paths, wrong methods, bodies over the limit."""
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    detail = _DETAILS.get(status) or error.description or HTTPStatus(status).phrase
    return response_of(Problem(status, _CODES.get(status, "bad_request"), detail, headers=headers))


def _unexpected(error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return response_of(Problem(500, "internal", "the service failed; it was logged"))
