"""`compare bus`: publications are the cluster's, a real Redis loses and keeps what it should, what is missing is one line."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from compare.bench import bus, buses
from compare.bench.bus import Load, Publisher, measure_bus, publication
from compare.bench.buses import KafkaServer
from compare.commands import register
from core.messages import View

SMALL = Load(exams=3, burst=100, rate=100.0, stall_rate=1_200.0, seconds=0.5)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "_STALL_SECONDS", 0.5)
    monkeypatch.setattr(bus, "_ARRIVAL_SECONDS", 0.7)
    monkeypatch.setattr(buses, "BUFFER_BYTES", 50_000)


def test_a_publication_is_a_view_as_workers_send_it() -> None:
    view = msgspec.json.decode(publication("exam-1", 7), type=View)
    assert (view.student_id, view.label, view.question_answered) == ("student-00007", "active", 7)


async def test_pub_sub_loses_in_a_stall_what_the_others_keep(tmp_path: Path) -> None:
    """All ways at the same time, and Kafka's stand-in once more as a broker that was there before."""
    there = KafkaServer(tmp_path / "there")
    address = await there.start()
    try:
        found = await asyncio.gather(
            *(measure_bus(name, SMALL, tmp_path / name) for name in ("redis-pubsub", "redis-streams", "nats", "kafka")),
            measure_bus("kafka", SMALL, tmp_path / "given", address),
        )
    finally:
        await there.stop()
    pubsub, streams, nats, stand_in, given = [figures for figures, _ in found]
    assert pubsub.stalled.lost > 0
    for kept in (streams, nats, stand_in, given):
        assert kept.stalled.published > 100, (
            kept.title
        )  # of 600: what is not confirmed in time on a busy machine is not counted
        assert kept.stalled.lost == 0, kept.title
    for kept in (streams, nats):
        assert kept.restart is not None
        assert kept.restart.lost == 0
    assert stand_in.title == "Kafka's stand-in"
    assert "not Kafka" in stand_in.note
    assert stand_in.restart is not None
    assert stand_in.restart.lost > 0  # it keeps nothing, and that is told as it is
    assert (given.title, given.note, given.restart) == ("Kafka", f"the broker at {address}", None)
    for figures in (pubsub, streams, nats, stand_in, given):
        assert figures.throughput > 50
        assert figures.latency_ms.count > 20  # of 50
        assert 0 < figures.latency_ms.p50 < 1_000


class Flaky:
    """A link that confirms every other time."""

    def __init__(self) -> None:
        self.asked = 0

    async def publish(self, channel: str, payload: bytes) -> None:
        self.asked += 1
        if self.asked % 2:
            raise OSError("gone")


async def test_what_is_not_confirmed_is_published_again_while_there_is_patience() -> None:
    link = Flaky()
    publisher = Publisher(link, ["exam-1"])
    await publisher.send(publisher.next())
    assert publisher.confirmed == set()
    link.asked = 0
    await publisher.paced(100.0, 0.05, patience=5.0)
    assert len(publisher.confirmed) == 5


def test_a_missing_broker_is_one_line_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("nats", "aiokafka") else find(name))
    group = click.Group("compare")
    register(group)
    done = CliRunner().invoke(group, ["bus", "--only", "nats", "--only", "kafka"], standalone_mode=False)
    assert done.return_value == 1
    assert done.output.splitlines() == [
        "NATS JetStream is left out: nats-server or nats-py is missing; pip install 'proctorwire[bus]'",
        "Kafka is left out: aiokafka is missing; pip install 'proctorwire[bus]'",
    ]
    told = CliRunner().invoke(group, ["bus", "--only", "kafka", "--json"], standalone_mode=False)
    assert json.loads(told.output)["buses"] == []


@pytest.mark.parametrize("address", ["broker", "broker:http", "kafka://broker:9092", "a:1,b"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    group = click.Group("compare")
    register(group)
    done = CliRunner().invoke(group, ["bus", "--only", "kafka", "--kafka", address])
    assert done.exit_code == 2
    assert f"--kafka: '{address}' is no address; give HOST:PORT" in done.output
