"""What processes used, read from /proc: processor time and memory, by role."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

_SAMPLE_SECONDS = 1.0


class Samples(Struct, frozen=True):
    """A look each second."""

    cpu_cores: tuple[float, ...] = ()
    memory_bytes: tuple[float, ...] = ()


class ProcessMeter:
    """Watches processes that may come and go; `pids` names them by role. Counts from `start` on.

    The time of a process that has ended counts as it was last seen.
    """

    def __init__(self, pids: Callable[[], Mapping[str, Sequence[int]]]) -> None:
        self._pids = pids
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._roles: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._looks: list[tuple[float, float, float]] = []  # when, CPU seconds of all processes so far, bytes of all
        self.first_memory: dict[str, float] = {}
        """Bytes by role when the watch began."""
        self.highest_memory: dict[str, float] = {}
        """Bytes by role when their sum was highest."""

    def start(self) -> None:
        """Begin to watch: what was used before does not count."""
        self.sample()
        self._looks.clear()
        self._first = dict(self._last)
        self.first_memory = dict(self.highest_memory)
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()

    def sample(self) -> None:
        """Look now."""
        memory: defaultdict[str, float] = defaultdict(float)
        for role, pids in self._pids().items():
            for pid in pids:
                try:
                    self._last[pid] = cpu_seconds(pid)
                    self._roles[pid] = role
                    memory[role] += memory_bytes(pid)
                except (OSError, ValueError):
                    continue  # it ended while we looked
        self._looks.append((time.monotonic(), sum(self._last.values()), sum(memory.values())))
        if sum(memory.values()) >= sum(self.highest_memory.values()):
            self.highest_memory = dict(memory)

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time by role."""
        used: defaultdict[str, float] = defaultdict(float)
        for pid, seconds in self._last.items():
            used[self._roles[pid]] += seconds - self._first.get(pid, 0.0)
        return dict(used)

    def each_second(self) -> Samples:
        """How many cores all processes together kept busy in each second, and how much memory they had at its end."""
        cores: list[float] = []
        kept = self._looks[:1]
        for at, used, memory in self._looks[1:]:
            before, used_before, _ = kept[-1]
            if at - before >= _SAMPLE_SECONDS / 2:  # a look in between counts with the next one
                cores.append((used - used_before) / (at - before))
                kept.append((at, used, memory))
        return Samples(tuple(cores), tuple(memory for _, _, memory in self._looks))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            self.sample()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process. Raises OSError if there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Memory of a process, pages shared with others counted by their share, else all that is resident. Raises OSError."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except PermissionError:
        pass
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> list[int]:
    """The processes that this one started; none if it is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
