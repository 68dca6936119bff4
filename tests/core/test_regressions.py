"""Bugs that were found elsewhere, each as the smallest case that shows it."""

from __future__ import annotations

import pytest
from core_builders import EXAM, command, joined
from msgspec.structs import replace

from core.exam import Exam


def exam_after(*orders: str) -> Exam:
    """An exam whose proctors gave these commands to everyone, a second apart, as `k1`, `k2`, ..."""
    standing = tuple(command(n, name, id=f"k{n}") for n, name in enumerate(orders, 1))
    return replace(EXAM, state="paused" if orders[-1] == "pause" else "open", standing=standing)


@pytest.mark.parametrize(
    ("orders", "late", "label"),
    [(("pause", "resume"), "pause", "active"), (("pause", "resume", "pause"), "resume", "paused")],
)
def test_a_command_to_everyone_that_comes_late_does_not_undo_a_later_one(
    orders: tuple[str, ...], late: str, label: str
) -> None:
    """A queue may deliver it after the later one, and a proctor's page may send it again."""
    story = joined()
    story.exam = exam_after(*orders)
    last = orders[-1]
    story(command(len(orders), last, id=f"k{len(orders)}"), now=5)
    story(command(len(orders) - 1, late, id=f"k{len(orders) - 1}"), now=6)
    assert story.record.label == label
    refusals = [entry for entry in story.entries if entry.after == "refused"]
    assert [entry.text for entry in refusals] == ["undone by a later command to everyone"]


def test_a_pause_of_one_student_does_not_depend_on_the_exam() -> None:
    story = joined()
    story.exam = exam_after("pause", "resume")
    story(command(7, "pause", id="only-ann"))
    assert story.record.label == "paused"
