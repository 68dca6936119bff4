"""DynamoDB for the tests of this folder: MiniStack on the wire, once a session, and moto in this process."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from lambda_aws import MiniStackProcess, Tables, moto_tables

from adapters.lambda_apigw import resources
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def ministack() -> Iterator[MiniStackProcess]:
    with MiniStackProcess() as server:
        yield server


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(Credentials("AKIDLOCAL", "local-secret"), "ap-southeast-1") as session:
        yield session


@pytest.fixture(params=["ministack", "moto"])
def tables(request: pytest.FixtureRequest, session: Session) -> Iterator[Tables]:
    """Fresh tables, and a client of whatever holds them."""
    if request.param == "moto":
        with moto_tables(session) as fresh:
            yield fresh
        return
    yield wire_tables(request.getfixturevalue("ministack"), session)


@pytest.fixture
def wire(ministack: MiniStackProcess, session: Session) -> Tables:
    """Fresh tables on the wire only, where units and retries are real."""
    return wire_tables(ministack, session)


def wire_tables(server: MiniStackProcess, session: Session) -> Tables:
    number = next(_numbers)
    client = session.client("dynamodb", server.url)
    state, journal = f"state-{number}", f"journal-{number}"
    resources.create(client, session.client("sqs", server.url), resources.tables(state, journal), [])
    session.meter.take()
    return Tables(DynamoDb(client), state, journal)
