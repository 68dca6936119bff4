"""A live move: played on this machine, and its steps, guard and commands against a stage that is none."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time

import boto3
import moto
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from adapters.ec2_cluster.embedded import EmbeddedRedis
from adapters.ec2_cluster.keys import exam_keys
from adapters.lambda_apigw import resources
from core.events import CommandIssued
from core.exam import new_exam
from core.migration import Health, Limits, Move, WrongStep, encode
from core.participant import ExamKey
from core.policy import Policy
from deploy import bridge, migrate, migrate_cli
from deploy.account import Account, AccountError
from deploy.bridge import agreed
from deploy.cli import deploy
from deploy.migrate import AccountPlane
from deploy.migration_rehearsal import Outcome, Rehearsal, rehearse
from deploy.stacks import Stack

MOVE = Move("wss://lambda", "wss://ec2", slot_seconds=5.0, changed_at=100.0)


def test_a_class_moves_to_the_cluster_and_back_and_nobody_notices():
    """The same rehearsal as the command's, small, with every harm of its `--fault` but that of a dead cluster."""
    told: list[str] = []

    async def play() -> Outcome:
        rehearsal = Rehearsal(16, told.append, interval=1.0, slot_seconds=1.0)

        async def both_harms() -> None:
            await rehearsal.harm("two-tabs")
            await rehearsal.harm("environment")

        async with rehearsal.playing():
            await rehearsal.start()
            await rehearsal.shift(60, during=lambda: rehearsal.harm("transit-command"))
            hasty = Limits(silent_seconds=2.0)
            await rehearsal.shift(90, during=lambda: rehearsal.harm("guard"), limits=hasty)
            await rehearsal.shift(0, "rollback", during=lambda: rehearsal.harm("worker"))
            await rehearsal.shift(50, during=lambda: rehearsal.harm("redis"))
            await rehearsal.shift(100, during=both_harms)
            await rehearsal.begin_another("exam-2")
            await rehearsal.finish()
            await rehearsal.settle()
            await rehearsal.close_exam()
            return rehearsal.outcome("guard")

    outcome = asyncio.run(play())
    assert outcome.problems() == []
    assert outcome.reports > 60
    assert "silent" in outcome.taken_back
    assert any("16 commands from both sides" in line for line in told)
    assert any(re.search(r"shift to 90 %, taken back to 60 %", line) for line in told)


def test_with_the_cluster_dead_all_go_on_from_the_table():
    told: list[str] = []
    outcome = asyncio.run(rehearse(10, told.append, "dead-cluster", interval=1.0, slot=0.5))
    assert (outcome.lost, outcome.false_offline) == (0, 0)
    assert any(re.search(r"dead: [1-9]\d* participants go on from the table", line) for line in told)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--forced"], "takes --forced-rollback or nothing, not --forced"),
        (["--forced-rollback"], "needs the functions' settings"),
        ([], "needs the functions' settings"),
    ],
)
def test_a_bridge_that_was_started_wrongly_says_what_it_needs(monkeypatch, arguments, says):
    monkeypatch.setattr(sys, "argv", ["bridge", *arguments])
    for name in [name for name in os.environ if name.startswith("PROCTORWIRE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit, match=says):
        bridge.main()


def test_an_outcome_that_somebody_would_notice_is_a_problem():
    fine = Outcome(20, 100, 0, 0, 0, 0.01, 0.3, 0.5, ())
    assert fine.problems() == []
    for bad in (
        replace(fine, lost=1),
        replace(fine, duplicates=1),
        replace(fine, false_offline=1),
        replace(fine, gap_p99=1.0),
        replace(fine, gap_max=3.0),
    ):
        assert len(bad.problems()) == 1
    assert replace(fine, before_p99=9.0).problems() == []
    assert "too busy: before the move" in replace(fine, gap_p99=1.0, before_p99=9.0).problems()[-1]
    assert len(replace(fine, taken_back="late").problems()) == 1
    assert len(replace(fine, fault="guard").problems()) == 1, "it was played, and took nothing back"


# --- steps and guard --------------------------------------------------------------------------------------------------------


class Stage:
    """A plane in memory, whose bridge does what the test says at each look."""

    def __init__(self, *looks: Health) -> None:
        self.move: Move | None = None
        self.shares: list[float] = []
        self.now = 100.0
        self.looks = list(looks)

    def load(self):
        return self.move

    def save(self, before, after):
        if self.move != before:
            return False
        self.move = after
        return True

    def health(self):
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def weigh(self, percent):
        self.shares.append(percent)

    def follow(self, move, back_to):
        def sleep(seconds):
            self.now += seconds

        return migrate.follow(self, move, back_to, lambda _: None, clock=lambda: self.now, sleep=sleep)


def healthy(at: float, **fields) -> Health:
    return Health(at=at, on_lambda=50, on_ec2=50, **fields)


def test_a_step_ends_when_nobody_waits():
    stage = Stage(healthy(100, waiting=9), healthy(101, waiting=5), healthy(103))
    migrate.start(stage, MOVE)
    move = migrate.step(stage, "shifting", 50, 100.0)
    assert stage.follow(move, 0.0) == ""
    assert (stage.move.percent, stage.move.state) == (50, "shifting")
    assert stage.shares == [0.0, 50]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (healthy(101, errors=9), "9 errors"),
        (healthy(101, lag_seconds=9.0), "9.0 s late"),
        (healthy(101, offline_after_move=5), "5 students went offline"),
    ],
)
def test_beyond_a_limit_the_step_is_taken_back(bad, reason):
    stage = Stage(healthy(100, waiting=9), bad)
    migrate.start(stage, MOVE)
    migrate.step(stage, "shifting", 25, 100.0)
    move = migrate.step(stage, "shifting", 50, 100.0)
    assert reason in stage.follow(move, 25.0)
    assert (stage.move.percent, stage.move.state) == (25, "rolled_back")
    assert reason in stage.move.reason
    assert stage.shares[-1] == 25


def test_a_bridge_that_falls_silent_takes_the_step_back():
    stage = Stage(healthy(100, waiting=9))
    migrate.start(stage, MOVE)
    assert "silent" in stage.follow(migrate.step(stage, "shifting", 50, 100.0), 0.0)
    assert stage.move.percent == 0


def test_one_move_at_a_time():
    stage = Stage(healthy(100))
    with pytest.raises(WrongStep, match="migrate start"):
        migrate.step(stage, "shifting", 10, 1.0)
    migrate.start(stage, MOVE)
    with pytest.raises(WrongStep, match="under way"):
        migrate.start(stage, MOVE)
    migrate.step(stage, "shifting", 100, 1.0)
    migrate.step(stage, "finished", 100, 2.0)
    with pytest.raises(WrongStep, match="50 participants of the last move"):
        migrate.start(stage, MOVE)
    stage.looks = [Health(at=101.0)]
    assert migrate.start(stage, MOVE).version == 4


def test_a_step_may_add_exams_and_groups_and_leave_none_out():
    stage = Stage(healthy(100))
    migrate.start(stage, replace(MOVE, exams=("math",)))
    migrate.step(stage, "shifting", 100, 1.0)
    assert migrate.step(stage, "shifting", 100, 1.0, exams=("physics", "math")).exams == ("math", "physics")
    with pytest.raises(WrongStep, match="--group: the move is about all groups"):
        migrate.step(stage, "shifting", 100, 1.0, groups=("Room A",))
    assert stage.move.groups == ()


# --- the exam on both sides ---------------------------------------------------------------------------------------------------


def test_what_is_given_to_everyone_on_one_side_holds_on_the_other_once():
    there = new_exam(ExamKey("north", "math"), "lambda", 1.0)
    here = agreed(None, there, "ec2")
    assert (here.here, here.state) == ("ec2", "open")
    assert agreed(here, there, "ec2") is here
    pause = CommandIssued(received_at=2.0, command_id="k1", command="pause", expires_at=300.0, issued_by="pat")
    told = replace(there, standing=(pause,), state="paused", version=7)
    paused = agreed(here, told, "ec2")
    assert (paused.state, paused.standing, paused.here) == ("paused", (pause,), "ec2")
    assert agreed(paused, told, "ec2") is paused
    assert agreed(told, paused, "lambda") is told
    assert bridge.missing(told, paused) == []
    assert bridge.missing(there, paused) == [pause]


def test_an_exam_that_one_side_closed_is_closed_and_one_opened_again_is_open_on_both():
    there = new_exam(ExamKey("north", "math"), "lambda", 1.0)
    here = agreed(None, there, "ec2")
    for mine, other, side in ((here, there, "ec2"), (there, here, "lambda")):
        assert agreed(mine, replace(other, state="closed"), side).state == "closed"
        assert agreed(replace(mine, state="closed"), other, side).state == "closed"
        again = replace(other, opened_at=99.0)
        opened = agreed(replace(mine, state="closed"), again, side)
        assert (opened.state, opened.opened_at, opened.here) == ("open", 99.0, side)
        assert agreed(replace(again, here=side), replace(mine, state="closed"), side).state == "open"
    assert agreed(None, here, "lambda") == replace(here, here="lambda")  # a first report began it on the cluster


# --- an account ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def account(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with moto.mock_aws():
        yield Account("ap-southeast-1")


def test_a_move_is_kept_in_the_table_and_changed_by_one_at_a_time(account):
    table = resources.tables()[0]
    account.client("dynamodb").create_table(**table)
    plane = AccountPlane(account, table["TableName"])
    assert (plane.load(), plane.health()) == (None, None)
    assert plane.save(None, MOVE)
    assert not plane.save(None, MOVE)
    assert plane.load() == MOVE
    after = replace(MOVE, version=2, percent=5.0)
    assert plane.save(MOVE, after)
    assert not plane.save(MOVE, after)


def weighted_records(client, zone):
    for side in ("lambda", "ec2"):
        record = {
            "Name": "exams.north.example",
            "Type": "CNAME",
            "TTL": 30,
            "SetIdentifier": side,
            "Weight": 0,
            "ResourceRecords": [{"Value": f"{side}.example"}],
        }
        change = {"Action": "CREATE", "ResourceRecordSet": record}
        client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [change]})


def test_shares_of_new_connections_are_the_weights_of_two_records(account):
    client = account.client("route53")
    zone = client.create_hosted_zone(Name="north.example", CallerReference="1")["HostedZone"]["Id"]
    plane = AccountPlane(account, "table", zone, "exams.north.example")
    with pytest.raises(AccountError, match="no weighted records lambda and ec2"):
        plane.weigh(25)
    weighted_records(client, zone)
    plane.weigh(25)
    records = client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    found = {r["SetIdentifier"]: (r["Weight"], r["TTL"]) for r in records if "SetIdentifier" in r}
    assert found == {"ec2": (64, 30), "lambda": (191, 30)}


@pytest.fixture
def stage(account, monkeypatch):
    """The commands over a stage whose two sides are only outputs; `run` calls one, `reports` is what its bridge said last."""
    table = resources.tables()[0]
    account.client("dynamodb").create_table(**table)
    client = account.client("route53")
    zone = client.create_hosted_zone(Name="north.example", CallerReference="1")["HostedZone"]["Id"].rpartition("/")[2]
    weighted_records(client, zone)
    serverless = {"ManagementUrl": "https://id.example/prod", "SocketUrl": "wss://exams.north.example/ws"}
    serverless |= dict.fromkeys(("SweepQueueUrl", "CommandQueueUrl", "ViewsQueueUrl"), "https://queue.example")
    cluster = {"SocketUrl": "wss://exams.north.example/ws"}

    class It:
        outputs = cluster
        plane = AccountPlane(account, table["TableName"], zone, "exams.north.example")

        def run(self, command, *arguments):
            given = ["--stage", "prod", "--region", "ap-southeast-1"]
            return CliRunner().invoke(deploy, ["migrate", command, *given, *arguments])

        def reports(self, health):
            item = {"pk": {"S": "move"}, "sk": {"S": "health"}, "m": {"S": encode(health).decode()}}
            account.client("dynamodb").put_item(TableName=table["TableName"], Item=item)

        def weights(self):
            records = client.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
            return {r["SetIdentifier"]: r["Weight"] for r in records if "SetIdentifier" in r}

    it = It()
    stacks = {
        "lambda": Stack("lambda", "CREATE_COMPLETE", parameters={"Audience": ""}, outputs=serverless),
        "ec2": Stack("ec2", "CREATE_COMPLETE", parameters={}, outputs=cluster),
    }
    monkeypatch.setattr(migrate_cli, "_stage_of", lambda **_: (it.plane, stacks))
    monkeypatch.setattr(migrate, "_LOOK_SECONDS", 0.01)
    return it


def test_the_steps_of_a_move_in_an_account(stage):
    """What each command says and does: the plan in the table, the weights of new connections, the guard."""
    ahead = time.time() + 1_000  # a bridge that reports at each look
    fine = Health(at=ahead, on_lambda=75, on_ec2=25)
    refused = stage.run("start")
    assert refused.exit_code == 1
    assert "wss://exams.north.example/ws leads to either side" in refused.output
    assert "--set DirectName=NAME" in refused.output
    stage.outputs["DirectUrl"] = "wss://cluster.north.example/ws"
    planned = stage.run("plan", "--students", "500", "--exams-per-month", "20")
    assert planned.exit_code == 0, planned.output
    assert "from wss://id.example/prod\nto   wss://cluster.north.example/ws\n" in planned.output
    assert re.search(
        r"cost of 20 exams .* 500 students .* before \$[\d,.]+, after \$[\d,.]+ \(both, while both", planned.output
    )
    assert "no move" in stage.run("status").output
    assert stage.run("start", "--exam", "math").exit_code == 0
    assert stage.weights() == {"ec2": 0, "lambda": 255}
    stage.reports(fine)
    shifted = stage.run("shift", "--percent", "25", "--exam", "physics")
    assert (shifted.exit_code, shifted.output) == (0, "25 % are on the cluster\n")
    assert stage.weights() == {"ec2": 64, "lambda": 191}
    assert stage.plane.load().exams == ("math", "physics")
    assert "shifting, 25 %" in stage.run("status").output
    backwards = stage.run("shift", "--percent", "5")
    assert "deploy migrate rollback" in backwards.output
    stage.reports(replace(fine, waiting=3, lag_seconds=9.0))
    failed = stage.run("shift", "--percent", "100")
    assert failed.exit_code == 1
    assert "rolled back to 25 %: views arrive 9.0 s late (limit 3)" in failed.output
    assert (stage.weights(), stage.plane.load().state) == ({"ec2": 64, "lambda": 191}, "rolled_back")
    stage.reports(fine)
    assert stage.run("rollback").exit_code == 0
    assert (stage.weights(), stage.plane.load().percent) == ({"ec2": 0, "lambda": 255}, 0)
    assert stage.run("shift", "--percent", "100").exit_code == 0
    assert "75 participants are still serverless" in stage.run("finish").output
    stage.reports(replace(fine, on_lambda=0, on_ec2=100))
    assert stage.run("finish").exit_code == 0
    assert (stage.weights(), stage.plane.load().state) == ({"ec2": 255, "lambda": 0}, "finished")


def test_a_small_share_is_never_none_and_a_large_one_never_all():
    assert migrate.weights(0) == {"ec2": 0, "lambda": 255}
    assert migrate.weights(0.1) == {"ec2": 1, "lambda": 254}
    assert migrate.weights(99.9) == {"ec2": 254, "lambda": 1}
    assert migrate.weights(100) == {"ec2": 255, "lambda": 0}


@pytest.mark.parametrize(
    "command", [["plan"], ["start"], ["shift", "--percent", "5"], ["status"], ["rollback"], ["finish"]]
)
def test_without_an_account_each_command_says_what_it_needs(command, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    boto3.DEFAULT_SESSION = None
    result = CliRunner().invoke(
        deploy, ["migrate", command[0], "--stage", "prod", "--region", "ap-southeast-1", *command[1:]]
    )
    assert result.exit_code == 1
    assert "no AWS credentials: set AWS_PROFILE" in result.output


# --- one bridge at a time -------------------------------------------------------------------------------------------------------


ENVIRONMENT = {
    "AWS_REGION": "ap-southeast-1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # nothing is asked of it
    "PROCTORWIRE_STATE_TABLE": "state",
    "PROCTORWIRE_JOURNAL_TABLE": "journal",
    "PROCTORWIRE_MANAGEMENT_URL": "http://127.0.0.1:9",
    "PROCTORWIRE_TOKEN_SECRET": "k" * 64,
}


def test_of_the_bridges_of_several_instances_one_acts_and_the_next_takes_over(monkeypatch):
    monkeypatch.setattr(bridge, "_TURN_SECONDS", 1)

    async def play(url: str) -> None:
        settings = bridge.settings_of(ENVIRONMENT, None)
        first, second = bridge.Bridge(settings, url), bridge.Bridge(settings, url)
        await first.connect()
        await second.connect()
        await first._wait_for_turn()
        keeping = asyncio.create_task(first._keep_turn())
        waiting = asyncio.create_task(second._wait_for_turn())
        await asyncio.sleep(1.3)  # longer than a turn that nobody renews
        assert not waiting.done()
        keeping.cancel()  # killed: it renews no more
        await asyncio.wait_for(waiting, 10)
        with pytest.raises(bridge.LostTurn):
            await first._keep_turn()
        await asyncio.gather(first.close(), second.close(), keeping, return_exceptions=True)

    with EmbeddedRedis.start() as server:
        asyncio.run(play(server.url))


# --- between bridge and workers -------------------------------------------------------------------------------------------------


def test_what_a_bridge_publishes_is_numbered_for_each_exam_without_a_hole():
    """A worker reads an exam again when an origin's numbers have a hole: each exam, and each way to publish, counts for itself."""
    exams = [ExamKey("north", "math"), ExamKey("north", "physics")]
    heard: dict[tuple[bytes, bytes], list[int]] = {}

    def hear(channel: bytes, payload: bytes) -> None:
        origin, number, *_ = payload.split(b"\n")[0].split(b" ")
        heard.setdefault((channel, origin), []).append(int(number))
        if sum(map(len, heard.values())) == 12:
            all_heard.set()

    all_heard = asyncio.Event()

    async def play(url: str) -> None:
        one = bridge.Bridge(bridge.settings_of(ENVIRONMENT, None), url)
        await one.connect()
        listening = one._broker.subscriber(hear, lambda: None)
        await listening.connect_patiently()
        await listening.subscribe(*(exam_keys(exam).channel for exam in exams))
        watched = [bridge._Watched(Policy(), {}) for _ in exams]
        for _ in range(3):
            for exam, each in zip(exams, watched, strict=True):
                await one._publish(exam, each, b"", [b'""\t{}'])
                await one._broker.publish(exam, [b'""\t{}'])
        await asyncio.wait_for(all_heard.wait(), 10)
        await listening.close()
        await one.close()

    with EmbeddedRedis.start() as server:
        asyncio.run(play(server.url))
    assert list(heard.values()) == [[1, 2, 3]] * 4


def test_a_redis_that_can_not_be_one_ends_the_bridge_with_the_reason():
    with pytest.raises(SystemExit, match=r"PROCTORWIRE_REDIS_URL can't be used: .*redis://"):
        bridge.asked("http://nowhere")
