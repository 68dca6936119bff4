"""What a deployment costs in a month: what stands there while nobody uses it, and what exams add to it by the model of `compare`.

Standing costs follow from the template's own resources and the parameters that they will have. Prices are those of `compare`'s
table; one that is not in it is a line without a sum, and said to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from compare import calibration
from compare.advise import Case, price
from compare.assumptions import Assumptions
from compare.model import Exam
from compare.prices import MissingPriceError, PriceError, Prices, load_prices
from compare.stretch import HOURS_PER_MONTH, CostError
from deploy.names import Mode
from deploy.templates import Template

_FIXED_USD = {
    "AWS::KMS::Key": (1.0, "customer-managed key"),
    "AWS::SecretsManager::Secret": (0.4, "secret"),
}
"""Of one in a month, the same in all commercial regions; list prices as commonly cited, not checked against an AWS page."""

_DISK_GB = 8


class Line(Struct, frozen=True):
    """So many of something, and what they cost in a month; `usd` is None if there is no price."""

    name: str
    quantity: float
    usd: float | None
    note: str = ""


class Costs(Struct, frozen=True):
    """What a plan costs in a month. `exams_usd` is what these exams add to it; None if that can't be modelled."""

    region: str
    price_date: str
    standing: tuple[Line, ...]
    exams: str = ""
    exams_usd: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def standing_usd(self) -> float:
        """The sum of the standing lines that have a price."""
        return sum(line.usd for line in self.standing if line.usd is not None)

    @property
    def month_usd(self) -> float:
        """All of it."""
        return self.standing_usd + (self.exams_usd or 0.0)


class Usage(Struct, frozen=True):
    """The exams that a plan is priced for."""

    students: int = 100
    hours: float = 2.0
    exams_per_month: float = 8.0


def costs(mode: Mode, region: str, parts: Mapping[str, tuple[Template, Mapping[str, str]]], usage: Usage) -> Costs:
    """What these templates, with these parameters, cost. A region without prices gives lines without sums, and a note."""
    try:
        prices = load_prices(region)
    except PriceError as error:
        lines = [line for template, given in parts.values() for line in _standing(template, given, None)]
        return Costs(region, "", tuple(lines), notes=(str(error),))
    lines = [line for template, given in parts.values() for line in _standing(template, given, prices)]
    notes = []
    exams = f"{usage.exams_per_month:g} exams of {usage.hours:g} h with {usage.students:,} students"
    try:
        total: float | None = _with_exams(mode, prices, parts[mode], usage)
    except (CostError, PriceError) as error:
        total = None
        notes.append(f"{exams} could not be modelled: {error}")
    return Costs(region, prices.as_of, tuple(lines), exams, total, tuple(notes))


def _with_exams(mode: Mode, prices: Prices, part: tuple[Template, Mapping[str, str]], usage: Usage) -> float:
    given = Assumptions()
    if mode == "ec2":
        values = _values(*part)
        given = Assumptions(instance_type=values["InstanceType"], min_instances=max(1, int(values["MinInstances"])))
    exam = Exam(students=usage.students, hours=usage.hours).checked()
    priced = price(Case(exam, usage.exams_per_month, prices, calibration.shipped(), given))
    cost = priced.serverless if mode == "lambda" else priced.cluster
    (no_exams, nothing), *_ = cost.curves[0].points
    assert no_exams == 0  # a curve begins with a month of none
    return cost.month.usd - nothing


def _values(template: Template, given: Mapping[str, str]) -> dict[str, str]:
    defaults = {name: str(each.get("Default", "")) for name, each in template["Parameters"].items()}
    return defaults | dict(given)


def _standing(template: Template, given: Mapping[str, str], prices: Prices | None) -> list[Line]:
    values = _values(template, given)
    conditions = {name: evaluate(each, template, values) for name, each in template.get("Conditions", {}).items()}
    made = [each for each in template["Resources"].values() if "Condition" not in each or conditions[each["Condition"]]]
    count = {kind: sum(each["Type"] == kind for each in made) for kind in {each["Type"] for each in made}}
    lines = [
        Line(f"{name}s", count[kind], count[kind] * usd, "list price")
        for kind, (usd, name) in _FIXED_USD.items()
        if count.get(kind)
    ]

    def priced(name: str, quantity: float, service: str, key: str, each_hour: bool = False, note: str = "") -> None:
        if not quantity:
            return
        hours = HOURS_PER_MONTH if each_hour else 1.0
        try:
            usd = None if prices is None else prices.price(service, key).cost(quantity * hours)
        except MissingPriceError:
            usd = None
        lines.append(Line(name, quantity, usd, note))

    alarms = sum(
        len(each["Properties"].get("Metrics", [0])) or 1 for each in made if each["Type"] == "AWS::CloudWatch::Alarm"
    )
    priced("alarms", alarms, "cloudwatch", "alarm-month", note="by metric")
    priced("dashboards", count.get("AWS::CloudWatch::Dashboard", 0), "cloudwatch", "dashboard-month")
    polls = count.get("AWS::Lambda::EventSourceMapping", 0) * 15 * 60 * HOURS_PER_MONTH
    priced("queue requests", polls, "sqs", "request", note="idle queues")
    if count.get("AWS::AutoScaling::AutoScalingGroup"):
        instances = int(values["MinInstances"])
        zones = int(values["Zones"])
        priced(
            f"instances {values['InstanceType']}",
            instances,
            "ec2",
            values["InstanceType"],
            True,
            "always on",
        )
        priced("their disks, GB", instances * _DISK_GB, "ebs", "gp3-gb-month")
        priced("load balancers", 1, "nlb", "hour", True, "without traffic")
        priced(
            "public addresses",
            instances + zones,
            "vpc",
            "public-ipv4-hour",
            True,
            "instances, balancer",
        )
    if count.get("AWS::ElastiCache::ReplicationGroup"):
        node = values["CacheNodeType"]
        priced(f"cache nodes {node}", int(values["CacheNodes"]), "elasticache", f"valkey-{node}", True)
    if count.get("AWS::RDS::DBCluster"):
        priced(
            "Aurora capacity units",
            float(values["DatabaseMinAcu"]),
            "aurora",
            "acu-hour",
            True,
            "at least",
        )
    return lines


def evaluate(condition: Any, template: Template, values: Mapping[str, str]) -> bool:
    """A condition of a template with these values of its parameters."""
    (function, argument), *_ = condition.items()
    if function == "Condition":
        return evaluate(template["Conditions"][argument], template, values)
    if function == "Fn::Not":
        return not evaluate(argument[0], template, values)
    if function in ("Fn::And", "Fn::Or"):
        return (all if function == "Fn::And" else any)(evaluate(each, template, values) for each in argument)
    left, right = (values[each["Ref"]] if isinstance(each, dict) else str(each) for each in argument)
    return left == right
