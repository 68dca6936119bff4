"""What every kind of storage for records does, the same for all: SQLite, a real PostgreSQL, DynamoDB by either side's client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import certificates
import pytest
from msgspec.structs import replace
from postgres import PostgresServer

from adapters.ec2_cluster.ledger import LedgerPlace
from adapters.ec2_cluster.records import BotoTable, default_place, open_records
from adapters.lambda_apigw import resources
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session
from adapters.lambda_apigw.local.ministack import MiniStack
from adapters.lambda_apigw.records import RecordsTable
from adapters.web.records import Assignment, ExamRecord, Records, RecordsUnavailable, School, SchoolKey
from adapters.web.records.dynamodb import DynamoRecords
from adapters.web.records.sql import SqlRecords
from core.participant import ExamKey
from core.roster import RosterLine

_numbers = itertools.count(1)
KINDS = ["sqlite", "memory", "postgresql", "dynamodb-http", "dynamodb-boto3"]
JOURNAL = "proctorwire-journal"
LEFT_TO_THE_COLLECTOR = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""What pg8000 does with a socket on which no connection comes about."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def dynamodb_url() -> Iterator[str]:
    server = MiniStack()
    with asyncio.Runner() as runner:
        runner.run(server.start())
        with Session(Credentials("test", "test"), "ap-southeast-1") as session:
            dynamodb, sqs = session.client("dynamodb", server.endpoint_url), session.client("sqs", server.endpoint_url)
            resources.create(dynamodb, sqs, resources.tables(), [])
        yield server.endpoint_url
        runner.run(server.stop())


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[str, Records]]:
    """Each kind that a test has asked for: opening takes longer than any of them."""
    with contextlib.ExitStack() as closing:

        class Opened(dict[str, Records]):
            def __missing__(self, kind: str) -> Records:
                self[kind] = closing.enter_context(contextlib.closing(make(kind)))
                return self[kind]

        def make(kind: str) -> Any:
            match kind:
                case "sqlite":
                    return open_records(f"sqlite:///{tmp_path_factory.mktemp('records')}/records.sqlite")
                case "memory":
                    return open_records("sqlite://")
                case "postgresql":
                    return open_records(request.getfixturevalue("postgres").url)
                case "dynamodb-http":
                    session = closing.enter_context(Session(Credentials("test", "test"), "ap-southeast-1"))
                    session.begin(600.0)
                    client = session.client("dynamodb", request.getfixturevalue("dynamodb_url"))
                    return DynamoRecords(RecordsTable(DynamoDb(client), JOURNAL))
                case _:
                    place = {"endpoint_url": request.getfixturevalue("dynamodb_url"), "region_name": "ap-southeast-1"}
                    boto = boto3.client("dynamodb", aws_access_key_id="test", aws_secret_access_key="test", **place)
                    closing.callback(boto.close)
                    return DynamoRecords(BotoTable(LedgerPlace(JOURNAL), boto))

        yield Opened()


@pytest.fixture(params=KINDS)
def records(request: pytest.FixtureRequest, opened: dict[str, Records]) -> Records:
    return opened[request.param]


@pytest.fixture
def school() -> str:
    """A school of this test's own, with what separates keys in its id."""
    return f"school {next(_numbers)}#%:/é"


def test_schools_are_kept_changed_and_listed(records: Records, school: str) -> None:
    records.check()
    assert records.school(school) is None
    records.put_school(School(school, "North", None, 1_700_000_000.25))
    records.put_school(School(school, "North High", 90.5, 1_700_000_000.25))
    assert records.school(school) == School(school, "North High", 90.5, 1_700_000_000.25)
    records.put_school(School(f"{school}2"))
    found = [one.school for one in records.schools()]
    assert [s for s in found if s.startswith(school)] == [school, f"{school}2"]


def test_a_key_is_found_by_its_digest_and_changed_by_its_id(records: Records, school: str) -> None:
    key = SchoolKey(school, "k1", secrets.token_hex(32), "the LMS", 10.0, "api", 20.0)
    assert records.key_of(key.digest) is None
    assert records.add_key(key)
    assert records.key_of(key.digest) == key
    assert not records.add_key(key)
    assert not records.add_key(replace(key, key_id="k2")), "a digest leads to one key"
    assert not records.add_key(replace(key, digest=secrets.token_hex(32))), "an id is one key's"
    revoked = replace(key, label="old", expires_at=None, revoked_at=15.5)
    assert records.put_key(revoked)
    assert records.key_of(key.digest) == revoked
    assert not records.put_key(replace(key, key_id="k9"))
    assert not records.put_key(replace(key, school=f"{school}2")), "no school changes another's key"
    other = SchoolKey(school, "k0", secrets.token_hex(32))
    assert records.add_key(other)
    assert records.keys(school) == [other, revoked]
    assert records.keys(f"{school}2") == []


def test_a_key_counts_until_it_expires_or_is_revoked() -> None:
    key = SchoolKey("north", "k1", "d", expires_at=20.0)
    assert [key.state(19.9), key.state(20.0), replace(key, revoked_at=1.0).state(2.0)] == [
        "active",
        "expired",
        "revoked",
    ]
    assert replace(key, expires_at=None).state(1e12) == "active"


def test_exams_are_listed_by_id_from_anywhere(records: Records, school: str) -> None:
    names = ["B", "a", "a#", "a b", "é", "10", "9"]
    for name in names:
        records.put_exam(ExamRecord(school, name, created_at=1.0))
    changed = ExamRecord(school, "a", "Algebra", 1.0, 2.0, 3.0, 4.0)
    records.put_exam(changed)
    records.put_exam(ExamRecord(f"{school}2", "z"))
    assert records.exam(ExamKey(school, "a")) == changed
    assert records.exam(ExamKey(school, "c")) is None
    listed = [exam.quiz_id for exam in records.exams(school)]
    assert sorted(listed) == sorted(names)
    for at, name in enumerate(listed):
        assert [exam.quiz_id for exam in records.exams(school, name)] == listed[at + 1 :]


def test_a_roster_is_changed_line_by_line_and_read_in_parts(records: Records, school: str) -> None:
    exam, other = ExamKey(school, "math#1"), ExamKey(school, "math")
    records.put_lines(exam, [])
    records.put_lines(exam, [RosterLine(f"s{n:03d}", f"Student {n}", "A") for n in range(30)])
    records.put_lines(exam, [RosterLine("s001", "Ayu", "B"), RosterLine("s031"), RosterLine("s031", "Budi")])
    records.put_lines(other, [RosterLine("s1")])
    lines = list(records.lines(exam))
    assert [line.student_id for line in lines] == [*(f"s{n:03d}" for n in range(30)), "s031"]
    assert (lines[1], lines[-1]) == (RosterLine("s001", "Ayu", "B"), RosterLine("s031", "Budi"))
    assert list(records.lines(exam, "s029")) == lines[-1:]
    assert records.drop_line(exam, "s000")
    assert not records.drop_line(exam, "s000")
    assert next(records.lines(exam)).student_id == "s001"


def test_proctors_are_assigned_and_taken_off(records: Records, school: str) -> None:
    exam, other = ExamKey(school, "math"), ExamKey(school, "physics")
    records.assign(exam, Assignment("p2", "Sari", "", 5.0, "api"))
    records.assign(exam, Assignment("p1"))
    records.assign(exam, Assignment("p1", "Rudi", "A", 6.0, "api"))
    records.assign(other, Assignment("p1"))
    assert records.assignments(exam) == [
        Assignment("p1", "Rudi", "A", 6.0, "api"),
        Assignment("p2", "Sari", "", 5.0, "api"),
    ]
    assert records.unassign(exam, "p1")
    assert not records.unassign(exam, "p1")
    assert [a.proctor_id for a in records.assignments(exam)] == ["p2"]
    assert [a.proctor_id for a in records.assignments(other)] == ["p1"]


def test_a_purge_forgets_the_people_of_one_exam(records: Records, school: str) -> None:
    exam, other = ExamKey(school, "math"), ExamKey(school, "math2")
    for one in (exam, other):
        records.put_exam(ExamRecord(*one))
        records.put_lines(one, [RosterLine("s1"), RosterLine("s2")])
        records.assign(one, Assignment("p1"))
    assert records.purge(exam) == 3
    assert records.purge(exam) == 0
    assert (list(records.lines(exam)), records.assignments(exam)) == ([], [])
    assert records.exam(exam) == ExamRecord(*exam)
    assert (len(list(records.lines(other))), len(records.assignments(other))) == (2, 1)


def test_several_threads_write_at_a_time(records: Records, school: str) -> None:
    exam, failed = ExamKey(school, "math"), []
    if isinstance(records, DynamoRecords) and isinstance(records._table, RecordsTable):
        return  # an execution environment of Lambda serves one request at a time

    def write(first: int) -> None:
        try:
            for n in range(5):
                records.put_lines(exam, [RosterLine(f"s{first}-{n}")])
                assert records.exam(exam) is None
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, len(list(records.lines(exam)))) == ([], 20)


# --- where they are ---------------------------------------------------------------------------------------------------------


def test_records_are_still_there_when_the_database_is_opened_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        opened = open_records(f"sqlite:///{tmp_path}/records.sqlite")
        opened.put_school(School(name))
        found = [school.school for school in opened.schools()]
        opened.close()
    assert found == ["one", "two"]


@LEFT_TO_THE_COLLECTOR
def test_a_managed_databases_password_is_asked_for_each_connection(postgres: PostgresServer) -> None:
    given = iter(["not it", postgres.password])
    records = SqlRecords(postgres.url_without_password, lambda: next(given))
    with pytest.raises(RecordsUnavailable, match="password authentication failed"):
        records.check()
    records.check()  # AWS has changed it meanwhile
    records.close()
    gc.collect()


@LEFT_TO_THE_COLLECTOR
async def test_a_database_is_asked_over_tls_and_its_certificate_checked(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    certificate, over_tls = certificates.for_localhost(tmp_path), []

    async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """TLS before the real server, whose build from the wheel has none: asked for and granted as PostgreSQL does it."""
        assert await reader.readexactly(8) == struct.pack("!II", 8, 80877103)  # SSLRequest
        writer.write(b"S")
        await writer.drain()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.chain, certificate.key)
        try:
            await writer.start_tls(context)
        except (ssl.SSLError, ConnectionError):
            return  # the client does not trust it
        over_tls.append(True)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", postgres.port)
        await asyncio.gather(_copied(reader, there_writer), _copied(there_reader, writer))

    async with await asyncio.start_server(front, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        place = postgres.url.replace(f"127.0.0.1:{postgres.port}", f"localhost:{port}")
        for query in ("sslmode=require", f"sslmode=verify-full&sslrootcert={certificate.authority}"):
            records = SqlRecords(f"{place}?{query}")
            await asyncio.to_thread(records.check)
            records.close()
        assert len(over_tls) >= 2
        records = SqlRecords(f"{place}?sslmode=verify-full")  # no authority that this machine knows signed it
        with pytest.raises(RecordsUnavailable, match="certificate verify failed"):
            await asyncio.to_thread(records.check)
        records.close()
    gc.collect()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@LEFT_TO_THE_COLLECTOR
def test_tls_that_was_asked_for_is_not_done_without() -> None:
    def refuse() -> None:
        client, _ = server.accept()
        with client:
            client.recv(8)
            client.sendall(b"N")  # a PostgreSQL without TLS

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse)
        thread.start()
        records = SqlRecords(f"postgresql://u:p@127.0.0.1:{server.getsockname()[1]}/x?sslmode=require")
        with pytest.raises(RecordsUnavailable, match="SSL"):
            records.check()
        thread.join()
    records.close()
    gc.collect()


def test_a_database_that_is_away_is_unavailable() -> None:
    records = SqlRecords("postgresql://proctorwire@127.0.0.1:9/postgres")
    with pytest.raises(RecordsUnavailable, match="the records' database"):
        records.check()
    records.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("records.sqlite", "not a database URL"),
        ("mysql://host/x", "mysql is not supported"),
        ("postgresql://u@h/n?sslmode=prefer", "sslmode is 'prefer'"),
        ("dynamodb:", "a DynamoDB journal is written|a DynamoDB table is written"),
    ],
)
def test_a_place_that_is_none_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        open_records(url)


def test_without_a_place_records_lie_beside_the_journal() -> None:
    assert default_place("dynamodb:t?days=30&region=ap-southeast-1") == "dynamodb:t?region=ap-southeast-1"
    assert default_place("dynamodb:t") == "dynamodb:t"
    assert default_place("/var/x/journal.sqlite") == "sqlite:////var/x/journal.sqlite-records"
    assert default_place("") == "sqlite://"
