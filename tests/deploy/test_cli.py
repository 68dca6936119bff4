"""The command: a stage's whole life on an emulated AWS, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import re
import time

import pytest
from click.testing import CliRunner

from deploy.cli import deploy
from deploy.package import copy_sources, write_zip

REGION = "ap-southeast-1"


def run(*arguments, code=0, **options):
    ran = CliRunner().invoke(deploy, [str(argument) for argument in arguments], **options)
    assert ran.exit_code == code, ran.output + repr(ran.exception)
    return ran.output


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """Our code without libraries: MiniStack runs it in this environment."""
    folder = tmp_path_factory.mktemp("code")
    copy_sources(folder / "build", ("core", "adapters/lambda_apigw", "adapters/web"))
    path = folder / "proctorwire-lambda-arm64.zip"
    write_zip(folder / "build", path)
    return path


def test_every_command_has_help_with_an_example():
    for name, command in deploy.commands.items():
        text = run(name, "--help")
        assert f"Example:\n    deploy {name}" in text, name
        assert all(option.help for option in command.params if hasattr(option, "help")), name


# --- a stage's life ---------------------------------------------------------------------------------------------------------


def test_a_stage_is_planned_deployed_changed_and_taken_down(aws, client, code):
    target = ("--mode", "lambda", "--stage", "trial", "--artifact", code)
    planned = run("plan", *target, "--school", "north", "--students", 500)
    assert "proctorwire-trial-shared: create, 16 resources" in planned
    assert re.search(r"add +ConnectFunction", planned)
    assert re.search(r"8 exams of 2 h with 500 students +\d+\.\d\d", planned)
    assert "not deployed" in run("outputs", *target[:4], code=2), "a plan changes nothing"
    assert client("cloudformation").list_stacks(StackStatusFilter=["REVIEW_IN_PROGRESS"])["StackSummaries"] == []

    deployed = run("up", *target, "--school", "north", "--school", "south", "--yes")
    assert re.search(r"CREATE_COMPLETE +ConnectFunction", deployed)
    assert re.search(r"SocketUrl: wss://\S+/trial", deployed)
    keys = dict(re.findall(r"key of school (\w+) .*: (\S+)$", deployed, re.MULTILINE))
    assert set(keys) == {"north", "south"}
    secret = client("secretsmanager").get_secret_value(SecretId="proctorwire/trial/school-keys")["SecretString"]
    assert secret == f"north:{keys['north']},south:{keys['south']}"

    assert "proctorwire-trial-lambda: CREATE_COMPLETE" in run("status", "--stage", "trial")
    told = json.loads(run("outputs", *target[:4], "--json"))
    assert run("outputs", *target[:4], "--key", "SocketUrl").strip() == told["SocketUrl"]

    again = run("up", *target, "--yes")
    assert "Everything is as it should be." in again
    changed = run("up", *target, "--yes", "--set", "MemoryMb=512")
    assert re.search(r"modify +MessageFunction", changed)
    function = client("lambda").get_function_configuration(FunctionName="proctorwire-trial-message")
    assert function["MemorySize"] == 512
    assert "Everything is as it should be." in run("up", *target, "--yes"), "what is not given stays as it was"

    taken = run("down", *target[:4], "--yes")
    assert "the data of trial stays" in taken
    assert client("dynamodb").describe_table(TableName="proctorwire-trial-state")["Table"]["TableStatus"] == "ACTIVE"
    assert secret == client("secretsmanager").get_secret_value(SecretId="proctorwire/trial/school-keys")["SecretString"]


def test_data_goes_only_with_the_option_and_the_name(aws, client, code):
    target = ("--mode", "lambda", "--stage", "brief")
    run("up", *target, "--artifact", code, "--yes")
    refused = run("down", *target, "--delete-data", "--yes", code=2)
    assert "--confirm: to delete the data of brief, give its name" in refused
    run("down", *target, "--delete-data", "--confirm", "trial", code=2)
    assert client("dynamodb").describe_table(TableName="proctorwire-brief-state")

    gone = run("down", *target, "--delete-data", "--confirm", "brief")
    assert re.search(r"DELETE_COMPLETE +StateTable", gone)
    assert not [name for name in client("dynamodb").list_tables()["TableNames"] if "brief" in name]
    assert not [each for each in client("s3").list_buckets()["Buckets"] if "brief" in each["Name"]]
    assert "has no stack" in run("status", "--stage", "brief")


def test_a_cluster_is_deployed_beside_a_serverless_stack_and_holds_its_data(aws, client, code, tmp_path):
    bundle = tmp_path / "proctorwire-ec2-x86_64.tar"
    bundle.write_bytes(b"bundle")
    target = ("--mode", "ec2", "--stage", "both")
    missing = run("up", *target, "--artifact", bundle, "--yes", code=2)
    assert "--certificate" in missing
    assert "aws acm request-certificate --region ap-southeast-1" in missing
    certificate = client("acm").request_certificate(DomainName="exams.example.org")["CertificateArn"]
    deployed = run("up", *target, "--artifact", bundle, "--yes", "--certificate", certificate)
    assert "instances t3a.small" in deployed
    assert re.search(r"SocketUrl: wss://proctorwire-both-\S+/ws", deployed)
    run("up", "--mode", "lambda", "--stage", "both", "--artifact", code, "--yes")
    refused = run("down", *target, "--delete-data", "--confirm", "both", code=2)
    assert "proctorwire-both-lambda still uses the data" in refused


def test_logs_come_in_the_order_of_time_from_all_functions(aws, client):
    logs, now = client("logs"), int(time.time() * 1000)
    for group, at, text in (("message", -2000, "second"), ("sweep", -3000, "first"), ("message", -1000, "third")):
        name = f"/proctorwire/logged/lambda/{group}"
        if not logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]:
            logs.create_log_group(logGroupName=name)
            logs.create_log_stream(logGroupName=name, logStreamName="a")
        logs.put_log_events(logGroupName=name, logStreamName="a", logEvents=[{"timestamp": now + at, "message": text}])
    told = run("logs", "--mode", "lambda", "--stage", "logged")
    assert re.findall(r"(message|sweep) +(\w+)", told) == [
        ("sweep", "first"),
        ("message", "second"),
        ("message", "third"),
    ]


# --- what is wrong ----------------------------------------------------------------------------------------------------------

TARGET = ("--mode", "lambda", "--stage", "trial", "--region", REGION)


@pytest.mark.parametrize(
    "command",
    [
        ("plan", *TARGET),
        ("up", *TARGET, "--yes"),
        ("status", *TARGET[2:]),
        ("outputs", *TARGET),
        ("logs", *TARGET),
        ("down", *TARGET, "--yes"),
    ],
)
def test_without_credentials_one_line_says_how_to_give_them(command, no_credentials):
    told = run(*command, code=2)
    assert told.strip() == (
        "Error: no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile"
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("up", "--mode", "lambda", "--stage", "Prod!", "--region", REGION), "--stage: 'Prod!' is no name of a stage"),
        (("up", *TARGET, "--set", "MemoryMb"), "--set: 'MemoryMb' is not of the form PARAM=VALUE"),
        (("plan", *TARGET, "--profile", "nobody"), "--profile: there is no profile 'nobody'"),
        (("up", "--mode", "fargate", *TARGET[2:]), "'--mode': 'fargate' is not one of 'lambda', 'ec2'"),
        (("up", "--mode", "lambda", "--stage", "trial"), "Missing option '--region'"),
        (("up", *TARGET, "--max", "0"), "'--max'"),
        (("up", *TARGET, "--cache-shards", "9"), "'--cache-shards': 9 is not in the range 1<=x<=8"),
    ],
)
def test_wrong_input_is_named(arguments, named, no_credentials, monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    told = run(*arguments, code=2)
    assert named in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--set", "MemoryMB=1"), "there is no parameter MemoryMB for lambda; did you mean MemoryMb?"),
        (("--set", "CodeKey=x"), "there is no parameter CodeKey"),
        (("--school", "no rth"), "--school: 'no rth' is no name of a school"),
    ],
)
def test_what_only_the_plan_can_know_is_named_too(aws, code, arguments, named):
    told = run("plan", "--mode", "lambda", "--stage", "wrong", "--artifact", code, *arguments, code=2)
    assert named in told
    assert "wrong" not in "".join(
        name for name in run("status", "--stage", "wrong").split() if name.startswith("proctorwire-")
    )


def test_an_artifact_for_another_processor_is_refused(aws, code):
    told = run("plan", "--mode", "lambda", "--stage", "wrong", "--arch", "x86_64", "--artifact", code, code=2)
    assert "is not for x86_64" in told


def test_with_nobody_to_ask_nothing_is_done(aws, code):
    told = run("up", "--mode", "lambda", "--stage", "quiet", "--artifact", code, code=2)
    assert "give --yes" in told
    assert "has no stack" in run("status", "--stage", "quiet")
