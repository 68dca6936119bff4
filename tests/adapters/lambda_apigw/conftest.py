"""DynamoDB for the tests of this folder: MiniStack on the wire, once a session, and moto in this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import permissions
import pytest
from lambda_aws import MiniStackProcess, MotoClient, Tables

from adapters.lambda_apigw import resources
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def least_privilege() -> Iterator[None]:
    """A handler that does more than is declared beside it fails its test."""
    with permissions.enforced():
        yield


@pytest.fixture(scope="session")
def ministack() -> Iterator[MiniStackProcess]:
    with MiniStackProcess() as server:
        yield server


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(Credentials("AKIDLOCAL", "local-secret"), "ap-southeast-1") as session:
        yield session


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoClient]:
    from moto import mock_aws

    with mock_aws(), Session(Credentials("test", "test"), "ap-southeast-1") as session:
        yield MotoClient(session)


@pytest.fixture(params=["ministack", "moto"])
def tables(request: pytest.FixtureRequest) -> Tables:
    """Fresh tables, and a client of whatever holds them."""
    if request.param == "moto":
        client = request.getfixturevalue("moto")
        return fresh_tables(client, client)
    tables: Tables = request.getfixturevalue("wire")
    return tables


@pytest.fixture
def wire(ministack: MiniStackProcess, session: Session) -> Tables:
    """Fresh tables on the wire only, where units and retries are real."""
    return fresh_tables(session.client("dynamodb", ministack.url), session.client("sqs", ministack.url))


def fresh_tables(dynamodb: Any, sqs: Any) -> Tables:
    number = next(_numbers)
    state, journal = f"state-{number}", f"journal-{number}"
    resources.create(dynamodb, sqs, resources.tables(state, journal), [])
    dynamodb.session.meter.take()
    return Tables(DynamoDb(dynamodb), state, journal)
