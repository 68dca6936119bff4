"""What each handler may do on AWS: declared beside it with `may`, in full.

The template's roles allow exactly this (a test compares them), and the tests of the handlers refuse every request that is not
declared. Resources have the names that they have in the template.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

_H = TypeVar("_H", bound=Callable[..., Any])


class Right(NamedTuple):
    """A statement of a policy: its name, IAM's actions, and the resources that they may be done to."""

    sid: str
    actions: tuple[str, ...]
    on: tuple[str, ...]


RECORDS = Right(
    "Records",
    ("dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"),
    ("StateTable",),
)
JOURNAL_IS_WRITTEN_ONLY = Right("JournalIsWrittenOnly", ("dynamodb:PutItem",), ("JournalTable",))
CONNECTIONS = Right("Connections", ("execute-api:ManageConnections",), ("POST", "DELETE"))
DECIDES = (RECORDS, JOURNAL_IS_WRITTEN_ONLY, CONNECTIONS)
"""Load, decide, save with journal entries, tell connections. A transaction needs the rights of its parts."""

TOKEN_KEYS = Right("TokenKeys", ("secretsmanager:GetSecretValue",), ("TokenSecretArn",))


def queues(*names: str) -> Right:
    """Leave work for later invocations."""
    return Right("WhatFollows", ("sqs:SendMessage",), names)


def takes_from(name: str) -> Right:
    """What the event source mapping does in the function's name."""
    return Right("ItsQueue", ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"), (name,))


DECLARED: dict[str, tuple[Right, ...]] = {}
"""The rights of each handler by its import path, as a template names it."""


def may(*rights: Right) -> Callable[[_H], _H]:
    """Declare what a handler may do."""

    def declare(handler: _H) -> _H:
        DECLARED[f"{handler.__module__}.{handler.__qualname__}"] = rights
        return handler

    return declare
