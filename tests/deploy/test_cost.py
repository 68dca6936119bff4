"""What a plan costs: from the template's own resources, with the parameters that they will have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compare.advice.choice import Case, price
from compare.bill.assumptions import Assumptions
from compare.bill.prices import load_prices
from compare.bill.standing import CACHE, CLUSTER, SERVERLESS, Habits
from compare.bill.stretch import HOURS_PER_MONTH
from compare.model import calibration
from compare.model.units import Exam
from deploy import cost, templates
from deploy.cost import Usage, costs, evaluate, kept_by

REGION = "ap-southeast-1"
HUNDRED = Usage()


def priced(mode, given=None, shared=None, usage=HUNDRED, region=REGION):
    parts = {"shared": (templates.load("shared"), shared or {}), mode: (templates.load(mode), given or {})}
    return costs(mode, region, parts, usage)


def line(found, start):
    (one,) = [each for each in found.standing if each.name.startswith(start)]
    return one


def test_an_idle_serverless_stack_costs_its_watching_and_its_key():
    found = priced("lambda")
    assert {each.name for each in found.standing} == {
        *("CloudWatch alarms", "CloudWatch dashboards", "CloudWatch metrics", "Secrets", "Reads of secrets"),
        *("Encryption key", "Encryption requests", "SQS polling by Lambda"),
    }
    assert 5 < found.standing_usd < 9
    assert found.month_usd == pytest.approx(found.standing_usd + found.exams_usd)


def test_instances_cost_their_hours_disks_and_addresses():
    found = priced("ec2", {"MinInstances": "3", "MaxInstances": "4", "CacheNodeType": "cache.t4g.micro", "Zones": "3"})
    prices = load_prices(REGION)
    assert line(found, "instances").usd == pytest.approx(
        3 * HOURS_PER_MONTH * prices.price("ec2", "t3a.small").first_usd
    )
    assert line(found, "their disks").quantity == 24
    assert line(found, "public addresses").quantity == 6
    assert line(found, "cache nodes").quantity == 2


def test_what_a_condition_leaves_out_costs_nothing():
    lean = priced("ec2", shared={"CustomerKey": "false"})
    assert not [each for each in lean.standing if "ncryption" in each.name or "cache" in each.name]
    cached = priced("ec2", {"CacheNodeType": "cache.t4g.micro"})
    assert line(lean, "CloudWatch alarms").quantity < line(cached, "CloudWatch alarms").quantity
    assert line(cached, "Secrets").quantity == line(lean, "Secrets").quantity + 1  # the password of the cache


CACHED = {"MinInstances": "2", "MaxInstances": "4", "CacheNodeType": "cache.t4g.micro"}


@pytest.mark.parametrize(("mode", "given"), [("lambda", {}), ("ec2", {}), ("ec2", CACHED)])
def test_compare_and_a_plan_of_the_same_say_the_same(mode, given):
    """Counted in the templates here and kept as numbers there; a plan has no zone of its own and no logs without exams."""
    case = Case(
        Exam(students=HUNDRED.students, hours=HUNDRED.hours),
        HUNDRED.exams_per_month,
        load_prices(REGION),
        calibration.shipped(),
        Assumptions(min_instances=int(given.get("MinInstances", 1))),
    )
    both = price(case)
    month = (both.serverless if mode == "lambda" else both.cluster).month
    only_there = 0.0 if mode == "lambda" else sum(x.usd for x in month.lines if x.name in ("DNS zone", "Log ingestion"))
    assert priced(mode, given).month_usd == pytest.approx(month.usd - only_there, abs=1e-9)


def test_what_compare_takes_for_kept_is_what_the_templates_keep():
    shared = (templates.load("shared"), {})
    assert kept_by([shared, (templates.load("lambda"), {})]) == SERVERLESS
    assert kept_by([shared, (templates.load("ec2"), {})]) == CLUSTER
    assert kept_by([shared, (templates.load("ec2"), CACHED)]) == CLUSTER.plus(CACHE)


def test_each_shard_costs_its_nodes_and_the_metrics_that_alarms_look_at():
    one, three = (priced("ec2", CACHED | {"CacheNodes": "2", "CacheShards": n}) for n in ("1", "3"))
    assert (line(one, "cache nodes").quantity, line(three, "cache nodes").quantity) == (2, 6)
    assert line(three, "cache nodes").usd == pytest.approx(3 * line(one, "cache nodes").usd)
    assert "3 shards" in line(three, "cache nodes").note
    assert line(three, "CloudWatch alarms").quantity == line(one, "CloudWatch alarms").quantity + 2 * 3


def test_the_agent_sends_as_many_metrics_as_are_billed():
    config = json.loads((Path(cost.__file__).parent / "ec2_cluster/instance/cloudwatch-agent.json").read_text())
    collected = config["metrics"]["metrics_collected"].values()
    measured = [each for group in collected for each in (group if isinstance(group, list) else [group])]
    assert sum(len(each["measurement"]) for each in measured) == Habits().agent_metrics
    assert config["metrics"]["aggregation_dimensions"] == [["AutoScalingGroupName"]]  # once more for the group


def test_more_students_cost_more_and_on_lambda_much_more():
    few, many = (priced("lambda", usage=Usage(students=n)).exams_usd for n in (100, 1000))
    assert 5 < many / few < 15
    assert priced("ec2", usage=Usage(students=1000)).exams_usd < many


def test_what_has_no_price_is_said_and_not_taken_for_free():
    found = priced("ec2", {"InstanceType": "x9.huge"})
    assert line(found, "instances").usd is None
    assert any("x9.huge" in note for note in found.notes)
    nowhere = priced("lambda", region="mars-north-1")
    assert nowhere.exams_usd is None
    assert "mars-north-1" in nowhere.notes[0]


def test_conditions_are_evaluated_as_cloudformation_does():
    template = {"Conditions": {"A": {"Fn::Equals": [{"Ref": "X"}, 1]}, "B": {"Fn::Not": [{"Condition": "A"}]}}}
    both = {"Fn::And": [{"Condition": "A"}, {"Condition": "B"}]}
    either = {"Fn::Or": [{"Condition": "A"}, {"Condition": "B"}]}
    for x, a in (("1", True), ("2", False)):
        values = {"X": x}
        assert evaluate({"Condition": "A"}, template, values) is a
        assert evaluate({"Condition": "B"}, template, values) is not a
        assert evaluate(both, template, values) is False
        assert evaluate(either, template, values) is True
