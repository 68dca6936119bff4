"""Between processes: everything the shell asks of Redis, each a single atomic step.

`Broker` is the port that the shell needs (a simulator implements it too), `RedisBroker` the real one. Publications of an exam
carry their origin and its running number, so that a subscriber sees a hole.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import math
import secrets
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Struct

from adapters.ec2_cluster.clock import ServiceClock
from adapters.ec2_cluster.keys import (
    CLAIMS,
    JOURNAL_BEHIND,
    MEMORY_SINCE,
    MOVE,
    REVOKED,
    WORKER_LEASES,
    all_partitions,
    exam_keys,
    participant_of,
    partition_keys,
    worker_lease,
)
from adapters.ec2_cluster.redis_client import (
    Argument,
    Command,
    RedisAddress,
    RedisClient,
    RedisError,
    RedisOutcomeUnknown,
    RedisUnavailable,
    Script,
    ScriptCall,
    Subscriber,
)
from adapters.ec2_cluster.redis_cluster import ClusterClient, ClusterSubscriber, Connected, slot_of
from core import events, exam, journal, migration, participant
from core.events import ParticipantEvent
from core.exam import Exam
from core.incidents import SilenceCounts
from core.journal import Entry
from core.messages import View
from core.migration import Move
from core.participant import ExamKey, Participant, ParticipantKey

WORKER_LEASE_SECONDS = 3
_COUNTS_FRESH_SECONDS = 15
_OVERDUE_PER_LOOK = 500
_SAVED_AT_ONCE = 500  # see save.lua
_CLAIM_SECONDS = 2.0
_CLAIM_GRANT_SECONDS = 1.5
"""A claim is granted this late at most, so that the answer is there in time."""
_CLAIM_LOOKS_SECONDS = (0.02, 0.2)
_ANSWER_SECONDS = 10
_ASIDE_SECONDS = 0.15
"""In a cluster, what concerns no exam is waited for so long, because exams on other nodes wait for it,"""
_MOVE_KNOWN_SECONDS = 60.0
"""and so long what was said of a move holds. Nobody can begin one while its node is away."""


class Waiting(NamedTuple):
    """An event in an inbox. Numbers rise; a save names the last one that it decided."""

    number: int
    event: ParticipantEvent


class Claimed(Struct, frozen=True):
    """What a new owner gets. `previous` is the worker that owned the participant before, perhaps this one."""

    record: Participant | None
    epoch: int
    previous: str | None
    exam: Exam | None
    inbox: tuple[Waiting, ...]


class Save(Struct, frozen=True, gc=False):
    """A participant to be saved, with all that goes into the same atomic step.

    `view` and `frames` are encoded, without one there is nothing to publish. `inbox_decided`: the last inbox event that this save
    decides, to be removed with all before it. `deadline_kept`: the record's deadline is the one that Redis has. `received_at`: when
    the oldest event that the view shows came in; infinite if nobody wants to know.
    """

    record: Participant
    epoch: int
    view: bytes | None = None
    frames: Sequence[bytes] = ()
    entries: Sequence[Entry] = ()
    inbox_decided: int | None = None
    deadline_kept: bool = False
    received_at: float = math.inf


class Appended(Struct, frozen=True):
    """What became of events for an inbox: who owns the participant, and whether there is one."""

    owner: str | None
    known: bool


class HomeClaim(Struct, frozen=True):
    """A worker's request for a participant whose home is the other side; the answer is expected under the key `answer`.

    After `until`, in the service's time, nobody waits for it any more: granted then, the home would be where the page is not.
    """

    key: ParticipantKey
    answer: str
    until: float


class Returned(NamedTuple):
    """Redis, or a node of it, can be reached, for the first time or again."""

    is_about: Callable[[ExamKey], bool]
    """Whether an exam's data are there."""
    lives: frozenset[str]
    """The replication ids of what can be reached."""
    is_anew: bool
    """Whether it is another server than before, or the same after a restart: then the last moments may be missing."""


class Broker(Protocol):
    """Each method is one atomic step, or several that may be torn apart without harm. All raise `RedisError`."""

    node_of: Callable[[ExamKey], Hashable] | None
    """Which of several nodes an exam is on: what goes to one must not wait for another. None: there is one."""

    async def claim(self, key: ParticipantKey, worker: str) -> Claimed:
        """Make the worker the owner, under a new epoch."""

    async def save(self, worker: str, saves: dict[ExamKey, list[Save]]) -> dict[ExamKey, list[bool]]:
        """Save the participants of each exam; False where the worker is no longer the owner under that epoch.

        An exam that is missing in the answer is not known to be saved: of several Redis nodes, its own may be away alone.
        """

    async def append(
        self, key: ParticipantKey, added: Sequence[ParticipantEvent], *, must_exist: bool = False
    ) -> Appended:
        """Put events into the inbox and nudge the owner."""

    async def inbox(self, key: ParticipantKey) -> list[Waiting]:
        """The events in the inbox."""

    async def load_exam(self, key: ExamKey) -> Exam | None:
        """The exam as last saved."""

    async def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry]) -> bool:
        """Save the exam if the stored version is still `before`'s, and tell all workers."""

    async def keep(self, key: ExamKey, seconds: int | None) -> None:
        """Keep the exam's data for so long from now on; None: until further notice."""

    async def participants(self, key: ExamKey) -> list[Participant]:
        """All records of the exam."""

    async def student_ids(self, key: ExamKey) -> list[str]:
        """The students with a record in this exam."""

    async def is_alive(self, worker: str) -> bool:
        """Whether the worker's lease is running. Of several nodes, its own may be away alone; then that is said soon."""

    async def overdue(self, now: float) -> list[tuple[ParticipantKey, str | None]]:
        """Participants whose deadline has passed or whose inbox waits, each with its owner."""

    async def publish(self, key: ExamKey, frames: Sequence[bytes]) -> None:
        """Publish frames to the exam's proctors that belong to no record."""

    async def to_worker(self, worker: str, key: ExamKey, message: bytes) -> None:
        """Send a message about this exam to a worker; lost if nobody listens."""

    async def forward(self, key: ParticipantKey, event: ParticipantEvent) -> None:
        """Keep an event for the other side of a migration."""

    async def move(self) -> Move | None:
        """The move to or from the other side that is under way, if there is one.

        While the node that says so is away alone, what it said a short time ago.
        """

    async def claim_home(self, key: ParticipantKey) -> Participant | None:
        """The participant, whose home is here from now on; None if that was refused, or nobody answered for two seconds."""

    async def shown(self, key: ExamKey) -> list[View]:
        """Views of the participants whose home is the other side."""

    async def is_shown(self, key: ParticipantKey) -> bool:
        """Whether the participant's home is the other side."""

    async def rejournal(self, entries: dict[ExamKey, list[Entry]]) -> None:
        """Append entries to the journal again; those that it has are none the wiser."""


def _waiting(stored: bytes) -> Waiting:
    number, _, event = stored.partition(b" ")
    return Waiting(int(number), events.decode(event))


def script_source(name: str, *, sharded: bool = False) -> str:
    """The text of one of the Lua scripts; it begins with its keys and arguments. `sharded`: as it publishes in a Redis Cluster."""
    source = importlib.resources.files(__package__).joinpath("scripts", name).read_text()
    return source.replace("'PUBLISH'", "'SPUBLISH'") if sharded else source


def save_exam_arguments(
    before: Exam | None, after: Exam, entries: Sequence[Entry]
) -> tuple[tuple[str, ...], tuple[Argument, ...]]:
    """Keys and arguments of `save_exam.lua`: the HTTP API saves exams by it too."""
    keys = exam_keys(after.key)
    partition = partition_keys(keys.tag)
    version = -1 if before is None else before.version
    encoded = (journal.encode(entry) for entry in entries)
    return (
        (keys.exam, partition.journal, partition.exams),
        (version, exam.encode(after), partition.control, keys.ident, *encoded),
    )


class RedisBroker:
    """The broker over one Redis (or Valkey) server, or over a cluster of them.

    Whatever is said in one command is about one exam or one partition, and so about one node; `keys` says where the rest lies.
    """

    def __init__(
        self,
        url: str,
        worker: str,
        clock: ServiceClock,
        on_connected: Callable[[Returned], None],
        on_lost: Callable[[Exception], None] | None = None,
    ) -> None:
        """`on_connected` is called after every connection to Redis, the first one too, `on_lost` after every loss.

        `url` says `cluster=1` of a cluster: then both are about any of its nodes.
        """
        self._on_connected = on_connected
        self._life: str | None = None
        self._known_move: tuple[float, Move | None] = (-math.inf, None)
        self._is_cluster = RedisAddress.parse(url).is_cluster
        self._publish = "SPUBLISH" if self._is_cluster else "PUBLISH"
        self.claim_script, self.save_script, self.append_script, self.save_exam_script = scripts = [
            Script(script_source(name, sharded=self._is_cluster))
            for name in ("claim.lua", "save.lua", "append.lua", "save_exam.lua")
        ]
        self.node_of: Callable[[ExamKey], Hashable] | None = None
        self.client: RedisClient | ClusterClient
        if self._is_cluster:
            cluster = self.client = ClusterClient(
                url, name=worker, scripts=scripts, on_connected=self._connected_to_nodes, on_lost=on_lost
            )
            self.node_of = lambda exam: cluster.owner(exam_keys(exam).tag)
        else:
            self.client = RedisClient(
                url, name=worker, scripts=scripts, on_connected=self._connected_to_server, on_lost=on_lost
            )
        self.lease: Callable[[], bytes] = lambda: b"{}"
        """What the lease says about this worker, for operators."""
        self._worker = worker
        self._clock = clock
        self._published: defaultdict[ExamKey, int] = defaultdict(int)

    def subscriber(
        self, on_message: Callable[[bytes, bytes], None], on_gap: Callable[[], None]
    ) -> Subscriber | ClusterSubscriber:
        """What hears the publications of this broker and of others."""
        if isinstance(self.client, ClusterClient):
            return ClusterSubscriber(self.client, on_message, on_gap)
        return Subscriber(self.client, on_message, on_gap)

    def _connected_to_server(self) -> None:
        assert isinstance(self.client, RedisClient), "nobody else calls this"
        before, life = self._life, self.client.life
        self._life = life
        lives = frozenset[str]() if life is None else frozenset((life,))
        self._on_connected(Returned(lambda _: True, lives, bool(lives) and before is not None and before != life))

    def _connected_to_nodes(self, connected: Connected) -> None:
        slots = connected.slots
        about = Returned(lambda exam: slot_of(exam_keys(exam).tag) in slots, connected.lives, connected.is_anew)
        self._on_connected(about)

    # --- participants ---

    async def claim(self, key: ParticipantKey, worker: str) -> Claimed:
        """See `Broker`."""
        keys = exam_keys(key.exam)
        call = self.claim_script(
            (keys.records, keys.owners, keys.inbox(key.student_id), keys.exam), (key.student_id, worker)
        )
        record, epoch, previous, stored_exam, *waiting = await self.client.script(call)
        return Claimed(
            record=None if record is None else participant.decode(record),
            epoch=epoch,
            previous=None if previous is None else previous.decode(),
            exam=None if stored_exam is None else exam.decode(stored_exam),
            inbox=tuple(_waiting(item) for item in waiting),
        )

    async def save(self, worker: str, saves: dict[ExamKey, list[Save]]) -> dict[ExamKey, list[bool]]:
        """See `Broker`. One script an exam, all in one pipeline; where some are refused, once more for the others."""
        refused: defaultdict[ExamKey, set[str]] = defaultdict(set)
        unknown: set[ExamKey] = set()
        parts = [
            (key, batch[start : start + _SAVED_AT_ONCE])
            for key, batch in saves.items()
            for start in range(0, len(batch), _SAVED_AT_ONCE)
        ]
        while parts:
            replies = await self.client.pipeline([self._save_call(worker, key, part) for key, part in parts])
            again = []
            for (key, part), reply in zip(parts, replies, strict=True):
                if isinstance(reply, RedisError):
                    unknown.add(key)
                elif reply:
                    gone = {part[number - 1].record.student_id for number in reply}
                    refused[key] |= gone
                    rest = [save for save in part if save.record.student_id not in gone]
                    again += [(key, rest)] if rest else []
            parts = again
        return {
            key: [save.record.student_id not in refused[key] for save in batch]
            if key in refused
            else [True] * len(batch)
            for key, batch in saves.items()
            if key not in unknown
        }

    def _save_call(self, worker: str, key: ExamKey, batch: list[Save]) -> ScriptCall:
        keys = exam_keys(key)
        partition = partition_keys(keys.tag)
        views: list[bytes] = []
        since = math.inf
        frames: list[bytes] = []
        entries: list[bytes] = []
        records: list[Argument] = []
        deadlines: list[Argument] = []
        inboxes: list[str] = []
        decided: list[Argument] = []
        for save in batch:
            record = save.record
            student_id = record.student_id
            records += (student_id, f"{worker} {save.epoch}", participant.encode(record))
            if save.view is not None:
                views.append(save.view)
                if save.received_at < since:
                    since = save.received_at
            if save.frames:
                frames += save.frames
            if save.entries:
                entries += map(journal.encode, save.entries)
            if not save.deadline_kept:
                at = record.check_at if record.home == "ec2" else None  # else it is the other side's deadline
                deadlines += (b"" if at is None else _json.encode(at), keys.member(student_id))
            if save.inbox_decided is not None:
                inboxes.append(keys.inbox(student_id))
                decided += (keys.member(student_id), save.inbox_decided)
        publication = b""
        if views or frames:
            publication = b"\n".join((self._header(key, since), b",".join(views), *frames))
        return self.save_script(
            (keys.records, keys.owners, partition.deadlines, partition.journal, partition.inboxes, *inboxes),
            (
                keys.channel,
                publication,
                b"\n".join(entries),
                len(batch),
                *records,
                len(deadlines) // 2,
                *deadlines,
                *decided,
            ),
        )

    def _header(self, key: ExamKey, since: float = math.inf) -> bytes:
        """What a publication begins with: its origin, how many that has published for this exam, and when what is in it began."""
        self._published[key] += 1
        began = "" if since == math.inf else f" {since:.3f}"
        return f"{self._worker} {self._published[key]}{began}".encode()

    async def append(
        self, key: ParticipantKey, added: Sequence[ParticipantEvent], *, must_exist: bool = False
    ) -> Appended:
        """See `Broker`."""
        keys = exam_keys(key.exam)
        partition = partition_keys(keys.tag)
        call = self.append_script(
            (keys.inbox(key.student_id), keys.owners, partition.inboxes, keys.records),
            (
                key.student_id,
                keys.member(key.student_id),
                f"{keys.tag}w:",
                "1" if must_exist else "0",
                *(events.encode(event) for event in added),
            ),
        )
        owner, known = await self.client.script(call)
        return Appended(None if owner is None else owner.decode(), known == 1)

    async def inbox(self, key: ParticipantKey) -> list[Waiting]:
        """See `Broker`."""
        stored = await self.client.execute("LRANGE", exam_keys(key.exam).inbox(key.student_id), 0, -1)
        return [_waiting(item) for item in stored]

    async def forward(self, key: ParticipantKey, event: ParticipantEvent) -> None:
        """See `Broker`."""
        addressed = events.Addressed(key, migration.for_other(event))
        await self.client.execute("RPUSH", exam_keys(key.exam).away, _json.encode(addressed))

    async def move(self) -> Move | None:
        """See `Broker`."""
        if not self._is_cluster:
            return await self._read_move()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_ASIDE_SECONDS):
                found = await self._read_move()
        except (TimeoutError, RedisError) as error:
            at, found = self._known_move
            if loop.time() - at > _MOVE_KNOWN_SECONDS:
                raise RedisUnavailable("the node that says whether exams are being moved is away") from error
            return found
        self._known_move = loop.time(), found
        return found

    async def _read_move(self) -> Move | None:
        stored = await self.client.execute("GET", MOVE)
        return None if stored is None else migration.decode_move(stored)

    async def claim_home(self, key: ParticipantKey) -> Participant | None:
        """See `Broker`. The bridge takes the request off the list, and answers in a key of its own."""
        answer = f"{CLAIMS}:{self._worker}:{secrets.token_hex(6)}"
        claim = HomeClaim(key, answer, self._clock.now() + _CLAIM_GRANT_SECONDS)
        await self.client.execute("RPUSH", CLAIMS, _json.encode(claim))
        ends = asyncio.get_running_loop().time() + _CLAIM_SECONDS
        look, latest = _CLAIM_LOOKS_SECONDS
        while asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(look)
            look = min(latest, 1.5 * look)  # the longer it takes, the more are asking
            stored = await self.client.execute("GET", answer)
            if stored is not None:
                return participant.decode(stored) if stored else None
        return None

    async def answer_claim(self, answer: str, record: Participant | None) -> None:
        """The bridge's part of `claim_home`."""
        stored = b"" if record is None else participant.encode(record)
        await self.client.execute("SET", answer, stored, "EX", _ANSWER_SECONDS)

    async def shown(self, key: ExamKey) -> list[View]:
        """See `Broker`."""
        stored: list[bytes] = await self.client.execute("HVALS", exam_keys(key).shown)
        return [_view_decoder.decode(view) for view in stored]

    async def is_shown(self, key: ParticipantKey) -> bool:
        """See `Broker`."""
        return bool(await self.client.execute("HEXISTS", exam_keys(key.exam).shown, key.student_id))

    async def rejournal(self, entries: dict[ExamKey, list[Entry]]) -> None:
        """See `Broker`."""
        await self.client.execute_all(
            [
                ("XADD", partition_keys(exam_keys(key).tag).journal, "*", "e", b"\n".join(map(journal.encode, found)))
                for key, found in entries.items()
            ]
        )

    async def participants(self, key: ExamKey) -> list[Participant]:
        """See `Broker`."""
        stored: list[bytes] = await self.client.execute("HVALS", exam_keys(key).records)
        return [participant.decode(record) for record in stored]

    async def student_ids(self, key: ExamKey) -> list[str]:
        """See `Broker`."""
        return [name.decode() for name in await self.client.execute("HKEYS", exam_keys(key).records)]

    async def overdue(self, now: float) -> list[tuple[ParticipantKey, str | None]]:
        """See `Broker`. Looks at all partitions in one pipeline; at those of a node that is away, another time."""
        partitions = all_partitions()
        commands: list[Command | ScriptCall] = []
        for partition in partitions:
            commands.append(("ZRANGEBYSCORE", partition.deadlines, "-inf", now, "LIMIT", 0, _OVERDUE_PER_LOOK))
            commands.append(("SRANDMEMBER", partition.inboxes, _OVERDUE_PER_LOOK))
        replies = await self.client.pipeline(commands)
        members = {member.decode() for found in replies if not isinstance(found, RedisError) for member in found}
        keys = [participant_of(member) for member in sorted(members)]
        asked: list[Command | ScriptCall] = [("HGET", exam_keys(key.exam).owners, key.student_id) for key in keys]
        owners = await self.client.pipeline(asked) if asked else []
        return [
            (key, None if owner is None else owner.partition(b" ")[0].decode())
            for key, owner in zip(keys, owners, strict=True)
            if not isinstance(owner, RedisError)
        ]

    # --- exams ---

    async def load_exam(self, key: ExamKey) -> Exam | None:
        """See `Broker`."""
        stored = await self.client.execute("GET", exam_keys(key).exam)
        return None if stored is None else exam.decode(stored)

    async def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry]) -> bool:
        """See `Broker`."""
        call = self.save_exam_script(*save_exam_arguments(before, after, entries))
        return bool(await self.client.script(call) == 1)

    async def keep(self, key: ExamKey, seconds: int | None) -> None:
        """See `Broker`."""
        keys = exam_keys(key)
        names = (keys.exam, keys.records, keys.owners, keys.counts, keys.away, keys.shown)
        if seconds is None:
            commands: list[Command | ScriptCall] = [("PERSIST", name) for name in names]
        else:
            commands = [("EXPIRE", name, seconds) for name in names]
            commands.append(("SREM", partition_keys(keys.tag).exams, keys.ident))
        await self.client.execute_all(commands)

    async def count_silences(self, key: ExamKey, counts: SilenceCounts) -> SilenceCounts | None:
        """Leave this worker's counts and, if it is this worker's turn to sweep the exam, return those of all workers."""
        keys = exam_keys(key)
        now = self._clock.now()
        mine = _Counted(now, counts)
        _, all_counts, elected = await self.client.execute_all(
            [
                ("HSET", keys.counts, self._worker, _json.encode(mine)),
                ("HGETALL", keys.counts),
                ("SET", keys.sweep_lock, self._worker, "NX", "PX", 9_000),
            ]
        )
        if elected is None:
            return None
        total, gone = SilenceCounts(), []
        for worker, stored in zip(all_counts[::2], all_counts[1::2], strict=True):
            counted = _counted_decoder.decode(stored)
            if now - counted.at <= _COUNTS_FRESH_SECONDS:
                total += counted.counts
            else:
                gone.append(worker)
        if gone:
            await self.client.execute("HDEL", keys.counts, *gone)
        return total

    async def publish(self, key: ExamKey, frames: Sequence[bytes]) -> None:
        """See `Broker`."""
        payload = b"\n".join((self._header(key), b"", *frames))
        await self.client.execute(self._publish, exam_keys(key).channel, payload)

    # --- workers ---

    async def to_worker(self, worker: str, key: ExamKey, message: bytes) -> None:
        """See `Broker`."""
        await self.client.execute(self._publish, partition_keys(exam_keys(key).tag).worker(worker), message)

    async def is_alive(self, worker: str) -> bool:
        """See `Broker`."""
        if worker == self._worker:
            return True
        try:
            async with asyncio.timeout(_ASIDE_SECONDS if self._is_cluster else None):
                return bool(await self.client.execute("EXISTS", worker_lease(worker)))
        except TimeoutError:
            raise RedisOutcomeUnknown("the node that has this worker's lease is silent") from None

    async def renew_lease(self) -> None:
        """Say that this worker is alive, for three seconds."""
        await self.client.execute("SET", worker_lease(self._worker), self.lease(), "EX", WORKER_LEASE_SECONDS)

    async def others_lack(self, lives: frozenset[str]) -> bool:
        """Whether a worker that lives has yet to write back to one of these servers."""
        names = await self.client.scan(WORKER_LEASES + "*")
        leases = await self.client.pipeline([("GET", name) for name in names])
        return any(lacks(lease, lives) for lease in leases if isinstance(lease, bytes))

    async def end_lease(self) -> None:
        """Say that this worker is gone."""
        await self.client.execute("DEL", worker_lease(self._worker))

    async def revocations(self) -> dict[bytes, bytes]:
        """What `admin revoke` wrote: revocations as `access` encodes them, each with the moment until which it holds."""
        stored = await self.client.execute("HGETALL", REVOKED)
        return dict(zip(stored[::2], stored[1::2], strict=True))

    async def restore_revocations(self, known: Iterable[tuple[bytes, float]]) -> None:
        """Write back those that a Redis which came back empty has lost."""
        await self.client.execute_all([("HSETNX", REVOKED, field, until) for field, until in known])

    async def memory_seconds(self) -> float:
        """For how long Redis remembers: since it, or any node of a cluster, was empty, as far as any worker noticed.

        In a cluster each partition says so for itself, because they may be on different nodes by the next time.
        """
        now = self._clock.now()
        tags = [partition.tag for partition in all_partitions()] if self._is_cluster else [""]
        names = [tag + MEMORY_SINCE for tag in tags]
        await self.client.execute_all([("SET", name, repr(now), "NX") for name in names])
        return now - max(float(since) for since in await self.client.execute_all([("GET", name) for name in names]))

    async def journal_behind(self) -> float | None:
        """The time of the oldest entry that has not been carried from Redis; None if nothing waits, or nobody says."""
        oldest = await self.client.execute("GET", JOURNAL_BEHIND)
        return float(oldest) if oldest else None

    async def take_look(self, seconds: float) -> bool:
        """Whether it is this worker's turn to look for what dead workers left behind."""
        return await self.client.execute("SET", "look", self._worker, "NX", "PX", int(seconds * 1000)) is not None

    async def sample_clock(self) -> None:
        """Set the service's clock by Redis."""
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        seconds, micros = await self.client.execute("TIME")
        self._clock.sampled(int(seconds) + int(micros) / 1e6, sent_at, loop.time())


def lacks(lease: bytes, lives: frozenset[str]) -> bool:
    """Whether the worker with this lease says what it has written back to, and that is not all of these servers."""
    try:
        written_back = _lease_decoder.decode(lease).written_back
    except msgspec.MsgspecError:
        return False  # another release's
    return written_back is not None and not lives.issubset(written_back)


class _Lease(Struct):
    """Of what a worker writes into its lease: what is of interest to others."""

    written_back: tuple[str, ...] | None = None


class _Counted(Struct, frozen=True):
    at: float
    counts: SilenceCounts


_json = msgspec.json.Encoder()
_view_decoder = msgspec.json.Decoder(View)
_lease_decoder = msgspec.json.Decoder(_Lease)
_counted_decoder = msgspec.json.Decoder(_Counted)
