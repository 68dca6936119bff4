"""What AWS gives away, as lines of a bill that take something off.

Three kinds of account (see `assumptions.FreeTier`). Allowances belong to the whole account: who runs anything else in it has used
them already, which is why `none` is the default.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from compare.bill.assumptions import Assumptions
from compare.bill.lines import CostLine
from compare.bill.prices import Confidence

LAMBDA_PAGE = "AWS Lambda pricing page, free tier, quoted 2026-08-12"
GATEWAY_PAGE = "Amazon API Gateway pricing page, copy of 2025-07-15"
WATCH_BILL = "CloudWatch pricing page, quoted 2026-08-12, and a real bill of May 2025"
DYNAMO_MAP = "AWS price map dynamodb, published 2025-08-28"


class Allowance(msgspec.Struct, frozen=True):
    """So much of some lines costs nothing."""

    name: str
    lines: tuple[str, ...]  # what the lines' names begin with
    quantity: float
    lasts: Literal["ever", "first year"]  # first year: accounts opened before 15 July 2025 only
    source: str
    confidence: Confidence = "quoted"


ALLOWANCES = (
    Allowance("WebSocket messages", ("Messages ",), 1e6, "first year", GATEWAY_PAGE),
    Allowance("Connection minutes", ("Connection minutes",), 750_000, "first year", GATEWAY_PAGE),
    Allowance("Lambda requests", ("Lambda requests",), 1e6, "ever", LAMBDA_PAGE),
    Allowance("Lambda compute", ("Lambda compute", "Lambda cold starts"), 400_000, "ever", LAMBDA_PAGE),
    Allowance("DynamoDB storage", ("Journal storage",), 25.0, "ever", DYNAMO_MAP),
    Allowance("SQS requests", ("SQS ",), 1e6, "ever", "commonly cited, not checked against an AWS page", "unverified"),
    Allowance("CloudWatch alarms", ("CloudWatch alarms",), 10.0, "ever", WATCH_BILL),
    Allowance("CloudWatch dashboards", ("CloudWatch dashboards",), 3.0, "ever", WATCH_BILL),
    Allowance("CloudWatch metrics", ("CloudWatch metrics",), 10.0, "ever", WATCH_BILL),
    Allowance("Encryption requests", ("Encryption requests",), 20_000.0, "ever", "aws.amazon.com/kms/pricing"),
    Allowance("Log ingestion", ("Log ingestion",), 5.0, "ever", WATCH_BILL),
    Allowance("Data to the internet", ("Data to the internet",), 100.0, "ever", "AWS free data transfer, account-wide"),
)


def free_lines(lines: Sequence[CostLine], given: Assumptions) -> tuple[CostLine, ...]:
    """The lines to add to a month's bill for this kind of account; none of them takes off more than there is."""
    if given.free_tier == "none":
        return ()
    found = [
        line
        for allowance in ALLOWANCES
        if allowance.lasts == "ever" or given.free_tier == "legacy"
        for line in _taken_off(allowance, lines)
    ]
    if given.free_tier == "credit":
        rest = sum(line.usd for line in lines) + sum(line.usd for line in found)
        found += _credit(max(0.0, rest), given)
    return tuple(found)


def _taken_off(allowance: Allowance, lines: Sequence[CostLine]) -> Iterable[CostLine]:
    covered = [line for line in lines if line.name.startswith(allowance.lines) and line.quantity > 0]
    quantity = sum(line.quantity for line in covered)
    if not quantity:
        return
    price = sum(line.usd for line in covered) / quantity
    free = min(allowance.quantity, quantity)
    yield CostLine(
        name=f"Free tier: {allowance.name}",
        quantity=-free,
        unit=covered[0].unit,
        unit_price_usd=price,
        usd=-free * price,
        source=allowance.source,
        confidence=allowance.confidence,
        basis="modelled",
        note="for the first 12 months" if allowance.lasts == "first year" else "for the whole account together",
    )


def _credit(rest: float, given: Assumptions) -> Iterable[CostLine]:
    usd = min(rest, given.credit_usd / given.credit_months)
    if usd > 0:
        yield CostLine(
            name="Credits of a new account",
            quantity=-usd,
            unit="USD",
            unit_price_usd=1.0,
            usd=-usd,
            source="Amazon API Gateway pricing page, copy of 2025-07-15",
            confidence="quoted",
            basis="assumed",
            note=f"up to ${given.credit_usd:g} once, spread over the {given.credit_months:g} months in which they expire",
        )
