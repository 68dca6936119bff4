"""The dated price table: what AWS asks for a unit, in which region, and who says so.

The table is `prices_data.json` in this package. A price has a source and a confidence: *quoted* from AWS (or from a
copy of AWS's own price list), *inferred* from a price nearby, *unverified* when only memory speaks for it. A price that
is not in the table is an error that names it. Free tiers are none of its business: see `free`.
"""

from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

Confidence = Literal["quoted", "inferred", "unverified"]


class PriceError(Exception):
    """No bill can be made; the message is one line for the user."""


class MissingPriceError(PriceError):
    """The table has no such price."""

    def __init__(self, region: str, service: str, key: str) -> None:
        super().__init__(region, service, key)
        self.region = region
        self.service = service
        self.key = key

    def __str__(self) -> str:
        return f"no price for {self.service} {self.key!r} in {self.region}"


class UnknownRegionError(PriceError):
    """The table has no prices at all for this region."""

    def __init__(self, region: str, known: Iterable[str]) -> None:
        super().__init__(region, tuple(known))
        self.region = region
        self.known = tuple(known)

    def __str__(self) -> str:
        return f"no prices for region {self.region!r}; there are {', '.join(self.known)}"


class Tier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A step of a price that falls with the monthly quantity."""

    up_to: float | None  # the monthly quantity at which the next tier begins; None in the last
    price_usd: float


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one unit costs: one price, or tiers over the quantity of a month."""

    region: str
    service: str
    key: str
    unit: str
    source: str
    confidence: Confidence
    price_usd: float | None = None
    tiers: tuple[Tier, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse a row that would make a wrong bill."""
        if (self.price_usd is None) == (not self.tiers):
            raise ValueError("a price needs either price_usd or tiers")
        if any(price <= 0 for price in self._all_prices()):
            raise ValueError("a price must be above zero")
        if self.tiers:
            edges = [tier.up_to for tier in self.tiers[:-1] if tier.up_to is not None]
            if len(edges) != len(self.tiers) - 1 or edges != sorted(edges) or self.tiers[-1].up_to is not None:
                raise ValueError("tiers must rise, and only the last is open")

    def cost(self, quantity: float) -> float:
        """USD for the quantity of one month."""
        if self.price_usd is not None:
            return quantity * self.price_usd
        usd = 0.0
        start = 0.0
        for tier in self.tiers:
            end = quantity if tier.up_to is None else min(quantity, tier.up_to)
            usd += max(0.0, end - start) * tier.price_usd
            start = end
        return usd

    @property
    def first_usd(self) -> float:
        """The price of the first unit of a month."""
        return self._all_prices()[0]

    def _all_prices(self) -> list[float]:
        return [tier.price_usd for tier in self.tiers] if self.price_usd is None else [self.price_usd]


class InstanceType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The size of an EC2 instance type."""

    type: str
    vcpu: int
    memory_gib: float
    baseline: float | None = None  # share of each vCPU that a burstable type earns credits for; None: not burstable
    credits_per_hour: float | None = None  # one credit is one vCPU for one minute

    @property
    def family(self) -> str:
        """What stands before the dot, `t3a`."""
        return self.type.partition(".")[0]


class PriceTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All prices that are known, of every region."""

    as_of: str
    note: str
    prices: tuple[Price, ...]
    instances_source: str
    instances: tuple[InstanceType, ...]


class Prices:
    """The prices of one region, and of the services that have the same price everywhere."""

    def __init__(self, table: PriceTable, region: str) -> None:
        regions = sorted({price.region for price in table.prices} - {"global"})
        if region not in regions:
            raise UnknownRegionError(region, regions)
        self.region = region
        self.as_of = table.as_of
        self._prices = {(p.service, p.key): p for p in table.prices if p.region in (region, "global")}
        self._instances = {instance.type: instance for instance in table.instances}

    def price(self, service: str, key: str) -> Price:
        """The price, or MissingPriceError: never a zero."""
        try:
            return self._prices[service, key]
        except KeyError:
            raise MissingPriceError(self.region, service, key) from None

    def instance(self, type_name: str) -> InstanceType:
        """The size of an instance type that has a price in this region."""
        self.price("ec2", type_name)
        try:
            return self._instances[type_name]
        except KeyError:
            raise PriceError(f"no size known for instance type {type_name!r}") from None

    def instance_types(self) -> tuple[str, ...]:
        """The instance types that have a price here and a known size."""
        return tuple(key for service, key in self._prices if service == "ec2" and key in self._instances)

    def all(self) -> tuple[Price, ...]:
        """Every price, in the order of the table."""
        return tuple(self._prices.values())


def regions() -> tuple[str, ...]:
    """The regions that have prices."""
    return tuple(sorted({price.region for price in _table().prices} - {"global"}))


def load_prices(region: str, file: Path | None = None) -> Prices:
    """The prices of the region from the table in this package, or from a file that `compare prices refresh` wrote."""
    return Prices(load_table(file), region)


def load_table(file: Path | None = None) -> PriceTable:
    """The table in this package, or the one in a file; PriceError if that can't be read."""
    if file is None:
        return _table()
    try:
        return parse_table(file.read_bytes())
    except OSError as exc:
        raise PriceError(f"can't read the price table {file} ({exc.strerror})") from exc


def write_table(table: PriceTable, file: Path) -> None:
    """Write a table so that `load_table` reads it, a line for each price. OSError if that can't be done."""
    rows = ",\n    ".join(msgspec.json.encode(price).decode() for price in table.prices)
    sizes = ",\n    ".join(msgspec.json.encode(instance).decode() for instance in table.instances)
    head = msgspec.json.encode({"as_of": table.as_of, "note": table.note}).decode()[1:-1]
    source = msgspec.json.encode(table.instances_source).decode()
    file.write_text(
        f'{{\n  {head},\n  "prices": [\n    {rows}\n  ],\n  "instances_source": {source},\n'
        f'  "instances": [\n    {sizes}\n  ]\n}}\n'
    )


def parse_table(data: bytes) -> PriceTable:
    """Validate a table; a malformed, doubled or worthless row raises PriceError."""
    try:
        table = msgspec.json.decode(data, type=PriceTable)
    except msgspec.DecodeError as exc:
        raise PriceError(f"bad price table: {exc}") from exc
    seen = set()
    for price in table.prices:
        name = (price.region, price.service, price.key)
        if name in seen:
            raise PriceError(f"bad price table: {price.service} {price.key!r} stands twice for {price.region}")
        seen.add(name)
    return table


@cache
def _table() -> PriceTable:
    return parse_table(resources.files("compare.bill").joinpath("prices_data.json").read_bytes())
