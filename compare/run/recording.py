"""What the clients of a run did and saw, moment by moment: written by `clients`, read by `truth` and `measure`.

All times are epoch seconds of the load generator's clock (`Clock`).
"""

from __future__ import annotations

import time
from typing import Literal, TypeAlias

from msgspec import Struct, field

from compare.run.workload import ClientKind, ProctorPlan, Schedule, StudentPlan
from core.messages import MessageKind, View

LineEnd: TypeAlias = Literal["", "left", "dropped", "cut"]
"""How a connection ended: not yet; with a goodbye; by the schedule; by the server or the network, unasked."""


class Clock:
    """Wall-clock time that never jumps: the monotonic clock, anchored once."""

    def __init__(self) -> None:
        self._anchor = time.time() - time.perf_counter_ns() / 1e9

    def __call__(self) -> float:
        """Epoch seconds, to the microsecond."""
        return self._anchor + time.perf_counter_ns() / 1e9


class PageState(Struct, frozen=True):
    """What a student's page has to report."""

    status: Literal["active", "away"] = "active"
    answered: int = 0
    submitted: bool = False
    score: float | None = None


class Attempt(Struct, frozen=True):
    """Something was written to a connection (its index in `StudentLog.lines`)."""

    at: float
    line: int


class Line(Struct):
    """One connection of a client."""

    opened_at: float
    closed_at: float | None = None
    end: LineEnd = ""
    code: int = 0


class Report(Struct):
    """One status report. `seq` is 0 for a client that numbers nothing."""

    state: PageState
    seq: int
    changed: bool  # shows something that the report before it did not
    created_at: float
    attempts: list[Attempt] = field(default_factory=list)
    acked_at: float | None = None
    server_time: float | None = None  # of the ack, in seconds
    refused: str = ""


class Words(Struct):
    """A chat line or a hand."""

    message_id: str
    kind: MessageKind
    text: str
    created_at: float
    attempts: list[Attempt] = field(default_factory=list)
    acked_at: float | None = None


class Got(Struct, frozen=True):
    """A command arrived at a page."""

    at: float
    line: int
    command_id: str
    settled: bool  # its receipt had been acknowledged before


class StudentLog(Struct):
    """Everything about one student's page."""

    plan: StudentPlan
    lines: list[Line] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    beats: list[Attempt] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    commands: list[Got] = field(default_factory=list)
    waiting: int = 0  # in the outbox now
    gone: bool = False  # left or vanished: nothing more is to come


class Seen(Struct, frozen=True):
    """A proctor received a view."""

    at: float
    view: View
    watch: int  # index in `ProctorLog.watches`
    update: bool  # else in a snapshot
    news: bool  # its version was higher than what was known


class Watch(Struct):
    """From asking for an exam to the loss of that connection. `complete_at`: the snapshot was there, made at `server_time`."""

    asked_at: float
    complete_at: float | None = None
    server_time: float = 0.0
    ended_at: float | None = None


class Order(Struct):
    """A command that a proctor gave."""

    command_id: str
    student_id: str
    sent_at: float
    acked_at: float | None = None


class Status(Struct, frozen=True):
    """How far a command has come, as a proctor was told."""

    at: float
    command_id: str
    student_id: str
    outcome: str


class ProctorLog(Struct):
    """Everything about one proctor's dashboard. `views` is what it shows now."""

    plan: ProctorPlan
    watches: list[Watch] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    messages: list[tuple[float, str]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    incidents: list[tuple[float, str]] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)


class Traffic(Struct):
    """What went over the clients' sockets. Bytes are those of the messages; `*_units` count them in steps of 32 KiB."""

    frames_in: int = 0  # to the server
    bytes_in: int = 0
    units_in: int = 0
    frames_out: int = 0  # to the clients
    bytes_out: int = 0
    units_out: int = 0
    reports: int = 0
    connects: int = 0
    disconnects: int = 0
    open_now: int = 0
    most_open: int = 0
    opened_seconds: float = 0.0  # sum of the opening times of the sockets that are open
    closed_seconds: float = 0.0  # how long the closed ones were open, summed

    def connection_minutes(self, now: float) -> float:
        """How long all sockets were open until now, summed."""
        return (self.closed_seconds + self.open_now * now - self.opened_seconds) / 60


class Generator(Struct, frozen=True):
    """How the load generator itself fared: a late one makes every latency look worse."""

    cpu_seconds: float
    wall_seconds: float
    lag_ms_p99: float
    lag_ms_max: float


class Recording(Struct):
    """One run against one deployment."""

    schedule: Schedule
    client: ClientKind
    started_at: float
    students: list[StudentLog]
    proctors: list[ProctorLog]
    traffic: Traffic = field(default_factory=Traffic)
    problems: list[str] = field(default_factory=list)  # what clients found odd, in words
    stopped_at: float | None = None
    generator: Generator | None = None

    def proctors_of(self, quiz_id: str) -> list[ProctorLog]:
        """The dashboards that watch this exam."""
        return [proctor for proctor in self.proctors if proctor.plan.quiz_id == quiz_id]
