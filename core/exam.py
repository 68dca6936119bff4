"""The facts of an exam that a decision about one of its participants needs.

Opened by the API, a roster or the first report; closed by the API or an hour after the last `time_end`. While it is closed
there is no sweep and no lease.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from core.events import CommandIssued
from core.messages import Incident
from core.participant import SCHEMA, ExamKey, Home
from core.policy import Policy


class Exam(Struct, frozen=True, omit_defaults=True):
    """One exam. `here` is the side that decides, the same for all records of this store.

    `hold_until`: nobody turns offline before this moment (an open incident, or a gap of the service itself).
    `gap_until`: no lease lapses at all before this moment, because we were away ourselves.
    `last_sweep_at` is None while nobody is taking the exam.
    `incidents` are the open and the recent ones, oldest first: their time is never charged to a student.
    `standing` are the commands to everyone that still hold for who joins now.
    `moving_to` is the direction of a migration, if one is under way.
    `later` is what a later release (a higher `schema`) keeps here and this one does not know: it is written back as it was.
    """

    school: str
    quiz_id: str
    here: Home
    policy: Policy = Policy()
    state: Literal["open", "paused", "closed"] = "open"
    version: int = 0
    opened_at: float = 0.0
    last_time_end: float | None = None
    last_sweep_at: float | None = None
    hold_until: float = 0.0
    gap_until: float = 0.0
    incidents: tuple[Incident, ...] = ()
    standing: tuple[CommandIssued, ...] = ()
    home_epoch: int = 0
    moving_to: Home | None = None
    schema: int = SCHEMA
    later: dict[str, Any] | None = None

    @property
    def key(self) -> ExamKey:
        """The address of this exam."""
        return ExamKey(self.school, self.quiz_id)

    def open_incident(self, kind: Literal["silence", "service"]) -> Incident | None:
        """The open incident of this kind, if there is one."""
        return next((i for i in self.incidents if i.kind == kind and i.ended_at is None), None)


def new_exam(key: ExamKey, here: Home, now: float, policy: Policy | None = None) -> Exam:
    """An exam opened now."""
    return Exam(*key, here=here, policy=policy or Policy(), opened_at=now)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Exam)
_fields = msgspec.json.Decoder(dict[str, Any])


def encode(exam: Exam) -> bytes:
    """The exam as a store keeps it: JSON, because people read it too and it is written rarely."""
    if exam.later is None:
        return _encoder.encode(exam)
    known = _fields.decode(_encoder.encode(replace(exam, later=None)))
    return _encoder.encode(exam.later | known)


def decode(stored: bytes | str) -> Exam:
    """The exam from what a store kept. Raises `msgspec.ValidationError` if that is no exam."""
    exam = _decoder.decode(stored)
    if exam.schema > SCHEMA:
        unknown = {name: value for name, value in _fields.decode(stored).items() if name not in Exam.__struct_fields__}
        return replace(exam, later=unknown or None)
    return exam
