"""What an operator sees: figures, logs, settings."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from deployments import ClusterDeployment
from wire_clients import Dashboard, Page

from adapters.ec2_cluster import metrics
from adapters.ec2_cluster.admin_server import tell
from adapters.ec2_cluster.config import ClusterSettings, SettingsError, read_settings
from adapters.ec2_cluster.local import LocalCluster
from adapters.ec2_cluster.logs import LINES_A_MINUTE, FloodFilter, JsonFormatter
from adapters.ec2_cluster.metrics import FigureFile, Figures, Histogram, collect, emf, exposition
from compare.proctorwire import main

SECRET = "0123456789abcdef" * 2


async def get(url: str) -> str:
    def ask() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
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
                counters={'closed_total{code="1000"}': 2},
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
    assert tell(str(file), before, now, "host") is now
    line = json.loads(file.read_text())
    assert (line["reports_total"], line["exams"], line["save_p95"], line["Instance"]) == (30, 2, 500, "host")
    named = {metric["Name"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert named == set(line) - {"_aws", "Instance"}
    assert json.loads(emf(now, now, "host"))["reports_total"] == 0
    tell(str(tmp_path / "nowhere" / "emf.log"), before, now, "host")  # no reason to stop


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


def test_the_manual_explains_every_figure_and_limit() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    assert [name for name in metrics._HELP if f"`{name}`" not in manual] == []
    defaults = ClusterSettings(token_secrets={})
    assert f"{defaults.messages_per_second:g} a second, {defaults.message_burst} at once" in manual
    assert f"{defaults.connections_per_address:,} in a worker" in manual
