"""What is nobody's fault: a mass silence, and a gap of the service itself.

When 20 % and at least 10 of those who are taking an exam turn reconnecting inside 30 s, a school's line or our own service is
down, not ten students at once: that is one incident. While it is open no student is shown offline; at its end each gets 30 s to
be decided. A sweep that comes more than 30 s after the last one found that *we* were away: all leases wait, and an incident of
the service says so. The time of incidents is never charged to a student.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from core.events import SweepCounted
from core.exam import Exam
from core.messages import Incident
from core.participant import Participant
from core.policy import Policy
from core.presence import fell_silent_at

MAX_INCIDENTS_KEPT = 20


class SilenceCounts(Struct, frozen=True):
    """What one look at some of an exam's records found; counts of several processes add up.

    `taking`: in progress, and neither offline nor gone. `fell_silent`: of these, turned reconnecting inside the window, without us
    having planned it. `still_silent`: reconnecting now, since whenever.
    """

    taking: int = 0
    fell_silent: int = 0
    still_silent: int = 0
    last_time_end: float | None = None

    def __add__(self, other: SilenceCounts) -> SilenceCounts:
        ends = [end for end in (self.last_time_end, other.last_time_end) if end is not None]
        return SilenceCounts(
            self.taking + other.taking,
            self.fell_silent + other.fell_silent,
            self.still_silent + other.still_silent,
            max(ends, default=None),
        )


def count(participants: Iterable[Participant], now: float, policy: Policy) -> SilenceCounts:
    """Look at an exam's records, or at those that one process holds."""
    taking = fell = still = 0
    last_end: float | None = None
    for participant in participants:
        end = participant.time_end
        if end is not None and (last_end is None or end > last_end):
            last_end = end
        if participant.lifecycle != "in_progress":
            continue
        presence = participant.presence
        if presence in ("connected", "reconnecting"):
            taking += 1
        silent = [s for s in participant.sessions if s.presence == "reconnecting" and s.planned_until <= now]
        if presence == "reconnecting" and silent:
            still += 1
            fell += now - max(map(fell_silent_at, silent)) <= policy.silence_window_seconds
    return SilenceCounts(taking, fell, still, last_end)


def swept(exam: Exam, event: SweepCounted, now: float) -> Exam:
    """The exam after a sweep: incidents opened and ended, and until when leases are held."""
    policy = exam.policy
    exam = _service_gap(exam, now)
    silence = exam.open_incident("silence")
    threshold = max(policy.silence_count, policy.silence_share * event.taking)
    if silence is None and event.fell_silent >= threshold:
        exam = _with(exam, Incident("silence", now, event.fell_silent))
    elif silence is not None:
        over = event.still_silent < threshold / 2 or now - silence.started_at >= policy.incident_max_seconds
        largest = max(silence.count, event.still_silent)
        if over or largest != silence.count:
            exam = _with(exam, replace(silence, count=largest, ended_at=now if over else None))
    if silence is not None or exam.open_incident("silence"):
        exam = replace(exam, hold_until=max(exam.hold_until, now + policy.decided_after_incident_seconds))
    ends = [end for end in (exam.last_time_end, event.last_time_end) if end is not None]
    # While nobody is taking the exam there is nothing to miss: it may have been opened hours early.
    return replace(exam, last_sweep_at=now if event.taking else None, last_time_end=max(ends, default=None))


def _service_gap(exam: Exam, now: float) -> Exam:
    """Open an incident of the service if the last sweep is too old, and end it at the next sweep that is in time."""
    policy = exam.policy
    gap = exam.last_sweep_at is not None and now - exam.last_sweep_at > policy.service_gap_seconds
    service = exam.open_incident("service")
    if gap and service is None:
        assert exam.last_sweep_at is not None  # a gap was measured from it
        exam = _with(exam, Incident("service", exam.last_sweep_at, 0))
    elif not gap and service is not None:
        exam = _with(exam, replace(service, ended_at=now))
    if gap:
        until = now + policy.service_gap_grace_seconds
        exam = replace(exam, gap_until=until, hold_until=max(exam.hold_until, until))
    return exam


def _with(exam: Exam, incident: Incident) -> Exam:
    """The exam with this incident added, or in the place of the open one of its kind."""
    others = tuple(i for i in exam.incidents if not (i.kind == incident.kind and i.started_at == incident.started_at))
    return replace(exam, incidents=(*others, incident)[-MAX_INCIDENTS_KEPT:])


def seconds_in_incidents(incidents: tuple[Incident, ...], start: float, end: float) -> float:
    """How many of the seconds from `start` to `end` lie in an incident, each counted once."""
    total, reached = 0.0, start
    for incident in sorted(incidents, key=lambda i: i.started_at):
        begins = max(incident.started_at, reached)
        ends = min(end if incident.ended_at is None else incident.ended_at, end)
        if ends > begins:
            total += ends - begins
            reached = ends
    return total
