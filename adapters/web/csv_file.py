"""CSV that spreadsheets open as what it is: RFC 4180 in UTF-8 with a byte order mark, and no cell that would run as a formula.

The rule is OWASP's ("CSV Injection"): text that begins like a formula gets an apostrophe in front. The dashboard's own exports
(`static/js/csv.js`) follow the same one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

BOM = "\ufeff"
_FORMULA = re.compile("^[\\s\u00a0\ufeff]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]")
_QUOTED = re.compile('[",\r\n;]')


def csv_line(cells: Iterable[object]) -> str:
    """One line with its end."""
    return ",".join(map(_cell, cells)) + "\r\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    text = str(value)
    is_formula = _FORMULA.match(text) is not None
    safe = f"'{text}" if is_formula else text
    return '"' + safe.replace('"', '""') + '"' if is_formula or _QUOTED.search(safe) else safe
