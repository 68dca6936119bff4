"""What a worker remembers of what Redis has confirmed, so that it can be written back: bounded, and not shorter than an outage."""

from __future__ import annotations

import pytest

from adapters.ec2_cluster.broker import lacks
from adapters.ec2_cluster.memory import Memory
from core.events import CommandIssued
from core.participant import ExamKey, ParticipantKey

EXAM = ExamKey("north", "quiz")
KEY = ParticipantKey(*EXAM, "s1")


def kept_at(memory: Memory, now: float) -> None:
    memory.keep_entries(now, EXAM, ())
    memory.keep_command(
        now,
        KEY,
        CommandIssued(received_at=now, command_id=f"c{now:g}", command="warn", expires_at=now + 300, issued_by="p"),
    )


def remembered(memory: Memory, now: float) -> list[str]:
    return [command.command_id for _, command in memory.commands(now)]


def test_ten_seconds_are_remembered() -> None:
    memory = Memory()
    for now in (100.0, 105.0, 112.0):
        kept_at(memory, now)
    assert remembered(memory, 112.0) == ["c105", "c112"]
    assert remembered(memory, 130.0) == []
    assert memory.entries(130.0) == {}


@pytest.mark.parametrize("goes_on", [False, True])
def test_an_outage_of_a_minute_forgets_nothing_that_it_may_have_lost(goes_on: bool) -> None:
    memory = Memory()
    for now in (85.0, 95.0, 99.0):
        kept_at(memory, now)
    memory.away_since = 100.0
    if goes_on:  # on another node of a cluster
        kept_at(memory, 150.0)
    assert remembered(memory, 160.0) == ["c95", "c99", *(["c150"] if goes_on else [])]
    assert EXAM in memory.entries(160.0)
    memory.away_since = None
    assert remembered(memory, 170.0) == []


@pytest.mark.parametrize(
    ("lease", "is_waited_for"),
    [
        (b'{"pid":1,"written_back":["new","old"]}', False),
        (b'{"pid":1,"written_back":["old"]}', True),
        (b'{"pid":1}', False),  # an older release does not say
        (b"1", False),
    ],
)
def test_who_lives_and_has_not_written_back_to_this_server_is_waited_for(lease: bytes, is_waited_for: bool) -> None:
    assert lacks(lease, frozenset(("new",))) == is_waited_for
