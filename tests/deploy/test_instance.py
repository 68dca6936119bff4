"""What runs on an instance: its units and cloud-init as their own tools see them, its settings, and its drain step by step."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from tools import program

from adapters.ec2_cluster.config import read_settings
from adapters.ec2_cluster.metrics import EmfSettings, Figures, emf
from adapters.ec2_cluster.web import read_web_settings
from adapters.lambda_apigw import resources
from adapters.lambda_apigw.aws_http import Credentials
from adapters.web.records import RecordsUnavailable
from adapters.web.records.dynamodb import DynamoRecords
from deploy import bridge, templates
from deploy.account import Account
from deploy.ec2_cluster.instance import drain, settings
from deploy.migrate import AccountPlane, side_of

HERE = Path(__file__).parent.parent.parent / "deploy/ec2_cluster/instance"
UNITS = sorted(HERE.glob("*.service"))
TOKEN_SECRET = "0123456789abcdef" * 4


def user_data():
    """The cloud-config, and the names that are its own."""
    data = templates.load("ec2")["Resources"]["InstanceTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]
    return data["Fn::Base64"]["Fn::Sub"]


def deployment(**more):
    """As cloud-init writes it: the names are the template's."""
    text, local = user_data()
    cloud_config = yaml.safe_load(text)
    written = cloud_config["write_files"][0]
    assert written["path"] == str(settings.DEPLOYMENT)
    values = {
        "Stage": "test",
        "AWS::Region": "ap-southeast-1",
        "AWS::StackName": "proctorwire-test-ec2",
        "SocketTargets": "arn:sockets",
        "WebTargets": "arn:web",
        "TokenSecretArn": "arn:token",
        "SchoolKeysSecretArn": "arn:schools",
        "StateTable": "state",
        "JournalTable": "journal",
        "RetentionDays": "180",
        "Endpoints": "",
        "DrainSeconds": "60",
        "Name": "exams.example.org",
        "TlsSecret": "",
        "Cache": "",
        "CacheSecretArn": "",
        "Records": "",
        "DatabaseSecretArn": "",
        "ServiceAlarms": "off",
    }
    assert set(local) <= set(values)
    content = re.sub(r"\$\{([A-Za-z:]+)\}", lambda found: values[found[1]], written["content"])
    return json.loads(content) | more


SECRETS = {
    "arn:token": TOKEN_SECRET,
    "arn:schools": "north:0123456789abcdef,south:fedcba9876543210",
    "arn:cache": "pa55word",
    "arn:tls": json.dumps({"certificate": "CERT", "key": "KEY"}),
}


def read_back(path):
    """As systemd reads an EnvironmentFile."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition("=")
        found[name] = re.sub(r"\\(.)", r"\1", value[1:-1])
    return found


# --- beginning ------------------------------------------------------------------------------------------------------------


def test_units_are_as_systemd_wants_them(tmp_path):
    analyze = program("systemd-analyze", package="systemd")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/proctorwire/venv/bin/python", shutil.which("true"))
        (tmp_path / unit.name).write_text(text)
    ran = subprocess.run(
        [analyze, "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in ran.stderr.splitlines() if "proctorwire" in line]
    assert ours == []
    assert ran.returncode == 0


@pytest.mark.skipif(shutil.which("cloud-init") is None, reason="no cloud-init here")
def test_user_data_is_as_cloud_init_wants_it(tmp_path):
    (tmp_path / "user-data").write_text(user_data()[0].replace("${DrainSeconds}", "60"))
    ran = subprocess.run(
        ["cloud-init", "schema", "--config-file", str(tmp_path / "user-data")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_whatever_fails_at_the_beginning_cloudformation_is_told():
    (command,) = yaml.safe_load(user_data()[0])["runcmd"]
    assert command[:2] == ["sh", "-c"]
    assert re.search(
        r"&& /opt/proctorwire/app/(\S+)/install.sh \|\| /opt/aws/bin/cfn-signal --success false", command[2]
    )
    assert (HERE / "install.sh").is_relative_to(HERE.parent.parent.parent)


def test_services_that_the_world_talks_to_may_do_little():
    for name in ("proctorwire.service", "proctorwire-web.service", "proctorwire-bridge.service"):
        unit = (HERE / name).read_text()
        for line in ("User=proctorwire", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"):
            assert line in unit.splitlines(), f"{name}: {line}"


def test_a_stop_has_time_for_the_longest_drain_and_the_hook_for_the_longest_stop():
    cluster = templates.load("ec2")
    unit = (HERE / "proctorwire.service").read_text()
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    hook = cluster["Resources"]["DrainHook"]["Properties"]["HeartbeatTimeout"]
    assert stop >= cluster["Parameters"]["DrainSeconds"]["MaxValue"] + 15
    assert hook >= drain._LEAVING_SECONDS + drain.SETTLE_SECONDS + stop + 30 + 60


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_script_has_no_syntax_error_and_installs_what_the_bundle_holds():
    script = HERE / "install.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert script.stat().st_mode & stat.S_IXUSR
    named = set(re.findall(r'"\$here[/"]*([a-z0-9.-]+\.(?:logrotate|conf|json))', script.read_text()))
    assert named == {"proctorwire.logrotate", "90-proctorwire.conf", "cloudwatch-agent.json"}
    assert all((HERE / name).is_file() for name in named)


def test_the_agent_sends_what_alarms_and_dashboard_look_at():
    agent = json.loads((HERE / "cloudwatch-agent.json").read_text())["metrics"]
    sent = {
        name for each in agent["metrics_collected"].values() if isinstance(each, dict) for name in each["measurement"]
    }
    body = templates.body(templates.load("ec2"))
    for name in ("mem_used_percent", "disk_used_percent"):
        assert name in sent
        assert name in body
    assert agent["namespace"] == "Proctorwire/EC2"
    assert ["AutoScalingGroupName"] in agent["aggregation_dimensions"]


def test_servers_tell_what_the_service_alarms_look_at(tmp_path):
    """From the template's alarms to the line that a server writes: names, dimension, file."""
    resources = templates.load("ec2")["Resources"]
    group = resources["Instances"]["Properties"]["AutoScalingGroupName"]["Fn::Sub"]
    alarms = [each["Properties"] for each in resources.values() if each.get("Condition") == "HasServiceAlarms"]
    settings.write(deployment(service_alarms="on"), SECRETS.__getitem__, tmp_path, workers=1)
    server = read_settings({}, read_back(tmp_path / "environment"))
    assert {alarm["MetricName"] for alarm in alarms} == set(server.emf_metrics)
    now = Figures("instance", counters={"errors_total": 1, "restarts_total": 0}, gauges={"journal_behind_seconds": 0})
    line = json.loads(emf(now, now, "i-1", EmfSettings(server.emf, server.emf_group, server.emf_metrics)))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    for alarm in alarms:
        assert alarm["Namespace"] == directive["Namespace"]
        assert alarm["MetricName"] in [metric["Name"] for metric in directive["Metrics"]]
        ((dimension,),) = directive["Dimensions"]
        (wanted,) = alarm["Dimensions"]
        assert wanted["Name"] == dimension
        assert wanted["Value"] == {"Ref": "Instances"}
        assert group.replace("${Stage}", deployment()["stage"]) == line[dimension]
    collected = json.loads((HERE / "cloudwatch-agent.json").read_text())["logs"]["logs_collected"]["files"]
    assert server.emf in [file["file_path"] for file in collected["collect_list"]]


def test_without_service_alarms_no_metric_is_made_that_aws_would_bill(tmp_path):
    settings.write(deployment(), SECRETS.__getitem__, tmp_path, workers=1)
    assert read_settings({}, read_back(tmp_path / "environment")).emf == ""


def test_no_secret_is_in_what_anybody_may_read_of_an_instance():
    """User data is readable for every process: it names secrets, and holds none."""
    for secret in SECRETS.values():
        assert secret not in json.dumps(deployment())


# --- settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["", "cache.example.org"])
def test_server_and_api_take_the_settings_that_are_written(tmp_path, cache):
    settings.write(deployment(cache=cache, cache_secret="arn:cache"), SECRETS.__getitem__, tmp_path, workers=2)
    server = read_settings({}, read_back(tmp_path / "environment"))
    assert (server.port, server.workers, server.drain_seconds) == (8080, 2, 60)
    assert server.token_secrets == {"": TOKEN_SECRET}
    assert server.journal == "dynamodb:journal?days=180&region=ap-southeast-1"
    http_api, web = read_web_settings({}, read_back(tmp_path / "web-environment"))
    assert http_api.port == 8090
    assert web.socket_url == "wss://exams.example.org/ws"
    assert web.school_keys.school_of("fedcba9876543210") == "south"
    if cache:
        assert server.redis_url == http_api.redis_url == "rediss://proctorwire:pa55word@cache.example.org:6379"
    else:
        assert server.redis_url == ""
        assert http_api.redis_url == f"unix://{server.data_dir}/redis/redis.sock", "the server's own"


def test_records_are_in_the_database_if_there_is_one_and_else_in_the_journals_table(tmp_path, monkeypatch):
    settings.write(deployment(), SECRETS.__getitem__, tmp_path, workers=1)
    _, web = read_web_settings({}, read_back(tmp_path / "web-environment"))
    assert isinstance(web.records, DynamoRecords)

    local = user_data()[1]
    assert local["Records"]["Fn::If"][0] == "HasDatabase"
    place = local["Records"]["Fn::If"][1]["Fn::Sub"].replace("${DatabaseEndpoint}", "127.0.0.1").replace(":5432", ":9")
    secret = "arn:aws:secretsmanager:ap-southeast-1:123456789012:secret:rds!cluster-1"
    settings.write(deployment(records=place, records_secret=secret), SECRETS.__getitem__, tmp_path, workers=1)
    _, web = read_web_settings({}, read_back(tmp_path / "web-environment"))
    asked = []

    class Manager:
        def get_secret_value(self, SecretId):  # noqa: N803  boto3's
            asked.append(SecretId)
            return {"SecretString": json.dumps({"username": "proctorwire", "password": "p"})}

    monkeypatch.setattr("boto3.client", lambda service, region_name: asked.append((service, region_name)) or Manager())
    with pytest.raises(RecordsUnavailable, match=r"database.*127\.0\.0\.1"):
        web.records.check()  # nobody listens there
    assert asked == [("secretsmanager", "ap-southeast-1"), secret]
    web.records.close()


def test_the_bridge_knows_tables_and_redis_and_finds_the_rest_in_the_table(aws, client, tmp_path):
    settings.write(deployment(), SECRETS.__getitem__, tmp_path, workers=1)
    found = read_back(tmp_path / "bridge-environment")
    assert found["PROCTORWIRE_REDIS_URL"] == "unix:///var/lib/proctorwire/redis/redis.sock"
    keys = Credentials("key", "secret", "token")
    found |= {"AWS_ENDPOINT_URL": aws}
    client("dynamodb").create_table(**{**resources.tables()[0], "TableName": "state"})
    with pytest.raises(bridge.NoMoveYet):
        bridge.settings_of(found, lambda: keys)
    outputs = {"ManagementUrl": "https://id.example/test"} | dict.fromkeys(
        ("SweepQueueUrl", "CommandQueueUrl", "ViewsQueueUrl"), "https://queue.example"
    )
    AccountPlane(Account("ap-southeast-1"), "state").save_side(side_of(outputs, {"Audience": "exams"}))
    ready = bridge.settings_of(found, lambda: keys)
    assert (ready.management_url, ready.audience) == ("https://id.example/test", "exams")
    assert (ready.state_table, ready.journal_table, ready.retention_days) == ("state", "journal", 180)
    assert (ready.credentials, ready.token_secret) == (keys, TOKEN_SECRET)


def test_secrets_are_for_their_services_only(tmp_path):
    (tmp_path / "environment").write_text("left by an earlier start")
    (tmp_path / "environment").chmod(0o644)
    settings.write(deployment(tls_secret="arn:tls"), SECRETS.__getitem__, tmp_path, workers=1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    files = ("environment", "web-environment", "bridge-environment")
    assert modes == {**dict.fromkeys(files, 0o600), "certificate.pem": 0o640, "key.pem": 0o640}
    assert (tmp_path / "key.pem").read_text() == "KEY"


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a$HOME", "a`b", "a b#c", "'"])
def test_any_secret_survives_the_file(tmp_path, value):
    (tmp_path / "file").write_text(settings.as_file({"NAME": value}))
    assert read_back(tmp_path / "file") == {"NAME": value}


def test_a_secret_of_two_lines_is_refused():
    with pytest.raises(ValueError, match="NAME"):
        settings.as_file({"NAME": "a\nPATH=b"})


# --- end --------------------------------------------------------------------------------------------------------------------


class Aws:
    """Target groups and Auto Scaling; writes down what is asked of them."""

    def __init__(self, states=("healthy", "draining"), fails=()):
        self.states, self.fails, self.done = list(states), fails, []

    def deregister_targets(self, TargetGroupArn, Targets):  # noqa: N803
        self.did("deregister", TargetGroupArn)

    def describe_target_health(self, TargetGroupArn, Targets):  # noqa: N803
        self.did("look", TargetGroupArn)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"TargetHealthDescriptions": [{"TargetHealth": {"State": state}}] if state else []}

    def complete_lifecycle_action(self, **given):
        self.did("complete", given["AutoScalingGroupName"], given["LifecycleHookName"], given["InstanceId"])

    def did(self, what, *more):
        self.done.append((what, *more))
        if what in self.fails:
            raise RuntimeError(what)


def drained(aws):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        aws.done.append(("sleep", seconds))

    drain.Drain(deployment(), "i-1", aws, aws, lambda: aws.did("stop"), sleep=sleep, clock=lambda: now[0]).run()
    return aws.done


def test_a_drain_leaves_the_balancer_waits_stops_and_says_so():
    assert drained(Aws()) == [
        ("deregister", "arn:sockets"),
        ("deregister", "arn:web"),
        ("look", "arn:sockets"),
        ("sleep", 2.0),
        ("look", "arn:sockets"),
        ("sleep", drain.SETTLE_SECONDS),
        ("stop",),
        ("complete", "proctorwire-test", "drain", "i-1"),
    ]


@pytest.mark.parametrize("broken", ["deregister", "look", "stop"])
def test_whatever_fails_clients_are_told_and_the_action_completed(broken):
    done = drained(Aws(fails=(broken,)))
    assert ("stop",) in done
    assert done[-1][0] == "complete"


def test_a_balancer_that_never_lets_go_is_not_waited_for_for_ever():
    done = drained(Aws(states=("healthy",)))
    assert sum(step[1] for step in done if step[0] == "sleep") <= drain._LEAVING_SECONDS + drain.SETTLE_SECONDS + 2
    assert done[-1][0] == "complete"


class MetadataService(http.server.BaseHTTPRequestHandler):
    values: dict[str, str] = {}

    def do_PUT(self):
        self.answer(200, "token-1")

    def do_GET(self):
        name = self.path.removeprefix("/latest/meta-data/")
        if self.headers.get("X-aws-ec2-metadata-token") != "token-1":
            self.answer(401, "")
        elif name in self.values:
            self.answer(200, self.values[name])
        else:
            self.answer(404, "")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("values", "goes"),
    [
        ({}, False),
        ({"autoscaling/target-lifecycle-state": "InService"}, False),
        ({"autoscaling/target-lifecycle-state": "Terminated"}, True),
        ({"spot/instance-action": '{"action": "terminate"}'}, True),
    ],
)
def test_an_instance_learns_from_its_metadata_that_it_must_go(values, goes):
    handler = type("Handler", (MetadataService,), {"values": values})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            metadata = drain.InstanceMetadata(f"http://127.0.0.1:{server.server_port}/latest")
            assert drain.must_go(metadata) is goes
        finally:
            server.shutdown()
            thread.join()


def test_without_a_metadata_service_nothing_is_drained():
    assert drain.must_go(drain.InstanceMetadata("http://127.0.0.1:9/latest")) is False
