"""The HTTP API on Lambda: its ports over the tables and the shell, and the function behind an HTTP API of API Gateway.

serverless-wsgi turns an event (payload format 2.0 or 1.0, or a load balancer's) into a WSGI request. The stage is expected to be
`$default`: a named one would stand in front of every path. This function needs the message function's rights, because whoever
watches an exam is told of new students, and whoever opens one starts its sweeps.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import serverless_wsgi
from flask import Flask
from msgspec.structs import replace

from adapters.lambda_apigw.aws_http import AwsError
from adapters.lambda_apigw.config import ConfigError, Settings
from adapters.lambda_apigw.handler import Application, application
from adapters.lambda_apigw.history import History
from adapters.lambda_apigw.ports import SweepTicket
from adapters.lambda_apigw.records import RecordsTable
from adapters.lambda_apigw.rights import DECIDES, Right, may, queues
from adapters.lambda_apigw.shell import HERE, Outbox
from adapters.lambda_apigw.tokens import keys, school_keys
from adapters.web import problems
from adapters.web.app import create_app
from adapters.web.ports import BadPosition, Enrolled, Purged, Removed, Unavailable
from adapters.web.records.dynamodb import DynamoRecords
from adapters.web.settings import (
    WebSettings,
    WebSettingsError,
    read_endpoints,
    read_school_keys,
    read_socket_url,
)
from core.effects import ScheduleSweep
from core.errors import CloseCode, LocalError
from core.exam import Exam
from core.identity import Principal
from core.journal import AuditPosition, Entry, Position
from core.migration import Move
from core.participant import ExamKey, Home, Participant, ParticipantKey
from core.policy import Policy
from core.revocation import Revocation
from core.roster import RosterLine, enrolled, has_joined, roster_changed
from core.routing import CommandToAll, CommandToSome

_ATTEMPTS = 6
serverless_wsgi.TEXT_MIME_TYPES.append(problems.MEDIA_TYPE)  # else its answers would go out in base64


class DynamoPorts:
    """`adapters.web.ports.Ports` over the store, with the shell for what proctors are told and what is swept."""

    here: Home = HERE

    max_answer_bytes: int | None = 4_000_000
    """Lambda answers with 6 MB at most ("Lambda quotas": invocation payload), in JSON and perhaps in base64."""

    def __init__(self, app: Application, policy: Policy | None = None) -> None:
        self.policy = policy or app.settings.policy or Policy()
        self._store = app.store
        self._moves = app.moves
        self._shell = app.shell
        self._subscriptions = app.subscriptions
        self._connections = app.connections
        self._note = app.store.note
        self._clock = time.time
        self._history = History(app.database, app.settings.journal_table, app.store, app.settings.state_table)

    def now(self) -> float:
        """See `Ports`."""
        return self._clock()

    def check(self) -> None:
        """See `Ports`. The cheapest read that needs the table and the right to read it."""
        with _reaching():
            self._store.load_exam(ExamKey("-", "-"))

    def move(self) -> Move | None:
        """See `Ports`."""
        with _reaching():
            return self._moves.recent()

    # --- exams ---

    def load_exam(self, key: ExamKey) -> Exam | None:
        """See `Ports`."""
        with _reaching():
            return self._store.load_exam(key)

    def save_exam(self, before: Exam | None, after: Exam, entries: Sequence[Entry], students: int = 0) -> bool:
        """See `Ports`. Functions that decide by it read it again within seconds."""
        with _reaching():
            return self._store.save_exam(before, after, entries, students)

    def schedule_sweep(self, effect: ScheduleSweep) -> None:
        """Begin the chain of each shard. One that is to stop ends by itself: its ticket went with the save."""
        if effect.action == "start":
            with _reaching():
                for shard in range(self._store.shards(effect.exam)):
                    self._shell.plan_sweep(SweepTicket(effect.exam, shard, 0.0))

    # --- participants ---

    def enroll(self, exam: ExamKey, lines: Sequence[RosterLine], by: str = "api") -> Enrolled:
        """See `Ports`. One or two requests a line; what was saved before a failure stays."""
        total, outbox = Enrolled(), Outbox()
        with _reaching():
            for line in lines:
                total += self._enroll(exam, line, by, outbox)
            self._shell.finish(outbox)
        return total

    def _enroll(self, exam: ExamKey, line: RosterLine, by: str, outbox: Outbox) -> Enrolled:
        key = ParticipantKey(*exam, str(line.student_id))
        before: Participant | None = None  # most are new, so the first look is the write itself
        for _ in range(_ATTEMPTS):
            after = enrolled(before, exam, line, HERE, self._clock())
            if after is None:
                change = None if before is None else roster_changed(before, line, by, self._clock())
                if change is None:
                    return Enrolled(unchanged=1)
                self._shell.apply(key, change, outbox, must_exist=True)
                return Enrolled(changed=1)
            if self._store.save(before, after, ()):
                outbox.publications[exam].views[key] = after
                return Enrolled(added=1) if before is None else Enrolled(changed=1)
            before = self._store.load(key)
        raise Unavailable(f"a record was changed by others {_ATTEMPTS} times in a row")

    def remove(self, exam: ExamKey, student_id: str) -> Removed:
        """See `Ports`."""
        with _reaching():
            for _ in range(_ATTEMPTS):
                record = self._store.load(ParticipantKey(*exam, student_id))
                if record is None:
                    return "unknown"
                if has_joined(record):
                    return "joined"
                if self._store.remove(record):
                    self._shell.show_again(exam)
                    return "removed"
        raise Unavailable(f"a record was changed by others {_ATTEMPTS} times in a row")

    def participants(self, exam: ExamKey, after: str = "") -> Iterator[tuple[str, Participant]]:
        """See `Ports`. The position is shard and student id: within a shard, ids are the table's own order."""
        first, student_id = 0, ""
        if after:
            number, colon, student_id = after.partition(":")
            if not (colon and number.isascii() and number.isdecimal()):
                raise BadPosition(after)
            first = int(number)
        with _reaching():
            for shard in range(first, self._store.shards(exam)):
                for row in self._store.partition(exam, shard, student_id if shard == first else ""):
                    if row.record is not None:
                        yield f"{shard}:{row.key.student_id}", row.record

    def records(self, exam: ExamKey, student_ids: Sequence[str]) -> dict[str, Participant]:
        """See `Ports`. One request a student, so callers ask for a page's at most."""
        with _reaching():
            found = {student_id: self._store.load(ParticipantKey(*exam, student_id)) for student_id in set(student_ids)}
        return {student_id: record for student_id, record in found.items() if record is not None}

    def command(self, routed: CommandToSome | CommandToAll) -> None:
        """See `Ports`."""
        with _reaching():
            self._shell.command(routed)

    # --- what a school has ---

    def open_exams(self, school: str) -> list[ExamKey]:
        """See `Ports`."""
        with _reaching():
            return self._history.open_exams(school)

    def is_watched(self, exam: ExamKey) -> bool:
        """See `Ports`."""
        with _reaching():
            return next(iter(self._subscriptions.subscriptions(exam)), None) is not None

    # --- what lasts ---

    def timeline(
        self, exam: ExamKey, student_id: str | None, after: Position | None, *, newest_first: bool
    ) -> Iterator[Entry]:
        """See `Ports`."""
        with _reaching():
            yield from self._history.timeline(exam, student_id, after, newest_first=newest_first)

    def conversation(self, exam: ExamKey, after: Position | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ports`."""
        with _reaching():
            yield from self._history.conversation(exam, after, newest_first=newest_first)

    def audit(self, school: str, after: AuditPosition | None, *, newest_first: bool) -> Iterator[Entry]:
        """See `Ports`."""
        with _reaching():
            yield from self._history.audit(school, after, newest_first=newest_first)

    def purge(self, exam: ExamKey, seconds: float) -> Purged:
        """See `Ports`. Pages that are still open are hung up on, because a report of theirs would open the exam again."""
        until = self._clock() + seconds
        with _reaching():
            for _, record in self.participants(exam):
                for session in record.sessions:
                    if session.presence == "connected":
                        self._connections.close(session.connection, CloseCode.TOKEN, "the exam's data was deleted")
                if self._clock() >= until:
                    return Purged(0, False)
            return Purged(*self._store.purge(exam, until))

    def note(self, entry: Entry) -> None:
        """See `Ports`."""
        with _reaching():
            self._note(entry)

    def is_revoked(self, principal: Principal) -> bool:
        """See `Ports`."""
        with _reaching():
            return self._subscriptions.is_revoked(principal)

    def revoke(self, revocation: Revocation, hours: float) -> None:
        """See `Ports`. Sockets are closed by the next sweep."""
        with _reaching():
            self._subscriptions.revoke(revocation, hours * 3_600)

    def allow(self, revocation: Revocation) -> None:
        """See `Ports`."""
        with _reaching():
            self._subscriptions.allow(revocation)


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    """Around requests to AWS."""
    try:
        yield
    except (AwsError, OSError, LocalError) as error:
        raise Unavailable(str(error)) from error


def web_settings(settings: Settings) -> WebSettings:
    """The app's settings. Raises ConfigError.

    Without `socket_url`, sockets are where the management API is: on AWS both are the same host and stage.
    """
    scheme, _, rest = settings.management_url.partition("://")
    beside = f"{'ws' if scheme == 'http' else 'wss'}://{rest}" if rest else ""
    try:
        return WebSettings(
            school_keys=read_school_keys(school_keys(settings)),
            token_secrets=keys(settings),
            socket_url=read_socket_url(settings.socket_url or beside),
            endpoints=read_endpoints(settings.endpoints),
            audience=settings.audience,
        )
    except WebSettingsError as error:
        raise ConfigError(str(error)) from error


def web_app(app: Application) -> Flask:
    """The API over an application, with its records in the journal table. Raises ConfigError."""
    records = DynamoRecords(RecordsTable(app.database, app.settings.journal_table))
    return create_app(DynamoPorts(app), replace(web_settings(app.settings), records=records))


@functools.lru_cache(maxsize=1)
def _app(_keys: tuple[object, ...]) -> Flask:
    """The app of this execution environment, made again when keys have changed."""
    return web_app(application())


@may(
    *DECIDES,
    Right("JournalIsRead", ("dynamodb:Query",), ("JournalTable",)),
    Right("RecordsOfSchools", ("dynamodb:GetItem", "dynamodb:DeleteItem"), ("JournalTable",)),
    Right("ExamsAreDeleted", ("dynamodb:BatchWriteItem",), ("StateTable", "JournalTable")),
    Right("Keys", ("secretsmanager:GetSecretValue",), ("TokenSecretArn", "SchoolKeysSecretArn")),
    queues("SweepQueue", "CommandQueue", "ViewsQueue"),
)
def on_request(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """A request from an HTTP API."""
    app = application()
    with app.invocation(context):
        known = (tuple(keys(app.settings).items()), school_keys(app.settings))
        answer: dict[str, Any] = serverless_wsgi.handle_request(_app(known), event, context)
    return answer
