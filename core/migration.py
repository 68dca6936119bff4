"""A live move between the two sides: whose turn it is, how a record changes hands, and when to stop. Pure.

A `Move` is the whole plan: each student belongs to the side that `target` names for the present percentage. Shifting is raising the
percentage, rolling back is lowering it. A participant's home changes by `handed_over` alone, saved on condition of its version.
Connections of the other side carry a mark, so that no side sends to a socket that it does not hold.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from core import events, presence
from core.participant import LIVE, Home, Participant, ParticipantKey, Session
from core.policy import Policy

OTHER = "other:"
"""Before the name of a connection that the other side holds."""
AT_ONCE = 16
"""So many students of an exam are on their way at a time, or one in a hundred of a large one. Who arrives makes room for the next,
so that a step is as fast as both sides take it, and never faster: pages that wait too long turn back, and come again as more work.
"""
_SLOTS = 10_000
MoveState: TypeAlias = Literal["started", "shifting", "rolled_back", "finished"]


class Move(Struct, frozen=True, omit_defaults=True):
    """The move of a stage. `percent` of the students belong on the cluster; `exams` and `groups` bound it (none: all).

    `lambda_url` and `ec2_url` are where pages connect. `slot_seconds`: over how long a step is spread. `version` rises with each
    change. `started_at`: when it began, at 0 %.
    """

    lambda_url: str
    ec2_url: str
    percent: float = 0.0
    state: MoveState = "started"
    exams: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    slot_seconds: float = 30.0
    version: int = 1
    changed_at: float = 0.0
    reason: str = ""
    started_at: float = 0.0

    def url(self, home: Home) -> str:
        """Where pages of this side's participants connect."""
        return self.ec2_url if home == "ec2" else self.lambda_url


class WrongStep(Exception):
    """This step is not possible now; the message says why and what is."""


def stepped(move: Move, state: MoveState, percent: float, now: float, reason: str = "") -> Move:
    """The move after a step. Raises `WrongStep`."""
    if move.state == "finished":
        raise WrongStep("the move is finished; start another one")
    if not 0 <= percent <= 100:
        raise WrongStep(f"percent is {percent:g}; it must be between 0 and 100")
    if state == "finished" and move.percent < 100:
        raise WrongStep(f"only {move.percent:g} % are shifted; shift 100 % first")
    return replace(move, state=state, percent=percent, version=move.version + 1, changed_at=now, reason=reason)


def widened(move: Move, exams: Sequence[str] = (), groups: Sequence[str] = ()) -> Move:
    """The move, about these exams or groups too. None can be left out: its students would be moved back. Raises `WrongStep`."""
    for what, present, added in (("exam", move.exams, exams), ("group", move.groups, groups)):
        if added and not present:
            raise WrongStep(
                f"--{what}: the move is about all {what}s, and a step can add {what}s but not leave any out, "
                f"because their students would go back; roll back to 0 % and start with --{what}"
            )
    return replace(
        move, exams=tuple(dict.fromkeys((*move.exams, *exams))), groups=tuple(dict.fromkeys((*move.groups, *groups)))
    )


def concerns(move: Move, quiz_id: str, opened_in_cluster_at: float | None = None) -> bool:
    """Whether the move is about this exam. One that only the cluster has is, if it was opened there since the move began: one that
    was there before never was on the other side, and a move at 0 % would bring it there.
    """
    is_named = not move.exams or quiz_id in move.exams
    return is_named and (opened_in_cluster_at is None or opened_in_cluster_at >= move.started_at)


def place(key: ParticipantKey) -> int:
    """The student's place from 0 to 9,999 in the order of moving: the same everywhere and at each step."""
    return zlib.crc32("\0".join(key).encode()) % _SLOTS


def target(move: Move, key: ParticipantKey, group: str = "") -> Home:
    """The side that the participant belongs on. Who was moved at a lower percentage stays moved at a higher one."""
    if (move.exams and key.quiz_id not in move.exams) or (move.groups and group not in move.groups):
        return "lambda"
    return "ec2" if place(key) < move.percent * _SLOTS / 100 else "lambda"


def entrance(move: Move, school: str, quiz_ids: Sequence[str], subject: str, group: str = "") -> str:
    """Where a new client is to connect: a student on the side of their record, a proctor by the same share.

    Either side serves every client; who starts on the right one is spared a way.
    """
    quiz_id = next((quiz_id for quiz_id in quiz_ids if not move.exams or quiz_id in move.exams), "")
    return move.url(target(move, ParticipantKey(school, quiz_id, subject), group))


def slot_ms(move: Move, key: ParticipantKey) -> int:
    """When in the step the student's page goes: spread evenly, and not in the order of moving."""
    return int(zlib.crc32("\0".join(("slot", *key)).encode()) % 10_007 / 10_007 * move.slot_seconds * 1000)


def at_once(students: int) -> int:
    """How many of an exam of this size are on their way at a time."""
    return max(AT_ONCE, students // 100)


def due(
    move: Move, waiting: Iterable[ParticipantKey], on_their_way: int, now: float, most: int = AT_ONCE
) -> list[ParticipantKey]:
    """Who of those that wait goes now: their slot has come, and not more than `most` are on their way."""
    room = most - on_their_way
    if room <= 0:
        return []
    elapsed_ms = (now - move.changed_at) * 1000
    slots = ((slot_ms(move, key), key) for key in waiting)
    return [key for _, key in heapq.nsmallest(room, (each for each in slots if each[0] <= elapsed_ms))]


def named_for_other(connection: str) -> str:
    """The name of a connection as the other side knows it."""
    return connection.removeprefix(OTHER) if connection.startswith(OTHER) else OTHER + connection


def for_other(event: events.ParticipantEvent) -> events.ParticipantEvent:
    """The event as it goes to the other side."""
    connection: Any = getattr(event, "connection", None)
    return event if connection is None else replace(event, connection=named_for_other(connection))


def knows_connection(record: Participant, connection: str) -> bool:
    """Whether a page is on this connection, by either side's name of it."""
    return any(s.connection in (connection, named_for_other(connection)) for s in record.sessions)


def speaks_protocol(event: events.ParticipantEvent) -> bool:
    """Whether this report's page follows a `reconnect`; the paper's own clients don't, and are moved by closing."""
    return isinstance(event, events.StatusReported) and (
        event.report.seq is not None or event.report.tab_id is not None
    )


def is_on(record: Participant) -> bool:
    """Whether a page is connected, or thought to be, on the side that asks. One on the other side needs not be told to go there."""
    return any(s.presence in LIVE and not s.connection.startswith(OTHER) for s in record.sessions)


def is_paper_session(record: Participant) -> bool:
    """Whether a page that can only be moved by closing its socket is connected."""
    return any(s.presence in LIVE and s.id == s.connection.removeprefix(OTHER) for s in record.sessions)


def handed_over(record: Participant, to: Home, now: float, policy: Policy, after_seconds: float = 0.0) -> Participant:
    """The record as the other side gets it. The silence that follows is planned: nobody is shown as gone because of it."""
    sessions = tuple(
        replace(
            presence.planned(s, now, after_seconds, policy) if s.presence in LIVE else s,
            connection=named_for_other(s.connection),
        )
        for s in record.sessions
    )
    version = max(record.version + 1, int(now * 1000))
    return replace(record, home=to, home_epoch=record.home_epoch + 1, version=version, sessions=sessions)


def granted(stored: Participant, live: Participant | None, now: float, policy: Policy) -> Participant:
    """The record as the cluster gets it when it asks. Asked again it is a new grant, so that a give-back meanwhile conflicts.

    `live` is what the cluster has: given up there and not yet written down here, it is the one to go on from.
    """
    record = stored
    if live is not None and live.home_epoch > stored.home_epoch:
        record = replace(live, version=max(live.version, stored.version))
    if record.home == "lambda":
        return handed_over(record, "ec2", now, policy)
    # the epoch stays: an earlier grant may have been kept after all, and is written back under it
    return replace(record, version=record.version + 1)


def was_told(session: Session, policy: Policy) -> bool:
    """Whether this page was told to go and has not been heard since: telling it again would put off its lease for ever.

    A report is told by its time; a heartbeat, which leaves no other trace, by a lease beyond the one that was planned.
    """
    told_at = session.planned_until - policy.lost_by_us_grace_seconds
    return session.planned_until > 0 and session.applied_at <= told_at and session.lease_until <= session.planned_until


class Health(Struct, frozen=True, omit_defaults=True):
    """What a bridge has seen lately. Times in seconds."""

    at: float = 0.0
    on_lambda: int = 0
    on_ec2: int = 0
    waiting: int = 0
    errors: int = 0
    claims: int = 0
    claims_refused: int = 0
    lag_seconds: float = 0.0
    offline_after_move: int = 0


class Limits(Struct, frozen=True):
    """Beyond any of these a shift is stopped and rolled back."""

    silent_seconds: float = 10.0
    errors: int = 5
    lag_seconds: float = 3.0
    offline_share: float = 0.02


def verdict(health: Health | None, before: Health | None, limits: Limits, now: float) -> str:
    """Why the shift must be rolled back; empty if it may go on. `before` is the health when the step began."""
    if health is None:
        return "the bridge has never reported"
    if now - health.at > limits.silent_seconds:
        return f"the bridge has been silent for {now - health.at:.0f} s (limit {limits.silent_seconds:g})"
    errors = health.errors - (before.errors if before else 0)
    if errors > limits.errors:
        return f"{errors} errors in this step (limit {limits.errors})"
    if health.lag_seconds > limits.lag_seconds:
        return f"views arrive {health.lag_seconds:.1f} s late (limit {limits.lag_seconds:g})"
    everyone = health.on_lambda + health.on_ec2
    gone = health.offline_after_move - (before.offline_after_move if before else 0)
    if everyone and gone > max(1.0, limits.offline_share * everyone):
        return f"{gone} students went offline while moving (limit {limits.offline_share:.0%})"
    return ""


_encode = msgspec.json.Encoder().encode
_move = msgspec.json.Decoder(Move)
_health = msgspec.json.Decoder(Health)


def encode(value: Move | Health) -> bytes:
    """As it is stored."""
    return _encode(value)


def decode_move(stored: bytes | str) -> Move:
    """Raises `msgspec.DecodeError`."""
    return _move.decode(stored)


def decode_health(stored: bytes | str) -> Health:
    """Raises `msgspec.DecodeError`."""
    return _health.decode(stored)
