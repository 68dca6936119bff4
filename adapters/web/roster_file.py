"""A roster as schools have it: a CSV file from a spreadsheet or an LMS, and what is wrong with it, row by row.

Rows are numbered as a spreadsheet shows them: the heading is row 1. All faults are told at once, up to a bound, because a
secretary mends a file once and not once for each fault.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from adapters.web.problems import Problem
from core.roster import RosterLine

MAX_ERRORS = 50
_COLUMNS = ("student_id", "name", "group")


class RowError(Struct, frozen=True):
    """What is wrong in a row: the column, and the fix."""

    row: int
    column: str
    detail: str


def read_roster(content: bytes, most: int) -> list[RosterLine]:
    """The students of a file. Raises `Problem`, with every `RowError` there is, if any row is wrong."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise _wrong([RowError(row, "", "not UTF-8; save the file as CSV UTF-8")]) from error
    heading = text.split("\n", 1)[0]
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=";" if heading.count(";") > heading.count(",") else ",", strict=True
    )
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        _check_heading(names)
        lines, errors = _lines(names, rows)
    except csv.Error as error:
        raise _wrong([RowError(max(rows.line_num, 1), "", f"not CSV: {error}")]) from error
    if not lines and not errors:
        errors = [RowError(2, "student_id", "there are no students; put one on each row below the heading")]
    if len(lines) > most:
        errors = [RowError(most + 2, "", f"more than {most} students; send the rest in another request")]
    if errors:
        raise _wrong(errors)
    return lines


def _check_heading(names: list[str]) -> None:
    errors = [
        RowError(1, name, f"there is no such column; the columns are {', '.join(_COLUMNS)}")
        for name in names
        if name not in _COLUMNS
    ]
    errors += [RowError(1, name, "named twice") for name in _COLUMNS if names.count(name) > 1]
    if "student_id" not in names:
        errors.append(RowError(1, "student_id", "missing; the first row names the columns, and this one is required"))
    if errors:
        raise _wrong(errors)


def _lines(names: list[str], rows: Iterator[list[str]]) -> tuple[list[RosterLine], list[RowError]]:
    lines: list[RosterLine] = []
    errors: list[RowError] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row):
            continue  # spreadsheets leave empty rows at the end
        if len(row) > len(names):
            errors.append(RowError(number, "", f"{len(row)} cells, but {len(names)} columns; quote cells with commas"))
            continue
        cells = {name: cell.strip() for name, cell in zip(names, row, strict=False)}
        student_id = cells.get("student_id", "")
        if not student_id:
            errors.append(RowError(number, "student_id", "empty; each student needs one"))
            continue
        first = seen.setdefault(student_id, number)
        if first != number:
            errors.append(RowError(number, "student_id", f"the same as in row {first}; name each student once"))
            continue
        try:
            lines.append(msgspec.convert(cells, RosterLine))
        except msgspec.ValidationError as error:
            reason, _, path = str(error).partition(" - at ")
            errors.append(RowError(number, path.strip("`").removeprefix("$."), reason[:1].lower() + reason[1:]))
    return lines, errors


def _wrong(errors: list[RowError]) -> Problem:
    first = errors[0]
    where = f"row {first.row}" + (f", {first.column}" if first.column else "")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{where}: {first.detail}{more}; nothing was done"
    return Problem(422, "bad_roster", detail, field=first.column or "body", errors=errors[:MAX_ERRORS])
