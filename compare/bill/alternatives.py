"""Two other services that could carry the messages, as bills only: Proctorwire does not run on them.

AppSync Events and AWS IoT Core replace API Gateway's lines; what decides and stores stays as on the serverless side. That is an
upper bound: both fan out by themselves, so the time that Lambda spends on telling each proctor would shrink. Their metering step is
5 KB, API Gateway's 32 KiB, which is why large snapshots are counted anew.
"""

from collections.abc import Sequence

import msgspec

from compare.bill.lines import Bill, CostLine, priced_line
from compare.bill.prices import Prices
from compare.bill.usage import ServerlessUsage

STEP_BYTES = 5 * 1024
GATEWAY_LINES = (
    "Messages from clients",
    "Messages to clients",
    "Connection minutes",
    "Free tier: WebSocket",
    "Free tier: Connection",
)


class Alternative(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A month with another service as the transport."""

    name: str
    usd: float
    lines: tuple[CostLine, ...]  # of the transport
    rest_usd: float  # what stays as on the serverless side


def alternatives(exam: ServerlessUsage, month: Bill, exams: float, prices: Prices) -> tuple[Alternative, ...]:
    """The month of `exams` like this one on AppSync Events and on IoT Core. `exam` is stretched to its full length."""
    rest = sum(line.usd for line in month.lines if not line.name.startswith(GATEWAY_LINES))
    messages_out = max(exam.messages_out, exam.egress_bytes / STEP_BYTES)
    messages = (exam.messages_in + messages_out) * exams
    subscriptions = exam.connects * exams  # each connects, and subscribes to its channel
    minutes = (exam.connection_minutes + exam.connects / 2) * exams
    appsync = (
        ("Published and delivered events", messages, "event-operation", "in steps of 5 KB"),
        ("Connects and subscriptions", 2 * subscriptions, "event-operation", "an operation each"),
        ("Connection minutes", minutes, "event-minute", ""),
    )
    iot = (
        ("Messages in and out", messages, "message", "in steps of 5 KB; pings are free"),
        ("Connects and subscriptions", 2 * subscriptions, "message", "metered as messages"),
        ("Connection minutes", minutes, "minute", ""),
    )
    return (
        _alternative("AppSync Events", "appsync", appsync, rest, prices),
        _alternative("IoT Core", "iot", iot, rest, prices),
    )


def _alternative(
    name: str, service: str, parts: Sequence[tuple[str, float, str, str]], rest: float, prices: Prices
) -> Alternative:
    lines = []
    for title, quantity, key, note in parts:
        lines.append(priced_line(title, quantity, prices.price(service, key), "modelled", note))
    return Alternative(name, sum(line.usd for line in lines) + rest, tuple(lines), rest)
