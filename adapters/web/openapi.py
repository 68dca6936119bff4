"""The OpenAPI document of the API, made of what the routes say about themselves.

A route's function is marked by `operation` with the structs that its query and body are read into and its answer is written from;
its docstring is the text, and which problems may follow is worked out from all that. So the document can't tell of another API than
the code has. It is made when somebody first asks for it: a cold start pays nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from flask import Flask, Response
from msgspec import Struct
from werkzeug.routing import Rule

from adapters.web import problems
from core.policy import Policy

VERSION = "1"
_SCHEMAS = "#/components/schemas/{name}"
_INTRODUCTION = """\
Exam monitoring for a school's LMS. A school authenticates by its key and sees its own exams only; where a proctor's token is
named, the token that a dashboard watches with is enough. Errors are problem details (RFC 9457): `code` is for programs, `field`
and `detail` say what to change. Requests may be repeated."""

Caller: TypeAlias = Literal["school", "proctor"]
_SECURITY = {
    "school": {"type": "http", "scheme": "bearer", "description": "The school's key"},
    "schoolHeader": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "The school's key"},
    "proctor": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A proctor's token"},
}
_PROBLEMS = {
    400: "The body is not JSON",
    401: "The key or token is missing or not known",
    403: "Not for this bearer",
    404: "There is no such thing, or not for this bearer",
    409: "What is there does not allow it now; `detail` says what first",
    413: "The body is too large",
    415: "The body is of another type, or does not say of which",
    422: "A field is wrong; `field` names it",
    429: "This key asks too often; `Retry-After` tells when to come again",
    503: "The store can't be reached; the same request may succeed in a moment",
}
_QUIZ_ID = {
    "name": "quiz_id",
    "in": "path",
    "required": True,
    "description": "The exam",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^/]+$"},
    "example": "math",
}
_ID = {"in": "path", "required": True, "schema": _QUIZ_ID["schema"]}
_IDS: dict[str, dict[str, Any]] = {
    "quiz_id": _QUIZ_ID,
    "student_id": {**_ID, "description": "The student", "example": "s1"},
    "proctor_id": {**_ID, "description": "The proctor", "example": "p1"},
    "key_id": {**_ID, "description": "The id of a key on record", "example": "0123456789ab"},
}
_PATH = {"name": "path", "in": "path", "required": True, "schema": {"type": "string"}, "example": "proctorwire.js"}

_F = TypeVar("_F", bound=Callable[..., Any])


class Operation(Struct, frozen=True, kw_only=True):
    """What a route takes and gives. `makes`: it may make what its path names, so that nothing need be there.

    `answers` are structs or media types by status; `links`: an answer may go on at the address in its header Link; `conflicts`: the
    state of what it names may not allow it; `forbids`: nor may the school's own rules.
    """

    answers: dict[int, type | str]
    callers: tuple[Caller, ...] = ()
    query: type | None = None
    body: type | str | None = None
    makes: bool = False
    stores: bool = True
    links: bool = False
    conflicts: bool = False
    forbids: bool = False


def operation(**fields: Any) -> Callable[[_F], _F]:
    """Mark a route's function with its `Operation`."""

    def mark(function: _F) -> _F:
        function.operation = Operation(**fields)  # type: ignore[attr-defined]
        return function

    return mark


def operations(app: Flask) -> Iterator[tuple[Rule, str, Callable[..., Any], Operation]]:
    """Every rule of the app with its method, function and mark. Raises `LookupError` for a function without one."""
    for rule in sorted(app.url_map.iter_rules(), key=str):
        view = app.view_functions[rule.endpoint]
        known: Operation | None = getattr(view, "operation", None)
        if known is None:
            raise LookupError(f"{rule} is not marked by adapters.web.openapi.operation, so the document would lack it")
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method.lower(), view, known


def register(app: Flask) -> None:
    """Serve the document."""

    @functools.cache
    def content() -> bytes:
        return msgspec.json.encode(document(app))

    @operation(answers={200: "application/json"}, stores=False)
    def openapi() -> Response:
        """This document."""
        return Response(content(), content_type="application/json", headers={"Cache-Control": "max-age=300"})

    app.add_url_rule("/api/openapi.json", view_func=openapi)


def document(app: Flask) -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    marked = list(operations(app))
    structs = {part for *_, known in marked for part in (*known.answers.values(), known.body) if isinstance(part, type)}
    queries = {known.query for *_, known in marked if known.query is not None}
    ordered: list[type] = sorted({*structs, problems.ProblemDetails, Policy}, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=_SCHEMAS)
    schemas[Policy.__name__]["additionalProperties"] = False  # `requests` refuses a misspelt rule
    _, parameters = msgspec.json.schema_components(queries, ref_template=_SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for rule, method, view, known in marked:
        query = [] if known.query is None else _parameters(parameters[known.query.__name__])
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(rule))
        paths.setdefault(path, {})[method] = _operation(rule, view, known, query)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Proctorwire",
            "version": VERSION,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": _SECURITY,
            "responses": {f"Problem{status}": _problem(text) for status, text in _PROBLEMS.items()},
        },
    }


def _operation(rule: Rule, view: Callable[..., Any], known: Operation, query: list[dict[str, Any]]) -> dict[str, Any]:
    text = re.sub(r"\s+", " ", view.__doc__ or "").strip()
    described: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_"),
        "summary": text.partition(". ")[0].rstrip("."),
        "description": text,
        "security": [
            {name: []} for name in ("school", "schoolHeader", "proctor") if name.partition("H")[0] in known.callers
        ],
    }
    parameters = [
        _PATH if name == "path" else {"name": name, **_IDS[name]}
        for name in sorted(rule.arguments - set(rule.defaults or ()))
    ]
    if parameters or query:
        described["parameters"] = parameters + query
    if known.body is not None:
        required = isinstance(known.body, str) or bool(getattr(known.body, "__struct_fields__", ()))
        described["requestBody"] = {"required": required, "content": _content(known.body)}
    described["responses"] = {
        str(status): _answer(status, kind, links=known.links) for status, kind in sorted(known.answers.items())
    } | {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in _statuses(rule, known)}
    return described


def _statuses(rule: Rule, known: Operation) -> Iterable[int]:
    """Which problems may follow, from what the route takes."""
    found: set[int] = set()
    if known.callers:
        found |= {401}
    if "proctor" in known.callers or known.forbids:
        found |= {403}
    if rule.arguments - set(rule.defaults or ()):
        found |= {422} if known.makes else {404, 422}
    if known.query is not None:
        found |= {422}
    if known.conflicts:
        found |= {409}
    if known.body is not None:
        found |= {413, 415, 422} | (set() if known.body == "text/csv" else {400})
    if str(rule).startswith("/api/"):
        found |= {429}
    if known.stores:
        found |= {503}
    return sorted(found)


def _name(kind: Any) -> str:
    return str(kind.__name__)


def _content(kind: type | str) -> dict[str, Any]:
    """The media type and schema of a body. A CSV file and a page are text; what has no struct is any object."""
    if not isinstance(kind, str):
        return {"application/json": {"schema": {"$ref": _SCHEMAS.format(name=_name(kind))}}}
    schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    return {kind: {"schema": schema}}


def _answer(status: int, kind: type | str, *, links: bool) -> dict[str, Any]:
    described = {"description": HTTPStatus(status).phrase, "content": _content(kind)}
    if links:
        text = 'If the file is longer than one answer: where it goes on, as `<...>; rel="next"`'
        described["headers"] = {"Link": {"description": text, "schema": {"type": "string"}}}
    return described


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS.format(name=problems.ProblemDetails.__name__)}
    return {"description": text, "content": {problems.MEDIA_TYPE: {"schema": schema}}}


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A query's fields as parameters. What may be absent is null in the struct, which a query can't say."""
    found = []
    for name, described in schema["properties"].items():
        if described.get("default", "") is None:
            (described,) = (each for each in described["anyOf"] if each != {"type": "null"})
        found.append({"name": name, "in": "query", "required": name in schema["required"], "schema": described})
    return found
