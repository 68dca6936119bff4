"""`compare prices`: the price table, shown and refreshed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click
from rich.table import Table

from compare.commands.common import clear_errors, json_option, print_json, region_options
from compare.page import unit_money
from compare.present import console
from compare.pricelist import ENDPOINT_REGION, Refreshed, refresh
from compare.prices import Price, PriceTable, load_prices, load_table, write_table


@click.group()
def prices() -> None:
    """The dated price table that every bill rests on."""


@prices.command("show")
@region_options
@click.option("--service", metavar="NAME", help="Only this service, as it stands in the first column.")
@json_option
def show_command(region: str, price_file: Path | None, service: str | None, as_json: bool) -> None:
    """Print the prices of a region, each with its unit, source and how sure it is.

    Quoted: read from AWS or a copy of its price list. Inferred: derived from a price nearby. Unverified: no page of AWS was found.

    \b
    Example:
      compare prices show --region ap-southeast-1
      compare prices show --service apigateway --json
    """
    with clear_errors():
        table = load_prices(region, price_file)
    rows = [price for price in table.all() if service in (None, price.service)]
    if not rows:
        known = ", ".join(sorted({price.service for price in table.all()}))
        raise click.UsageError(f"--service: no prices for {service!r}; there are {known}")
    if as_json:
        print_json(rows)
        return
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, justify in (("service", "left"), ("price", "left"), ("USD", "right"), ("for", "left"), ("", "left")):
        shown.add_column(
            name, justify="right" if justify == "right" else "left", no_wrap=name in ("service", "price", "USD")
        )
    shown.add_column("source")
    for price in sorted(rows, key=lambda price: (price.service, price.key)):
        mark = "" if price.confidence == "quoted" else price.confidence
        note = f"; {price.note}" if price.note else ""
        shown.add_row(price.service, price.key, _money(price), price.unit, mark, price.source + note)
    out = console()
    out.print(f"Prices of {region} in USD, as of {table.as_of}; on demand, before tax.\n")
    out.print(shown)


def _money(price: Price) -> str:
    if price.price_usd is not None:
        return unit_money(price.price_usd)
    steps = [
        f"{unit_money(tier.price_usd)} {'up to' if tier.up_to else 'above'}"
        + (f" {tier.up_to:,.0f}" if tier.up_to else "")
        for tier in price.tiers
    ]
    return "\n".join(steps)


@prices.command("refresh")
@region_options
@click.option(
    "--output",
    default=Path("proctorwire-prices.json"),
    show_default=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the new table; give it to other commands with --prices.",
)
@json_option
def refresh_command(region: str, price_file: Path | None, output: Path, as_json: bool) -> None:
    """Read the prices of a region from AWS's Price List API and write a new table.

    Needs AWS credentials that may call pricing:GetProducts. Prices that the API does not have keep their value and are named.

    \b
    Example:
      compare prices refresh --region ap-southeast-1 --output prices.json
      compare advise --students 1200 --prices prices.json
    """
    with clear_errors(prices="--prices"):
        table = load_table(price_file)
    with clear_errors():
        load_prices(region, price_file)
    fresh = _ask_aws(table, region)
    try:
        write_table(fresh.table, output)
    except OSError as exc:
        raise click.UsageError(
            f"--output: can't write {output} ({exc.strerror}); give a file that you may write"
        ) from exc
    if as_json:
        print_json({"output": str(output), "changes": fresh.changes, "confirmed": fresh.confirmed, "kept": fresh.kept})
        return
    for change in fresh.changes:
        before, after = unit_money(change.before_usd), unit_money(change.after_usd)
        click.echo(f"changed    {change.service} {change.key}: {before} -> {after}")
    click.echo(f"confirmed  {fresh.confirmed} prices are as they were")
    if fresh.kept:
        click.echo(f"kept       {len(fresh.kept)} that were not found: {', '.join(fresh.kept)}")
    click.echo(f"written    {output}")


def _ask_aws(table: PriceTable, region: str) -> Refreshed:
    import boto3  # takes half a second that no other command should wait for
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        client = boto3.client("pricing", region_name=ENDPOINT_REGION)
        return refresh(table, region, client, date.today())
    except NoCredentialsError as exc:
        raise click.UsageError(
            "no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from exc
    except (BotoCoreError, ClientError) as exc:
        raise click.ClickException(f"AWS did not answer with prices: {exc}") from exc
