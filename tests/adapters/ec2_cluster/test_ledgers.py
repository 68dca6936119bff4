"""Where the journal lasts: one set of promises over both ledgers, and what only DynamoDB can do to them."""

from __future__ import annotations

import time

import boto3
import pytest
from moto import mock_aws
from msgspec.structs import replace

from adapters import dynamodb_keys
from adapters.ec2_cluster.config import SettingsError, read_settings
from adapters.ec2_cluster.ledger import LedgerPlace, LedgerUnavailableError, ledger_place
from adapters.ec2_cluster.ledger_dynamodb import DynamoLedger
from adapters.ec2_cluster.ledger_sqlite import SqliteLedger
from adapters.lambda_apigw import resources
from adapters.lambda_apigw.aws_http import Credentials, DynamoDb, Session
from adapters.lambda_apigw.local.ministack import MiniStack
from adapters.lambda_apigw.store import DynamoStore
from core.journal import AuditPosition, Entry, Position, audit_position, position_of
from core.participant import ExamKey

EXAM = ExamKey("north", "math#1")


def entry(student="s1", version=1, n=0, **more):
    return Entry(*EXAM, student, version, n, at=1000.0 + version, kind="label", cause="reported", **more)


@pytest.fixture(params=["sqlite", "dynamodb"])
def ledger(request, tmp_path, monkeypatch):
    if request.param == "sqlite":
        opened = SqliteLedger(tmp_path / "journal.sqlite")
        yield opened
        opened.close()
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("dynamodb", region_name="ap-southeast-1")
        client.create_table(**resources.tables()[1])
        opened = DynamoLedger(LedgerPlace("proctorwire-journal", region="ap-southeast-1"))
        yield opened
        opened.close()


def test_entries_come_back_oldest_first(ledger):
    ledger.write([entry("s2", 2), entry("s1", 1, 1), entry("s1", 1, 0)])
    ledger.write([entry(version=3, before="active", after="away")])
    found = ledger.of_exam(EXAM)
    assert [(e.student_id, e.version, e.n) for e in found] == [("s1", 1, 0), ("s1", 1, 1), ("s2", 2, 0), ("s1", 3, 0)]
    assert found[-1] == entry(version=3, before="active", after="away")
    assert ledger.of_exam(ExamKey("north", "math")) == []


def test_an_entry_carried_twice_is_one_entry_however_the_batches_fall(ledger):
    ledger.write([entry(n=0), entry(n=1), entry(n=0)])
    ledger.write([entry(n=1), entry(n=2)])
    assert [e.n for e in ledger.of_exam(EXAM)] == [0, 1, 2]


def test_more_than_dynamodb_takes_at_a_time(ledger):
    ledger.write([entry(f"s{number}") for number in range(60)])
    assert len(ledger.of_exam(EXAM)) == 60


class Busy:
    """A table that takes so many items of each request, and none after so many requests."""

    def __init__(self, takes, then_none=False):
        self.takes, self.then_none, self.requests = takes, then_none, 0

    def batch_write_item(self, RequestItems):  # noqa: N803
        self.requests += 1
        ((table, wanted),) = RequestItems.items()
        left = wanted if self.then_none else wanted[self.takes :]
        return {"UnprocessedItems": {table: left} if left else {}}


def test_items_that_were_not_taken_are_sent_again_with_growing_pauses():
    pauses = []
    client = Busy(takes=10)
    DynamoLedger(LedgerPlace("journal"), client, pauses.append).write([entry(f"s{n}") for n in range(25)])
    assert client.requests == 3
    assert pauses == [0.1, 0.2]


def test_a_table_that_takes_nothing_is_told_so_that_entries_wait_in_redis():
    pauses = []
    ledger = DynamoLedger(LedgerPlace("journal"), Busy(takes=0, then_none=True), pauses.append)
    with pytest.raises(LedgerUnavailableError, match="too busy: 1 entries"):
        ledger.write([entry()])
    assert sum(pauses) < 10


def test_a_table_that_is_not_there_is_one_line(monkeypatch):
    with mock_aws():
        client = boto3.client("dynamodb", "ap-southeast-1", aws_access_key_id="a", aws_secret_access_key="b")
        ledger = DynamoLedger(LedgerPlace("missing"), client)
        for call in (lambda: ledger.write([entry()]), lambda: ledger.of_exam(EXAM)):
            with pytest.raises(LedgerUnavailableError, match="ResourceNotFoundException"):
                call()


async def test_the_serverless_side_reads_what_a_cluster_wrote():
    """One journal for an exam that moves."""
    async with MiniStack() as server:
        with Session(Credentials("test", "test"), "ap-southeast-1") as session:
            client, queues = session.client("dynamodb", server.endpoint_url), session.client("sqs", server.endpoint_url)
            resources.create(client, queues, resources.tables(), [])
            boto = boto3.client(
                *("dynamodb", "ap-southeast-1"),
                endpoint_url=server.endpoint_url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )
            ledger = DynamoLedger(LedgerPlace("proctorwire-journal"), boto)
            ledger.write([entry(version=1), entry(version=2)])
            ledger.close()
            store = DynamoStore(DynamoDb(client), "proctorwire-state", "proctorwire-journal", time.time)
            assert store.journal(EXAM) == [entry(version=1), entry(version=2)]


def test_how_a_table_is_named():
    assert ledger_place("/var/lib/journal.sqlite") is None
    assert ledger_place("dynamodb:t") == LedgerPlace("t")
    assert ledger_place("dynamodb:t?days=30&region=eu-west-1") == LedgerPlace("t", 30, "eu-west-1")
    for wrong in ("dynamodb:", "dynamodb:t?days=0", "dynamodb:t?day=3", "dynamodb:t?x", "dynamodb:t?days=many"):
        with pytest.raises(ValueError):
            ledger_place(wrong)


def test_a_certificate_that_can_not_be_used_is_one_line(tmp_path):
    (tmp_path / "cert.pem").write_text("no certificate")
    for path in (tmp_path / "none.pem", tmp_path / "cert.pem"):
        with pytest.raises(SettingsError, match=r"tls_certificate .*can't be used"):
            read_settings({"token_secret": "x" * 32, "tls_certificate": str(path)}, {})


def test_timelines_and_the_conversation_are_read_from_any_position_either_way(ledger):
    def said(student, version):
        return Entry(*EXAM, student, version, 0, at=1000.0 + version, kind="message", cause="chat", text=f"{version}")

    s1, other = "s#1", "s#1!"  # ids of which one begins with the other, and with the separator of keys
    told = [said(other, 2), said(s1, 4), said("s2", 6)]
    ledger.write([*told, *(entry(who, version, n) for who in (s1, other) for version in (1, 3, 5) for n in (0, 1))])
    whole = list(ledger.timeline(EXAM, None, None, newest_first=False))
    assert sorted(whole, key=lambda e: ledger.place(position_of(e))) == whole
    assert len(whole) == 15
    mine = list(ledger.timeline(EXAM, s1, None, newest_first=False))
    assert [(e.version, e.n) for e in mine] == [(1, 0), (1, 1), (3, 0), (3, 1), (4, 0), (5, 0), (5, 1)]
    assert list(ledger.conversation(EXAM, None, newest_first=False)) == told
    for read, lines in (
        (lambda after, back: ledger.timeline(EXAM, None, after, newest_first=back), whole),
        (lambda after, back: ledger.timeline(EXAM, s1, after, newest_first=back), mine),
        (lambda after, back: ledger.conversation(EXAM, after, newest_first=back), told),
    ):
        assert list(read(None, True)) == lines[::-1]
        for index, line in enumerate(lines):
            assert list(read(position_of(line), False)) == lines[index + 1 :]
            assert list(read(position_of(line), True)) == lines[:index][::-1]
    assert list(ledger.conversation(ExamKey("north", "math"), None, newest_first=False)) == []


def test_no_two_ids_meet_in_a_key_and_keys_sort_as_what_they_are_of():
    """What is in tables out there stays readable: these are the keys as they have always been."""
    exam = ExamKey("north#1", "math%/é")
    assert dynamodb_keys.shard_partition(exam, 3) == "s#north%231#math%25/é#3"
    assert dynamodb_keys.conversation_partition(exam) == "m#north%231#math%25/é"
    assert dynamodb_keys.audit_partition(exam.school) == "a#north%231"
    position = Position(1_700_000_000.1235, "ann#1", 7, 0)
    assert dynamodb_keys.journal_key(position) == "ann%231#0000000000000007#000"
    assert dynamodb_keys.conversation_key(position) == "1700000000123#ann%231#0000000000000007#000"
    done = AuditPosition(1_700_000_000.1235, "math#", "ann#1", 7, 100)
    assert dynamodb_keys.audit_key(done) == "1700000000123#math%23#ann%231#0000000000000007#100"
    for value in ("", "#", "%", "%23", "%2523#", "a#b%c"):
        assert "#" not in dynamodb_keys.escaped(value)
        assert dynamodb_keys.plain(dynamodb_keys.escaped(value)) == value


# --- the audit log and purges -----------------------------------------------------------------------------------------------


def test_what_people_did_is_kept_in_the_order_of_time_and_outlives_a_purge(ledger):
    other = ExamKey("north", "physics")
    warned = Entry(
        *EXAM, "s1", 5, 0, 30.0, "command", "warn", after="accepted", actor="p1", text="Eyes", reference="c1"
    )
    closed = Entry(*other, "", 6, 0, 10.0, "exam", "closed", actor="api")
    made = Entry("north", "", "", 7, 100, 20.0, "audit", "key_made", actor="api", reference="k1")
    elsewhere = Entry("south", "math", "", 8, 0, 5.0, "exam", "opened", actor="api")
    ledger.write([warned, closed, made, elsewhere, entry(), replace(warned, student_id="s2", to_everyone=True)])
    log = list(ledger.audit("north", None, newest_first=False))
    assert log == [closed, made, replace(warned, text="")], "without words"
    for at, line in enumerate(log):
        assert list(ledger.audit("north", audit_position(line), newest_first=False)) == log[at + 1 :]
        assert list(ledger.audit("north", audit_position(line), newest_first=True)) == log[:at][::-1]
    assert made not in ledger.of_exam(ExamKey("north", "")), "what only the log needs is in no timeline"
    gone, done = ledger.purge(EXAM, time.monotonic() + 60)
    assert (gone, done) == (4, True)  # three entries, and a line of the conversation
    assert ledger.of_exam(EXAM) == []
    assert list(ledger.conversation(EXAM, None, newest_first=False)) == []
    assert ledger.of_exam(other) == [closed]
    assert list(ledger.audit("north", None, newest_first=False)) == log
    assert ledger.purge(EXAM, time.monotonic() + 60) == (0, True)


def test_a_purge_that_has_no_more_time_says_so(ledger):
    ledger.write([entry(f"s{number}") for number in range(30)])
    if isinstance(ledger, SqliteLedger):
        return  # one step, however large
    assert ledger.purge(EXAM, time.monotonic() - 1) == (0, False)
    assert ledger.purge(EXAM, time.monotonic() + 60) == (30, True)
