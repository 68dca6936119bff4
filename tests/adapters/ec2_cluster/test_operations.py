"""What an operator sees: figures, logs, settings."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import certificates
import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from deployments import ClusterDeployment
from wire_clients import Dashboard, Page

from adapters.ec2_cluster import metrics, redis_sync
from adapters.ec2_cluster.admin_server import tell
from adapters.ec2_cluster.config import ClusterSettings, SettingsError, read_settings, without_password
from adapters.ec2_cluster.local import LocalCluster
from adapters.ec2_cluster.logs import LINES_A_MINUTE, FloodFilter, JsonFormatter
from adapters.ec2_cluster.metrics import EmfSettings, FigureFile, Figures, Histogram, collect, emf, exposition
from adapters.ec2_cluster.supervisor import Supervisor
from adapters.ec2_cluster.worker import Worker
from compare.proctorwire import main
from core.errors import CloseCode
from deploy.cli import deploy

SECRET = "0123456789abcdef" * 2


async def get(url: str, method: str = "GET") -> str:
    def ask() -> str:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(ask)


async def figure(url: str, name: str, wanted: float) -> None:
    """Wait until a figure is there, and at least as large."""
    deadline = time.monotonic() + 20
    while True:
        text = await get(url + "/metrics")
        found = re.search(rf"^proctorwire_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        if found and float(found[1]) >= wanted:
            return
        assert time.monotonic() < deadline, f"{name} is not {wanted}: {text}"
        await asyncio.sleep(0.05)


async def test_figures_of_all_workers_are_added_up_and_outlive_them() -> None:
    admin = {"PROCTORWIRE_ADMIN_PORT": "0"}
    async with LocalCluster(instances=1, workers=2, environments=[admin]) as cluster:
        url = cluster.ready[0].admin_url
        assert url.startswith("http://127.0.0.1:")
        exam = ClusterDeployment(cluster, "figures")
        pages = [Page(exam, f"s{n}") for n in range(6)]
        proctor = Dashboard(exam)
        for client in (*pages, proctor):
            await client.connect()
        await proctor.watch()
        for page in pages:
            await page.reported()
            await proctor.sees(page.student, label="active")
        for name, wanted in {
            'connections{role="student"}': 6,
            'connections{role="proctor"}': 1,
            "reports_total": 6,
            "deliveries_total": 1,
            "workers": 2,
            "redis_connected": 2,
            "participants": 6,
            "save_seconds_count": 1,
            "publication_seconds_count": 2,
            "delivery_seconds_count": 1,
            'loop_lag_seconds_bucket{le="+Inf"}': 2,
            "journal_carried_total": 6,
            'open_files{process="worker"}': 2,
            'refused_total{status="401"}': 0,
        }.items():
            if name.startswith("refused"):
                pages[0].token = "nonsense"
                with pytest.raises(Exception, match="401"):
                    await pages[0].connect()
            await figure(url, name, wanted)
        for victim in cluster.pids()["worker"]:
            os.kill(victim, signal.SIGKILL)
        await figure(url, "restarts_total", 2)
        await figure(url, "reports_total", 6)
        assert await get(url + "/healthz") == "ok\n"
        assert "proctorwire_workers" in await get(url + "/metrics?name=workers")
        assert await get(url + "/metrics", "HEAD") == ""
        with pytest.raises(urllib.error.HTTPError, match="501") as refused:
            await get(url + "/metrics", "PUT")
        assert refused.value.read() == b"Unsupported method ('PUT')\n"
        assert "Python" not in refused.value.headers["Server"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            await get(url + "/elsewhere")


def test_figures_are_told_in_the_text_format(tmp_path: Path) -> None:
    histogram = Histogram()
    for seconds in (0.0005, 0.02, 9.0):
        histogram.observe(seconds)
    for name in ("a", "b"):
        FigureFile(str(tmp_path), name).write(
            Figures(
                "worker",
                counters={'closed_total{code="1000"}': 2, "reports_total": 12_345_679},
                gauges={"exams": 1},
                histograms={"save_seconds": histogram},
            )
        )
    (tmp_path / "broken.json").write_text("{")
    text = exposition(collect(str(tmp_path)))
    assert 'proctorwire_closed_total{code="1000"} 4\n' in text
    assert "# TYPE proctorwire_closed_total counter\n" in text
    assert "proctorwire_exams 2\n" in text
    assert 'proctorwire_save_seconds_bucket{le="0.001"} 2\n' in text
    assert 'proctorwire_save_seconds_bucket{le="0.025"} 4\n' in text
    assert 'proctorwire_save_seconds_bucket{le="+Inf"} 6\n' in text
    assert "proctorwire_reports_total 24691358\n" in text, "a counter has all of its digits"
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) proctorwire_\w+ .+|proctorwire_\w+(\{\w+="[^"]*"\})? \S+', line), line


def test_a_line_for_cloudwatch_has_counts_since_the_last_one(tmp_path: Path) -> None:
    slow = Histogram()
    slow.observe(0.3)
    before = Figures("instance", counters={"reports_total": 100})
    now = Figures(
        "instance", at=1_000.0, counters={"reports_total": 130}, gauges={"exams": 2}, histograms={"save_seconds": slow}
    )
    file = tmp_path / "emf.log"
    telling = EmfSettings(str(file))
    assert tell(telling, before, now, "host") is now
    line = json.loads(file.read_text())
    assert (line["reports_total"], line["exams"], line["save_p95"], line["Instance"]) == (30, 2, 500, "host")
    named = {metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert named == set(line) - {"_aws", "Instance"}
    assert json.loads(emf(now, now, "host", telling))["reports_total"] == 0
    tell(EmfSettings(str(tmp_path / "nowhere" / "emf.log")), before, now, "host")  # no reason to stop


def test_metrics_of_a_group_are_few_and_the_rest_stays_in_the_line() -> None:
    now = Figures("instance", at=1.0, counters={"errors_total": 7, "reports_total": 9}, gauges={"exams": 2})
    few = EmfSettings("", "school", ("errors_total", "journal_behind_seconds"))
    line = json.loads(emf(Figures("instance"), now, "host", few))
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive["Metrics"] == [{"Name": "errors_total", "Unit": "Count"}]
    assert directive["Dimensions"] == [["Group"]]
    assert (line["Group"], line["Instance"], line["reports_total"], line["exams"]) == ("school", "host", 9, 2)


def test_a_flood_of_lines_is_cut_and_counted() -> None:
    now = 0.0
    flood = FloodFilter(lambda: now)

    def line(what: str) -> logging.LogRecord:
        return logging.LogRecord("proctorwire", logging.WARNING, "file", 7, f"{what}: %s", ("x",), None)

    assert sum(flood.filter(line("redis")) for _ in range(500)) == LINES_A_MINUTE
    assert flood.filter(line("another"))
    now = 61.0
    first = line("redis")
    assert flood.filter(first)
    assert first.getMessage() == f"redis: x ({500 - LINES_A_MINUTE} more of these in the last minute)"
    now = 122.0
    again = line("redis")
    assert flood.filter(again)
    assert again.getMessage() == "redis: x"


def test_lines_that_differ_in_values_alone_and_lines_of_no_end_of_kinds_are_cut_too() -> None:
    flood = FloodFilter(lambda: 0.0)

    def line(words: str) -> logging.LogRecord:
        return logging.LogRecord("asyncio", logging.ERROR, "file", 7, words, (), None)

    transports = (f"Fatal error on <TCPTransport 0x7f{n:x}> fd={n}" for n in range(500))
    assert sum(flood.filter(line(words)) for words in transports) == LINES_A_MINUTE
    letters = "".join(map(chr, range(0x400, 0x400 + 3_000)))
    assert sum(flood.filter(line(words)) for words in letters) < 1_000 + 3 * LINES_A_MINUTE


async def test_a_task_and_a_duty_that_fail_are_errors_of_ours_and_the_duty_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker("w", ClusterSettings(token_secrets={"": SECRET}, redis_url="redis://127.0.0.1:1"))
    again = asyncio.Event()
    calls: list[None] = []

    async def broken() -> None:
        calls.append(None)
        if len(calls) > 2:
            again.set()
        raise LookupError

    worker._spawn(broken())
    worker._every(0.001, broken)
    await again.wait()
    for task in worker._tasks:
        task.cancel()
    assert worker.failures == len(calls) == 3
    assert "a task failed" in caplog.text
    assert "a duty failed" in caplog.text


def test_a_line_of_json_has_all_that_a_search_needs() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        record = logging.LogRecord("a.b", logging.ERROR, "f", 1, "it %s", ("failed",), (ValueError, error, None))
    line = json.loads(JsonFormatter().format(record))
    assert (line["logger"], line["level"], line["message"]) == ("a.b", "ERROR", "it failed")
    assert "broken" in line["traceback"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_settings_come_from_the_command_line_then_the_environment_then_a_file(tmp_path: Path) -> None:
    file = tmp_path / "proctorwire.toml"
    file.write_text(
        f'workers = 3\nport = 1\nhost = "0.0.0.0"\norigins = ["https://a"]\ntoken_secret = "{SECRET}"\nmessage_burst = 90\n'
    )
    settings = read_settings({"port": 7, "config": str(file)}, {"PROCTORWIRE_PORT": "8", "PROCTORWIRE_WORKERS": "2"})
    assert (settings.port, settings.workers, settings.host) == (7, 2, "0.0.0.0")
    assert (settings.origins, settings.message_burst) == (("https://a",), 90)
    assert settings.token_secrets == {"": SECRET}
    by_environment = read_settings(
        {}, {"PROCTORWIRE_CONFIG": str(file), "PROCTORWIRE_TOKEN_SECRET": "k:" + SECRET[::-1]}
    )
    assert by_environment.token_secrets == {"k": SECRET[::-1]}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour = 1", "there is no setting colour"),
        ("workers = ", "can't be read"),
        ('workers = "many"', "workers"),
        ('token_secret_file = "/nowhere"', "token_secret_file /nowhere can't be read"),
        ('jwks = "/nowhere"', "jwks /nowhere can't be used"),
        ('jwks = "http://elsewhere/keys"', "https://"),
        ("message_burst = 0", "message_burst is 0"),
        ('tls_certificate = "/nowhere"', "tls_certificate /nowhere"),
        ('tls_key = "/nowhere"', "tls_key is given and no tls_certificate"),
        ('origins = ["lms.example"]', "origins has 'lms.example'"),
        ('origins = ["https://lms.example/"]', "origins has 'https://lms.example/'"),
        ('emf_metrics = ["save_p95", "errors"]', "emf_metrics has 'errors', which is no figure"),
        ('log_level = "info"', "give one of DEBUG, INFO, WARNING, ERROR"),
        ('token_secret = "short"', "shorter than 32 bytes"),
        (f'token_secret = "{SECRET},{SECRET}"', "two token secrets without a kid"),
        (f'token_secret = "a:{SECRET},a:{SECRET}"', "two token secrets of kid a"),
        ("", "no token secret"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "proctorwire.toml"
    file.write_text(text)
    secret = {} if not text or "secret" in text else {"PROCTORWIRE_TOKEN_SECRET": SECRET}
    with pytest.raises(SettingsError, match=re.escape(complaint)) as raised:
        read_settings({"config": str(file)}, secret)
    assert "\n" not in str(raised.value).strip() or "TOML" in complaint


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PORT", "abc", "port is 'abc' (in PROCTORWIRE_PORT); give a whole number"),
        ("WORKERS", "99", "workers is 99 (in PROCTORWIRE_WORKERS); it must be between 1 and 64"),
        ("DRAIN_SECONDS", "soon", "drain_seconds is 'soon' (in PROCTORWIRE_DRAIN_SECONDS); give a number"),
        ("TLS_CERT", "x.pem", "PROCTORWIRE_TLS_CERT is no setting; PROCTORWIRE_TLS_CERTIFICATE is"),
        ("REDIS", "redis://h", "PROCTORWIRE_REDIS is no setting; PROCTORWIRE_REDIS_URL is"),
        ("WORKER", "2", "PROCTORWIRE_WORKER is no setting; PROCTORWIRE_WORKERS is"),
        ("ADMIN_TOKEN", "short", "admin_token is shorter than 32 bytes"),
    ],
)
def test_a_bad_variable_is_named_with_its_fix(variable: str, value: str, complaint: str) -> None:
    environment = {"PROCTORWIRE_TOKEN_SECRET": SECRET, f"PROCTORWIRE_{variable}": value}
    with pytest.raises(SettingsError, match=re.escape(complaint)):
        read_settings({}, environment)


def test_variables_of_the_other_services_and_blanks_in_lists_are_no_mistakes() -> None:
    others = "STATE_TABLE JOURNAL_TABLE RETENTION_DAYS RECORDS RECORDS_SECRET ENDPOINTS SOCKET_URL SCHOOL_KEYS WEB_HOST WEB_PORT"
    environment = {f"PROCTORWIRE_{name}": "x" for name in [*others.split(), "DIE_WITH_PARENT", "SHARDS", "POLICY"]}
    environment |= {
        "PROCTORWIRE_TOKEN_SECRET": f"a:{SECRET}, b:{SECRET}",
        "PROCTORWIRE_ORIGINS": "https://a, https://b:1, ",
    }
    settings = read_settings({}, environment)
    assert settings.origins == ("https://a", "https://b:1")
    assert list(settings.token_secrets) == ["a", "b"]


@pytest.mark.parametrize("kept", ["an encrypted key", "no key", "no certificate"])
def test_a_certificate_without_its_key_is_refused_and_nobody_is_asked(tmp_path: Path, kept: str) -> None:
    certificate = certificates.for_localhost(tmp_path)
    key = load_pem_private_key(certificate.key.read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    (tmp_path / "key").write_bytes(locked if "encrypted" in kept else b"")
    given = {"tls_certificate": str(certificate.chain), "tls_key": str(tmp_path / "key")}
    if kept == "no certificate":
        given["tls_certificate"] = str(certificate.key)
    with pytest.raises(SettingsError, match="no PEM certificate with its own, unencrypted key"):
        read_settings(given, {"PROCTORWIRE_TOKEN_SECRET": SECRET})


@pytest.mark.parametrize(
    ("setting", "value", "complaint"),
    [
        ("host", "192.0.2.1", "host 192.0.2.1 can't be used: Cannot assign requested address; give an address of this"),
        ("admin_host", "192.0.2.1", "admin_host 192.0.2.1 can't be used"),
        ("port", 0, "choose another --port"),
        ("admin_port", 0, "choose another --admin-port"),
        ("redis_url", "redis://127.0.0.1:1", "Connection refused; check its address"),
        ("redis_url", "nonsense", "redis_url nonsense can't be used: Redis URL must specify"),
        ("journal", "/nowhere/journal.sqlite", "journal /nowhere/journal.sqlite can't be used"),
        ("journal", "dynamodb:", "a DynamoDB journal is written"),
        ("emf", "/nowhere/emf", "emf /nowhere/emf can't be written: No such file"),
    ],
)
def test_an_instance_that_can_not_start_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: object, complaint: str
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = {"port": 0, "admin_port": 0, "redis_url": "redis://127.0.0.1:1"}
        wanted |= {setting: taken.getsockname()[1] if setting.endswith("port") else value}
        settings = msgspec.structs.replace(ClusterSettings(token_secrets={"": SECRET}), **wanted)
        if setting == "journal":
            monkeypatch.setattr(redis_sync, "marked", str)
        with pytest.raises(SettingsError, match=re.escape(complaint)) as raised:
            Supervisor(settings).run(lambda ready: None)
    assert "\n" not in str(raised.value)


def test_settings_are_shown_without_secrets_and_can_be_read_again(tmp_path: Path) -> None:
    environment = {
        "PROCTORWIRE_TOKEN_SECRET": f"k1:{SECRET}",
        "PROCTORWIRE_REDIS_URL": "rediss://me:hunter2@host:6380/1",
    }
    done = CliRunner().invoke(main, ["serve", "--print-config", "--workers", "2"], env=environment)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    assert "hunter2" not in done.output
    assert "k1" in done.output
    assert "workers = 2" in done.output
    file = tmp_path / "shown.toml"
    file.write_text(done.output)
    again = read_settings({"config": str(file)}, {"PROCTORWIRE_TOKEN_SECRET": SECRET})
    assert (again.workers, again.redis_url) == (2, "rediss://host:6380/1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:hunter2@h:1/0", "redis://h:1/0"),
        ("redis://h:1?password=hunter2&db=1&username=me", "redis://h:1?db=1"),
        ("unix:///run/redis.sock?password=hunter2", "unix:///run/redis.sock"),
        ("rediss://h:1?ssl_ca_certs=a@b", "rediss://h:1?ssl_ca_certs=a@b"),
        ("redis://me:hun@ter2@h", "redis://h"),
        ("/keys/jwks@2.json", "/keys/jwks@2.json"),
    ],
)
def test_no_url_is_shown_with_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_the_manual_explains_every_figure_and_limit() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    assert [name for name in metrics._HELP if f"`{name}`" not in manual] == []
    defaults = ClusterSettings(token_secrets={})
    assert f"{defaults.messages_per_second:g} a second, {defaults.message_burst} at once" in manual
    assert f"{defaults.connections_per_address:,} in a worker" in manual


def test_the_manual_explains_every_alarm_of_the_template_and_no_other() -> None:
    root = Path(__file__).parents[3]
    manual = (root / "docs" / "operations.md").read_text()
    _, _, rest = manual.partition("### Alarms of the template")
    explained = re.findall(r"^\| `([a-z-]+)` \| .+ \| .+ \|$", rest, re.MULTILINE)
    template = (root / "deploy" / "ec2_cluster" / "cluster.yaml").read_text()
    made = re.findall(r"AlarmName: !Sub proctorwire-\$\{Stage\}-ec2-([a-z-]+)", template)
    assert explained == made
    options = {option for parameter in deploy.commands["up"].params for option in parameter.opts}
    assert set(re.findall(r"`(?:deploy up )?(--[a-z-]+)", rest.partition("Logs go to")[0])) <= options


def test_figures_for_cloudwatch_are_chosen_as_the_manual_shows() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    shown = re.search(r"^proctorwire (serve --emf [^`]+)```", manual, re.MULTILINE)
    assert shown
    arguments = shlex.split(shown[1].replace("\\\n", " "))
    environment = {"PROCTORWIRE_TOKEN_SECRET": SECRET}
    done = CliRunner().invoke(main, [*arguments, "--print-config"], env=environment)
    assert done.exit_code == 0, done.output
    assert 'emf_metrics = ["errors_total",' in done.output


def test_the_contract_of_close_codes_names_all_of_ours_and_the_waits_of_our_own_page() -> None:
    root = Path(__file__).parents[3]
    _, _, contract = (root / "docs" / "protocol.md").read_text().partition("## Close codes")
    rows = [line for line in contract.splitlines() if line.startswith("| ")]
    for name, code in vars(CloseCode).items():
        if name.isupper():
            assert any(str(code) in row for row in rows), f"{code} is not explained"
    page = (root / "adapters" / "web" / "static" / "proctorwire.js").read_text()
    waits = re.search(r"RETRY_MS = \[([\d_]+), ([\d_]+)\]", page)
    stable = re.search(r"STABLE_MS = ([\d_]+)", page)
    assert waits
    assert stable
    first, most, held = (int(ms) // 1000 for ms in (*waits.groups(), stable[1]))
    assert contract.count(f"up to min({most} s, {first} s x 2^n)") == 2
    assert f"after {held} s of a connection that held" in contract
