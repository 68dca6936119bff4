"""Every number that a decision depends on, in one validated place.

An exam carries its policy; the defaults are the product's. Times are in seconds.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400)]

MAX_MESSAGE_BYTES = 8 * 1024
"""A client's frame up to this size is read; a larger one is answered with `too_big`."""

MAX_FRAME_BYTES = 32 * 1024
"""A larger frame closes the socket with 1009, as API Gateway does (its quotas page: frame size 32 KB)."""

MAX_SNAPSHOT_PAGE_BYTES = 96 * 1024
"""A snapshot page stays below this, so that it fits API Gateway's 128 KB message with room to spare."""

MAX_SESSIONS = 3
"""Live pages of one student. A fourth closes the oldest."""

MAX_ERRORS_IN_A_ROW = 20
"""Malformed or forbidden frames, one after the other, that a socket survives."""

MAX_TEXT_CHARACTERS = 500
MAX_NAME_CHARACTERS = 80


class Policy(Struct, frozen=True, omit_defaults=True):
    """The rules of one exam. `report_seconds` is the interval that a page promises when it promises nothing.

    A page that promised p is reconnecting 1.5 p + `lease_margin_seconds` after its last frame, and offline another
    0.5 p + `silent_grace_seconds` later. A command without a receipt is sent again with the first frame of its page that comes
    `command_again_seconds` later or after that.
    """

    report_seconds: Seconds = 5.0
    promise_min_seconds: Seconds = 1.0
    promise_max_seconds: Seconds = 120.0
    promise_away_max_seconds: Seconds = 300.0
    lease_margin_seconds: Seconds = 5.0
    silent_grace_seconds: Seconds = 10.0
    closed_grace_seconds: Seconds = 20.0
    lost_by_us_grace_seconds: Seconds = 60.0
    planned_quiet_seconds: Seconds = 15.0
    away_counts_after_seconds: Seconds = 2.0
    command_again_seconds: Seconds = 5.0
    time_out_after_seconds: Seconds = 60.0
    closes_after_seconds: Seconds = 3_600.0
    silence_share: Annotated[float, Meta(gt=0, le=1)] = 0.2
    silence_count: Annotated[int, Meta(ge=1)] = 10
    silence_window_seconds: Seconds = 30.0
    incident_max_seconds: Seconds = 300.0
    decided_after_incident_seconds: Seconds = 30.0
    service_gap_seconds: Seconds = 30.0
    service_gap_grace_seconds: Seconds = 60.0

    def __post_init__(self) -> None:
        """Refuse a policy that contradicts itself, naming the field."""
        if self.promise_min_seconds > self.promise_max_seconds:
            raise ValueError("promise_min_seconds must not exceed promise_max_seconds")
        if self.promise_max_seconds > self.promise_away_max_seconds:
            raise ValueError("promise_max_seconds must not exceed promise_away_max_seconds")
