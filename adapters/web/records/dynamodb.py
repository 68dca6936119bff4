"""Records in DynamoDB: rows of the journal table, apart by the beginning of their keys, and without an end.

In that table because it is there and lasts (point-in-time recovery, deletion protection), and because both sides have it, so
that an exam which moves keeps its records; the state table is the serverless side's own. Nothing is read or written while
nobody asks: a school that holds no exam pays for storage only.

    r                     SCHOOL                 schools
    r#SCHOOL              exam#QUIZ, key#ID      exams and keys
    r#SCHOOL#QUIZ         line#STUDENT, proctor#ID
    k#DIGEST              key                    where the key with this digest is

Each row has `r`, its record as JSON. The client of AWS is the deployment's: `Table` is what it must do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from adapters.dynamodb_keys import escaped
from adapters.web.records import Assignment, ExamRecord, School, SchoolKey
from core.participant import ExamKey
from core.roster import RosterLine

_T = TypeVar("_T")
_KEY = "key"


class Table(Protocol):
    """A table with the key `pk`, `sk`. Items are as DynamoDB's API has them. May raise `RecordsUnavailable`."""

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        """The item as last written by anyone."""

    def put(self, items: Sequence[dict[str, Any]], *, new: bool | None = None) -> bool:
        """Keep the items in one atomic step. `new`: only if none of them (False: each of them) is there; whether they were kept."""

    def delete(self, pk: str, sk: str) -> bool:
        """Remove an item; whether it was there."""

    def query(self, pk: str, low: str, high: str) -> Iterator[dict[str, Any]]:
        """The items whose `sk` lies between two, both included, in its order, as last written by anyone."""


class _Pointer(Struct, frozen=True):
    school: str
    key_id: str


class DynamoRecords:
    """`Records` over a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def check(self) -> None:
        """See `Records`."""
        self._table.get("r", "-")

    def put_school(self, school: School) -> None:
        """See `Records`."""
        self._table.put([_item("r", escaped(school.school), school)])

    def school(self, school: str) -> School | None:
        """See `Records`."""
        return _read(self._table.get("r", escaped(school)), School)

    def schools(self) -> Iterator[School]:
        """See `Records`."""
        return self._all("r", "", School)

    def add_key(self, key: SchoolKey) -> bool:
        """See `Records`."""
        pointer = _item(f"k#{key.digest}", _KEY, _Pointer(key.school, key.key_id))
        return self._table.put([_item(_school(key.school), f"key#{escaped(key.key_id)}", key), pointer], new=True)

    def put_key(self, key: SchoolKey) -> bool:
        """See `Records`. What shows where it is stays as it was made."""
        return self._table.put([_item(_school(key.school), f"key#{escaped(key.key_id)}", key)], new=False)

    def key_of(self, digest: str) -> SchoolKey | None:
        """See `Records`. Two reads; callers remember the answer for a while."""
        pointer = _read(self._table.get(f"k#{digest}", _KEY), _Pointer)
        if pointer is None:
            return None
        return _read(self._table.get(_school(pointer.school), f"key#{escaped(pointer.key_id)}"), SchoolKey)

    def keys(self, school: str) -> list[SchoolKey]:
        """See `Records`."""
        return list(self._all(_school(school), "key#", SchoolKey))

    def put_exam(self, exam: ExamRecord) -> None:
        """See `Records`."""
        self._table.put([_item(_school(exam.school), f"exam#{escaped(exam.quiz_id)}", exam)])

    def exam(self, key: ExamKey) -> ExamRecord | None:
        """See `Records`."""
        return _read(self._table.get(_school(key.school), f"exam#{escaped(key.quiz_id)}"), ExamRecord)

    def exams(self, school: str, after: str = "") -> Iterator[ExamRecord]:
        """See `Records`."""
        return self._all(_school(school), "exam#", ExamRecord, after)

    def put_lines(self, exam: ExamKey, lines: Sequence[RosterLine]) -> None:
        """See `Records`."""
        for line in lines:
            self._table.put([_item(_exam(exam), f"line#{escaped(str(line.student_id))}", line)])

    def drop_line(self, exam: ExamKey, student_id: str) -> bool:
        """See `Records`."""
        return self._table.delete(_exam(exam), f"line#{escaped(student_id)}")

    def lines(self, exam: ExamKey, after: str = "") -> Iterator[RosterLine]:
        """See `Records`."""
        return self._all(_exam(exam), "line#", RosterLine, after)

    def assign(self, exam: ExamKey, assignment: Assignment) -> None:
        """See `Records`."""
        self._table.put([_item(_exam(exam), f"proctor#{escaped(assignment.proctor_id)}", assignment)])

    def unassign(self, exam: ExamKey, proctor_id: str) -> bool:
        """See `Records`."""
        return self._table.delete(_exam(exam), f"proctor#{escaped(proctor_id)}")

    def assignments(self, exam: ExamKey) -> list[Assignment]:
        """See `Records`."""
        return list(self._all(_exam(exam), "proctor#", Assignment))

    def purge(self, exam: ExamKey) -> int:
        """See `Records`. One request a row."""
        gone = 0
        for item in list(self._table.query(_exam(exam), " ", "~")):
            gone += self._table.delete(item["pk"]["S"], item["sk"]["S"])
        return gone

    def close(self) -> None:
        """See `Records`. The client belongs to the deployment."""

    def _all(self, pk: str, prefix: str, kind: type[_T], after: str = "") -> Iterator[_T]:
        """The records of these keys, from behind the id `after`."""
        low = f"{prefix}{escaped(after)}"
        high = f"{prefix[:-1]}$" if prefix else "\U0010ffff"  # the character after '#'
        for item in self._table.query(pk, low or " ", high):
            if not after or item["sk"]["S"] != low:
                yield msgspec.json.decode(item["r"]["S"], type=kind)


def _item(pk: str, sk: str, record: Struct) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}, "r": {"S": msgspec.json.encode(record).decode()}}


def _read(item: dict[str, Any] | None, kind: type[_T]) -> _T | None:
    return None if item is None else msgspec.json.decode(item["r"]["S"], type=kind)


def _school(school: str) -> str:
    return f"r#{escaped(school)}"


def _exam(exam: ExamKey) -> str:
    return f"r#{escaped(exam.school)}#{escaped(exam.quiz_id)}"
