"""The exam lifecycle of one participant: one table from (state, event) to state, and nothing else changes the state."""

from __future__ import annotations

from typing import Literal, TypeAlias

from core.errors import LocalError
from core.participant import Lifecycle

LifecycleEvent: TypeAlias = Literal["begin", "report", "submit", "pause", "resume", "terminate", "time_out"]

TRANSITIONS: dict[Lifecycle, dict[LifecycleEvent, Lifecycle]] = {
    "not_joined": {"begin": "in_progress", "report": "in_progress", "submit": "submitted", "terminate": "terminated"},
    "in_progress": {
        "begin": "in_progress",
        "report": "in_progress",
        "submit": "submitted",
        "pause": "paused",
        "resume": "in_progress",
        "terminate": "terminated",
        "time_out": "timed_out",
    },
    "paused": {
        "begin": "in_progress",
        "report": "paused",
        "submit": "submitted",
        "pause": "paused",
        "resume": "in_progress",
        "terminate": "terminated",
        "time_out": "timed_out",
    },
    # An answer that was on its way when the attempt ended still counts; whether it is graded is the LMS's decision.
    "timed_out": {"begin": "in_progress", "report": "timed_out", "submit": "submitted", "terminate": "terminated"},
    "submitted": {"begin": "in_progress", "report": "submitted", "submit": "submitted"},
    "terminated": {"begin": "in_progress", "report": "terminated", "terminate": "terminated"},
}
"""`begin` is the first report of a new attempt. What is absent is illegal there."""


class IllegalTransition(LocalError):
    """This event can't happen in this state; nothing was changed. A command that meets it is refused."""

    def __init__(self, state: Lifecycle, event: LifecycleEvent) -> None:
        self.state = state
        self.event = event
        super().__init__(state, event)

    def __str__(self) -> str:
        return f"{self.event} is not possible while {self.state}"


def allows(state: Lifecycle, event: LifecycleEvent) -> bool:
    """Whether the event is legal in this state."""
    return event in TRANSITIONS[state]


def step(state: Lifecycle, event: LifecycleEvent) -> Lifecycle:
    """Return the state after the event. Raises `IllegalTransition` and changes nothing if there is none."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None
