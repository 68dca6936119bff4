"""The events a WebSocket API hands to Lambda, field by field as captured on AWS.

Only MESSAGE has `messageId` and no headers; only DISCONNECT has a status code and a reason; `authorizer` is on all of
them if there is an authorizer. Sources: "API Gateway WebSocket API mapping template reference" for the context
variables, the WebSocket models of Powertools for AWS Lambda for their presence.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

Event = dict[str, Any]


class Ids:
    """Connection, request and message ids: 11 bytes in url-safe base64, so 15 characters and `=`, time first."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def next(self) -> str:
        """A fresh id. Those made within a few seconds of each other share their first characters, as on AWS."""
        value = (int(time.time() * 4) & 0xFFFFFFFF) << 56 | self._rng.getrandbits(56)
        return base64.urlsafe_b64encode(value.to_bytes(11, "big")).decode()


class Upgrade:
    """The parts of an upgrade request that reach a function: headers in their original case, query, peer."""

    def __init__(
        self, headers: Iterable[tuple[str, str]], query: str, source_ip: str, port: int, trace_id: str
    ) -> None:
        self.multi_headers: dict[str, list[str]] = {}
        for name, value in headers:
            if name.lower() not in ("connection", "upgrade"):
                self.multi_headers.setdefault(name, []).append(value)
        forwarded = {
            "X-Amzn-Trace-Id": trace_id,
            "X-Forwarded-For": source_ip,
            "X-Forwarded-Port": str(port),
            "X-Forwarded-Proto": "http",
        }
        self.multi_headers.update((name, [value]) for name, value in forwarded.items())
        self.multi_query: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            self.multi_query.setdefault(name, []).append(value)
        self.source_ip = source_ip
        self.user_agent = self.header("user-agent")
        self.host = self.header("host")

    def header(self, name: str) -> str:
        """The last value of a header, whatever its case; empty if absent."""
        for key, values in self.multi_headers.items():
            if key.lower() == name.lower():
                return values[-1]
        return ""

    def fields(self) -> Event:
        """Headers and, only if there is a query, its parameters, as they stand in an event."""
        event: Event = {
            "headers": {name: values[-1] for name, values in self.multi_headers.items()},
            "multiValueHeaders": self.multi_headers,
        }
        if self.multi_query:
            event["queryStringParameters"] = {name: values[-1] for name, values in self.multi_query.items()}
            event["multiValueQueryStringParameters"] = self.multi_query
        return event


class ContextTemplate:
    """What the `requestContext` of one connection's events has in common, and the events built from it."""

    def __init__(
        self,
        *,
        connection_id: str,
        connected_at_ms: int,
        api_id: str,
        stage: str,
        domain_name: str,
        account_id: str,
        region: str,
        upgrade: Upgrade,
        stage_variables: dict[str, str],
    ) -> None:
        self._method_arn = f"arn:aws:execute-api:{region}:{account_id}:{api_id}/{stage}/$connect"
        self._upgrade = upgrade
        self._stage_variables = stage_variables
        self.authorizer: dict[str, Any] | None = None
        identity = {"sourceIp": upgrade.source_ip}
        if upgrade.user_agent:
            identity["userAgent"] = upgrade.user_agent
        self._common: Event = {
            "messageDirection": "IN",
            "stage": stage,
            "connectedAt": connected_at_ms,
            "identity": identity,
            "domainName": domain_name,
            "connectionId": connection_id,
            "apiId": api_id,
        }

    def _context(self, route_key: str, event_type: str, request_id: str, now: float) -> Event:
        context = {
            "routeKey": route_key,
            "eventType": event_type,
            "extendedRequestId": request_id,
            "requestTime": _request_time(int(now)),
            "requestTimeEpoch": int(now * 1000),
            "requestId": request_id,
            **self._common,
        }
        if self.authorizer is not None:
            context["authorizer"] = self.authorizer
        return context

    def _event(self, context: Event) -> Event:
        event: Event = {"requestContext": context, "isBase64Encoded": False}
        if self._stage_variables:
            event["stageVariables"] = self._stage_variables
        return event

    def authorize(self, request_id: str, now: float) -> Event:
        """What a REQUEST authorizer is given. Source: "Control access with AWS Lambda REQUEST authorizers"."""
        return {
            "type": "REQUEST",
            "methodArn": self._method_arn,
            **self._upgrade.fields(),
            "stageVariables": self._stage_variables,
            "requestContext": self._context("$connect", "CONNECT", request_id, now),
        }

    @property
    def method_arn(self) -> str:
        """The ARN an authorizer's policy must allow."""
        return self._method_arn

    def connect(self, request_id: str, now: float) -> Event:
        """The `$connect` event: the only one with the client's headers and query."""
        return {
            **self._upgrade.fields(),
            **self._event(self._context("$connect", "CONNECT", request_id, now)),
        }

    def message(self, route_key: str, body: str, request_id: str, message_id: str, now: float) -> Event:
        """A message; its body is the text of the frame, and absent when the frame is empty."""
        context = self._context(route_key, "MESSAGE", request_id, now)
        context["messageId"] = message_id
        event = self._event(context)
        if body:
            event["body"] = body
        return event

    def disconnect(self, code: int, reason: str, request_id: str, now: float) -> Event:
        """The `$disconnect` event; its headers are the four that AWS sends."""
        headers = {"Host": self._upgrade.host, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}
        context = self._context("$disconnect", "DISCONNECT", request_id, now)
        context["disconnectStatusCode"] = code
        context["disconnectReason"] = reason
        return {
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            **self._event(context),
        }


@lru_cache(maxsize=4)
def _request_time(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))
