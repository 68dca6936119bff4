"""`compare prices`: the price table, shown and refreshed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from compare.bill.pricelist import ENDPOINT_REGION, Refreshed, refresh, rows_of
from compare.bill.prices import Price, PriceTable, load_prices, load_table, write_table
from compare.commands.common import clear_errors, format_options, json_option, print_json, quiet_option, region_options
from compare.pages.parts import unit_money
from compare.present import Format, Out, Steps, present, progress


@click.group()
def prices() -> None:
    """The dated price table that every bill rests on."""


@prices.command("show")
@region_options
@click.option("--service", metavar="NAME", help="Only this service, as it stands in the first column.")
@format_options
def show_command(region: str, price_file: Path | None, service: str | None, form: Format) -> None:
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
    rows.sort(key=lambda price: (price.service, price.key))

    def show(out: Out) -> None:
        out.print(f"Prices of {region} in USD, as of {table.as_of}; on demand, before tax.\n")
        _show(rows, out)

    present(form, rows, show, title=f"prices of {region}")


def _show(rows: Sequence[Price], out: Out) -> None:
    """A row for each step of a price; where it is from by a number, as many rows have the same source."""
    sources: dict[str, int] = {}
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, right, no_wrap in (
        ("service and price", False, True),
        ("USD", True, True),
        ("for", False, False),
        ("", False, True),
        ("source", True, True),
    ):
        shown.add_column(name, justify="right" if right else "left", no_wrap=no_wrap)
    for price in rows:
        words = price.source + (f"; {price.note}" if price.note else "")
        number = sources.setdefault(words, len(sources) + 1)
        sure = "" if price.confidence == "quoted" else price.confidence
        for step, (usd, unit) in enumerate(_steps(price)):
            shown.add_row(
                *("", usd, unit, "", "") if step else (f"{price.service} {price.key}", usd, unit, sure, str(number))
            )
    out.print(shown)
    out.print(Text("\nSources", style="bold"))
    for words, number in sources.items():
        out.print(Text(f"{number:3}  {words}"))


def _steps(price: Price) -> list[tuple[str, str]]:
    """Each price and what it is for, from the first unit on."""
    if price.price_usd is not None:
        return [(unit_money(price.price_usd), price.unit)]
    steps: list[tuple[str, str]] = []
    for tier in price.tiers:
        edge = f"to {_short(tier.up_to)}" if tier.up_to else "above"
        steps.append((unit_money(tier.price_usd), f"{price.unit}, {edge}" if not steps else edge))
    return steps


def _short(number: float) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:g} {word}"
    return f"{number:,.0f}"


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
@quiet_option
def refresh_command(region: str, price_file: Path | None, output: Path, as_json: bool, quiet: bool) -> None:
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
    with progress("Asking AWS", len(rows_of(table, region)), quiet=quiet) as steps:
        fresh = _ask_aws(table, region, steps)
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


def _ask_aws(table: PriceTable, region: str, steps: Steps) -> Refreshed:
    import boto3  # takes half a second that no other command should wait for
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        client = boto3.client("pricing", region_name=ENDPOINT_REGION)
        return refresh(table, region, client, date.today(), steps.step)
    except NoCredentialsError as exc:
        raise click.UsageError(
            "no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from exc
    except (BotoCoreError, ClientError) as exc:
        raise click.ClickException(f"AWS did not answer with prices: {exc}") from exc
