"""How processes of an instance log: as text or as one JSON object a line, and never in a flood.

Who can cause a line can cause thousands. So of lines with the same origin and the same words around their values only the first few
of each minute are written, and the next minute begins with how many were left out.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Literal

import msgspec

LINES_A_MINUTE = 10
_KNOWN_LINES = 1_000
_ANY_OTHER = ("", 0, "")
_VALUES = re.compile(r"0x[0-9a-f]+|\d+")  # asyncio puts the addresses of its objects into the words themselves


class FloodFilter(logging.Filter):
    """Lets the first lines of a kind through each minute."""

    def __init__(self, clock: Any = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._minute = -1
        self._seen: dict[tuple[str, int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it; adds how many of its kind were left out in the minute before."""
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute = minute
            self._seen = {kind: LINES_A_MINUTE - n for kind, n in self._seen.items() if n > LINES_A_MINUTE}
        kind = (record.name, record.lineno, _VALUES.sub("#", str(record.msg)[:200]))
        if len(self._seen) >= _KNOWN_LINES and kind not in self._seen:
            kind = _ANY_OTHER
        count = self._seen.get(kind, 0)
        if count < 0:  # so many were left out
            record.msg = f"{record.msg} ({-count} more of these in the last minute)"
            count = 0
        self._seen[kind] = count + 1
        return count < LINES_A_MINUTE


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, pid, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Log to standard error in this way."""
    handler = logging.StreamHandler()
    handler.addFilter(FloodFilter())
    handler.setFormatter(
        JsonFormatter() if style == "json" else logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
