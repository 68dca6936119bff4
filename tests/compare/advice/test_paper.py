"""The published study beside ours: its arithmetic repeated, its percentages recomputed, its exam replayed."""

import json
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from compare.advice import paper
from compare.bill.assumptions import Assumptions
from compare.bill.prices import load_prices
from compare.commands import register
from compare.model.calibration import shipped
from compare.run.result import LatencySummary, decode_result

SINGAPORE = load_prices(paper.REGION)


@pytest.fixture
def run():
    group = click.Group("compare")
    register(group)
    return lambda *arguments: CliRunner().invoke(group, list(arguments))


@pytest.fixture(scope="module")
def month():
    return paper.month_bill(SINGAPORE, shipped(), Assumptions())


@pytest.fixture(scope="module")
def big():
    return paper.big_exam(SINGAPORE, shipped(), Assumptions())


def test_its_example_is_2_16_million_messages_and_180_000_minutes():
    found = paper.example_bill(SINGAPORE, shipped())
    assert (found.messages, found.minutes) == (2_160_000, 180_000)
    assert found.messages_usd == pytest.approx(2.484)
    assert found.minutes_usd == pytest.approx(0.05184)
    assert found.after_free_tier_usd == pytest.approx(1.16 * 1.15)


def test_what_it_left_out_is_more_than_what_it_counted():
    found = paper.example_bill(SINGAPORE, shipped())
    names = {line.name for line in found.left_out}
    assert {"Messages to clients", "DynamoDB writes", "Lambda requests", "Log ingestion"} <= names
    counted = sum(line.usd for line in found.counted)
    assert counted == pytest.approx(found.messages_usd + found.minutes_usd, rel=0.02)
    assert found.whole_usd - counted == pytest.approx(sum(line.usd for line in found.left_out))
    assert found.whole_usd > 2 * counted


def test_its_percentages_are_recomputed_from_its_dollars(month):
    gateway, ec2, total = month.percents
    assert gateway.computed == pytest.approx(-90.07, abs=0.01)
    assert ec2.computed == pytest.approx(72.755, abs=0.001)
    assert f"{ec2.computed:.1f}" == "72.8"  # it prints 72.7
    assert total.computed == pytest.approx(-22.11, abs=0.01)


def test_a_workload_explains_its_gateway_bill(month):
    messages, minutes = month.sittings * 43.2e6, month.sittings * 1.8e6
    message, minute = (SINGAPORE.price("apigateway", f"websocket-{unit}") for unit in ("message", "minute"))
    assert message.cost(messages) + minute.cost(minutes) == pytest.approx(month.websocket_usd)
    assert month.websocket_usd == pytest.approx(1_212.13)
    assert month.messages == pytest.approx(messages)
    assert 20 < month.sittings < 30  # about one on each school day


def test_what_its_two_columns_do_not_say(month):
    assert month.others_usd == pytest.approx(1_846.51 - 1_212.13 + 293.02)
    assert month.handlers_usd == pytest.approx(month.others_usd, rel=0.35)


def test_the_same_workload_on_ours(month):
    assert month.cluster_always_on_usd < 293.02
    assert month.cluster_scheduled_usd < month.cluster_always_on_usd
    assert month.relaxed_serverless_usd < month.serverless_usd
    assert month.serverless_gateway_usd < month.websocket_usd  # changes only are handed on
    assert sum(line.usd for line in month.lines["serverless"]) == pytest.approx(month.serverless_usd)


def test_its_big_exam_replayed(big):
    assert big.updates_a_second == 2_000
    assert big.our_instances <= big.their_instances
    assert big.with_redundancy >= 2
    assert big.day.peak_connections == pytest.approx(10_000, rel=0.01)
    assert big.day.samples[0].hour >= 5
    assert big.day.worst_cluster_p95_ms < 1_000


def test_its_two_figures_of_cpu_do_not_fit_together(big):
    # 65 % of four vCPUs for 200 messages a second, at 2,000 a second on 24 vCPUs
    assert big.their_busy_percent == pytest.approx(0.65 * 4 / 200 * 2_000 / 24 * 100)
    assert big.their_cpu.steady_instances > big.their_instances


def test_its_stress_test_beside_a_run_of_two_instances():
    folder = Path(__file__).parents[1] / "measured"
    result = decode_result((folder / "ec2-1000-two-instances.json").read_bytes())
    found = paper.stress_test(result, 1.0, SINGAPORE, Assumptions())
    rows = {row.name: row for row in found.rows}
    assert rows["Message latency"].theirs == (45, 78, 92, 115)
    assert rows["Round-trip time"].ours[2] == result.modes["ec2"].latency_ms.round_trip.p95
    usage = result.modes["ec2"].usage
    expected = usage.cpu_seconds.total * 2.5 / usage.duration_seconds / 4 * 100
    assert rows["CPU utilisation"].ours[0] == pytest.approx(expected)
    assert rows["CPU utilisation"].basis == "modelled"
    assert rows["CPU utilisation"].ours[1:] == (None, None, None)  # that result is older than the samples
    assert found.their_cpu_ms_a_message == pytest.approx(13.0)
    assert found.our_cpu_ms_a_message < found.their_cpu_ms_a_message


def test_its_stress_test_beside_percentiles_of_cpu_and_memory():
    result = decode_result((Path(__file__).parents[1] / "measured" / "ec2-1000-two-instances.json").read_bytes())
    run = result.modes["ec2"]
    cores = LatencySummary(avg=0.2, p50=0.2, p90=0.32, p95=0.4, p99=0.8, max=1.0, count=60)
    memory = LatencySummary(avg=2**28, p50=2**28, p90=2**29, p95=2**29, p99=2**30, max=2**30, count=60)
    run = msgspec.structs.replace(
        run,
        cpu=msgspec.structs.replace(run.cpu, cores=cores),
        memory=msgspec.structs.replace(run.memory, each_second=memory),
    )
    result = msgspec.structs.replace(result, modes={"ec2": run})
    rows = {row.name: row for row in paper.stress_test(result, 1.0, SINGAPORE, Assumptions()).rows}
    assert rows["CPU utilisation"].ours[1:] == pytest.approx(
        (20.0, 25.0, 50.0)
    )  # of four vCPUs, each 2.5 times as slow
    assert rows["Memory usage"].ours == pytest.approx((6.25, 12.5, 12.5, 25.0))  # of 4 GiB


@pytest.mark.no_cover  # the parts are made above; tracing takes three quarters of the time
def test_the_command_prints_all_parts_and_writes_them_on_a_page_with_plots(run, tmp_path):
    path = tmp_path / "paper.html"
    shown = run("paper", "--minutes", "0", "--page", str(path))
    assert shown.exit_code == 0, shown.output
    for words in ("2,160,000 messages", "left out; --minutes 30", "printed +72.7 %", "12 x t3a.small", "modelled"):
        assert words in shown.output
    page = path.read_text()
    for words in ("a  Its example", "c  Table 2", "d  Figures 8 and 9", "<h2>Instances</h2>", "+72.75 %"):
        assert words in page
    for title in page.split("<title>")[2:]:
        assert title.split("</title>")[0].startswith("Modelled")


def test_only_the_parts_that_are_asked_for_are_printed(run):
    assert "Table 2" not in run("paper", "--part", "a").output


def test_the_parts_as_json(run):
    found = json.loads(run("paper", "--part", "a", "--part", "c", "--json").output)
    assert set(found) == {"a", "c"}
    assert found["a"]["messages"] == 2_160_000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--minutes", "-1"], "--minutes: -1 is out of range"), (["--part", "e"], "Invalid value for '--part'")],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, says):
    shown = run("paper", *arguments)
    assert shown.exit_code == 2
    assert says in shown.output
