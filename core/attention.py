"""Away episodes: one blink is none, one long absence is one, two with a glance between them are one.

An away *counts* when a later event finds it at least two seconds old, so that no timer is needed; one that begins less than two
seconds after the last ended continues it. Episodes belong to the participant, not to a session: whoever works in one of two
tabs is not away.
"""

from __future__ import annotations

from msgspec import Struct

from core.participant import Participant


class AwayRecord(Struct, frozen=True):
    """The part of a participant that this module computes; the fields are the participant's."""

    away_count: int
    away_seconds: float
    away_since: float | None
    away_counted: bool
    last_away_since: float
    last_away_ended_at: float


def tracked(before: Participant, is_away: bool, at: float, counts_after: float) -> AwayRecord | None:
    """The away record after an event at `at` that found the participant away or not; None if it stays as it is."""
    since, counted = before.away_since, before.away_counted
    count, seconds = before.away_count, before.away_seconds
    if since is None:
        return _begun(before, at, counts_after) if is_away else None
    newly_counted = not counted and at - since >= counts_after
    if newly_counted:
        count, counted = count + 1, True
    if is_away:
        if not newly_counted:
            return None
        return AwayRecord(count, seconds, since, counted, before.last_away_since, before.last_away_ended_at)
    ended_at = max(at, since)
    return AwayRecord(count, seconds + (ended_at - since if counted else 0.0), None, counted, since, ended_at)


def _begun(before: Participant, at: float, counts_after: float) -> AwayRecord:
    """A new episode, or the last one going on as if the glance in between had not been."""
    if before.last_away_ended_at and at - before.last_away_ended_at < counts_after:
        already = before.last_away_ended_at - before.last_away_since if before.away_counted else 0.0
        return AwayRecord(
            before.away_count,
            max(before.away_seconds - already, 0.0),
            before.last_away_since,
            before.away_counted,
            before.last_away_since,
            before.last_away_ended_at,
        )
    return AwayRecord(
        before.away_count, before.away_seconds, at, False, before.last_away_since, before.last_away_ended_at
    )
