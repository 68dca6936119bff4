"""`compare bus`: the ways between workers, under the cluster's own publications."""

from __future__ import annotations

import asyncio
import re

import click
import msgspec
from rich.table import Table
from rich.text import Text

from compare.bench.bus import NAMES, SECONDS_EACH, BusTable, Load, Loss, measure_all
from compare.commands.common import format_options, in_range, option, quiet_option
from compare.pages.parts import milliseconds
from compare.present import Format, Out, present, progress

_LOAD = Load()


@click.command("bus")
@click.option("--only", "names", multiple=True, type=click.Choice(NAMES), help="Only this one; may be repeated.")
@option("--exams", _LOAD.exams, "Exams, a channel each.", type=int)
@option("--burst", _LOAD.burst, "Publications of the throughput measurement.", type=int)
@option("--rate", _LOAD.rate, "Publications a second while latency is measured.", type=float)
@option("--seconds", _LOAD.seconds, "How long.", type=float)
@click.option("--kafka", metavar="HOST:PORT", default="", help="A Kafka that is there; without it a labelled stand-in.")
@format_options
@quiet_option
def bus_command(
    names: tuple[str, ...],
    exams: int,
    burst: int,
    rate: float,
    seconds: float,
    kafka: str,
    form: Format,
    quiet: bool,
) -> int:
    """Measure Redis pub/sub, Redis Streams, NATS JetStream and Kafka as the way between workers.

    Each has its own server on this machine and gets what workers publish: encoded views, a channel an exam. Throughput, latency,
    and what is lost or comes twice when a subscriber stands still for 2 s and when the server is killed and started again. Takes
    less than a minute. What is not installed is named with the command that installs it.

    Without --kafka the row is called "Kafka's stand-in": another broker that speaks Kafka's protocol and keeps all in its memory,
    which says nothing of Kafka but that the client works. With --kafka the broker is not restarted, as it is not ours.

    \b
    Example:
      compare bus
      compare bus --only redis-pubsub --only nats --format md
      compare bus --only kafka --kafka broker.example:9092
    """
    for name, value, least, most in (
        ("--exams", exams, 1, 1_000),
        ("--burst", burst, 100, 1_000_000),
        ("--rate", rate, 10, 5_000),
        ("--seconds", seconds, 0.2, 600),
    ):
        in_range(name, value, least, most)
    if kafka and re.fullmatch(r"[^\s:/,]+:\d{1,5}(,[^\s:/,]+:\d{1,5})*", kafka) is None:
        raise click.UsageError(f"--kafka: {kafka!r} is no address; give HOST:PORT, or several with commas between them")
    load = msgspec.structs.replace(_LOAD, exams=exams, burst=burst, rate=rate, seconds=seconds)
    chosen = [name for name in NAMES if not names or name in names]
    with progress("Measuring", len(chosen) * SECONDS_EACH, quiet=quiet) as steps:
        found = asyncio.run(measure_all(chosen, load, kafka, steps.tell, lambda: steps.step(SECONDS_EACH)))
    present(form, found, lambda out: show(found, out), title="the way between workers")
    return 0 if found.buses else 1


def show(found: BusTable, out: Out) -> None:
    """A row for each way."""
    if found.buses:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("", no_wrap=True)
        for name in (
            "publications\na second",
            "latency, ms\np50",
            "\np95",
            "\np99",
            "stall: lost\nof",
            "\ntwice",
            "restart: lost\nof",
            "\ntwice",
        ):
            table.add_column(name, justify="right", no_wrap=True)
        for bus in found.buses:
            times = [milliseconds(getattr(bus.latency_ms, name)) for name in ("p50", "p95", "p99")]
            table.add_row(bus.title, f"{bus.throughput:,.0f}", *times, *_loss(bus.stalled), *_loss(bus.restart))
        out.print(table)
        for bus in found.buses:
            out.print(f"{bus.title}: {bus.note}", style="dim", highlight=False)
        load = found.load
        out.print(
            f"\nMeasured on this machine with Python clients, {found.payload_bytes} bytes a publication, {load.exams} channels; "
            f"latency at {load.rate:g} a second, the stall at {load.stall_rate:g}. Redis cuts a subscriber off when 1 MB waits for "
            "it here, 64 MB in the cluster, whose workers notice and read the exam again.",
            style="dim",
            highlight=False,
        )
    for line in found.missing:
        out.print(Text(line), soft_wrap=True)


def _loss(loss: Loss | None) -> tuple[str, str]:
    return ("-", "-") if loss is None else (f"{loss.lost:,} of {loss.published:,}", f"{loss.duplicates:,}")
