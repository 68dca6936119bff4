"""`proctorwire lambda local` and `proctorwire bench-lambda`: the serverless side on this machine, and what it costs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compare.bill.prices import Prices, load_prices
from compare.commands.common import clear_errors, json_option, option, print_json, region_options
from compare.present import console

if TYPE_CHECKING:  # the other commands of `proctorwire` need none of it
    from compare.bench.serverless import ClientSpeed, Hour, Measured, Row, StartTime

_MEMORY_SIZES = (128, 256, 512)


@click.group("lambda")
def lambda_group() -> None:
    """The serverless side."""


@lambda_group.command("local")
@option("--port", 8070, "Port of the sockets; 0 takes a free one.", type=click.IntRange(0, 65535))
@option("--http-port", 8071, "Port of the pages and the HTTP API; 0 takes a free one.", type=click.IntRange(0, 65535))
@option("--school", "demo", "The school that the links and the key are for.")
@option("--quiz", "math-1", "The exam that the links are for.")
@click.option(
    "--token-secret",
    envvar="PROCTORWIRE_TOKEN_SECRET",
    default="",
    help="Secret that signs tokens (HS256).  [default: a new one]",
)
@option("--shards", 1, "Over how many keys an exam's students are spread.", type=click.IntRange(1, 64))
@option(
    "--direct-watchers",
    3,
    "What more proctors watch is published together, every two seconds; 0: everything.",
    type=click.IntRange(0, 100),
)
@click.option("--json", "as_json", is_flag=True, help="Announce readiness as one line of JSON.")
def local_command(
    port: int,
    http_port: int,
    school: str,
    quiz: str,
    token_secret: str,
    shards: int,
    direct_watchers: int,
    as_json: bool,
) -> None:
    """Serve the emulated API Gateway with the real handlers, the dashboard and a demo exam, until Ctrl-C.

    Prints links to open in a browser, and how to make more tokens. Nothing of it lasts.

    \b
    Example:
      proctorwire lambda local
      proctorwire lambda local --port 0 --http-port 0 --json
    """
    from adapters.lambda_apigw.config import ConfigError
    from adapters.lambda_apigw.local.exam_stack import StackError
    from adapters.lambda_apigw.local.ministack import MiniStackError
    from compare.lambda_local import LocalOptions, Served, serve

    def tell(served: Served) -> None:
        if as_json:
            click.echo(msgspec.json.encode(served))
            return
        click.echo(f"The proctor's dashboard:\n  {served.dashboard}\n")
        click.echo(f"A student's page:\n  {served.exam}\n")
        click.echo(f"Sockets:       {served.websocket_url}\n@connections:  {served.management_url}/@connections/ID")
        click.echo(f"HTTP API:      {served.http_url}/api  (key of school {served.school}: {served.school_key})\n")
        click.echo(
            "More tokens:\n"
            f"  export PROCTORWIRE_TOKEN_SECRET={served.token_secret}\n"
            f"  proctorwire token --role student --school {served.school} --quiz {served.quiz_id} --id s1 --attempt a1\n\n"
            "Ctrl-C ends."
        )

    options = LocalOptions(port, http_port, school, quiz, token_secret, shards, direct_watchers)
    try:
        asyncio.run(serve(options, tell))
    except KeyboardInterrupt:
        pass
    except ConfigError as error:
        raise click.UsageError(f"--token-secret: {error}") from error
    except (StackError, MiniStackError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.UsageError(f"--http-port {http_port}: {error.strerror}") from error


@click.command("bench-lambda")
@option("--students", 200, "Of the exam that the table of a student's hour is about.", type=click.IntRange(1, 100_000))
@option("--proctors", 1, "Of that exam; each sees all of it.", type=click.IntRange(0, 100))
@option("--changes", 60.0, "Visible changes of a student in an hour.", type=click.FloatRange(1, 3600))
@option("--memory", 256, "Memory of the functions in that table, MB.", type=click.IntRange(128, 10_240))
@option("--rounds", 12, "Frames of each kind and page that are measured.", type=click.IntRange(1, 1000))
@region_options
@json_option
def bench_command(
    students: int,
    proctors: int,
    changes: float,
    memory: int,
    rounds: int,
    region: str,
    price_file: Any,
    as_json: bool,
) -> None:
    """Measure what the serverless side uses for each kind of frame, and put a student's hour together. Takes about a minute.

    CPU time and calls are measured here, on the handlers behind the emulated gateway; DynamoDB's units are those that the emulated
    table returned; billed milliseconds are modelled.

    \b
    Example:
      proctorwire bench-lambda
      proctorwire bench-lambda --students 1000 --memory 128 --region us-east-1
    """
    from compare.bench import serverless

    hour = serverless.Hour(students=students, proctors=proctors, changes=changes, memory_mb=memory)
    with clear_errors():
        prices = load_prices(region, price_file)
    try:
        starts, clients = serverless.start_times(), serverless.client_speeds()
        direct = asyncio.run(serverless.measure("direct", rounds=rounds))
        together = asyncio.run(serverless.measure("together", rounds=rounds))
    except serverless.BenchError as error:
        raise click.ClickException(str(error)) from error
    rows = serverless.table(direct, together, hour, prices)
    if as_json:
        kinds = {found.path: _kinds(found) for found in (direct, together)}
        print_json({"starts": starts, "clients": clients, "kinds": kinds, "hour": hour, "rows": rows})
        return
    out = console()
    show_starts(starts, clients, out)
    show_kinds(direct, together, prices, memory, out)
    show_hour(rows, hour, prices.region, out)


def _kinds(found: Measured) -> dict[str, Any]:
    return {
        kind: msgspec.to_builtins(units) | {"billed_ms": {str(mb): units.billed_ms(mb) for mb in _MEMORY_SIZES}}
        for kind, units in found.each.items()
    }


def show_starts(starts: tuple[StartTime, ...], clients: tuple[ClientSpeed, ...], out: Console) -> None:
    """What a cold start imports, and both clients."""
    table = _table("Import and construction in a fresh interpreter", "CPU ms", "wall ms", "memory MB")
    for index, start in enumerate(starts):
        plus = "+" if index else ""
        table.add_row(start.what, f"{plus}{start.cpu_ms:.0f}", f"{plus}{start.wall_ms:.0f}", f"{start.memory_mb:.0f}")
    out.print(table)
    table = _table("PostToConnection, one after the other", "calls a second", "CPU ms a call")
    for client in clients:
        table.add_row(client.client, f"{client.calls_per_second:,.0f}", f"{client.cpu_ms:.2f}")
    out.print(table)


_KINDS = {
    "connect": "connect (authorizer and $connect)",
    "join": "first report of a connection",
    "beat": "heartbeat",
    "echo": "heartbeat that asks for an answer",
    "same": "report that says nothing new",
    "change": "report of progress, seen by one proctor",
    "label": "away or back, seen and journalled",
    "words": "chat line or raised hand",
    "command": "command to one student",
    "receipt": "receipt of a command",
    "disconnect": "$disconnect of a page that said nothing",
    "watch": "proctor asks for the snapshot (exam of two)",
    "sweep": "sweep of a quiet exam",
    "views": "views published together, one run",
}


def show_kinds(direct: Measured, together: Measured, prices: Prices, memory: int, out: Console) -> None:
    """Units of each kind of frame."""
    sizes = [f"{mb} MB" for mb in _MEMORY_SIZES]
    table = _table(
        "Units of each kind of frame; billed ms are modelled",
        *("in", "out", "invocations", "CPU ms", *sizes, "read", "write", "SQS", f"USD a million, {memory} MB"),
    )
    lines = [(name, direct.each[kind]) for kind, name in _KINDS.items() if kind in direct.each]
    lines += [(f"together: {_KINDS[kind]}", together.each[kind]) for kind in ("change", "label", "views")]
    for name, units in lines:
        billed = [f"{units.billed_ms(mb):.0f}" for mb in _MEMORY_SIZES]
        counts = (units.messages_in, units.messages_out, units.invocations)
        table.add_row(
            name,
            *(f"{count:.0f}" for count in counts),
            f"{units.cpu_ms:.2f}",
            *billed,
            *(f"{count:.1f}" for count in (units.read_units, units.write_units, units.sqs)),
            f"{sum(units.usd(prices, memory).values()) * 1e6:.2f}",
        )
    out.print(table)


def show_hour(rows: tuple[Row, ...], hour: Hour, region: str, out: Console) -> None:
    """The table that the choice of a beat rests on."""
    out.print(
        Text(
            f"A student's hour: {hour.changes:g} visible changes, an exam of {hour.students} with {hour.proctors} "
            f"proctor{'s' if hour.proctors != 1 else ''}, {hour.memory_mb} MB, {region}",
            style="bold",
        )
    )
    names = list(rows[0].lines)
    table = _table(
        "millionths of a USD", "beat s", *names, "all", "of the paper's", "silent shown s", "closed shown s", fold=True
    )
    for row in rows:
        table.add_row(
            row.name,
            f"{row.beat:g}",
            *(f"{row.lines[name] * 1e6:.0f}" for name in names),
            f"{row.usd * 1e6:,.0f}",
            f"{row.share:.3f}",
            f"{row.silent_seconds:.0f}",
            f"{row.closed_seconds:.0f}",
        )
    out.print(table)


def _table(title: str, *columns: str, fold: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(title, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=not fold, overflow="fold")
    return table
