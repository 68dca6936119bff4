"""Frames for proctors as workers publish them, beside the views of participants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from core import effects, messages
from core.messages import CommandOutcome, encode, encode_value
from core.participant import ExamKey


def grouped(group: str, frame: bytes) -> bytes:
    """A frame as it is published: its group, for proctors who watch only some, then the frame. Neither holds a line break."""
    return encode_value(group) + b"\t" + frame


def status_frames(statuses: Sequence[effects.PublishCommandStatus]) -> list[bytes]:
    """One status frame a command, however many students it went to. It is for all proctors of the exam."""
    by_command: defaultdict[tuple[ExamKey, str], dict[str, tuple[CommandOutcome, str]]] = defaultdict(dict)
    for status in statuses:
        by_command[status.exam, status.command_id][status.student_id] = (status.outcome, status.reason)
    frames = []
    for (exam, command_id), students in by_command.items():
        counts: defaultdict[str, int] = defaultdict(int)
        for outcome, _ in students.values():
            counts[outcome] += 1
        data = messages.CommandStatusData(
            command_id,
            exam.quiz_id,
            dict(counts),
            {student: f"{outcome}: {reason}" if reason else outcome for student, (outcome, reason) in students.items()},
        )
        frames.append(grouped("", encode(messages.CommandStatus(data))))
    return frames


def incidents_frame(effect: effects.PublishIncidents, now: float) -> bytes:
    """Incidents as they are published: an update without participants."""
    data = messages.UpdateData(effect.exam.quiz_id, (), effect.incidents, messages.milliseconds(now))
    return grouped("", encode(messages.Update(data)))
