"""The journal process: carries what must last from the streams in Redis to a table that outlives Redis.

Workers append entries to a stream in the same step that saves a record. This process reads the streams of all partitions as one
consumer group (so that several instances share the work), writes batches to a `Ledger`, and only then takes them off the
stream. An entry written twice is one entry, because its key says which it is. If the ledger is away, entries wait in Redis.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import parse_qsl

import redis
from msgspec import DecodeError, Struct

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.keys import JOURNAL_ASIDE, JOURNAL_BEHIND, all_partitions
from adapters.ec2_cluster.metrics import FigureFile, Figures
from core import journal
from core.journal import AuditPosition, Entry, Position, audited, is_audited, is_conversation
from core.participant import ExamKey

if TYPE_CHECKING:
    from adapters.ec2_cluster.ledger_dynamodb import DynamoLedger

log = logging.getLogger(__name__)

_GROUP = "journal"
_BATCH = 500
_BLOCK_MS = 500
_POLL_SECONDS = 0.25
_RETRY_SECONDS = 1.0
_ABANDONED_MS = 30_000
_LOOK_SECONDS = 2.0
_LEDGER_SECONDS = 2.0  # below the supervisor's patience: a ledger that is away must not look like a process that hangs


class Ledger(Protocol):
    """Where the journal lasts."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Keep the entries; one that is there already stays as it is. Raises if any could not be kept."""

    def of_exam(self, exam: ExamKey) -> list[Entry]:
        """All entries of an exam, oldest first."""

    def timeline(
        self, exam: ExamKey, student_id: str | None, after: Position | None, *, newest_first: bool
    ) -> Iterator[Entry]:
        """Entries behind a position: of one student by version and number, or (None) of all, by student in the order of `place`."""

    def conversation(self, exam: ExamKey, after: Position | None, *, newest_first: bool) -> Iterator[Entry]:
        """The lines of the exam's conversation behind a position, in the order of time."""

    def audit(self, school: str, after: AuditPosition | None, *, newest_first: bool) -> Iterator[Entry]:
        """The lines of the school's audit log behind a position, in the order of time."""

    def purge(self, exam: ExamKey, until: float) -> tuple[int, bool]:
        """Forget an exam, but for the audit log, until this moment of `time.monotonic`: how many items, and whether all."""

    def place(self, position: Position) -> tuple[str, int, int]:
        """Where a position stands in the order of `timeline`."""


def _nothing() -> None:
    """Nobody wants to know."""


class LedgerUnavailableError(Exception):
    """The ledger can't be reached, or takes no more now: the entries wait in Redis."""


class LedgerPlace(Struct, frozen=True):
    """A DynamoDB table as a ledger, written `dynamodb:TABLE?days=180&region=REGION`; without a region it is AWS_REGION's."""

    table: str
    retention_days: float = 180.0
    region: str = ""


def ledger_place(text: str) -> LedgerPlace | None:
    """The table that a `journal` setting names; None if it is the path of a file. Raises ValueError."""
    if not text.startswith("dynamodb:"):
        return None
    table, _, query = text.removeprefix("dynamodb:").partition("?")
    options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    days = float(options.pop("days", 180))
    region = options.pop("region", "")
    if not table or options or not 1 <= days <= 3_650:
        raise ValueError("a DynamoDB journal is written dynamodb:TABLE?days=180&region=REGION, with 1 to 3650 days")
    return LedgerPlace(table, days, region)


class SqliteLedger:
    """A ledger in one file, for one machine and for tests. Several processes may write to it."""

    def __init__(self, path: str | Path) -> None:
        self.on_progress: Callable[[], None] = _nothing
        self._database = sqlite3.connect(path, timeout=_LEDGER_SECONDS, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS journal (school TEXT, quiz_id TEXT, student_id TEXT, version INTEGER, n INTEGER,"
            " entry BLOB, PRIMARY KEY (school, quiz_id, student_id, version, n)) WITHOUT ROWID"
        )
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS conversation (school TEXT, quiz_id TEXT, at REAL, student_id TEXT, version INTEGER,"
            " n INTEGER, entry BLOB, PRIMARY KEY (school, quiz_id, at, student_id, version, n)) WITHOUT ROWID"
        )
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS audit (school TEXT, at REAL, quiz_id TEXT, student_id TEXT, version INTEGER,"
            " n INTEGER, entry BLOB, PRIMARY KEY (school, at, quiz_id, student_id, version, n)) WITHOUT ROWID"
        )

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Ledger`."""
        told = [e for e in entries if e.kind != "audit"]
        rows = [(e.school, e.quiz_id, e.student_id, e.version, e.n, journal.encode(e)) for e in told]
        said = [
            (e.school, e.quiz_id, e.at, e.student_id, e.version, e.n, journal.encode(e))
            for e in entries
            if is_conversation(e)
        ]
        done = [
            (e.school, e.at, e.quiz_id, e.student_id, e.version, e.n, journal.encode(audited(e)))
            for e in entries
            if is_audited(e)
        ]
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany("INSERT OR IGNORE INTO journal VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._database.executemany("INSERT OR IGNORE INTO conversation VALUES (?, ?, ?, ?, ?, ?, ?)", said)
            self._database.executemany("INSERT OR IGNORE INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", done)
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def of_exam(self, exam: ExamKey) -> list[Entry]:
        """See `Ledger`."""
        rows = self._database.execute(
            "SELECT entry FROM journal WHERE school = ? AND quiz_id = ? ORDER BY version, student_id, n", exam
        )
        return [journal.decode(row[0]) for row in rows]

    def timeline(
        self, exam: ExamKey, student_id: str | None, after: Position | None, *, newest_first: bool
    ) -> Iterator[Entry]:
        """See `Ledger`."""
        of_whom, given = ("", ()) if student_id is None else (" AND student_id = ?", (student_id,))
        behind = () if after is None else (after.student_id, after.version, after.n)
        where = f"school = ? AND quiz_id = ?{of_whom}"
        return self._in_order("journal", where, (*exam, *given), ("student_id", "version", "n"), behind, newest_first)

    def conversation(self, exam: ExamKey, after: Position | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ledger`."""
        behind = () if after is None else (after.at, after.student_id, after.version, after.n)
        order = ("at", "student_id", "version", "n")
        return self._in_order("conversation", "school = ? AND quiz_id = ?", exam, order, behind, newest_first)

    def audit(self, school: str, after: AuditPosition | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ledger`."""
        behind = () if after is None else (after.at, after.quiz_id, after.student_id, after.version, after.n)
        order = ("at", "quiz_id", "student_id", "version", "n")
        return self._in_order("audit", "school = ?", (school,), order, behind, newest_first)

    def purge(self, exam: ExamKey, until: float) -> tuple[int, bool]:
        """See `Ledger`. One step, however large."""
        gone = [
            self._database.execute(f"DELETE FROM {table} WHERE school = ? AND quiz_id = ?", exam).rowcount  # noqa: S608  ours
            for table in ("journal", "conversation")
        ]
        return sum(gone), True

    def place(self, position: Position) -> tuple[str, int, int]:
        """See `Ledger`."""
        return position.student_id, position.version, position.n

    def _in_order(
        self,
        table: str,
        where: str,
        given: tuple[str, ...],
        columns: tuple[str, ...],
        behind: tuple[str | int | float, ...],
        newest_first: bool,
    ) -> Iterator[Entry]:
        condition = ""
        if behind:
            condition = f" AND ({', '.join(columns)}) {'<' if newest_first else '>'} ({', '.join('?' * len(behind))})"
        order = ", ".join(f"{column} DESC" if newest_first else column for column in columns)
        rows = self._database.execute(
            f"SELECT entry FROM {table} WHERE {where}{condition} ORDER BY {order}",  # noqa: S608  ours
            (*given, *behind),
        )
        for row in rows:
            yield journal.decode(row[0])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class Backlog(Struct, frozen=True):
    """What waits to be carried: how many saves with entries, and since when (epoch seconds of Redis)."""

    waiting: int
    oldest: float | None


class Carrier:
    """Moves entries from Redis to a ledger, a batch at a time."""

    def __init__(self, client: redis.Redis, ledger: Ledger, consumer: str) -> None:
        self._redis = client
        self._ledger = ledger
        self._consumer = consumer
        self._streams = [partition.journal for partition in all_partitions()]

    def prepare(self) -> None:
        """Make the consumer group on every stream; one that exists is no error. Of a cluster, it also finds where each is."""
        for stream in self._streams:
            try:
                self._redis.xgroup_create(stream, _GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def carry(self, block_ms: int | None = _BLOCK_MS) -> int:
        """Carry one batch; return how many entries that were. Waits up to `block_ms` for the first."""
        if redis_sync.is_cluster(self._redis):
            return self._carry_from_nodes(block_ms)
        fresh = self._redis.xreadgroup(
            _GROUP, self._consumer, dict.fromkeys(self._streams, ">"), count=_BATCH, block=block_ms
        )
        return self._keep(cast(Iterable[Any], fresh))

    def _carry_from_nodes(self, block_ms: int | None) -> int:
        """The same from a cluster, where a command can't ask for streams of several slots, and so can't wait for any of them."""
        carried = 0
        for server, streams in redis_sync.by_server(self._redis, self._streams):
            with server.pipeline(transaction=False) as pipe:
                for stream in streams:
                    pipe.xreadgroup(_GROUP, self._consumer, {stream: ">"}, count=_BATCH)
                read = redis_sync.where_answered(self._redis, pipe.execute(raise_on_error=False))
                carried += self._keep([found for reply in read for found in reply or ()])
        if block_ms and not carried:
            time.sleep(_POLL_SECONDS)
        return carried

    def carry_abandoned(self) -> int:
        """Carry what this consumer, or one that died, had read and not confirmed."""
        carried = 0
        for stream in self._streams:
            own = self._redis.xreadgroup(_GROUP, self._consumer, {stream: "0"}, count=_BATCH)
            carried += self._keep(cast(Iterable[Any], own))
            reply = cast(Any, self._redis.xautoclaim(stream, _GROUP, self._consumer, _ABANDONED_MS, count=_BATCH))
            carried += self._keep([(stream, reply[1])])
        return carried

    def now(self) -> float:
        """Redis time."""
        return redis_sync.server_time(self._redis)

    def look(self) -> Backlog:
        """What waits in all streams; the workers are told since when, because they keep what Redis might lose."""
        with self._redis.pipeline(transaction=False) as pipe:
            for stream in self._streams:
                pipe.xlen(stream)
                pipe.xrange(stream, count=1)
            replies = pipe.execute()
        firsts = [first[0][0] for first in replies[1::2] if first]
        oldest = min((int(entry_id.partition(b"-")[0]) / 1000 for entry_id in firsts), default=None)
        self._redis.set(JOURNAL_BEHIND, "" if oldest is None else repr(oldest))
        return Backlog(sum(replies[0::2]), oldest)

    def _keep(self, read: Iterable[Any]) -> int:
        found = [(stream, messages) for stream, messages in read or () if messages]
        lines = [
            line  # a save appends all its entries at once, one a line
            for _, messages in found
            for _, fields in messages
            if fields
            for line in fields[b"e"].split(b"\n")
        ]
        entries = [entry for line in lines if (entry := self._read(line)) is not None]
        if entries:
            self._ledger.write(entries)
        with self._redis.pipeline(transaction=False) as pipe:
            for stream, messages in found:
                ids = [message_id for message_id, _ in messages]
                pipe.xack(stream, _GROUP, *ids)
                pipe.xdel(stream, *ids)
            pipe.execute()
        return len(entries)

    def _read(self, line: bytes) -> Entry | None:
        """An entry; one that this release can't read is put aside, so that it does not stop all that come after it."""
        try:
            return journal.decode(line)
        except DecodeError as error:
            log.error("an entry can't be read, and was put aside in the list %s: %s", JOURNAL_ASIDE, error)
            self._redis.rpush(JOURNAL_ASIDE, line)
            return None


def open_ledger(ledger: str) -> SqliteLedger | DynamoLedger:
    """The ledger that a `journal` setting names."""
    place = ledger_place(ledger)
    if place is None:
        return SqliteLedger(ledger)
    from adapters.ec2_cluster.ledger_dynamodb import DynamoLedger

    return DynamoLedger(place)


def run(redis_url: str, ledger_path: str, consumer: str, heartbeat: Callable[[], None], file: FigureFile) -> None:
    """The life of the journal process: until SIGTERM or SIGINT, after which what is in Redis is carried first."""
    ending = False

    def end(_signal: int, _frame: object) -> None:
        nonlocal ending
        if ending:
            os._exit(0)
        ending = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    ledger = open_ledger(ledger_path)
    ledger.on_progress = heartbeat
    carrier: Carrier | None = None
    prepared, looked_at, counted_at = False, 0.0, 0.0
    carried = failures = 0
    while True:
        heartbeat()
        try:
            if carrier is None:
                carrier = Carrier(redis_sync.connect(redis_url), ledger, consumer)
            if not prepared:
                carrier.prepare()
                prepared = True
            if time.monotonic() - counted_at > _LOOK_SECONDS:
                backlog = carrier.look()
                counted_at = time.monotonic()
                behind = 0.0 if backlog.oldest is None else max(0.0, carrier.now() - backlog.oldest)
                file.write(
                    Figures(
                        "journal",
                        counters={"journal_carried_total": carried, "journal_failures_total": failures},
                        gauges={"journal_waiting": backlog.waiting, "journal_behind_seconds": behind},
                    )
                )
            if time.monotonic() - looked_at > _ABANDONED_MS / 1000:
                carried += carrier.carry_abandoned()
                looked_at = time.monotonic()
            fresh = carrier.carry(None if ending else _BLOCK_MS)
            carried += fresh
            if not fresh and ending:
                break
        except (*redis_sync.ERRORS, sqlite3.Error, LedgerUnavailableError) as error:
            if ending:
                break  # what is in Redis stays there for the next journal process
            failures += 1
            log.warning("journal: %s", error)
            prepared = False  # a Redis that came back empty has lost the groups
            looked_at = 0.0  # what was read and could not be written is this consumer's, and comes first
            time.sleep(_RETRY_SECONDS)
    ledger.close()
