"""Where an exam's data lies in Redis: every key and channel of one exam carries the same hash tag `{xNN}`.

NN is a hash of school and exam over 128 partitions, so that one Redis, a Redis Cluster and sharded pub/sub run the same code
(Redis docs, "Redis Cluster specification": keys with the same hash tag share a slot). Ids are percent-encoded, so that no id
can imitate another's key. What belongs to no exam (leases, the move, revocations) is a key by itself, wherever its slot is.
"""

from __future__ import annotations

import functools
import zlib
from typing import NamedTuple
from urllib.parse import quote, unquote

from core.participant import ExamKey, ParticipantKey

PARTITIONS = 128
WORKER_LEASES = "w:"
MOVE = "move"
"""The move of the stage. It stays while the bridge is away: then claims are refused, and nobody has two homes."""
TURN = "move:bridge"
"""The bridge that acts."""
CLAIMS = "move:claims"
"""Participants that workers ask the bridge for."""
REVOKED = "{revoked}until"
REVOKED_CHANNEL = b"{revoked}changed"
"""Revocations of tokens, and where workers are told to read them again."""
MEMORY_SINCE = "memory:since"
"""When somebody first wrote into this Redis, in epoch seconds: gone with all else when it comes back empty. In a Redis Cluster
each partition has one, with its tag before it: nodes come back empty one by one."""
JOURNAL_ASIDE = "journal:aside"
"""Entries that a journal process could not read, as they were."""
JOURNAL_BEHIND = "journal:behind"
"""The epoch seconds of the oldest entry that waits in a stream, as the journal process last saw it; empty if none waits."""


class ExamKeys(NamedTuple):
    """The Redis names of one exam. `tag` is shared with the other exams of its partition."""

    tag: str
    ident: str
    exam: str
    records: str
    owners: str
    counts: str
    sweep_lock: str
    away: str
    shown: str
    channel: bytes

    def inbox(self, student_id: str) -> str:
        """The list of events that wait for the participant's owner."""
        return f"{self.tag}in:{self.ident}:{student_id}"

    def member(self, student_id: str) -> str:
        """The participant in the sets of a partition; `participant_of` reads it."""
        return f"{self.ident}:{student_id}"


class PartitionKeys(NamedTuple):
    """The Redis names that the exams of one partition share."""

    tag: str
    deadlines: str
    inboxes: str
    journal: str
    exams: str
    control: bytes

    def worker(self, worker: str) -> bytes:
        """The channel on which a worker is nudged, and gets frames for its sockets, by owners in this partition."""
        return f"{self.tag}w:{worker}".encode()


@functools.lru_cache(maxsize=4096)
def exam_keys(exam: ExamKey) -> ExamKeys:
    """The names of this exam."""
    ident = f"{quote(exam.school, safe='')}:{quote(exam.quiz_id, safe='')}"
    tag = f"{{x{zlib.crc32(ident.encode()) % PARTITIONS:02x}}}"
    return ExamKeys(
        tag=tag,
        ident=ident,
        exam=f"{tag}exam:{ident}",
        records=f"{tag}rec:{ident}",
        owners=f"{tag}own:{ident}",
        counts=f"{tag}cnt:{ident}",
        sweep_lock=f"{tag}sweep:{ident}",
        away=f"{tag}away:{ident}",
        shown=f"{tag}shown:{ident}",
        channel=f"{tag}ex:{ident}".encode(),
    )


@functools.lru_cache(maxsize=PARTITIONS)
def partition_keys(tag: str) -> PartitionKeys:
    """The names of this partition."""
    return PartitionKeys(
        tag=tag,
        deadlines=f"{tag}deadlines",
        inboxes=f"{tag}inboxes",
        journal=f"{tag}journal",
        exams=f"{tag}exams",
        control=f"{tag}control".encode(),
    )


def all_partitions() -> list[PartitionKeys]:
    """The names of all partitions."""
    return [partition_keys(f"{{x{number:02x}}}") for number in range(PARTITIONS)]


def exam_of(ident: str) -> ExamKey:
    """The exam that `ExamKeys.ident` stands for."""
    school, quiz_id = ident.split(":")
    return ExamKey(unquote(school), unquote(quiz_id))


def participant_of(member: str) -> ParticipantKey:
    """The participant that `ExamKeys.member` stands for."""
    school, quiz_id, student_id = member.split(":", 2)
    return ParticipantKey(unquote(school), unquote(quiz_id), student_id)


def worker_lease(worker: str) -> str:
    """The key that exists while a worker is alive."""
    return WORKER_LEASES + worker
