"""The authorizer of `$connect`: a token in, a policy and the claims out.

The token comes as the subprotocol `bearer.TOKEN` beside `proctorwire`, or as `?token=` from clients that can't set one; so the
API's identity source must be empty, or API Gateway would answer 401 itself to one of the two. Missing, malformed or expired is
401, for which a Lambda authorizer raises exactly `Unauthorized`; ours, but not for this, is 403, a policy that denies. The token
is never logged.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import jwt  # noqa: F401  `core.identity` imports it late; here that is wanted in INIT, which is quicker and not waited for
from aws_lambda_powertools import Logger

from adapters.lambda_apigw import config
from adapters.lambda_apigw.claims import context_of
from adapters.lambda_apigw.rights import TOKEN_KEYS, may
from adapters.lambda_apigw.tokens import keys
from core.errors import TokenRejected
from core.identity import token_of, verify

logger = Logger(service="proctorwire")


class Unauthorized(Exception):
    """API Gateway answers 401 if the authorizer fails with this very word."""

    def __init__(self) -> None:
        super().__init__("Unauthorized")


@functools.cache
def _settings() -> config.Settings:
    return config.from_environment()


@may(TOKEN_KEYS)
def on_authorize(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Allow the connection, with the claims as its context, or refuse it."""
    query = event.get("queryStringParameters") or {}
    try:
        settings = _settings()
        token = token_of(_offered(event), query.get("token"))
        principal = verify(token, keys(settings), time.time(), settings.audience)
    except TokenRejected as rejected:
        connection = event["requestContext"].get("connectionId")
        logger.info("a token was refused", reason=rejected.message, status=rejected.status, connection=connection)
        if rejected.status == 403:
            return _policy("refused", "Deny", event["methodArn"], {})
        raise Unauthorized from None
    return _policy(principal.subject, "Allow", event["methodArn"], context_of(principal))


def _offered(event: dict[str, Any]) -> list[str]:
    """The subprotocols that the client offers; header names come in the client's own spelling."""
    for name, values in (event.get("multiValueHeaders") or {}).items():
        if name.lower() == "sec-websocket-protocol":
            return [part.strip() for value in values for part in value.split(",")]
    for name, value in (event.get("headers") or {}).items():
        if name.lower() == "sec-websocket-protocol":
            return [part.strip() for part in value.split(",")]
    return []


def _policy(principal_id: str, effect: str, resource: str, context: dict[str, str]) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    return {
        "principalId": principal_id,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": context,
    }
