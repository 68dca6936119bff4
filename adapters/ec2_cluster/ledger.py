"""Where the journal lasts: what every ledger does, and how a setting names one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol
from urllib.parse import parse_qsl

from msgspec import Struct

from core.journal import AuditPosition, Entry, Position
from core.participant import ExamKey


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
