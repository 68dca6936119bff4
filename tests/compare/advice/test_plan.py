"""The simulated day: people are conserved, instances boot and fill, limits are crossed when they should be."""

import json

import click
import msgspec
import pytest
from click.testing import CliRunner

from compare.advice.plan import SATURATED_MS, Day, arrivals, rates, simulate, steady_instances
from compare.bill.assumptions import Assumptions
from compare.bill.cost import ExamPlan, capacity
from compare.bill.prices import load_prices
from compare.commands import register
from compare.commands.plan import sizes
from compare.model.calibration import shipped
from compare.model.units import Exam, cluster_usage

SINGAPORE = load_prices("ap-southeast-1")

# Thousands of simulated seconds, four times as slow when they are traced: the other tests here reach the same lines
untraced = pytest.mark.no_cover


@pytest.fixture
def run():
    group = click.Group("compare")
    register(group)
    return lambda *arguments: CliRunner().invoke(group, list(arguments))


def day(students=20_000, given=None, **changes):
    exam = Exam(
        students=students,
        hours=3.0,
        interval=5.0,
        exams=max(1, students // 500),
        proctors_per_exam=1,
        arrival_minutes=20.0,
    )
    fields = {name: changes.pop(name) for name in tuple(changes) if name in Exam.__struct_fields__}
    exam = msgspec.structs.replace(exam, **fields)
    return Day(exam, shipped(), SINGAPORE, given or Assumptions(), **changes)


def names(result):
    return {crossing.name for crossing in result.crossings}


@pytest.mark.parametrize("arrival", ["surge", "even", "waves"])
def test_everybody_arrives_once(arrival):
    joins = arrivals(day(arrival=arrival))
    assert sum(joins) == pytest.approx(20_000)
    assert all(count == 0 for count in joins[: 6 * 3600])


def test_a_surge_is_twice_as_steep_as_an_even_arrival_and_its_top_is_at_a_quarter():
    surge, even = arrivals(day()), arrivals(day(arrival="even"))
    assert max(surge) == pytest.approx(2 * max(even), rel=0.01)
    assert surge.index(max(surge)) - 6 * 3600 == pytest.approx(300, abs=2)


def test_people_are_conserved_and_gone_at_the_end():
    result = simulate(day())
    assert result.peak_connections == pytest.approx(20_000, rel=0.001)
    assert result.samples[-1].connections == pytest.approx(0, abs=1)


def test_the_steady_number_of_instances_is_the_one_of_the_bill():
    big = day(60_000, drops_per_hour=0.0)
    whole, opening = cluster_usage(big.exam, shipped())
    billed = capacity(whole, ExamPlan(3.0, 1.0), SINGAPORE.instance("t3a.small"), None, Assumptions())
    assert steady_instances(big) == pytest.approx(billed.instances, abs=1)
    assert opening.duration_seconds < whole.duration_seconds


@untraced
def test_a_new_instance_takes_its_time_to_boot():
    slow, fast = simulate(day(60_000, boot_seconds=600.0)), simulate(day(60_000, boot_seconds=60.0))
    first = [next(s.hour for s in result.samples if s.instances > 1) for result in (slow, fast)]
    assert first[0] - first[1] == pytest.approx(540 / 3600, abs=130 / 3600)
    assert slow.worst_cluster_p95_ms >= fast.worst_cluster_p95_ms


@untraced
def test_instances_started_before_the_exam_carry_the_surge_and_followers_of_the_cpu_come_late():
    late, early = simulate(day(200_000)), simulate(day(200_000, scaling="scheduled"))
    assert late.worst_cluster_p95_ms == SATURATED_MS
    assert early.worst_cluster_p95_ms < 200
    assert "CPU of the fullest instances" in names(late) - names(early)


@untraced
def test_instances_go_again_when_it_is_quiet():
    result = simulate(day(60_000))
    assert result.most_instances > 1
    assert result.samples[-1].instances < result.most_instances


@untraced
def test_no_more_instances_are_started_than_allowed():
    result = simulate(day(200_000, most_instances=3))
    assert result.most_instances == 3
    assert "Instances allowed" in names(result)


@untraced
def test_api_gateway_lets_500_in_a_second_and_the_others_wait():
    small, large = simulate(day(50_000)), simulate(day(400_000))
    assert "New WebSocket connections a second" in names(large) - names(small)
    assert max(sample.waiting_to_join for sample in large.samples) > 10_000
    assert max(sample.waiting_to_join for sample in small.samples) == 0


def test_a_new_account_is_throttled_at_once():
    result = simulate(day(10_000, concurrency=10.0))
    assert "Lambda concurrent executions" in names(result)
    assert result.worst_serverless_p95_ms > 5_000


@untraced
def test_only_exams_longer_than_two_hours_are_cut():
    assert "Age of a connection" in names(simulate(day()))
    assert "Age of a connection" not in names(simulate(day(hours=2.0)))


def test_a_storm_brings_half_of_the_students_back_at_once():
    calm, storm = simulate(day(40_000)), simulate(day(40_000, storm_hour=7.5))
    before, after = (max(s.busiest_cpu for s in result.samples if 7.4 < s.hour < 7.6) for result in (calm, storm))
    assert after > before


@untraced
def test_a_type_that_is_not_burstable_has_no_credits():
    result = simulate(day(given=Assumptions(instance_type="c7g.large")))
    assert result.surplus_vcpu_hours == 0
    assert all(sample.credits == 0 for sample in result.samples)
    assert "Borrowed CPU credits" not in names(result)


@untraced
def test_dollars_only_rise_and_end_at_the_days_sum():
    result = simulate(day())
    for field in ("cluster_usd", "serverless_usd"):
        values = [getattr(sample, field) for sample in result.samples]
        assert values == sorted(values)
        assert values[-1] <= getattr(result, field) + 1e-9


def test_a_frame_less_often_is_less_work():
    often, seldom = rates(day()), rates(day(interval=20.0))
    assert seldom.cpu < often.cpu
    assert seldom.frames == pytest.approx(often.frames / 4, rel=0.01)


# The command


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [("10000", 5, [10_000]), ("10000..1000000", 3, [10_000, 100_000, 1_000_000]), ("1_000..4,000", 2, [1_000, 4_000])],
)
def test_sizes(text, steps, expected):
    assert sizes(text, steps) == expected


@untraced
def test_a_range_of_days_in_a_table_with_the_limits_of_the_largest(run, tmp_path):
    page = tmp_path / "day.html"
    shown = run("plan", "--students", "5000..500000", "--steps", "3", "--page", str(page), "--quiet")
    assert shown.exit_code == 0, shown.output
    assert "modelled" in shown.output
    assert "500,000" in shown.output
    assert "New WebSocket connections" in shown.output
    text = page.read_text()
    for heading in ("Connections", "Instances", "CPU", "Delivery", "Dollars", "Limits that are crossed"):
        assert f"<h2>{heading}</h2>" in text
    for title in text.split("<title>")[2:]:
        assert title.split("</title>")[0].startswith("Modelled")


def test_days_as_json(run):
    found = json.loads(run("plan", "--students", "2000", "--json").output)
    assert found[0]["students"] == 2_000
    assert len(found[0]["samples"]) > 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--students", "many"], "--students: 'many' is no number and no range"),
        (["--students", "100..10"], "--students: 100..10 does not rise"),
        (["--students", "100", "--instance-type", "x1.big"], "--instance-type: no price or size of 'x1.big'"),
        (["--students", "100", "--begins", "22"], "--begins, --hours: the day would go on after midnight"),
        (["--students", "100", "--target-cpu", "2"], "--target-cpu: 2 is out of range"),
        (["--students", "100", "--storm", "3"], "--storm: not during the exam"),
        (["--students", "10..1000", "--steps", "99"], "--steps: 99 is out of range"),
        (["--students", "9000000"], "--students: 9e+06 is out of range"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, says):
    shown = run("plan", *arguments)
    assert shown.exit_code == 2
    assert says in shown.output
    assert "Traceback" not in shown.output
