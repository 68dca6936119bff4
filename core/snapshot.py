"""What a proctor sees: a participant's view, pages of views, and the rule by which clients merge them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

import msgspec

from core.messages import Incident, Snapshot, SnapshotData, View, encode_value
from core.participant import Participant, label_of, user_status_of
from core.policy import MAX_SNAPSHOT_PAGE_BYTES

_ENVELOPE_BYTES = 4 * 1024  # room for the frame around the views, and for a page of incidents

_applied_at = attrgetter("applied_at")

visible = attrgetter(
    "lifecycle",
    "presence",
    "attention",
    "question_number_current",
    "question_answered",
    "question_total",
    "score",
    "away_count",
    "away_seconds",
    "away_since",
    "offline_seconds",
    "offline_since",
    "reconnects",
    "time_start",
    "time_end",
    "flags",
    "student_name",
    "group",
    "quiz_attempt_id",
)
"""The fields whose change is worth an update: all of a view but `last_seen`, `seq`, `version` and what follows from these."""


def view(p: Participant) -> View:
    """What a proctor sees of this participant."""
    presence, attention, sessions = p.presence, p.attention, p.sessions
    user_status = user_status_of(presence, attention)
    away, offline = p.away_seconds, p.offline_seconds
    return View(
        p.student_id,
        p.student_name,
        p.group,
        p.quiz_attempt_id,
        label_of(p.lifecycle, presence, user_status),
        user_status,
        presence,
        attention,
        p.lifecycle,
        p.question_number_current,
        p.question_answered,
        p.question_total,
        p.score,
        p.away_count,
        _thousandths(away) if away else 0.0,
        p.away_since,
        _thousandths(offline) if offline else 0.0,
        p.offline_since,
        p.reconnects,
        p.time_start,
        p.time_end,
        p.last_seen,
        p.version,
        sessions[0].seq if len(sessions) == 1 else max(sessions, key=_applied_at).seq if sessions else 0,
        p.flags,
        p.label_since,
    )


def _thousandths(seconds: float) -> float:
    """Three digits: `round` to as many takes seven times as long, and is much of the price of a view."""
    return int(seconds * 1e3 + 0.5) / 1e3


def newer(known: View | None, received: View) -> View:
    """The merge rule of every client: the highest version wins, so that repeats and overtaking are harmless."""
    return received if known is None or received.version > known.version else known


def in_groups(group: str, groups: Sequence[str]) -> bool:
    """Whether a proctor who watches `groups` (none: all) sees a participant of `group`."""
    return not groups or group in groups


def pages(
    quiz_id: str,
    snapshot_id: str,
    views: Iterable[View],
    incidents: tuple[Incident, ...],
    server_time: float,
    limit_bytes: int = MAX_SNAPSHOT_PAGE_BYTES,
) -> list[Snapshot]:
    """A snapshot cut into pages that each encode to less than `limit_bytes`. An empty exam is one empty page."""
    parts = list(cut((encode_value(v) for v in views), limit_bytes - _ENVELOPE_BYTES)) or [()]
    return [
        Snapshot(SnapshotData(quiz_id, snapshot_id, number, len(parts), page, incidents, server_time))
        for number, page in enumerate(parts, 1)
    ]


def cut(
    encoded: Iterable[bytes], room: int = MAX_SNAPSHOT_PAGE_BYTES - _ENVELOPE_BYTES
) -> Iterator[tuple[msgspec.Raw, ...]]:
    """Fill pages with encoded views one after the other, `room` bytes each: of a snapshot, or of a large update."""
    page: list[msgspec.Raw] = []
    size = 0
    for item in encoded:
        if page and size + len(item) + 1 > room:
            yield tuple(page)
            page, size = [], 0
        page.append(msgspec.Raw(item))
        size += len(item) + 1
    if page:
        yield tuple(page)
