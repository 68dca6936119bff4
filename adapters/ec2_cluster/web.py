"""The HTTP API on EC2: its ports over the cluster's Redis, and the process that serves it.

A process of its own, because a worker's event loop must not wait for anybody's request. Exams are saved by the same script as the
workers' and reach them through the same channel. A participant whom a worker owns is never written here: memory is the truth there.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import secrets
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TextIO, cast

import msgspec
import redis
import waitress
from msgspec import Struct
from redis.backoff import NoBackoff
from redis.retry import Retry

from adapters.ec2_cluster import redis_sync
from adapters.ec2_cluster.access import Revocations, encode_revocation
from adapters.ec2_cluster.broker import save_exam_arguments
from adapters.ec2_cluster.clock import ServiceClock
from adapters.ec2_cluster.config import PREFIX, SettingsError, read_secrets, without_password
from adapters.ec2_cluster.journal import open_ledger
from adapters.ec2_cluster.keys import (
    MOVE,
    REVOKED,
    REVOKED_CHANNEL,
    all_partitions,
    exam_keys,
    exam_of,
    partition_keys,
    worker_lease,
)
from adapters.ec2_cluster.ledger import Ledger, LedgerUnavailableError, ledger_place
from adapters.ec2_cluster.records import IN_MEMORY, default_place, open_records
from adapters.ec2_cluster.shell import HERE, RETENTION_SECONDS
from adapters.web.app import create_app
from adapters.web.ports import Enrolled, Purged, Removed, Unavailable
from adapters.web.requests import MAX_ROSTER_BODY_BYTES
from adapters.web.settings import (
    WebSettings,
    WebSettingsError,
    read_endpoints,
    read_school_keys,
    read_socket_url,
)
from core import events, journal, participant
from core import exam as exam_record
from core.decide_exam import decide_exam
from core.effects import ScheduleSweep
from core.events import CommandIssued, RosterChanged
from core.exam import Exam, new_exam
from core.identity import Principal
from core.journal import (
    AuditPosition,
    Entry,
    Position,
    audit_position,
    audited,
    is_audited,
    is_conversation,
    position_of,
)
from core.messages import encode_value
from core.migration import Move, decode_move
from core.participant import ExamKey, Home, Participant, ParticipantKey
from core.policy import Policy
from core.revocation import Revocation
from core.roster import RosterLine, enrolled, has_joined, roster_changed
from core.routing import CommandToAll, CommandToSome
from core.snapshot import view

log = logging.getLogger(__name__)

_ATTEMPTS = 12
_CHUNK = 200
_STREAM_CHUNK = 1_000
_TIMEOUT_SECONDS = 2.0
_CLOCK_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 0.5
_MOVE_SECONDS = 2.0


class RedisPorts:
    """`adapters.web.ports.Ports` over Redis. Safe to use from several threads."""

    here: Home = HERE
    policy = Policy()
    max_answer_bytes: int | None = None

    def __init__(self, client: redis.Redis, journal_place: str = "") -> None:
        """`journal_place`: where the cluster's journal is carried to; without one, only what waits in Redis is known."""
        self._redis = client
        self._journal_place = journal_place
        self._ledgers = threading.local()  # a connection of SQLite belongs to its thread
        self._save_exam = redis_sync.script(client, "save_exam.lua")
        self._enroll = redis_sync.script(client, "enroll.lua")
        self._append = redis_sync.script(client, "append.lua")
        self._remove = redis_sync.script(client, "remove.lua")
        self._clock = ServiceClock()
        self._sample_at = 0.0
        self._move: tuple[float, Move | None] = (float("-inf"), None)
        self._origin = f"web{secrets.token_hex(3)}"
        self._published = 0
        self._publishing = threading.Lock()

    def now(self) -> float:
        """Redis time, sampled now and then. While Redis is away the clock goes on."""
        at = time.monotonic()
        if at >= self._sample_at:
            self._sample_at = at + _CLOCK_SECONDS
            try:
                seconds = redis_sync.server_time(self._redis)
            except redis_sync.ERRORS as error:
                log.warning("clock: %s", error)
            else:
                self._clock.sampled(seconds, at, time.monotonic())
        return self._clock.now()

    def check(self) -> None:
        """See `Ports`."""
        with _reaching():
            self._redis.ping()

    def move(self) -> Move | None:
        """See `Ports`."""
        at, move = self._move
        if time.monotonic() - at >= _MOVE_SECONDS:
            with _reaching():
                stored = cast(Any, self._redis.get(MOVE))
            move = None if stored is None else decode_move(stored)
            self._move = (time.monotonic(), move)
        return move

    # --- exams ---

    def load_exam(self, key: ExamKey) -> Exam | None:
        """See `Ports`."""
        with _reaching():
            stored = cast(Any, self._redis.get(exam_keys(key).exam))
        return None if stored is None else exam_record.decode(stored)

    def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry], students: int = 0) -> bool:
        """See `Ports`. An exam of any size is one key."""
        keys, arguments = save_exam_arguments(before, after, entries)
        with _reaching():
            return bool(self._save_exam(keys, arguments) == 1)

    def schedule_sweep(self, effect: ScheduleSweep) -> None:
        """Every worker sweeps the exams that it owns participants of; here is seen to how long Redis keeps a closed one."""
        keys = exam_keys(effect.exam)
        with _reaching(), self._redis.pipeline() as pipe:
            for name in (keys.exam, keys.records, keys.owners, keys.counts, keys.away, keys.shown):
                if effect.action == "start":
                    pipe.persist(name)
                else:
                    pipe.expire(name, RETENTION_SECONDS)
            if effect.action != "start":
                pipe.srem(partition_keys(keys.tag).exams, keys.ident)
            pipe.execute()

    # --- participants ---

    def enroll(self, exam: ExamKey, lines: Sequence[RosterLine], by: str = "api") -> Enrolled:
        """See `Ports`. One script for so many lines at a time."""
        total = Enrolled()
        for start in range(0, len(lines), _CHUNK):
            with _reaching():
                total += self._enroll_chunk(exam, lines[start : start + _CHUNK], by)
        return total

    def _enroll_chunk(self, exam: ExamKey, lines: Sequence[RosterLine], by: str = "api") -> Enrolled:
        keys, now = exam_keys(exam), self.now()
        told: list[tuple[ParticipantKey, RosterChanged]] = []
        stored = cast(Any, self._redis.hmget(keys.records, [str(line.student_id) for line in lines]))
        wanted: list[tuple[bytes | None, Participant]] = []
        for line, known in zip(lines, stored, strict=True):
            before = None if known is None else participant.decode(known)
            after = enrolled(before, exam, line, HERE, now)
            if after is not None:
                wanted.append((known, after))
            elif before is not None and (change := roster_changed(before, line, by, now)) is not None:
                told.append((before.key, change))
        for key, change in told:
            self._put_in_inboxes([key], change)
        if not wanted:
            return Enrolled(changed=len(told), unchanged=len(lines) - len(told))
        arguments: list[str | bytes | int] = []
        for known, after in wanted:
            arguments += (after.student_id, known or b"", participant.encode(after), encode_value(view(after)))
        with self._publishing:  # so that a subscriber sees the numbers in their order
            self._published += 1
            header = f"{self._origin} {self._published}"
            put = cast(
                Any,
                self._enroll((keys.records, keys.owners), (keys.channel, header, len(wanted), *arguments)),
            )
        done = [known for (known, _), is_put in zip(wanted, put, strict=True) if is_put]
        added = sum(known is None for known in done)
        changed = len(done) - added + len(told)
        return Enrolled(added=added, changed=changed, unchanged=len(lines) - added - changed)

    def remove(self, exam: ExamKey, student_id: str) -> Removed:
        """See `Ports`."""
        keys = exam_keys(exam)
        for _ in range(_ATTEMPTS):
            with _reaching():
                stored = cast(Any, self._redis.hget(keys.records, student_id))
                if stored is None:
                    return "unknown"
                owned = self._redis.hexists(keys.owners, student_id)
                if owned or has_joined(participant.decode(stored)):
                    return "joined"
                with self._publishing:
                    names = (keys.records, keys.owners, keys.inbox(student_id))
                    arguments = (keys.channel, student_id, stored, self._origin, self._published)
                    self._published += 3
                    if cast(Any, self._remove(names, arguments)) == 1:
                        return "removed"
        raise Unavailable(f"a record was changed by others {_ATTEMPTS} times in a row")

    def participants(self, exam: ExamKey, after: str = "") -> Iterator[tuple[str, Participant]]:
        """See `Ports`. The position is the student's id; ids are read first, records as they are needed."""
        records = exam_keys(exam).records
        with _reaching():
            stored_ids: list[bytes] = cast(Any, self._redis.hkeys(records))
        student_ids = sorted(student_id for stored in stored_ids if (student_id := stored.decode()) > after)
        for start in range(0, len(student_ids), _CHUNK):
            chunk = student_ids[start : start + _CHUNK]
            with _reaching():
                found = cast(Any, self._redis.hmget(records, chunk))
            for student_id, stored in zip(chunk, found, strict=True):
                if stored is not None:
                    yield student_id, participant.decode(stored)

    def records(self, exam: ExamKey, student_ids: Sequence[str]) -> dict[str, Participant]:
        """See `Ports`."""
        wanted = list(dict.fromkeys(student_ids))
        if not wanted:
            return {}
        with _reaching():
            stored = cast(Any, self._redis.hmget(exam_keys(exam).records, wanted))
        return {who: participant.decode(known) for who, known in zip(wanted, stored, strict=True) if known is not None}

    def command(self, routed: CommandToSome | CommandToAll) -> None:
        """See `Ports`: into the inboxes of the students, whose owners are nudged. Without an owner a worker finds it within 2 s."""
        if isinstance(routed, CommandToSome):
            self._put_in_inboxes(routed.keys, routed.event)
            return
        key, command = routed.exam, routed.event.command
        for _ in range(_ATTEMPTS):
            before = self.load_exam(key)
            exam = before or new_exam(key, HERE, self.now(), self.policy)
            decision = decide_exam(exam, routed.event, self.now())
            if decision.exam is exam or self.save_exam(before, decision.exam, decision.entries):
                break
        else:
            raise Unavailable(f"exam {key.quiz_id} was changed by others {_ATTEMPTS} times in a row")
        with _reaching():
            stored_ids: list[bytes] = cast(Any, self._redis.hkeys(exam_keys(key).records))
        self._put_in_inboxes([ParticipantKey(*key, stored.decode()) for stored in stored_ids], command)

    def _put_in_inboxes(self, keys: Sequence[ParticipantKey], event: CommandIssued | RosterChanged) -> None:
        content = events.encode(event)
        for start in range(0, len(keys), _CHUNK):
            with _reaching(), redis_sync.calling(self._redis) as caller:
                for key in keys[start : start + _CHUNK]:
                    names = exam_keys(key.exam)
                    waiting = (
                        names.inbox(key.student_id),
                        names.owners,
                        partition_keys(names.tag).inboxes,
                        names.records,
                    )
                    arguments = (key.student_id, names.member(key.student_id), f"{names.tag}w:", "1", content)
                    self._append(waiting, arguments, client=caller)

    # --- what a school has ---

    def open_exams(self, school: str) -> list[ExamKey]:
        """See `Ports`. All partitions in one pipeline."""
        with _reaching(), self._redis.pipeline(transaction=False) as pipe:
            for partition in all_partitions():
                pipe.smembers(partition.exams)
            found = [exam_of(ident.decode()) for idents in pipe.execute() for ident in idents]
        return [exam for exam in found if exam.school == school]

    def is_watched(self, exam: ExamKey) -> bool:
        """See `Ports`. A worker is subscribed to an exam while one of its proctors watches it, and for half a minute more."""
        with _reaching():
            return redis_sync.count_listeners(self._redis, exam_keys(exam).channel) > 0

    # --- what lasts ---

    def timeline(
        self, exam: ExamKey, student_id: str | None, after: Position | None, *, newest_first: bool
    ) -> Iterator[Entry]:
        """See `Ports`."""
        with _reaching():
            waiting = [e for e in self._waiting(exam) if student_id is None or e.student_id == student_id]
            ledger = self._ledger()

            def place(entry: Entry) -> tuple[str, int, int]:
                return _place(position_of(entry)) if ledger is None else ledger.place(position_of(entry))

            there = None if after is None else (_place(after) if ledger is None else ledger.place(after))
            lasting = ledger and ledger.timeline(exam, student_id, after, newest_first=newest_first)
            yield from _merged(waiting, lasting or (), place, there, newest_first=newest_first)

    def conversation(self, exam: ExamKey, after: Position | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ports`."""
        with _reaching():
            waiting = [entry for entry in self._waiting(exam) if is_conversation(entry)]
            ledger = self._ledger()
            lasting = ledger and ledger.conversation(exam, after, newest_first=newest_first)
            there = None if after is None else _moment(after)
            yield from _merged(
                waiting, lasting or (), lambda entry: _moment(position_of(entry)), there, newest_first=newest_first
            )

    def audit(self, school: str, after: AuditPosition | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ports`."""
        with _reaching():
            waiting = [
                audited(entry)
                for partition in all_partitions()
                for entry in self._stream(partition.journal)
                if entry.school == school and is_audited(entry)
            ]
            ledger = self._ledger()
            lasting = ledger and ledger.audit(school, after, newest_first=newest_first)
            there = None if after is None else _audited(after)
            yield from _merged(
                waiting, lasting or (), lambda entry: _audited(audit_position(entry)), there, newest_first=newest_first
            )

    def purge(self, exam: ExamKey, seconds: float) -> Purged:
        """See `Ports`. What waits in the stream goes first, so that nobody carries it to the ledger afterwards.

        While a worker has a socket of a student it would save their record once more, when that is closed: so this waits for it.
        """
        keys, until = exam_keys(exam), time.monotonic() + seconds
        while self._is_held(exam):
            if time.monotonic() >= until:
                return Purged(0, False)
            time.sleep(_LOOK_SECONDS)
        partition = partition_keys(keys.tag)
        gone = 0
        with _reaching():
            for message_id, entries in self._messages(partition.journal):
                if entries and all((e.school, e.quiz_id) == exam for e in entries):
                    for entry in filter(is_audited, entries):  # the audit log stays, so it is carried now
                        self._keep_audited(entry)
                    gone += int(cast(Any, self._redis.xdel(partition.journal, message_id)))
            student_ids: list[bytes] = cast(Any, self._redis.hkeys(keys.records))
            for start in range(0, len(student_ids), _CHUNK):
                chunk = [student_id.decode() for student_id in student_ids[start : start + _CHUNK]]
                members = [keys.member(student_id) for student_id in chunk]
                with self._redis.pipeline(transaction=True) as pipe:
                    pipe.hdel(keys.records, *chunk)
                    pipe.delete(*(keys.inbox(student_id) for student_id in chunk))
                    pipe.srem(partition.inboxes, *members)
                    pipe.zrem(partition.deadlines, *members)
                    gone += pipe.execute()[0]
            names = (keys.exam, keys.records, keys.owners, keys.counts, keys.sweep_lock, keys.away, keys.shown)
            gone += int(cast(Any, self._redis.delete(*names)))
            self._redis.srem(partition.exams, keys.ident)
            ledger = self._ledger()
            if ledger is None:
                return Purged(gone, True)
            lasting, done = ledger.purge(exam, until)
            return Purged(gone + lasting, done)

    def _is_held(self, exam: ExamKey) -> bool:
        """Whether a worker that lives has a socket of one of the exam's students."""
        workers = {
            session.connection.partition("/")[0]
            for _, record in self.participants(exam)
            for session in record.sessions
            if session.presence == "connected"
        }
        with _reaching():
            return any(self._redis.exists(worker_lease(worker)) for worker in workers)

    def _keep_audited(self, entry: Entry) -> None:
        """Write a line of the audit log to the ledger now; its other copies go with the purge that follows."""
        ledger = self._ledger()
        if ledger is not None:
            ledger.write([entry])

    def note(self, entry: Entry) -> None:
        """See `Ports`."""
        stream = partition_keys(exam_keys(ExamKey(entry.school, entry.quiz_id)).tag).journal
        with _reaching():
            self._redis.xadd(stream, {"e": journal.encode(entry)})

    def _waiting(self, exam: ExamKey) -> list[Entry]:
        """The exam's entries that the journal process has not carried yet: read first, so that none is missed on its way."""
        stream = partition_keys(exam_keys(exam).tag).journal
        return [e for e in self._stream(stream) if (e.school, e.quiz_id) == exam and e.kind != "audit"]

    def _stream(self, stream: str) -> Iterator[Entry]:
        """All entries that wait in a partition."""
        for _, entries in self._messages(stream):
            yield from entries

    def _messages(self, stream: str) -> Iterator[tuple[str, list[Entry]]]:
        """What waits in a partition: a message is what one save noted."""
        start = "-"
        while True:
            messages = cast(Any, self._redis.xrange(stream, min=start, count=_STREAM_CHUNK))
            for message_id, fields in messages:
                entries = []
                for line in fields[b"e"].split(b"\n"):
                    with contextlib.suppress(
                        msgspec.DecodeError
                    ):  # a later release's: the journal process puts it aside
                        entries.append(journal.decode(line))
                yield message_id.decode(), entries
            if len(messages) < _STREAM_CHUNK:
                return
            start = f"({messages[-1][0].decode()}"

    def _ledger(self) -> Ledger | None:
        if not self._journal_place:
            return None
        known: Ledger | None = getattr(self._ledgers, "ledger", None)
        if known is None:
            known = self._ledgers.ledger = open_ledger(self._journal_place)
        return known

    # --- who reads ---

    def is_revoked(self, principal: Principal) -> bool:
        """See `Ports`."""
        revocations = Revocations()
        with _reaching():
            revocations.replace(cast(Any, self._redis.hgetall(REVOKED)))
        return revocations.refuses(principal, self.now())

    def revoke(self, revocation: Revocation, hours: float) -> None:
        """See `Ports`."""
        with _reaching():
            self._redis.hset(REVOKED, encode_revocation(revocation), repr(self.now() + hours * 3_600))
            redis_sync.publish(self._redis, REVOKED_CHANNEL, "")

    def allow(self, revocation: Revocation) -> None:
        """See `Ports`."""
        with _reaching():
            self._redis.hdel(REVOKED, encode_revocation(revocation))
            redis_sync.publish(self._redis, REVOKED_CHANNEL, "")


def _place(position: Position) -> tuple[str, int, int]:
    return position.student_id, position.version, position.n


def _audited(position: AuditPosition) -> tuple[float, str, str, int, int]:
    return position.at, position.quiz_id, position.student_id, position.version, position.n


def _moment(position: Position) -> tuple[float, str, int, int]:
    return position.at, position.student_id, position.version, position.n


def _merged(
    waiting: Sequence[Entry],
    lasting: Iterable[Entry],
    place: Callable[[Entry], Any],
    there: Any,
    *,
    newest_first: bool,
) -> Iterator[Entry]:
    """What waits and what lasts in one order, each entry once; of what waits only what is behind `there`."""
    known = {(entry.quiz_id, entry.student_id, entry.version, entry.n): entry for entry in waiting}
    ahead = [e for e in known.values() if there is None or (place(e) < there if newest_first else place(e) > there)]
    ahead.sort(key=place, reverse=newest_first)
    rest = (entry for entry in lasting if (entry.quiz_id, entry.student_id, entry.version, entry.n) not in known)
    return heapq.merge(ahead, rest, key=place, reverse=newest_first)


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    """Around calls of Redis."""
    try:
        yield
    except redis_sync.ERRORS as error:
        raise Unavailable(f"redis: {error}") from error
    except (sqlite3.Error, LedgerUnavailableError) as error:
        raise Unavailable(f"journal: {error}") from error


def connect(url: str) -> redis.Redis:
    """A client whose calls end soon, for a URL as `redis_sync.marked` returns it. Raises `SettingsError` if it is none."""
    try:
        return redis_sync.connect(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 1),  # every call here may be made twice
        )
    except ValueError as error:
        raise SettingsError(f"redis_url is {url!r}: {error}") from error


# --- the process ----------------------------------------------------------------------------------------------------------


class WebServerSettings(Struct, frozen=True, kw_only=True):
    """The process that serves the API. `port` 0: a free one. `socket_url`: where this cluster's clients connect.

    `journal`: where the cluster's journal is carried to, as for `serve`; without it, timelines show only the last moments.
    `audience`: as for `serve`; tokens are signed for it. `records`: where schools' keys, exams, rosters and assignments are, a
    database's URL or `dynamodb:TABLE`; without it, beside the journal. `records_secret`: the ARN of the secret with the database's
    password, if it has one.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    threads: int = 8
    redis_url: str
    socket_url: str = "ws://127.0.0.1:8080/ws"
    endpoints: str = ""
    school_keys: str = ""
    audience: str = ""
    journal: str = ""
    records: str = ""
    records_secret: str = ""
    log_level: str = "INFO"


class WebReady(Struct, frozen=True):
    """What the process tells whoever started it."""

    url: str
    port: int
    pid: int


def read_web_settings(
    given: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[WebServerSettings, WebSettings]:
    """Settings from values given on the command line (None: not given), else from the environment: PROCTORWIRE_ and the name, and
    PROCTORWIRE_WEB_HOST, _PORT and _THREADS, so that `serve` may have its own. Raises `SettingsError` naming the setting.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(WebServerSettings):
        name = field.name
        variable = PREFIX + ("WEB_" if name in ("host", "port", "threads") else "") + name.upper()
        value = given.get(name)
        if value is None:
            value = environment.get(variable)
        if value is not None:
            values[name] = value
    if not values.get("redis_url"):
        raise SettingsError("no Redis: give --redis or PROCTORWIRE_REDIS_URL, the one that `proctorwire serve` uses")
    secrets_by_kid = read_secrets(given.get("token_secret"), environment)
    try:
        server = msgspec.convert(values, WebServerSettings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"setting {error}") from error
    if not 0 <= server.port <= 65535:
        raise SettingsError(f"port is {server.port}; it must be between 0 and 65535")
    if not 1 <= server.threads <= 64:
        raise SettingsError(f"threads is {server.threads}; it must be between 1 and 64")
    try:
        ledger_place(server.journal)
    except ValueError as error:
        raise SettingsError(f"journal is {server.journal!r}: {error}") from error
    place = server.records or default_place(server.journal)
    try:
        records = open_records(place, server.records_secret)
    except ValueError as error:
        raise SettingsError(f"records is {server.records!r}: {error}") from error
    try:
        settings = WebSettings(
            # the first key may be made by `proctorwire records key`, if there is somewhere to keep it
            school_keys=read_school_keys(server.school_keys, needed=place == IN_MEMORY),
            records=records,
            token_secrets=secrets_by_kid,
            socket_url=read_socket_url(server.socket_url),
            endpoints=read_endpoints(server.endpoints),
            audience=server.audience,
        )
    except WebSettingsError as error:
        raise SettingsError(str(error)) from error
    return server, settings


def serve(server: WebServerSettings, settings: WebSettings, out: TextIO = sys.stdout, *, as_json: bool = False) -> int:
    """Serve the API until told to end; requests that have begun get 5 s. Raises `SettingsError` for what the user can mend.

    Waitress, because a Network Load Balancer does not buffer: it reads whole requests and sends answers in a loop of its own, so
    that a slow client holds no thread, and bounds both. (Gunicorn's documentation asks for a buffering proxy in front.)
    """
    logging.basicConfig(level=server.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if not server.records and not server.journal:
        log.warning(
            "without records or journal, keys, exams and rosters on record end with this process: give --records"
        )
    sock = _bound(server.host, server.port)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    try:
        client = _connected(server.redis_url)
    except BaseException:
        sock.close()
        raise
    http = waitress.create_server(
        create_app(RedisPorts(client, server.journal), settings),
        sockets=[sock],
        threads=server.threads,
        ident=None,
        max_request_header_size=16 * 1024,
        max_request_body_size=2 * MAX_ROSTER_BODY_BYTES,  # the app refuses sooner, and says why
        channel_timeout=30,
    )
    port: int = sock.getsockname()[1]
    host = f"[{server.host}]" if ":" in server.host else server.host
    ready = WebReady(f"http://{host}:{port}", port, os.getpid())
    if as_json:
        print(msgspec.json.encode(ready).decode(), file=out, flush=True)
    else:
        print(f"serving the API on {ready.url} (Ctrl-C stops)", file=out, flush=True)
    http.run()  # returns after `_end`
    http.close()
    client.close()
    if settings.records is not None:
        settings.records.close()
    return 0


def _connected(url: str) -> redis.Redis:
    """A client of the server or of the cluster that is there, however long that takes; nobody is answered before."""
    told = False
    while True:
        try:
            return connect(redis_sync.marked(url))
        except ValueError as error:
            raise SettingsError(f"redis_url is {without_password(url)!r}: {error}") from error
        except (*redis_sync.ERRORS, OSError) as error:
            if not told:
                log.warning("waiting for redis: %s", error)
            told = True
            time.sleep(_RETRY_SECONDS)


def _bound(host: str, port: int) -> socket.socket:
    """A socket on this port. Raises `SettingsError` if the port is taken."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise SettingsError(f"port {port} on {host} can't be used: {error.strerror}; choose another --port") from error
    return sock


def _end(_signal: int, _frame: object) -> NoReturn:
    """Waitress ends its loop on `SystemExit`, and waits for the requests that have begun."""
    raise SystemExit(0)
