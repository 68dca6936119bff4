"""The ports of the serverless shell in memory: what DynamoDB, SQS and the management API promise, and nothing more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from adapters.lambda_apigw.ports import CommandChunk, InboxItem, Row, SweepTicket, Views
from adapters.lambda_apigw.shell import Shell
from adapters.lambda_apigw.store import shard_of
from adapters.lambda_apigw.sweep import Sweep
from core import events
from core.exam import Exam
from core.identity import Principal
from core.incidents import SilenceCounts
from core.journal import Entry
from core.participant import ExamKey, Participant, ParticipantKey
from core.revocation import Revocation
from core.routing import Source

T0 = 1_700_000_000.0


@dataclass
class FakeClock:
    now: float = T0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeStore:
    shard_count: int = 1
    records: dict[ParticipantKey, Participant] = field(default_factory=dict)
    exams: dict[ExamKey, Exam] = field(default_factory=dict)
    entries: dict[tuple[Any, ...], Entry] = field(default_factory=dict)
    inboxes: defaultdict[ParticipantKey, dict[str, InboxItem]] = field(default_factory=lambda: defaultdict(dict))
    tickets: dict[tuple[ExamKey, int], float] = field(default_factory=dict)
    counted: dict[tuple[ExamKey, int], SilenceCounts] = field(default_factory=dict)
    older: dict[ParticipantKey, Participant | None] = field(default_factory=dict)
    """What a read finds that need not be the latest."""

    conflicts: int = 0
    """So many saves lose a race to somebody who changes nothing but the version."""

    def load(self, key: ParticipantKey, *, latest: bool = True) -> Participant | None:
        return self.records.get(key) if latest else self.older.get(key, self.records.get(key))

    def save(
        self, before: Participant | None, after: Participant, entries: Sequence[Entry], taken: Sequence[str] = ()
    ) -> bool:
        stored = self.records.get(after.key)
        if self.conflicts:
            self.conflicts -= 1
            if stored is not None:
                self.records[after.key] = msgspec.structs.replace(stored, version=stored.version + 1)
            return False
        if (stored and stored.version) != (before and before.version):
            return False
        self.records[after.key] = after
        self._keep(entries)
        self.drop_from_inbox(after.key, taken)
        return True

    def participants(self, exam: ExamKey) -> Iterable[Participant]:
        return [record for key, record in sorted(self.records.items()) if key.exam == exam]

    def partition(self, exam: ExamKey, shard: int, after: str = "") -> Iterable[Row]:
        keys = {k for k in (*self.records, *(k for k, box in self.inboxes.items() if box)) if k.exam == exam}
        for key in sorted(keys):
            if shard_of(key.student_id, self.shard_count) == shard and key.student_id > after:
                yield Row(key, self.records.get(key), tuple(self.inboxes[key].values()))

    def shards(self, exam: ExamKey) -> int:
        return self.shard_count

    def load_exam(self, key: ExamKey) -> Exam | None:
        return self.exams.get(key)

    def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry], students: int = 0) -> bool:
        stored = self.exams.get(after.key)
        if (stored and stored.version) != (before and before.version):
            return False
        self.exams[after.key] = after
        self._keep(entries)
        was_open, is_open = before is not None and before.state != "closed", after.state != "closed"
        for shard in range(self.shard_count):
            if is_open and not was_open:
                self.tickets[after.key, shard] = 0.0
            elif was_open and not is_open:
                del self.tickets[after.key, shard]
        return True

    def claim_sweep(self, ticket: SweepTicket, next_at: float) -> bool:
        place = (ticket.exam, ticket.shard)
        if self.tickets.get(place) != ticket.at:
            return False
        self.tickets[place] = next_at
        return True

    def late_sweeps(self, before: float) -> Iterable[SweepTicket]:
        return [SweepTicket(*place, at) for place, at in self.tickets.items() if at < before]

    def put_counts(self, exam: ExamKey, shard: int, counts: SilenceCounts) -> None:
        self.counted[exam, shard] = counts

    def counts(self, exam: ExamKey) -> SilenceCounts:
        return sum((c for (of, _), c in self.counted.items() if of == exam), SilenceCounts())

    def put_in_inbox(self, key: ParticipantKey, event: events.ParticipantEvent) -> None:
        name = f"{event.received_at:.3f} {events.encode(event).decode()}"
        self.inboxes[key][name] = InboxItem(name, event)

    def drop_from_inbox(self, key: ParticipantKey, taken: Sequence[str]) -> None:
        for name in taken:
            self.inboxes[key].pop(name, None)

    def _keep(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.entries[entry.school, entry.quiz_id, entry.student_id, entry.version, entry.n] = entry


@dataclass
class FakeSubscriptions:
    clock: FakeClock
    rows: dict[ExamKey, dict[str, tuple[tuple[str, ...], float | None]]] = field(default_factory=dict)
    known: dict[str, Principal] = field(default_factory=dict)
    revoked: dict[Revocation, float] = field(default_factory=dict)
    faults: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def subscribe(self, exam: ExamKey, connection: str, groups: Sequence[str], expires_at: float | None = None) -> None:
        self.rows.setdefault(exam, {})[connection] = (tuple(groups), expires_at)

    def unsubscribe(self, exam: ExamKey, connection: str) -> None:
        self.rows.get(exam, {}).pop(connection, None)

    def subscriptions(self, exam: ExamKey) -> Iterable[tuple[str, Sequence[str]]]:
        return [(c, groups) for c, (groups, at) in self.rows.get(exam, {}).items() if not self._is_over(at)]

    def expired(self, exam: ExamKey) -> Iterable[str]:
        return [connection for connection, (_, at) in self.rows.get(exam, {}).items() if self._is_over(at)]

    def remember(self, connection: str, connected_at: float, principal: Principal) -> None:
        self.known[connection] = principal
        for rows in self.rows.values():
            if connection in rows:
                rows[connection] = (rows[connection][0], principal.expires_at + 60)

    def principal(self, connection: str) -> Principal | None:
        return self.known.get(connection)

    def revocations(self, school: str, role: str) -> dict[Revocation, float]:
        return {each: until for each, until in self.revoked.items() if (each.school, each.role) == (school, role)}

    def forget(self, connection: str) -> None:
        self.known.pop(connection, None)
        for rows in self.rows.values():
            rows.pop(connection, None)

    def failed(self, connection: str) -> int:
        self.faults[connection] += 1
        return self.faults[connection]

    def succeeded(self, connection: str) -> None:
        self.faults.pop(connection, None)

    def _is_over(self, at: float | None) -> bool:
        return at is not None and at < self.clock.now


@dataclass
class FakeConnections:
    """Frames by connection; `gone` ones answer as a 410 would."""

    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    closed: list[tuple[str, int]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    def send(self, connection: str, payload: bytes) -> bool:
        if connection in self.gone:
            return False
        self.sent.append((connection, msgspec.json.decode(payload)))
        return True

    def close(self, connection: str, code: int, reason: str) -> None:
        self.closed.append((connection, code))
        self.gone.add(connection)


@dataclass
class FakeQueue:
    sweeps: list[tuple[SweepTicket, float]] = field(default_factory=list)
    commands: list[CommandChunk] = field(default_factory=list)
    views: list[Views] = field(default_factory=list)

    def sweep(self, ticket: SweepTicket, delay_seconds: float) -> None:
        self.sweeps.append((ticket, delay_seconds))

    def command(self, chunk: CommandChunk) -> None:
        self.commands.append(chunk)

    def publish(self, views: Views) -> None:
        self.views.append(views)


class World:
    """A shell over fakes, with short words for what clients do."""

    school, quiz = "north", "quiz"

    def __init__(self, shards: int = 1, **options: Any) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(shards)
        self.subscriptions = FakeSubscriptions(self.clock)
        self.connections = FakeConnections()
        self.queue = FakeQueue()
        self.options = options
        self.shell = self.new_shell()

    def new_shell(self) -> Shell:
        """Another execution environment."""
        return Shell(
            self.store, self.subscriptions, self.connections, self.queue, self.clock, **{"verify": None} | self.options
        )

    @property
    def exam(self) -> ExamKey:
        return ExamKey(self.school, self.quiz)

    def key(self, student: str) -> ParticipantKey:
        return ParticipantKey(*self.exam, student)

    def record(self, student: str) -> Participant:
        return self.store.records[self.key(student)]

    def student(self, student: str, connection: str = "", **claims: Any) -> Source:
        claims = {"attempt_id": f"a-{student}"} | claims
        principal = Principal("student", self.school, student, (self.quiz,), T0 + 3_600, **claims)
        return Source(connection or f"c-{student}", self.clock.now, principal)

    def proctor(self, connection: str = "c-proctor", **claims: Any) -> Source:
        claims = {"quiz_ids": (self.quiz,), "expires_at": T0 + 3_600} | claims
        return Source(connection, self.clock.now, Principal("proctor", self.school, "pat", **claims))

    def send(self, source: Source, action: str, shell: Shell | None = None, **data: Any) -> None:
        """A frame arrives."""
        payload = msgspec.json.encode({"action": action, "data": data}).decode()
        (shell or self.shell).received(payload, source, self.clock.now)

    def report(self, student: str, status: str = "active", *, source: Source | None = None, **data: Any) -> None:
        ids = {"quiz_id": self.quiz, "quiz_attempt_id": f"a-{student}", "student_id": student}
        self.send(source or self.student(student), "lmsQuizMonitoringStudent", **ids, user_status=status, **data)

    def watch(self, source: Source | None = None, **data: Any) -> Source:
        source = source or self.proctor()
        self.send(source, "lmsQuizMonitoringProctor", quiz_id=self.quiz, **data)
        return source

    def order(self, command: str = "warn", command_id: str = "k1", **data: Any) -> None:
        data = {"text": "eyes on your own paper"} | data
        source = data.pop("source", None) or self.proctor()
        ids = {"quiz_id": self.quiz, "command": command, "command_id": command_id}
        self.send(source, "lmsQuizProctorCommand", **ids, **data)

    def frames(self, connection: str, action: str = "") -> list[Any]:
        """The data of the frames that a connection got."""
        return [f["data"] for c, f in self.connections.sent if c == connection and action in ("", f["action"])]

    def actions(self, connection: str) -> list[str]:
        return [frame["action"] for c, frame in self.connections.sent if c == connection]

    def sweep_until(self, moment: float) -> None:
        """Let time pass to `T0 + moment`, with every sweep on its second."""
        sweep = Sweep(self.shell, self.store, self.subscriptions, self.connections, self.clock)
        while True:
            due = [(ticket.at, ticket) for ticket, _ in self.queue.sweeps if ticket.at <= T0 + moment]
            if not due:
                break
            at, ticket = min(due, key=lambda pair: pair[0])
            self.queue.sweeps = [(t, d) for t, d in self.queue.sweeps if t != ticket]
            self.clock.now = max(self.clock.now, at)
            sweep.sweep(ticket)
        self.clock.now = T0 + moment

    def labels(self, student: str) -> list[str]:
        """The labels of a student, in the order of the journal."""
        entries = [e for e in self.store.entries.values() if e.student_id == student and e.kind == "label"]
        return [entry.after for entry in sorted(entries, key=lambda e: (e.version, e.n))]
