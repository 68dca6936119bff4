"""What a deployment costs in a month: what stands there while nobody uses it, and what exams add to it by the model of `compare`.

Standing costs follow from the template's own resources and the parameters that they will have. Prices are those of `compare`'s
table; one that is not in it is a line without a sum, and said to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct

from compare.advice.choice import Case, price
from compare.bill.assumptions import Assumptions
from compare.bill.prices import MissingPriceError, PriceError, Prices, load_prices
from compare.bill.standing import Habits, Standing, agent_metric_months, function_metric_months, standing_lines
from compare.bill.stretch import HOURS_PER_MONTH, CostError
from compare.model import calibration
from compare.model.units import Exam
from deploy.names import Mode
from deploy.templates import Template

_DISK_GB = 8
_NOTHING = Standing(alarms=0, dashboards=0, secrets=0, keys=0)


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
        return Costs(region, "", tuple(_standing(mode, parts, None)), notes=(str(error),))
    notes = []
    exams = f"{usage.exams_per_month:g} exams of {usage.hours:g} h with {usage.students:,} students"
    try:
        total: float | None = _with_exams(mode, prices, parts, usage)
    except (CostError, PriceError) as error:
        total = None
        notes.append(f"{exams} could not be modelled: {error}")
    return Costs(region, prices.as_of, tuple(_standing(mode, parts, prices)), exams, total, tuple(notes))


def _with_exams(
    mode: Mode, prices: Prices, parts: Mapping[str, tuple[Template, Mapping[str, str]]], usage: Usage
) -> float:
    kept = kept_by(parts.values())
    given = Assumptions(serverless_standing=kept)
    if mode == "ec2":
        values = _values(*parts[mode])
        given = Assumptions(
            instance_type=values["InstanceType"],
            min_instances=max(1, int(values["MinInstances"])),
            load_balancer_addresses=int(values["Zones"]),
            cluster_standing=kept,
            cache_standing=_NOTHING,  # what there is of it is in the template's count
        )
    exam = Exam(students=usage.students, hours=usage.hours).checked()
    priced = price(Case(exam, usage.exams_per_month, prices, calibration.shipped(), given))
    cost = priced.serverless if mode == "lambda" else priced.cluster
    (no_exams, nothing), *_ = cost.curves[0].points
    assert no_exams == 0  # a curve begins with a month of none
    return cost.month.usd - nothing


def _values(template: Template, given: Mapping[str, str]) -> dict[str, str]:
    defaults = {name: str(each.get("Default", "")) for name, each in template["Parameters"].items()}
    return defaults | dict(given)


def _made(template: Template, given: Mapping[str, str]) -> list[dict[str, Any]]:
    """The resources that come into being with these parameters; of an alarm, the metrics that it looks at."""
    values = _values(template, given)
    conditions = {name: evaluate(each, template, values) for name, each in template.get("Conditions", {}).items()}
    made = [each for each in template["Resources"].values() if "Condition" not in each or conditions[each["Condition"]]]
    return [each if each["Type"] != "AWS::CloudWatch::Alarm" else _watching(each, conditions) for each in made]


def _watching(alarm: dict[str, Any], conditions: Mapping[str, bool]) -> dict[str, Any]:
    """The alarm with those of its metrics that these conditions choose."""
    chosen = []
    for each in alarm["Properties"].get("Metrics", ()):
        if "Fn::If" in each:
            condition, then, otherwise = each["Fn::If"]
            each = then if conditions[condition] else otherwise
        if each != {"Ref": "AWS::NoValue"}:
            chosen.append(each)
    return {**alarm, "Properties": {**alarm["Properties"], "Metrics": chosen}}


def _alarmed(alarm: dict[str, Any]) -> int:
    """Metrics that an alarm looks at; an expression over them is none."""
    metrics = alarm["Properties"]["Metrics"]
    return sum("MetricStat" in each for each in metrics) if metrics else 1


def kept_by(parts: Iterable[tuple[Template, Mapping[str, str]]]) -> Standing:
    """What these templates, with these parameters, keep in the account, exam or not, besides what runs."""
    made = [each for part in parts for each in _made(*part)]
    count = Counter(each["Type"] for each in made)
    return Standing(
        alarms=sum(_alarmed(each) for each in made if each["Type"] == "AWS::CloudWatch::Alarm"),
        dashboards=count["AWS::CloudWatch::Dashboard"],
        secrets=count["AWS::SecretsManager::Secret"],
        keys=count["AWS::KMS::Key"],
        queues=count["AWS::Lambda::EventSourceMapping"],
    )


def _standing(
    mode: Mode, parts: Mapping[str, tuple[Template, Mapping[str, str]]], prices: Prices | None
) -> Iterator[Line]:
    """What runs all month, then what is kept. `compare` prices both, if there are prices of the region."""
    values = _values(*parts[mode])
    habits = Habits()
    made = Counter(each["Type"] for part in parts.values() for each in _made(*part))
    instances, zones = 0, 0
    if made["AWS::AutoScaling::AutoScalingGroup"]:
        instances, zones = int(values["MinInstances"]), int(values["Zones"])
    # name, how many, of which hourly price, note
    running: list[tuple[str, float, tuple[str, str], str]] = [
        (f"instances {values.get('InstanceType')}", instances, ("ec2", values.get("InstanceType", "")), "always on"),
        ("load balancers", int(zones > 0), ("nlb", "hour"), "without traffic"),
        ("public addresses", instances + zones, ("vpc", "public-ipv4-hour"), "instances, balancer"),
    ]
    if made["AWS::ElastiCache::ReplicationGroup"]:
        node, shards = values["CacheNodeType"], int(values["CacheShards"])
        note = f"{values['CacheNodes']} in each of {shards} shards" if shards > 1 else ""
        nodes = int(values["CacheNodes"]) * shards
        running.append((f"cache nodes {node}", nodes, ("elasticache", f"valkey-{node}"), note))
    if made["AWS::RDS::DBCluster"]:
        units = float(_values(*parts["shared"])["DatabaseMinAcu"])
        running.append(("Aurora capacity units", units, ("aurora", "acu-hour"), "at least"))
    for name, quantity, key, note in running:
        if quantity:
            yield Line(name, quantity, _usd(prices, key, quantity * HOURS_PER_MONTH), note)
    if instances:
        disks = instances * _DISK_GB
        yield Line("their disks, GB", disks, _usd(prices, ("ebs", "gp3-gb-month"), disks))
    kept = kept_by(parts.values())
    if prices is None:
        for name in Standing.__struct_fields__:
            if getattr(kept, name):
                yield Line(name, getattr(kept, name), None)
        return
    metrics = (
        agent_metric_months(instances, HOURS_PER_MONTH, habits)
        if mode == "ec2"
        else function_metric_months(0.0, habits)
    )
    for line in standing_lines(kept, metrics, prices, habits):
        yield Line(line.name, line.quantity, line.usd, line.note)


def _usd(prices: Prices | None, key: tuple[str, str], quantity: float) -> float | None:
    try:
        return None if prices is None else prices.price(*key).cost(quantity)
    except MissingPriceError:
        return None


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
