"""Prices read anew from AWS's Price List API, which needs credentials with `pricing:GetProducts` and nothing else.

A query names the products of one row of the table: what the API filters, and a pattern for the usage type, because filters alone
let near relatives in (Outposts' load balancers, regional NAT gateways, archived storage). A row for which nothing is found keeps
its price and is named.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Any, Protocol

import msgspec

from compare.bill.prices import Price, PriceTable, Tier

ENDPOINT_REGION = "us-east-1"
LOCATIONS = {"ap-southeast-1": "Asia Pacific (Singapore)", "us-east-1": "US East (N. Virginia)"}
_PREFIX = r"^(?:[A-Z]+\d+-)?"  # of a region: none in Virginia, APS1- in Singapore
_VIRGINIA = {"regionCode": "us-east-1"}


class PricingClient(Protocol):
    """What is used of boto3's pricing client."""

    def get_products(self, **request: Any) -> dict[str, Any]:
        """One page of products."""


class Query(msgspec.Struct, frozen=True):
    """Where the API keeps one price."""

    service_code: str
    filters: dict[str, str]
    usage_type: str  # a pattern
    without: str = ""  # products whose description holds this are others


class Change(msgspec.Struct, frozen=True):
    """A price that is not what it was."""

    service: str
    key: str
    before_usd: float  # of the first unit
    after_usd: float


class Refreshed(msgspec.Struct, frozen=True):
    """The table with new prices for one region."""

    table: PriceTable
    changes: tuple[Change, ...]
    confirmed: int  # found, and the same
    kept: tuple[str, ...]  # not found, or not to be had from the API


def query_for(price: Price, region: str) -> Query | None:
    """The query for a row of the table, if there is one."""
    here = {"regionCode": region}
    if price.service == "ec2":
        if price.key.startswith("surplus-credit-"):
            family = price.key.removeprefix("surplus-credit-")
            return Query("AmazonEC2", here | {"productFamily": "CPU Credits"}, rf"CPUCredits:{family}$")
        return Query(
            "AmazonEC2",
            here
            | {
                "instanceType": price.key,
                "operatingSystem": "Linux",
                "tenancy": "Shared",
                "preInstalledSw": "NA",
                "capacitystatus": "Used",
                "licenseModel": "No License required",
            },
            rf"BoxUsage:{re.escape(price.key)}$",
        )
    if price.service == "elasticache" and price.key.startswith("valkey-cache."):
        node = price.key.removeprefix("valkey-")
        filters = {"productFamily": "Cache Instance", "instanceType": node, "cacheEngine": "Valkey"}
        return Query("AmazonElastiCache", here | filters, rf"NodeUsage:{re.escape(node)}$")
    if price.service == "egress":
        if region not in LOCATIONS:
            return None
        away = {"fromLocation": LOCATIONS[region]}
        if price.key == "internet-gb":
            return Query(
                "AWSDataTransfer", away | {"transferType": "AWS Outbound"}, _PREFIX + "DataTransfer-Out-Bytes$"
            )
        if price.key == "cross-az-gb":
            return Query("AWSDataTransfer", away | {"transferType": "IntraRegion"}, "DataTransfer-Regional-Bytes$")
        return None
    found = _QUERIES.get((price.service, price.key))
    return found and msgspec.structs.replace(found, filters=found.filters | (here if price.region != "global" else {}))


_QUERIES: dict[tuple[str, str], Query] = {
    ("apigateway", "websocket-message"): Query(
        "AmazonApiGateway", {"productFamily": "WebSocket"}, "ApiGatewayMessage$"
    ),
    ("apigateway", "websocket-minute"): Query("AmazonApiGateway", {"productFamily": "WebSocket"}, "ApiGatewayMinute$"),
    ("lambda", "request"): Query(
        "AWSLambda", {"group": "AWS-Lambda-Requests"}, _PREFIX + "Request$", "China free tier"
    ),
    ("lambda", "gb-second-x86_64"): Query(
        "AWSLambda", {"group": "AWS-Lambda-Duration"}, _PREFIX + "Lambda-GB-Second$", "China free tier"
    ),
    ("lambda", "gb-second-arm64"): Query(
        "AWSLambda", {"group": "AWS-Lambda-Duration-ARM"}, _PREFIX + "Lambda-GB-Second-ARM$", "China free tier"
    ),
    ("lambda", "storage-gb-second"): Query("AWSLambda", {"group": "AWS-Lambda-Storage-Duration"}, "Storage"),
    ("dynamodb", "write-unit"): Query(
        "AmazonDynamoDB",
        {"productFamily": "Amazon DynamoDB PayPerRequest Throughput", "group": "DDB-WriteUnits"},
        _PREFIX + "WriteRequestUnits$",
    ),
    ("dynamodb", "read-unit"): Query(
        "AmazonDynamoDB",
        {"productFamily": "Amazon DynamoDB PayPerRequest Throughput", "group": "DDB-ReadUnits"},
        _PREFIX + "ReadRequestUnits$",
    ),
    ("dynamodb", "storage-gb-month"): Query(
        "AmazonDynamoDB", {"productFamily": "Database Storage"}, r"(?<!IA-)TimedStorage-ByteHrs$"
    ),
    ("dynamodb", "streams-read"): Query(
        "AmazonDynamoDB", {"productFamily": "API Request", "group": "DDB-StreamsReadRequests"}, "Streams-Requests"
    ),
    ("ebs", "gp3-gb-month"): Query(
        "AmazonEC2", {"productFamily": "Storage", "volumeApiName": "gp3"}, "VolumeUsage.gp3$"
    ),
    ("vpc", "public-ipv4-hour"): Query("AmazonVPC", {}, "PublicIPv4:InUseAddress$"),
    ("vpc", "nat-hour"): Query("AmazonEC2", {"productFamily": "NAT Gateway"}, _PREFIX + "NatGateway-Hours$"),
    ("vpc", "nat-gb"): Query("AmazonEC2", {"productFamily": "NAT Gateway"}, _PREFIX + "NatGateway-Bytes$"),
    ("nlb", "hour"): Query("AWSELB", {"productFamily": "Load Balancer-Network"}, _PREFIX + "LoadBalancerUsage$"),
    ("nlb", "nlcu-hour"): Query("AWSELB", {"productFamily": "Load Balancer-Network"}, _PREFIX + "LCUUsage$"),
    ("cloudwatch", "metric-month"): Query("AmazonCloudWatch", {"productFamily": "Metric"}, "CW:MetricMonitorUsage$"),
    ("cloudwatch", "alarm-month"): Query("AmazonCloudWatch", {"productFamily": "Alarm"}, "CW:AlarmMonitorUsage$"),
    ("logs", "ingest-gb"): Query("AmazonCloudWatch", {}, _PREFIX + "DataProcessing-Bytes$"),
    ("logs", "storage-gb-month"): Query("AmazonCloudWatch", {}, _PREFIX + "TimedStorage-ByteHrs$"),
    ("logs", "insights-scan-gb"): Query("AmazonCloudWatch", {}, _PREFIX + "DataScanned-Bytes$"),
    ("route53", "zone-month"): Query("AmazonRoute53", {"productFamily": "DNS Zone"}, "HostedZone$"),
    ("route53", "query"): Query("AmazonRoute53", {}, "^DNS-Queries$"),
    # the same in every region, so any will do; a key's first requests are free and left out
    ("secretsmanager", "secret-month"): Query("AWSSecretsManager", _VIRGINIA, "AWSSecretsManager-Secret$"),
    ("secretsmanager", "request"): Query("AWSSecretsManager", _VIRGINIA, "AWSSecretsManagerAPIRequest$"),
    ("kms", "key-month"): Query("awskms", _VIRGINIA, "KMS-Keys$"),
    ("kms", "request"): Query("awskms", _VIRGINIA, "KMS-Requests$"),
    ("appsync", "event-operation"): Query("AWSAppSync", {}, "EventAPI-Operation$"),
    ("appsync", "event-minute"): Query("AWSAppSync", {}, "EventAPI-ConnectionDuration$"),
}


def rows_of(table: PriceTable, region: str) -> list[Price]:
    """The rows that belong to a region: its own, and those of all regions."""
    return [price for price in table.prices if price.region in (region, "global")]


def refresh(
    table: PriceTable, region: str, client: PricingClient, today: date, asked: Callable[[], None] = lambda: None
) -> Refreshed:
    """Ask for each price of the region; `asked` is called after each. Errors of the client are not caught."""
    rows: list[Price] = []
    changes: list[Change] = []
    kept: list[str] = []
    confirmed = 0
    for price in table.prices:
        if price.region not in (region, "global"):
            rows.append(price)
            continue
        query = query_for(price, region)
        found = None if query is None else _newest(_products(client, query), query)
        asked()
        if found is None:
            rows.append(price)
            kept.append(f"{price.service} {price.key}")
            continue
        tiers, effective = found
        fresh = msgspec.structs.replace(
            price,
            price_usd=tiers[0].price_usd if len(tiers) == 1 else None,
            tiers=() if len(tiers) == 1 else tiers,
            source=f"AWS Price List API, read {today}, prices effective {effective}",
            confidence="quoted",
            note="",
        )
        rows.append(fresh)
        if _same(fresh, price):
            confirmed += 1
        else:
            changes.append(Change(price.service, price.key, price.first_usd, fresh.first_usd))
    as_of = table.as_of if not changes and not confirmed else today.isoformat()
    return Refreshed(
        msgspec.structs.replace(table, as_of=as_of, prices=tuple(rows)), tuple(changes), confirmed, tuple(kept)
    )


def _same(one: Price, other: Price) -> bool:
    return all(
        abs(one.cost(quantity) - other.cost(quantity)) <= 1e-6 * other.cost(quantity)
        for quantity in (1.0, 1e4, 1e6, 1e9, 1e10)
    )


def _products(client: PricingClient, query: Query) -> Iterator[dict[str, Any]]:
    """All products that a query's filters let through, page by page."""
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in query.filters.items()]
    more: dict[str, str] = {}
    while True:
        page = client.get_products(ServiceCode=query.service_code, Filters=filters, FormatVersion="aws_v1", **more)
        for text in page.get("PriceList", ()):
            yield json.loads(text) if isinstance(text, str) else text
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def _newest(products: Iterable[dict[str, Any]], query: Query) -> tuple[tuple[Tier, ...], str] | None:
    """The tiers of the products that fit, and since when they hold; the newest if several do."""
    found = []
    for product in products:
        attributes = product["product"]["attributes"]
        if query.without and query.without in attributes.get("groupDescription", ""):
            continue
        if re.search(query.usage_type, attributes.get("usagetype", "")) is None:
            continue
        for term in product.get("terms", {}).get("OnDemand", {}).values():
            tiers = _tiers(term["priceDimensions"].values())
            if tiers:
                found.append((term["effectiveDate"][:10], tiers))
    if not found:
        return None
    effective, tiers = max(found, key=lambda pair: pair[0])
    return tiers, effective


def _tiers(dimensions: Iterable[dict[str, Any]]) -> tuple[Tier, ...]:
    """The price's steps. A step that is free is an allowance of the account and no price: it is left out."""
    steps: list[tuple[float, float | None, float]] = []
    for dimension in dimensions:
        usd = float(dimension["pricePerUnit"].get("USD", 0.0))
        end = dimension.get("endRange", "Inf")
        steps.append((float(dimension.get("beginRange", 0)), None if end == "Inf" else float(end), usd))
    paid: Sequence[tuple[float, float | None, float]] = [step for step in sorted(steps) if step[2] > 0]
    return tuple(Tier(end, usd) for _, end, usd in paid)
