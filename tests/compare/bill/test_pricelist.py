"""Prices from the Price List API: a stubbed client that answers in AWS's own form, and what becomes of it."""

import json
from datetime import date

import boto3
import click
import pytest
from botocore.exceptions import NoCredentialsError
from botocore.stub import Stubber
from click.testing import CliRunner

from compare.bill.pricelist import query_for, refresh
from compare.bill.prices import PriceTable, load_prices, load_table, write_table
from compare.commands import prices as prices_command
from compare.commands import register

TODAY = date(2026, 11, 24)


@pytest.fixture
def group():
    made = click.Group("compare")
    register(made)
    return made


def product(usage_type, *steps, effective="2026-10-01T00:00:00Z", **attributes):
    """One entry of a PriceList, as the API sends it: JSON in a string, numbers as text."""
    dimensions = {
        f"X.{number}": {"unit": "Unit", "beginRange": begin, "endRange": end, "pricePerUnit": {"USD": usd}}
        for number, (begin, end, usd) in enumerate(steps)
    }
    return json.dumps(
        {
            "product": {"attributes": {"usagetype": usage_type, **attributes}, "sku": "X"},
            "terms": {"OnDemand": {"X.Y": {"effectiveDate": effective, "priceDimensions": dimensions}}},
        }
    )


def only(*keys):
    table = load_table()
    chosen = [p for p in table.prices if (p.service, p.key) in keys and p.region in ("ap-southeast-1", "global")]
    assert len(chosen) == len(keys)
    return PriceTable(table.as_of, table.note, tuple(chosen), table.instances_source, table.instances)


@pytest.fixture
def stub():
    client = boto3.client("pricing", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stubber:
        yield client, stubber


def expect(stubber, service_code, filters, *products, token=None, given_token=None):
    request = {
        "ServiceCode": service_code,
        "FormatVersion": "aws_v1",
        "Filters": [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()],
    }
    if given_token:
        request["NextToken"] = given_token
    answer = {"FormatVersion": "aws_v1", "PriceList": list(products)} | ({"NextToken": token} if token else {})
    stubber.add_response("get_products", answer, request)


def test_tiers_come_page_by_page_and_the_price_says_since_when(stub):
    client, stubber = stub
    filters = {"productFamily": "WebSocket", "regionCode": "ap-southeast-1"}
    minute = product("APS1-ApiGatewayMinute", ("0", "Inf", "0.0000002880"))
    message = product(
        "APS1-ApiGatewayMessage", ("1000000000", "Inf", "0.0000009600"), ("0", "1000000000", "0.0000011600")
    )
    expect(stubber, "AmazonApiGateway", filters, minute, token="more")
    expect(stubber, "AmazonApiGateway", filters, message, given_token="more")
    fresh = refresh(only(("apigateway", "websocket-message")), "ap-southeast-1", client, TODAY)
    (price,) = fresh.table.prices
    assert price.cost(1.1e9) == pytest.approx(1_160 + 96)
    assert "effective 2026-10-01" in price.source
    assert (fresh.changes[0].before_usd, fresh.changes[0].after_usd) == (1.15e-6, 1.16e-6)
    assert fresh.table.as_of == "2026-11-24"


def test_near_relatives_of_a_product_are_not_taken(stub):
    client, stubber = stub
    expect(
        stubber,
        "AWSELB",
        {"productFamily": "Load Balancer-Network", "regionCode": "ap-southeast-1"},
        product("APS1-Outposts-LoadBalancerUsage", ("0", "Inf", "9.0")),
        product("APS1-TS-LoadBalancerUsage", ("0", "Inf", "9.0")),
        product("APS1-LoadBalancerUsage", ("0", "Inf", "0.0252")),
    )
    fresh = refresh(only(("nlb", "hour")), "ap-southeast-1", client, TODAY)
    assert fresh.table.prices[0].price_usd == 0.0252
    assert (fresh.confirmed, fresh.changes) == (1, ())


def test_the_free_tier_of_china_is_another_product(stub):
    client, stubber = stub
    expect(
        stubber,
        "AWSLambda",
        {"group": "AWS-Lambda-Requests", "regionCode": "ap-southeast-1"},
        product("APS1-Request", ("0", "Inf", "0.0"), groupDescription="Invocation call, China free tier"),
        product("APS1-Request", ("0", "Inf", "0.0000002"), groupDescription="Invocation call for a Lambda function"),
    )
    fresh = refresh(only(("lambda", "request")), "ap-southeast-1", client, TODAY)
    assert fresh.table.prices[0].price_usd == 2e-7


def test_a_step_that_is_free_is_no_price(stub):
    client, stubber = stub
    expect(
        stubber,
        "AmazonDynamoDB",
        {"productFamily": "Database Storage", "regionCode": "ap-southeast-1"},
        product("APS1-TimedStorage-ByteHrs", ("0", "25", "0.0"), ("25", "Inf", "0.285")),
        product("APS1-IA-TimedStorage-ByteHrs", ("0", "Inf", "0.114")),
    )
    fresh = refresh(only(("dynamodb", "storage-gb-month")), "ap-southeast-1", client, TODAY)
    assert fresh.table.prices[0].price_usd == 0.285
    assert fresh.confirmed == 1


def test_what_is_not_found_keeps_its_price_and_is_named(stub):
    client, stubber = stub
    expect(stubber, "AmazonVPC", {"regionCode": "ap-southeast-1"})
    before = only(("vpc", "public-ipv4-hour"), ("sqs", "request"))
    fresh = refresh(before, "ap-southeast-1", client, TODAY)
    assert fresh.table.prices == before.prices
    assert set(fresh.kept) == {"sqs request", "vpc public-ipv4-hour"}


def test_prices_of_all_regions_are_asked_for_where_the_list_has_them(stub):
    client, stubber = stub
    here = {"regionCode": "us-east-1"}
    expect(stubber, "AWSSecretsManager", here, product("USE1-AWSSecretsManager-Secret", ("0", "Inf", "0.4")))
    expect(
        stubber, "awskms", here, product("us-east-1-KMS-Requests", ("0", "20000", "0"), ("20000", "Inf", "0.000003"))
    )
    asked = []
    rows = only(("secretsmanager", "secret-month"), ("kms", "request"))
    fresh = refresh(rows, "ap-southeast-1", client, TODAY, lambda: asked.append(1))
    assert (fresh.confirmed, fresh.kept, len(asked)) == (2, (), 2)


def test_an_instance_is_asked_for_with_everything_that_tells_it_from_its_relatives():
    price = load_prices("ap-southeast-1").price("ec2", "t3a.small")
    query = query_for(price, "ap-southeast-1")
    assert query.filters["tenancy"] == "Shared"
    assert query.filters["preInstalledSw"] == "NA"
    assert query.filters["capacitystatus"] == "Used"


def test_a_table_survives_being_written_and_read(tmp_path):
    write_table(load_table(), tmp_path / "prices.json")
    assert load_table(tmp_path / "prices.json") == load_table()


def test_show_prints_tiers_and_doubts(group):
    shown = CliRunner().invoke(group, ["prices", "show", "--service", "apigateway"])
    assert shown.exit_code == 0
    table, sources = shown.output.split("\nSources\n")
    words = " ".join(table.split())
    assert "apigateway websocket-message $1.15 / million message of up to 32 KiB, to 1 billion" in words
    assert "$0.95 / million above" in words
    assert "ec2" not in table
    assert "  1  AWS price map apigateway" in sources
    doubted = CliRunner().invoke(group, ["prices", "show", "--service", "nlb"]).output
    assert "inferred" in doubted
    assert "unverified" in doubted
    assert "..." not in doubted.replace("\u2026", "...")  # nothing is cut off


def test_show_as_json(group):
    shown = CliRunner().invoke(group, ["prices", "show", "--region", "us-east-1", "--service", "nlb", "--json"])
    assert {row["key"] for row in json.loads(shown.output)} == {"hour", "nlcu-hour"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["show", "--region", "mars-1"],
            "--region: no prices for region 'mars-1'; there are ap-southeast-1, us-east-1",
        ),
        (["show", "--service", "s3"], "--service: no prices for 's3'"),
        (["show", "--prices", "/nowhere/prices.json"], "can't read the price table"),
        (["refresh", "--region", "mars-1"], "--region: no prices"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(group, arguments, says):
    shown = CliRunner().invoke(group, ["prices", *arguments])
    assert shown.exit_code == 2
    assert says in shown.output


def test_refresh_without_credentials_says_what_to_set(group, monkeypatch, tmp_path):
    def refused(*_):
        raise NoCredentialsError

    monkeypatch.setattr(prices_command, "refresh", refused)
    shown = CliRunner().invoke(group, ["prices", "refresh", "--output", str(tmp_path / "p.json")])
    assert shown.exit_code == 2
    assert "AWS_PROFILE" in shown.output


def test_refresh_writes_a_table_that_other_commands_take(group, monkeypatch, tmp_path):
    monkeypatch.setattr(
        prices_command, "refresh", lambda table, region, client, day, asked: refresh(table, region, Empty(), day, asked)
    )
    path = tmp_path / "p.json"
    shown = CliRunner().invoke(group, ["prices", "refresh", "--output", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "written" in shown.output
    assert CliRunner().invoke(group, ["prices", "show", "--prices", str(path)]).exit_code == 0


class Empty:
    def get_products(self, **_):
        return {"PriceList": []}
