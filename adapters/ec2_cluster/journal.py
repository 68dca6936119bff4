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
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import redis
from msgspec import DecodeError, Struct

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.keys import JOURNAL_ASIDE, JOURNAL_BEHIND, all_partitions
from adapters.ec2_cluster.ledger import Ledger, LedgerUnavailableError, ledger_place
from adapters.ec2_cluster.ledger_sqlite import SqliteLedger
from adapters.ec2_cluster.metrics import FigureFile, Figures
from core import journal
from core.journal import Entry

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
