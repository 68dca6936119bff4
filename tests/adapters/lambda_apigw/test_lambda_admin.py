"""`proctorwire admin revoke --table`: what an operator writes is what `$connect` and the sweeps read."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner, Result
from lambda_aws import MiniStackProcess, Tables

from adapters.lambda_apigw.subscriptions import DynamoSubscriptions
from compare.proctorwire import main
from core.identity import Principal, Role


@pytest.fixture
def account(wire: Tables, ministack: MiniStackProcess, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """The account that boto3 finds: the emulated one."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDLOCAL",
        "AWS_SECRET_ACCESS_KEY": "local-secret",
        "AWS_REGION": "ap-southeast-1",
        "AWS_DEFAULT_REGION": "ap-southeast-1",
        "AWS_ENDPOINT_URL_DYNAMODB": ministack.url,
    }.items():
        monkeypatch.setenv(name, value)
    return wire


def admin(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["admin", *arguments], catch_exceptions=False)


def test_a_revocation_is_made_listed_and_taken_back(account: Tables) -> None:
    subscriptions = DynamoSubscriptions(account.dynamodb, account.state, time.time)

    def refused(role: Role, subject: str, quiz_id: str, school: str = "north#1") -> bool:
        return subscriptions.is_revoked(Principal(role, school, subject, (quiz_id,), time.time() + 60, attempt_id="a"))

    of_a_student = ("--table", account.state, "--school", "north#1", "--quiz", "math-1", "--student", "s%1")
    of_a_proctor = ("--table", account.state, "--school", "north#1", "--proctor", "p1")
    for options in (of_a_student, (*of_a_proctor, "--hours", "2")):
        done = admin("revoke", *options)
        assert (done.exit_code, done.output) == (0, f"revoked for {2 if options[-1] == '2' else 24} hours\n")
    assert refused("student", "s%1", "math-1")
    assert refused("proctor", "p1", "any")
    for others in (("student", "s2", "math-1"), ("student", "s%1", "math-2"), ("proctor", "s%1", "math-1")):
        assert not refused(*others)  # type: ignore[arg-type]
    assert not refused("student", "s%1", "math-1", "north")

    listed = ("revocations", "--table", account.state, "--school", "north#1")
    first, second = admin(*listed).output.splitlines()
    assert first.startswith("north#1  every exam  proctor p1  until 20")
    assert second.startswith("north#1  math-1  student s%1  until 20")
    found = json.loads(admin(*listed, "--json").output)
    assert found[1]["revocation"] == {"school": "north#1", "role": "student", "quiz_id": "math-1", "subject": "s%1"}
    assert found[1]["until"] == pytest.approx(time.time() + 24 * 3_600, abs=60)

    assert admin("revoke", *of_a_student, "--undo").output == "allowed again\n"
    assert not refused("student", "s%1", "math-1")
    again = admin("revoke", *of_a_student, "--undo")
    assert (again.exit_code, "there is no such revocation" in again.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("revoke", "--table", "no-such-table", "--school", "x"), 1, "--table: there is no table no-such-table"),
        (("revocations", "--table", "t"), 2, "give --school"),
        (("revoke", "--table", "t", "--school", ""), 2, "--school: empty"),
        (("revocations", "--table", "t", "--school", "x", "--profile", "nobody"), 1, "nobody"),
        (("revoke", "--school", "x"), 2, "--table"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    account: Tables, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.delenv("PROCTORWIRE_REDIS_URL", raising=False)
    done = admin(*arguments)
    assert (done.exit_code, said in done.output) == (code, True), done.output
