"""Who is there: leases of sessions, inferred by the server on its own clock.

*Away* is a fact that the page reports; *offline* is a fact that the server infers from silence. A page promises when its next
frame comes (p). Without a frame for 1.5 p + 5 s its session is reconnecting, for 2 p + 15 s offline (the seconds are the policy's).
Each frame renews the lease; nothing is ever cancelled: a check that finds a renewed lease asks again.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from core.exam import Exam
from core.messages import UserStatus
from core.participant import LIVE, Attention, Session
from core.policy import MAX_SESSIONS, Policy


def promise_seconds(next_ms: int | None, away: bool, policy: Policy) -> float:
    """Until when the page promises its next frame, within the policy's bounds. Hidden tabs may promise longer."""
    if next_ms is None:
        return policy.report_seconds
    longest = policy.promise_away_max_seconds if away else policy.promise_max_seconds
    return min(max(next_ms / 1000, policy.promise_min_seconds), longest)


def renewed(session: Session, at: float, promise: float, policy: Policy) -> Session:
    """The session after a frame received `at`. A late frame never shortens a lease, nor undoes a loss that came after it."""
    if at < session.lost_at:
        return session
    lease_until = at + 1.5 * promise + policy.lease_margin_seconds
    if session.presence == "connected" and session.lease_until > lease_until:
        lease_until = session.lease_until
    grace_seconds = 0.5 * promise + policy.silent_grace_seconds
    return replace(session, presence="connected", lease_until=lease_until, grace_seconds=grace_seconds)


def dropped(session: Session, at: float, policy: Policy) -> Session:
    """The session after its socket closed without a goodbye: reconnecting at once, offline after the grace.

    A close that we asked for (`planned`) is ours all the same, whoever closed first.
    """
    if session.planned_until > at:
        return lost_by_us(session, at, policy)
    grace = policy.closed_grace_seconds
    return replace(session, presence="reconnecting", lease_until=at + grace, grace_seconds=grace, lost_at=at)


def lost_by_us(session: Session, at: float, policy: Policy) -> Session:
    """The session after *we* closed or lost its socket: no departure shown at first, offline only after a minute."""
    quiet, minute = policy.planned_quiet_seconds, policy.lost_by_us_grace_seconds
    if session.presence == "connected":
        lease_until = max(at + quiet, session.lease_until)
        return replace(session, lease_until=lease_until, grace_seconds=max(at + minute - lease_until, 0.0))
    if session.presence == "reconnecting":
        lease_until = max(at + minute, session.lease_until)
        return replace(session, lease_until=lease_until, grace_seconds=lease_until - fell_silent_at(session))
    return session


def planned(session: Session, at: float, after_seconds: float, policy: Policy) -> Session:
    """The session after we told its page to reconnect: the silence that follows is ours."""
    return replace(
        lost_by_us(session, at + after_seconds, policy),
        planned_until=at + after_seconds + policy.lost_by_us_grace_seconds,
    )


def left(session: Session, at: float) -> Session:
    """The session after its page said goodbye."""
    return replace(session, presence="left", lost_at=at)


def lapsed(session: Session, now: float, exam: Exam) -> Session:
    """The session as the clock has it: each lease that ran out turns its presence one step worse.

    While the exam holds (an incident is open) no session turns *offline*; after a gap of the service itself none turns at all.
    """
    if session.presence == "connected" and session.lease_until <= now and exam.gap_until <= now:
        silent_at = max(session.lease_until, exam.gap_until)
        session = replace(session, presence="reconnecting", lease_until=silent_at + session.grace_seconds)
    if session.presence == "reconnecting" and max(session.lease_until, exam.hold_until) <= now:
        session = replace(session, presence="offline")
    return session


def fell_silent_at(session: Session) -> float:
    """When a reconnecting session turned so: its grace began then."""
    return session.lease_until - session.grace_seconds


def due(session: Session, exam: Exam) -> float | None:
    """When `lapsed` would next change this session."""
    if session.presence == "connected":
        waits_for = exam.gap_until
    elif session.presence == "reconnecting":
        waits_for = exam.hold_until
    else:
        return None
    return session.lease_until if session.lease_until > waits_for else waits_for


def silent_until(sessions: Iterable[Session], exam: Exam) -> float | None:
    """When the last of these sessions turns offline, should no frame come any more; None if none of them is there."""
    ends = [
        max(s.lease_until + s.grace_seconds, exam.gap_until) if s.presence == "connected" else s.lease_until
        for s in sessions
        if s.presence in LIVE
    ]
    return max(*ends, exam.hold_until) if ends else None


def attention_of(status: UserStatus) -> Attention:
    """The attention that a reported status stands for."""
    return "away" if status == "away" else "focused"


def admitted(sessions: tuple[Session, ...], newcomer: Session) -> tuple[tuple[Session, ...], Session | None]:
    """Sessions with a new page among them, and the one that had to go.

    Ended sessions make room first and silently; only a fourth *live* page closes the oldest, and that one is returned. It may be
    the newcomer: a page that was told to go and did not hear it must not push out the others.
    """
    kept = [*sessions, newcomer]
    if len(kept) <= MAX_SESSIONS:
        return tuple(kept), None
    leaving = min(kept, key=lambda s: (s is newcomer or s.presence in LIVE, s.connected_at))
    kept.remove(leaving)
    return tuple(kept), leaving if leaving is newcomer or leaving.presence in LIVE else None
