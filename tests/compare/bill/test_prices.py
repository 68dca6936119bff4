"""The price table: complete for both bills, tiers at their edges, and errors that name what is missing."""

import json
from importlib import resources

import pytest

from compare.bill.prices import MissingPriceError, PriceError, UnknownRegionError, load_prices, parse_table, regions


@pytest.fixture
def singapore():
    return load_prices("ap-southeast-1")


def table_with(change):
    table = json.loads(resources.files("compare.bill").joinpath("prices_data.json").read_bytes())
    change(table["prices"])
    return json.dumps(table).encode()


def test_regions_with_prices():
    assert regions() == ("ap-southeast-1", "us-east-1")


@pytest.mark.parametrize(
    ("region", "first", "over", "minute"),
    [("ap-southeast-1", 1.15, 0.95, 0.288), ("us-east-1", 1.00, 0.80, 0.25)],
)
def test_websocket_prices_per_million(region, first, over, minute):
    prices = load_prices(region)
    messages = prices.price("apigateway", "websocket-message")
    assert messages.cost(1e6) == pytest.approx(first)
    assert messages.cost(1e9) == pytest.approx(first * 1000)
    assert messages.cost(1e9 + 1e6) == pytest.approx(first * 1000 + over)
    assert prices.price("apigateway", "websocket-minute").cost(1e6) == pytest.approx(minute)


def test_egress_falls_through_all_its_tiers(singapore):
    egress = singapore.price("egress", "internet-gb")
    assert egress.cost(0) == 0
    assert egress.cost(10_240) == pytest.approx(1_228.80)
    assert egress.cost(10_241) == pytest.approx(1_228.80 + 0.085)
    everything = 10_240 * 0.12 + 40_960 * 0.085 + 102_400 * 0.082 + 1_000 * 0.08
    assert egress.cost(154_600) == pytest.approx(everything)
    assert egress.first_usd == 0.12


def test_lambda_tiers_differ_by_architecture(singapore):
    assert singapore.price("lambda", "gb-second-x86_64").cost(7e9) == pytest.approx(6e9 * 1.66667e-5 + 1e9 * 1.5e-5)
    assert singapore.price("lambda", "gb-second-arm64").cost(7e9) == pytest.approx(7e9 * 1.33334e-5)


def test_a_missing_price_is_an_error_that_names_it_and_the_region(singapore):
    with pytest.raises(MissingPriceError, match=r"no price for ec2 'c7a\.large' in ap-southeast-1"):
        singapore.price("ec2", "c7a.large")
    with pytest.raises(MissingPriceError):
        singapore.instance("c7a.large")
    assert load_prices("us-east-1").price("ec2", "c7a.large").price_usd == 0.10264


def test_an_unknown_region_names_those_that_exist():
    with pytest.raises(UnknownRegionError, match=r"'mars-1'; there are ap-southeast-1, us-east-1"):
        load_prices("mars-1")


def test_prices_that_are_the_same_everywhere_are_found_from_any_region(singapore):
    assert singapore.price("route53", "zone-month").price_usd == 0.50


@pytest.mark.parametrize("region", ["ap-southeast-1", "us-east-1"])
def test_every_price_has_a_source_and_a_unit_and_every_instance_a_size(region):
    prices = load_prices(region)
    for price in prices.all():
        assert price.source
        assert price.unit
        if price.service == "ec2" and not price.key.startswith("surplus"):
            assert prices.instance(price.key).vcpu >= 1


def test_burstable_sizes(singapore):
    small = singapore.instance("t3a.small")
    assert (small.vcpu, small.memory_gib, small.baseline, small.family) == (2, 2, 0.2, "t3a")
    assert small.credits_per_hour == small.vcpu * small.baseline * 60
    assert singapore.instance("c7g.large").baseline is None


def set_zero(rows):
    rows[1]["price_usd"] = 0


def set_both(rows):
    rows[0]["price_usd"] = 1.0


def swap_tiers(rows):
    rows[0]["tiers"].reverse()


def double(rows):
    rows.append(rows[0])


def misspell(rows):
    rows[0]["prise"] = 1


@pytest.mark.parametrize("change", [set_zero, set_both, swap_tiers, double, misspell])
def test_a_worthless_table_is_refused(change):
    with pytest.raises(PriceError, match="bad price table"):
        parse_table(table_with(change))
