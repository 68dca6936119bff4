"""IAM for handlers that run in the test's process: a request that is not declared beside the running handler fails the test."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from adapters.lambda_apigw import authorizer, handler, http, rights  # noqa: F401  handlers declare their rights when imported
from adapters.lambda_apigw.aws_http import Client

_OF_A_TRANSACTION = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem"}
"""What a part of TransactWriteItems needs: the right of the same request by itself ("DynamoDB transactions" and IAM)."""


class NotDeclared(BaseException):
    """A handler did what its declaration does not say. No handler may catch it."""


@contextmanager
def enforced() -> Iterator[None]:
    """Every handler called meanwhile does only what it may."""
    running: list[str] = []
    sign = Client._signed

    def signed(self: Client, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        if running:
            may = {
                (action, on) for right in rights.DECLARED[running[-1]] for action in right.actions for on in right.on
            }
            for request in asked_for(self._service, method, body, headers.get("x-amz-target", "")):
                if request not in may:
                    raise NotDeclared(
                        f"{running[-1]} does {request}, which is not declared beside it: see rights.py; the template follows"
                    )
        return sign(self, method, path, body, headers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_signed", signed)
        for path in rights.DECLARED:
            module, _, name = path.rpartition(".")
            patch.setattr(path, _running(getattr(importlib.import_module(module), name), path, running))
        yield


def _running(function: Callable[..., Any], path: str, running: list[str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        running.append(path)
        try:
            return function(*arguments)
        finally:
            running.pop()

    return call


def asked_for(service: str, method: str, body: bytes, target: str) -> Iterator[tuple[str, str]]:
    """The actions that a request needs, each with the resource as `rights` names it."""
    if service == "execute-api":
        yield "execute-api:ManageConnections", method
        return
    operation, payload = target.rpartition(".")[2], json.loads(body)
    if service == "sqs":
        kinds = [kind for kind in ("sweep", "command", "views") if kind in payload["QueueUrl"].rpartition("/")[2]]
        yield f"sqs:{operation}", f"{kinds[0].capitalize()}Queue"
    elif operation == "TransactWriteItems":
        for part in payload["TransactItems"]:
            [(kind, of)] = part.items()
            yield f"dynamodb:{_OF_A_TRANSACTION[kind]}", _table(of["TableName"])
    elif "RequestItems" in payload:
        for table in payload["RequestItems"]:
            yield f"dynamodb:{operation}", _table(table)
    else:
        yield f"dynamodb:{operation}", _table(payload["TableName"])


def _table(name: str) -> str:
    return "JournalTable" if "journal" in name else "StateTable"
