"""What an operator asks of a running cluster, through its Redis: exams and counts, kicks, drains, revocations.

Nothing here decides about a student: a kick closes sockets, and what that means is decided by whoever owns the participant.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import msgspec
import redis
from msgspec import Struct

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.access import encode_revocation, read_revocations
from adapters.ec2_cluster.keys import (
    REVOKED,
    REVOKED_CHANNEL,
    WORKER_LEASES,
    all_partitions,
    exam_keys,
    exam_of,
    partition_keys,
)
from core import exam as exam_record
from core import participant
from core.errors import CloseCode
from core.participant import ExamKey, ParticipantKey
from core.revocation import ListedRevocation, Revocation


class AdminError(Exception):
    """What was asked for can't be done; the message says why."""


class WorkerState(Struct, frozen=True):
    """What a worker writes into its lease."""

    instance: str = ""
    port: int = 0
    pid: int = 0
    students: int = 0
    proctors: int = 0
    draining: bool = False
    written_back: tuple[str, ...] | None = None
    """Redis servers, by their replication ids, that lack nothing of what this worker knows. None: an older release's."""


class ListedWorker(Struct, frozen=True):
    """A worker that lives."""

    worker: str
    state: WorkerState


class ListedExam(Struct, frozen=True):
    """An exam that is open, and how many of its students have each label."""

    school: str
    quiz_id: str
    state: str
    students: int
    labels: dict[str, int]


class Admin:
    """One cluster, seen through its Redis. Every method raises `AdminError` if that can't be reached."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def workers(self) -> list[ListedWorker]:
        """All workers that live, by instance."""
        with _reaching():
            names = sorted(cast(Any, self._redis.scan_iter(match=WORKER_LEASES + "*", count=1000)))
            states = redis_sync.values(self._redis, names)
        found = [
            ListedWorker(name.decode().removeprefix(WORKER_LEASES), _state(stored))
            for name, stored in zip(names, states, strict=True)
            if stored is not None
        ]
        return sorted(found, key=lambda one: (one.state.instance, one.state.port, one.worker))

    def exams(self) -> list[ListedExam]:
        """All exams that are not closed, with counts."""
        found = []
        for partition in all_partitions():
            with _reaching():
                idents = sorted(cast(Any, self._redis.smembers(partition.exams)))
            found += [self.exam(exam_of(ident.decode())) for ident in idents]
        return sorted(found, key=lambda exam: (exam.school, exam.quiz_id))

    def exam(self, key: ExamKey) -> ListedExam:
        """One exam with its counts."""
        keys = exam_keys(key)
        with _reaching():
            stored = cast(Any, self._redis.get(keys.exam))
            records = cast(Any, self._redis.hvals(keys.records))
        if stored is None and not records:
            raise AdminError(f"there is no exam {key.quiz_id} of {key.school}")
        labels = Counter(participant.decode(record).label for record in records)
        state = "unknown" if stored is None else exam_record.decode(stored).state
        return ListedExam(key.school, key.quiz_id, state, len(records), dict(sorted(labels.items())))

    def kick(self, key: ParticipantKey) -> int:
        """Close a student's sockets; the page may come back. Returns how many there were."""
        keys = exam_keys(key.exam)
        with _reaching():
            record = cast(Any, self._redis.hget(keys.records, key.student_id))
            if record is None:
                raise AdminError(f"there is no student {key.student_id} in exam {key.quiz_id} of {key.school}")
            there = [s.connection for s in participant.decode(record).sessions if s.presence == "connected"]
            for connection in there:
                worker = connection.partition("/")[0]
                message = f"c{connection}\n{CloseCode.RESYNC} closed by an operator"
                redis_sync.publish(self._redis, partition_keys(keys.tag).worker(worker), message)
        return len(there)

    def drain(self, instance: str) -> list[str]:
        """Have the instances of this name (or `name:port`) send everybody elsewhere and end. Returns `name:port` of each."""
        drained: dict[str, str] = {}
        for one in self.workers():
            name = f"{one.state.instance}:{one.state.port}"
            if instance in (one.state.instance, name):
                drained.setdefault(name, one.worker)
        if not drained:
            raise AdminError(f"there is no instance {instance}; `proctorwire admin workers` lists them")
        for worker in drained.values():
            with _reaching():
                redis_sync.publish(self._redis, all_partitions()[0].worker(worker), "d")
        return sorted(drained)

    def revoke(self, revocation: Revocation, hours: float) -> None:
        """Let tokens count no more from now on, and close the sockets that were opened with them."""
        with _reaching():
            now = self.now()
            stored = cast(Any, self._redis.hgetall(REVOKED))
            over = [encode_revocation(known) for known, until in read_revocations(stored) if until < now]
            if over:
                self._redis.hdel(REVOKED, *over)
            self._redis.hset(REVOKED, encode_revocation(revocation), repr(now + hours * 3600))
            redis_sync.publish(self._redis, REVOKED_CHANNEL, "")

    def allow(self, revocation: Revocation) -> bool:
        """Take a revocation back. Whether there was one."""
        with _reaching():
            done = self._redis.hdel(REVOKED, encode_revocation(revocation))
            redis_sync.publish(self._redis, REVOKED_CHANNEL, "")
        return bool(done)

    def revocations(self, school: str = "") -> list[ListedRevocation]:
        """All that are in force, or those of a school."""
        with _reaching():
            stored, now = cast(Any, self._redis.hgetall(REVOKED)), self.now()
        listed = [ListedRevocation(revocation, until) for revocation, until in read_revocations(stored)]
        shown = (one for one in listed if one.until > now and school in ("", one.revocation.school))
        return sorted(shown, key=lambda one: one.until)

    def now(self) -> float:
        """The service's clock: Redis time."""
        return redis_sync.server_time(self._redis)


def connect(url: str, **options: Any) -> Admin:
    """The cluster whose Redis this is; see `redis_sync.connect`. Raises `AdminError`, or ValueError if it is no URL."""
    with _reaching():
        return Admin(redis_sync.connect(url, **options))


def _state(stored: bytes) -> WorkerState:
    try:
        return msgspec.json.decode(stored, type=WorkerState)
    except msgspec.DecodeError:
        return WorkerState()  # of another release


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except redis_sync.ERRORS as error:
        raise AdminError(f"redis: {error}") from error
