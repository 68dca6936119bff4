"""What a worker remembers of what Redis has confirmed, for Redis may come back without its last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from core.events import CommandIssued
from core.journal import Entry
from core.participant import ExamKey, ParticipantKey

_REMEMBERED_SECONDS = 10.0
_REMEMBERED = 50_000


class Memory:
    """What Redis has confirmed and might still lose: entries that the journal has not carried on, commands just accepted.

    Bounded in time and number. Entries that the journal process is known not to have carried are kept for longer, see `behind`.
    """

    def __init__(self) -> None:
        self.behind: float | None = None
        """The time of the oldest entry that has not been carried, as far as anybody knows."""
        self.away_since: float | None = None
        """Since when Redis, or one of its nodes, has been away: an outage must not outlast what it may have lost."""
        self._entries: deque[tuple[float, ExamKey, Sequence[Entry]]] = deque(maxlen=_REMEMBERED)
        self._commands: deque[tuple[float, ParticipantKey, CommandIssued]] = deque(maxlen=_REMEMBERED)

    def keep_entries(self, now: float, exam: ExamKey, entries: Sequence[Entry]) -> None:
        """Entries that were saved just now."""
        self._entries.append((now, exam, entries))
        self._forget(now)

    def keep_command(self, now: float, key: ParticipantKey, command: CommandIssued) -> None:
        """A command that was appended just now."""
        self._commands.append((now, key, command))
        self._forget(now)

    def entries(self, now: float) -> dict[ExamKey, list[Entry]]:
        """All that are kept, by exam."""
        self._forget(now)
        found: dict[ExamKey, list[Entry]] = {}
        for _, exam, entries in self._entries:
            found.setdefault(exam, []).extend(entries)
        return found

    def commands(self, now: float) -> list[tuple[ParticipantKey, CommandIssued]]:
        """All that are kept, oldest first."""
        self._forget(now)
        return [(key, command) for _, key, command in self._commands]

    def _forget(self, now: float) -> None:
        horizon = (now if self.away_since is None else min(now, self.away_since)) - _REMEMBERED_SECONDS
        while self._commands and self._commands[0][0] < horizon:
            self._commands.popleft()
        if self.behind is not None:
            horizon = min(horizon, self.behind - _REMEMBERED_SECONDS)
        while self._entries and self._entries[0][0] < horizon:
            self._entries.popleft()
