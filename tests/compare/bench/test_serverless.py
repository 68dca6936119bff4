"""The bench of the serverless side: what a kind of frame uses is what we say, and a student's hour is put together from it."""

from __future__ import annotations

import math

import pytest

from compare.bench import serverless
from compare.bench.serverless import Hour, Measured, Units
from compare.bill.prices import load_prices


@pytest.fixture(scope="module")
async def direct() -> Measured:
    return await serverless.measure("direct", students=2, rounds=3, sweeps=2)


@pytest.mark.parametrize(
    ("kind", "messages_in", "messages_out", "read_units", "write_units"),
    [
        ("connect", 0, 0, 1, 1),
        ("join", 1, 3, 3, 4),
        ("beat", 1, 0, 0.5, 1),
        ("echo", 1, 1, 0.5, 1),
        ("same", 1, 1, 1, 1),
        ("change", 1, 2, 2, 1),
        ("label", 1, 2, 2, 4),
        ("words", 1, 2, 2, 6),
        ("command", 1, 4, 3, 10),  # two of them for the audit log
        ("receipt", 1, 2, 3, 6),
        ("disconnect", 0, 1, 2, 5),
        ("watch", 1, 1, 3, 2),
    ],
)
def test_units_of_each_kind_of_frame(
    direct: Measured, kind: str, messages_in: float, messages_out: float, read_units: float, write_units: float
) -> None:
    """Reads may be a little more: an environment reads the exam every two seconds, and a sweep may fall into what is measured."""
    units = direct.each[kind]
    assert (units.messages_in, units.messages_out) == (messages_in, messages_out)
    assert units.write_units == pytest.approx(write_units, abs=0.2)
    assert read_units <= units.read_units <= read_units + 3
    assert units.log_bytes == 0
    assert 0 < units.cpu_ms < 200


def test_a_quiet_sweep_is_two_writes_and_three_requests_of_its_queue(direct: Measured) -> None:
    sweep = direct.each["sweep"]
    assert sweep.write_units == pytest.approx(2, abs=0.3)
    assert sweep.sqs == pytest.approx(3, abs=0.3)


def test_billed_milliseconds_are_cpu_on_a_share_of_a_core_and_the_waits() -> None:
    units = Units(invocations=1, cpu_ms=1.0, calls={"dynamodb_read": 1.0, "post_to_connection": 2.0})
    assert units.billed_ms(1769) == pytest.approx(1 + 30 + 0.5)
    assert units.billed_ms(176.9) == pytest.approx(10 + 30 + 0.5)
    assert units.billed_ms(3538) == units.billed_ms(1769)


def test_heartbeats_fill_what_changes_leave() -> None:
    assert serverless.heartbeats(Hour(changes=60, held=True), 15) == 180
    # the timer starts again with each change; at random moments that wastes some of its time
    assert 180 < serverless.heartbeats(Hour(changes=60), 15) < 240
    assert serverless.heartbeats(Hour(changes=0.001), 15) == pytest.approx(240, rel=0.001)
    assert serverless.echoes(Hour(changes=0.001), 15) == pytest.approx(60, rel=0.001)


def test_detection_times_are_those_of_leases_and_sweeps() -> None:
    assert [serverless.detection_seconds(beat) for beat in (5, 15, 19)] == [(27, 22), (47, 22), (55, 22)]


def measured(path: serverless.Path) -> Measured:
    """As an idle machine measured it; the money hardly depends on the CPU time."""
    wait = {"dynamodb_read": 1.0, "dynamodb_write": 1.0}
    frame = Units(messages_in=1, invocations=1, cpu_ms=0.7, read_units=1, write_units=1, calls=wait)
    beat = frame + Units(read_units=-0.5)  # a read at half the price
    post = Units(messages_out=1, cpu_ms=0.2, calls={"post_to_connection": 1.0})
    queued = Units(sqs=1, cpu_ms=0.1, calls={"sqs": 1.0})
    seen = post + Units(read_units=1, calls={"dynamodb_read": 1.0}) if path == "direct" else queued
    label = Units(write_units=3)
    each = {
        "connect": Units(invocations=2, cpu_ms=0.7, read_units=1, write_units=1, calls=wait),
        "join": frame + post + post + seen + label + Units(read_units=1),
        "beat": beat,
        "echo": beat + post,
        "change": frame + post + seen,
        "label": frame + post + seen + label,
        "words": frame + post + seen + label,
        "command": frame + post.times(3) + seen,
        "receipt": frame + post + seen,
        "disconnect": Units(invocations=1, cpu_ms=1.2, read_units=1, write_units=5, calls=wait) + seen,
        "watch": frame + post + Units(read_units=2, write_units=1),
        "sweep": Units(invocations=1, cpu_ms=1.3, read_units=2.5, write_units=2, sqs=3, calls=wait),
        "views": post + Units(invocations=1, cpu_ms=1, read_units=1, calls={"dynamodb_read": 1.0}),
    }
    growth = {"watch": Units(read_units=0.08), "sweep": Units(read_units=0.04)}
    return Measured(path, each, growth, 400.0)


def test_the_default_beat_costs_at_most_a_quarter_of_the_papers_pattern_and_a_fifth_together() -> None:
    rows = serverless.table(measured("direct"), measured("together"), Hour(), load_prices("ap-southeast-1", None))
    share = {(row.name, row.beat): row.share for row in rows}
    assert share["direct, progress at once", 19.0] < 0.21
    assert share["together, progress at once", 19.0] < 0.198
    assert share["direct, progress with the beat", 15.0] < 0.23
    assert all(row.silent_seconds <= 55 and row.closed_seconds <= 30 for row in rows if row.beat <= 19.0)
    paper = rows[0]
    assert math.fsum(paper.lines.values()) == pytest.approx(paper.usd)
    assert paper.units.messages_out > 1440


def test_both_clients_are_timed_and_ours_is_the_leaner() -> None:
    lean, boto3 = serverless.client_speeds(60)
    assert lean.cpu_ms < boto3.cpu_ms


def test_a_start_that_fails_is_one_line() -> None:
    with pytest.raises(serverless.BenchError, match="No module named"):
        serverless._started("import no_such_module", 1)
