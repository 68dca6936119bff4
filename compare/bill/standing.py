"""What a deployment keeps in an account, exam or not, besides what runs: alarms, a dashboard, secrets, keys, empty queues, metrics.

The numbers are those of this package's templates; a test counts them there. `deploy plan` counts what its own parameters would make
and prices it here, too, so that both say the same.
"""

from __future__ import annotations

import msgspec

from compare.bill.lines import CostLine, priced_line
from compare.bill.prices import Prices
from compare.bill.stretch import HOURS_PER_MONTH
from compare.bill.usage import Basis


class Standing(msgspec.Struct, frozen=True):
    """How many of each there are."""

    alarms: int  # metrics that alarms look at, which is what is billed
    dashboards: int = 1
    secrets: int = 2  # the token keys and the schools' keys
    keys: int = 1  # of one's own to encrypt with; AWS's own cost nothing
    queues: int = 0  # that Lambda polls

    def plus(self, other: Standing) -> Standing:
        """Both together."""
        return Standing(
            self.alarms + other.alarms,
            self.dashboards + other.dashboards,
            self.secrets + other.secrets,
            self.keys + other.keys,
            self.queues + other.queues,
        )


SERVERLESS = Standing(alarms=15, queues=3)
CLUSTER = Standing(alarms=6)
CACHE = Standing(alarms=4, dashboards=0, secrets=1, keys=0)
"""What ElastiCache brings with it; the secret is the password of its user."""


class Habits(msgspec.Struct, frozen=True):
    """What the above is used for, assumed."""

    secret_reads: float = 10_000.0  # a month, by new execution environments or instances
    key_requests: float = 20_000.0  # a month, with a key of one's own
    polls_per_minute: float = 15.0  # of an empty queue: five pollers of its event source mapping, 20 s each
    exam_metrics: int = 45  # of functions that run during an exam, each name for each function
    idle_metrics: int = 3  # of the function that runs each minute, all month
    agent_metrics: int = 6  # that CloudWatch's agent sends for an instance, and once more for the group of them


def function_metric_months(running_hours: float, habits: Habits) -> float:
    """Metrics that our functions write into their log; a metric is billed for the hours in which it is sent."""
    return habits.idle_metrics + habits.exam_metrics * min(1.0, running_hours / HOURS_PER_MONTH)


def agent_metric_months(instances: int, instance_hours: float, habits: Habits) -> float:
    """Metrics of instances that run for so many hours each, and of their group."""
    return habits.agent_metrics * (instances + 1) * instance_hours / HOURS_PER_MONTH


def standing_lines(
    kept: Standing, metric_months: float, prices: Prices, habits: Habits, basis: Basis = "assumed"
) -> tuple[CostLine, ...]:
    """A month of it, without a line for what there is none of."""
    wanted = [
        ("CloudWatch alarms", kept.alarms, ("cloudwatch", "alarm-month"), "by metric, as the template has them"),
        ("CloudWatch dashboards", kept.dashboards, ("cloudwatch", "dashboard-month"), "as the template has it"),
        ("CloudWatch metrics", metric_months, ("cloudwatch", "metric-month"), "for the hours in which they are sent"),
        ("Secrets", kept.secrets, ("secretsmanager", "secret-month"), "as the template has them"),
        ("Reads of secrets", habits.secret_reads, ("secretsmanager", "request"), ""),
    ]
    if kept.keys:
        wanted += [
            ("Encryption key", kept.keys, ("kms", "key-month"), "as the template has it"),
            ("Encryption requests", habits.key_requests, ("kms", "request"), ""),
        ]
    if kept.queues:
        polls = kept.queues * habits.polls_per_minute * 60 * HOURS_PER_MONTH
        wanted.append(("SQS polling by Lambda", polls, ("sqs", "request"), "empty queues, exam or not"))
    return tuple(
        priced_line(name, quantity, prices.price(*key), basis, note) for name, quantity, key, note in wanted if quantity
    )
