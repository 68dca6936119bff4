"""What must be true of a run: while it goes on, and when all has healed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sim_clients import Proctor, Student
from sim_world import T0, Violation

from core.decide import _is_done
from core.journal import Entry
from core.participant import Participant, ParticipantKey
from core.snapshot import view

NO_NEWS = ("last_seen", "seq", "version")


class Journal:
    """Entries by their key: the same one twice is one. Two that differ under one key are a violation."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, int, int], Entry] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            known = self.lines.setdefault((entry.student_id, entry.version, entry.n), entry)
            if known != entry:
                raise Violation(f"two entries under one key: {known} and {entry}")

    def of(self, student_id: str) -> list[Entry]:
        return [entry for _, entry in sorted(self.lines.items()) if entry.student_id == student_id]


def check_ack(student: Student, stored: Participant | None, data: dict, world_now: float) -> None:
    """While it runs: only what is stored is acknowledged, so that it survives whoever acknowledges."""
    seq, message_id, command_id = data.get("seq"), data.get("message_id"), data.get("command_id")
    name = student.key.student_id
    if stored is None:
        raise Violation(f"{name}: {data} acknowledged before anything was stored")
    if seq is not None:
        if not any(s.seq >= seq for s in stored.sessions):
            raise Violation(f"{name}: seq {seq} acknowledged, stored is {stored.sessions}")
        if len(student.sent.get(seq, ())) == 1 and stored.sessions[-1].seq == seq:
            student.heard_at.append((data["server_time"] / 1000, world_now))
    if message_id is not None and not _is_done(stored, f"message {message_id}"):
        raise Violation(f"{name}: message {message_id} acknowledged and not stored")
    if command_id is not None and any(c.command_id == command_id for c in stored.commands):
        raise Violation(f"{name}: receipt of {command_id} acknowledged and not stored")


def check_students(students: list[Student], records: dict[ParticipantKey, Participant]) -> None:
    """Nobody is stuck, and nothing that was acknowledged is lost."""
    for student in students:
        record, name = records.get(student.key), student.key.student_id
        if record is None:
            if student.acked_answered or student.here:
                raise Violation(f"{name}: no record")
            continue
        if record.lifecycle == "not_joined" and not student.acked_answered:
            continue
        if student.acked_submission and record.lifecycle != "submitted":
            raise Violation(f"{name}: submission acknowledged, lifecycle is {record.lifecycle}")
        if record.question_answered < student.acked_answered:
            raise Violation(f"{name}: answer {student.acked_answered} acknowledged, stored {record.question_answered}")
        if record.lifecycle == "in_progress":
            truth = student.status if student.here else "offline"
            if record.label != truth:
                raise Violation(f"{name}: stuck as {record.label}, the truth is {truth}; {record}")
        if student.here and student.unacked:
            raise Violation(f"{name}: {len(student.unacked)} reports were never acknowledged")


def check_pictures(proctors: list[Proctor], records: dict[ParticipantKey, Participant]) -> None:
    """Each proctor who is there sees what the records say."""
    expected = {key.student_id: _news(record) for key, record in records.items()}
    for proctor in proctors:
        shown = {
            name: {f: getattr(v, f) for f in v.__struct_fields__ if f not in NO_NEWS}
            for name, v in proctor.views.items()
        }
        if shown != expected:
            wrong = sorted(name for name in expected.keys() | shown.keys() if expected.get(name) != shown.get(name))
            details = {n: (shown.get(n), expected.get(n)) for n in wrong}
            raise Violation(f"{proctor.principal.subject} sees {wrong} wrongly: {details}")


def _news(record: Participant) -> dict:
    shown = view(record)
    return {f: getattr(shown, f) for f in shown.__struct_fields__ if f not in NO_NEWS}


def check_journal(
    students: list[Student], proctors: list[Proctor], records: dict[ParticipantKey, Participant], journal: Journal
) -> None:
    """Every change of label is there exactly once; so is every command and message that was acknowledged."""
    for student in students:
        name, record = student.key.student_id, records.get(student.key)
        lines = journal.of(name)
        label = "not_joined"
        for entry in lines:
            if entry.kind != "label":
                continue
            if entry.before != label:
                raise Violation(f"{name}: the journal goes from {label} to {entry.before}")
            label = entry.after
            _check_alarm(student, entry)
        if record is not None and label != record.label:
            raise Violation(f"{name}: the journal ends at {label}, the record at {record.label}")
        told: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        for entry in lines:
            if entry.kind in ("message", "command"):
                told[entry.kind, entry.reference, ""] += 1
            elif entry.kind == "receipt":
                told[entry.kind, entry.reference, entry.after] += 1
        for what, count in told.items():
            if count > 1:
                raise Violation(f"{name}: {what} is in the journal {count} times")
        for message_id in student.acked_words:
            if ("message", message_id, "") not in told:
                raise Violation(f"{name}: message {message_id} was acknowledged and is not in the journal")
        for proctor in proctors:
            for command_id, order in proctor.acked.items():
                meant = order.get("everyone") or name in order.get("student_ids", ())
                # of one who was not there the proctor is told so, and nothing is kept
                there = student.joined_at is not None and student.joined_at < proctor.ordered_at[command_id]
                if order.get("everyone") and there and ("command", command_id, "") not in told:
                    raise Violation(f"{name}: command {command_id} to everyone was acknowledged and did not arrive")
                if not meant and ("command", command_id, "") in told:
                    raise Violation(f"{name}: command {command_id} was not for them")
            if proctor.unacked:
                raise Violation(f"{proctor.principal.subject}: {list(proctor.unacked)} never acknowledged")


def _check_alarm(student: Student, entry: Entry) -> None:
    """No deadline turned anyone reconnecting or offline within the lease of a frame that had been acknowledged before."""
    if entry.cause != "deadline" or entry.after not in ("reconnecting", "offline"):
        return
    lease = 12.5 if entry.after == "reconnecting" else 20.0
    decided_at = entry.version / 1000
    for received_at, acked_at in student.heard_at:
        if acked_at < decided_at < received_at + lease - 0.002:
            raise Violation(
                f"{student.key.student_id}: {entry.after} at {decided_at - T0:.2f},"
                f" although a report of {received_at - T0:.2f} was acknowledged at {acked_at - T0:.2f}"
            )
