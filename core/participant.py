"""The record: one student in one exam, all that a decision about them needs, and nothing that can be derived.

A record is immutable; `decide` returns the next one. Adapters store it (`encode`/`decode` here) without looking inside, except
for `version` (compare and set), `check_at` (the one outstanding deadline), `home` and `home_epoch` (who may decide).
Names on disk are short, because a DynamoDB item over 1 KB costs every write double (AWS: "Read and write operations").
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from core.messages import CommandName

Home: TypeAlias = Literal["lambda", "ec2"]
Lifecycle: TypeAlias = Literal["not_joined", "in_progress", "paused", "submitted", "timed_out", "terminated"]
Presence: TypeAlias = Literal["connected", "reconnecting", "offline", "left"]
Attention: TypeAlias = Literal["focused", "away", "unknown"]
PRESENCE_BEST_FIRST: tuple[Presence, ...] = ("connected", "reconnecting", "offline", "left")
LIVE: frozenset[Presence] = frozenset(("connected", "reconnecting"))
RUNNING: frozenset[Lifecycle] = frozenset(("in_progress", "paused"))
SCHEMA = 1
"""Raised by a release that adds fields, so that the one before it keeps them. New facts go to the top level of a record."""


new_key = tuple.__new__
"""For keys that are made at each report: `ParticipantKey(...)` is a Python function around it, at three times the price."""


class ParticipantKey(NamedTuple):
    """Which participant: the unit of state, and the address of every event."""

    school: str
    quiz_id: str
    student_id: str

    @property
    def exam(self) -> ExamKey:
        """The exam that this participant takes."""
        return new_key(ExamKey, (self.school, self.quiz_id))


class ExamKey(NamedTuple):
    """Which exam. Two schools may use the same `quiz_id`."""

    school: str
    quiz_id: str


class Session(
    Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    rename={
        "id": "i",
        "connection": "c",
        "connected_at": "t",
        "presence": "p",
        "attention": "a",
        "lease_until": "l",
        "grace_seconds": "g",
        "seq": "s",
        "applied_at": "r",
        "planned_until": "m",
        "lost_at": "x",
    },
):
    """One run of a student's page.

    `lease_until` is when this session turns to the next worse presence: connected to reconnecting, then, `grace_seconds` later,
    offline; while reconnecting, its grace is still on record. `seq` and `applied_at` are those of the last report applied.
    Before `planned_until` a lost connection was our doing. `lost_at` is when the connection closed or the page said goodbye.
    """

    id: str
    connection: str
    connected_at: float
    presence: Presence = "connected"
    attention: Attention = "unknown"
    lease_until: float = 0.0
    grace_seconds: float = 0.0
    seq: int = 0
    applied_at: float = 0.0
    planned_until: float = 0.0
    lost_at: float = 0.0


class PendingCommand(Struct, frozen=True, omit_defaults=True):
    """A command that has taken effect and waits for the page's receipt, until `expires_at`. `sent_at`: last, epoch seconds."""

    command_id: str
    command: CommandName
    expires_at: float
    text: str = ""
    extra_minutes: float | None = None
    sent: bool = False
    delivered: bool = False
    sent_at: float = 0.0


class Participant(
    Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    rename={
        "school": "S",
        "quiz_id": "Q",
        "student_id": "I",
        "home": "h",
        "home_epoch": "he",
        "version": "v",
        "schema": "sc",
        "lifecycle": "l",
        "sessions": "s",
        "quiz_attempt_id": "a",
        "past_attempts": "pa",
        "student_name": "n",
        "group": "g",
        "roster_at": "ra",
        "question_number_current": "qc",
        "question_answered": "qa",
        "question_total": "qt",
        "score": "x",
        "time_start": "ts",
        "time_end_reported": "te",
        "granted_seconds": "gr",
        "away_count": "ac",
        "away_seconds": "as",
        "away_since": "aw",
        "away_counted": "ak",
        "last_away_since": "la",
        "last_away_ended_at": "le",
        "offline_seconds": "os",
        "offline_since": "of",
        "reconnects": "rc",
        "label_since": "lb",
        "last_seen": "ls",
        "flags": "f",
        "commands": "c",
        "done": "d",
        "check_at": "k",
        "later": "_",
    },
):
    """One student in one exam. A new `quiz_attempt_id` starts the counters again; `version` goes on.

    `time_end_reported` is R and `granted_seconds` E of the rule "shown end = R + E". `done` holds digests of the last ids of
    commands and messages that were applied, so that a resend is harmless. `check_at` is the deadline that is outstanding.
    `roster_at`: when the school changed name or group after the student had joined; what tokens say of them is outdated since.
    `later` is what a later release (a higher `schema`) has on record and this one does not know: it is written back as it was.
    """

    school: str
    quiz_id: str
    student_id: str
    home: Home
    home_epoch: int = 0
    version: int = 0
    schema: int = SCHEMA
    lifecycle: Lifecycle = "not_joined"
    sessions: tuple[Session, ...] = ()
    quiz_attempt_id: str = ""
    past_attempts: tuple[str, ...] = ()
    student_name: str = ""
    group: str = ""
    roster_at: float = 0.0
    question_number_current: int = 0
    question_answered: int = 0
    question_total: int = 0
    score: float | None = None
    time_start: float | None = None
    time_end_reported: float | None = None
    granted_seconds: float = 0.0
    away_count: int = 0
    away_seconds: float = 0.0
    away_since: float | None = None
    away_counted: bool = False
    last_away_since: float = 0.0
    last_away_ended_at: float = 0.0
    offline_seconds: float = 0.0
    offline_since: float | None = None
    reconnects: int = 0
    label_since: float | None = None
    last_seen: float = 0.0
    flags: tuple[str, ...] = ()
    commands: tuple[PendingCommand, ...] = ()
    done: tuple[int, ...] = ()
    check_at: float | None = None
    later: dict[str, Any] | None = None

    @property
    def key(self) -> ParticipantKey:
        """The address of this record."""
        return new_key(ParticipantKey, (self.school, self.quiz_id, self.student_id))

    @property
    def presence(self) -> Presence:
        """The best presence of the sessions; offline if there is none."""
        sessions = self.sessions
        if len(sessions) == 1:
            return sessions[0].presence
        return min((s.presence for s in sessions), key=PRESENCE_BEST_FIRST.index, default="offline")

    @property
    def attention(self) -> Attention:
        """The best attention of the live sessions."""
        sessions = self.sessions
        if len(sessions) == 1:
            return sessions[0].attention if sessions[0].presence in LIVE else "unknown"
        best: Attention = "unknown"
        for session in sessions:
            if session.presence in LIVE:
                if session.attention == "focused":
                    return "focused"
                if session.attention == "away":
                    best = "away"
        return best

    @property
    def user_status(self) -> str:
        """The wire's three values."""
        return user_status_of(self.presence, self.attention)

    @property
    def label(self) -> str:
        """What a proctor sees."""
        presence = self.presence
        return label_of(self.lifecycle, presence, user_status_of(presence, self.attention))

    @property
    def time_end(self) -> float | None:
        """The end that is shown: as reported, plus what was granted since."""
        return None if self.time_end_reported is None else self.time_end_reported + self.granted_seconds

    @property
    def connection(self) -> str | None:
        """The connection that a command is sent to: of the connected session that reported last."""
        connected = [s for s in self.sessions if s.presence == "connected"]
        return max(connected, key=lambda s: s.applied_at).connection if connected else None

    def session_named(self, session_id: str) -> Session | None:
        """The session with this id."""
        for session in self.sessions:
            if session.id == session_id:
                return session
        return None

    def session_of(self, connection: str) -> Session | None:
        """The session that this connection carries, if it still does."""
        for session in self.sessions:
            if session.connection == connection:
                return session
        return None


def user_status_of(presence: Presence, attention: Attention) -> str:
    """The wire's three values: offline if nobody is there, else away or active."""
    if presence not in LIVE:
        return "offline"
    return "away" if attention == "away" else "active"


def label_of(lifecycle: Lifecycle, presence: Presence, user_status: str) -> str:
    """What a proctor sees: the lifecycle unless in progress, else reconnecting, else the user status."""
    if lifecycle != "in_progress":
        return lifecycle
    return "reconnecting" if presence == "reconnecting" else user_status


def new_participant(key: ParticipantKey, home: Home, *, name: str = "", group: str = "") -> Participant:
    """The record of a student who has not joined: from a roster, or just before the first report is decided."""
    return Participant(*key, home=home, student_name=name, group=group)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Participant)
_fields = msgspec.msgpack.Decoder(dict[str, Any])
_NAMES = frozenset(field.encode_name for field in msgspec.structs.fields(Participant))


def encode(participant: Participant) -> bytes:
    """The record as a store keeps it."""
    if participant.later is None:
        return _encoder.encode(participant)
    known = _fields.decode(_encoder.encode(replace(participant, later=None)))
    return _encoder.encode(participant.later | known)


def decode(stored: bytes) -> Participant:
    """The record from what a store kept. Raises `msgspec.ValidationError` if that is no record."""
    record = _decoder.decode(stored)
    if record.schema > SCHEMA:
        unknown = {name: value for name, value in _fields.decode(stored).items() if name not in _NAMES}
        return replace(record, later=unknown or None)
    return record
