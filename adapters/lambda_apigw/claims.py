"""A principal as the authorizer's context: strings, which API Gateway puts into every later event of the connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from core.errors import TokenRejected
from core.identity import Principal, principal_of


def context_of(principal: Principal) -> dict[str, str]:
    """The claims as strings; what is empty is left out. The lists are JSON, because a context holds none."""
    context = {
        "role": principal.role,
        "school": principal.school,
        "sub": principal.subject,
        "quiz_id": msgspec.json.encode(principal.quiz_ids).decode(),
        "exp": repr(principal.expires_at),
        "quiz_attempt_id": principal.attempt_id,
        "name": principal.name,
        "group": principal.group,
        "endpoints": msgspec.json.encode(principal.endpoints).decode() if principal.endpoints else "",
    }
    return {name: value for name, value in context.items() if value}


def principal_in(context: Mapping[str, Any]) -> Principal | None:
    """The principal of an event's `requestContext.authorizer`; None if our authorizer did not make it."""
    try:
        return principal_of(
            {
                **context,
                "quiz_id": msgspec.json.decode(context["quiz_id"], type=list[str]),
                "exp": float(context["exp"]),
                "endpoints": msgspec.json.decode(context.get("endpoints", "[]"), type=list[str]),
            }
        )
    except (KeyError, ValueError, TokenRejected):
        return None
