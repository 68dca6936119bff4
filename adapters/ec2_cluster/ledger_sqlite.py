"""The journal in one file, for one machine and for tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core import journal
from core.journal import AuditPosition, Entry, Position, audited, is_audited, is_conversation
from core.participant import ExamKey

_LEDGER_SECONDS = 2.0  # below the supervisor's patience: a ledger that is away must not look like a process that hangs


def _nothing() -> None:
    """Nobody wants to know."""


class SqliteLedger:
    """A ledger in one file. Several processes may write to it."""

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
