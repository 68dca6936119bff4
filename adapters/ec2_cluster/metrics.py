"""What an instance measures about itself, and how it is told: Prometheus's text format, and CloudWatch's embedded metric format.

Each process writes what it has counted into a file of its own, once a second and in one step; whoever is asked adds the files
up. So no event loop ever waits for a scrape, a process that hangs does not hang the others' figures, and counts of a process that
died stay. Names are in `_HELP`; figures about one moment (gauges) count only while their process writes.
"""

from __future__ import annotations

import bisect
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_FRESH_SECONDS = 10.0
_EMF_NAMESPACE = "Proctorwire"

_HELP = {
    "connections": "Open WebSocket connections, by role.",
    "messages_total": "Messages received from clients.",
    "reports_total": "Status reports received.",
    "deliveries_total": "Frames sent to proctors.",
    "opened_total": "Connections opened.",
    "closed_total": "Connections closed, by close code; `other` are codes of 3000 and more that a peer made up.",
    "refused_total": "Handshakes refused, by HTTP status; tls: that of TLS failed.",
    "dropped_total": "What was dropped: too_fast, too_big messages; slow, dead connections; conflated views, lagging updates.",
    "slowed_total": "Times that updates for a proctor whose socket was backed up were put further apart.",
    "slowed": "Proctors whose updates are further apart now.",
    "errors_total": "Errors of ours: see the log.",
    "exams": "Exams with participants owned here.",
    "participants": "Participants owned here.",
    "save_seconds": "From a change to its save in Redis, which is when its ack goes out.",
    "delivery_seconds": "From the oldest report in a publication to its write to a proctor's socket.",
    "publication_seconds": "From publishing to hearing it, through Redis.",
    "loop_lag_seconds": "How late the event loop was.",
    "redis_connected": "Workers with a connection to Redis.",
    "redis_gaps_total": "Times that publications may have been lost, and exams were read again.",
    "holes_total": "Publications missed, found by their numbers.",
    "unsaved": "Participants changed and not yet saved.",
    "journal_waiting": "Saves whose entries wait in Redis for the journal process.",
    "journal_behind_seconds": "How long the oldest of these has waited.",
    "journal_carried_total": "Entries carried to the ledger.",
    "journal_failures_total": "Times that the ledger or Redis could not be reached.",
    "restarts_total": "Processes that were started again.",
    "workers": "Workers that write figures.",
    "memory_bytes": "Resident memory.",
    "open_files": "Open file descriptors.",
    "cpu_seconds_total": "Processor time used.",
}


class Histogram(Struct):
    """Observations by upper bound (`BOUNDS`, then infinity)."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count one, or the same several times."""
        self.counts[bisect.bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times

    def add(self, other: Histogram) -> None:
        """Count another process's too."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def quantile(self, share: float) -> float:
        """The bound below which this share lies; 0 without observations."""
        wanted, seen = share * sum(self.counts), 0
        if not wanted:
            return 0.0
        for bound, count in zip((*BOUNDS, math.inf), self.counts, strict=True):
            seen += count
            if seen >= wanted:
                return bound
        return math.inf


class Figures(Struct):
    """What one process has counted. A name may carry a label: `closed_total{code="1000"}`."""

    role: str
    at: float = 0.0
    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Figures).decode


class FigureFile:
    """Where one process writes its figures."""

    def __init__(self, folder: str, name: str) -> None:
        self._path = Path(folder) / f"{name}.json"
        self._draft = Path(folder) / f".{name}.draft"

    def write(self, figures: Figures) -> None:
        """Replace what was there, in one step. A folder that is gone, or full, is no reason to stop."""
        figures.at = time.time()
        pid = os.getpid()
        figures.gauges["memory_bytes"] = _memory_bytes(pid)
        figures.gauges["open_files"] = _open_files(pid)
        figures.counters["cpu_seconds_total"] = time.process_time()
        try:
            self._draft.write_bytes(_encode(figures))
            self._draft.replace(self._path)
        except OSError:
            return


def collect(folder: str) -> Figures:
    """All figures of an instance, added up: counts of all processes there were, gauges of those that live."""
    whole = Figures("instance")
    counters: defaultdict[str, float] = defaultdict(float)
    gauges: defaultdict[str, float] = defaultdict(float)
    now = time.time()
    for path in sorted(Path(folder).glob("*.json")):
        try:
            one = _decode(path.read_bytes())
        except (OSError, msgspec.DecodeError):
            continue
        role = f'{{process="{one.role}"}}'
        for name, value in one.counters.items():
            counters[name + role if name == "cpu_seconds_total" else name] += value
        for name, histogram in one.histograms.items():
            whole.histograms.setdefault(name, Histogram()).add(histogram)
        if now - one.at <= _FRESH_SECONDS:
            for name, value in one.gauges.items():
                gauges[name + role if name in ("memory_bytes", "open_files") else name] += value
            gauges["workers"] += one.role == "worker"
    whole.counters, whole.gauges, whole.at = dict(counters), dict(gauges), now
    return whole


def exposition(figures: Figures) -> str:
    """Prometheus's text format, version 0.0.4."""
    lines: list[str] = []
    for kind, values in (("counter", figures.counters), ("gauge", figures.gauges)):
        for name, members in _by_name(values):
            lines += _header(name, kind)
            lines += [f"proctorwire_{member} {_number(value)}" for member, value in members]
    for name, histogram in sorted(figures.histograms.items()):
        lines += _header(name, "histogram")
        count = 0
        for bound, more in zip((*BOUNDS, math.inf), histogram.counts, strict=True):
            count += more
            lines.append(f'proctorwire_{name}_bucket{{le="{"+Inf" if bound == math.inf else f"{bound:g}"}"}} {count}')
        lines += [f"proctorwire_{name}_sum {_number(histogram.total)}", f"proctorwire_{name}_count {count}"]
    return "\n".join(lines) + "\n"


class EmfSettings(Struct, frozen=True):
    """What of a line is made into metrics, each of which CloudWatch bills by the month; the rest stays in the line, to be searched.

    `metrics` are names as in the line (empty: all). With a `group`, values of all its instances go into the same metrics, with
    that one dimension; without one, each instance has metrics of its own, and there are those of all instances of the account.
    """

    file: str
    group: str = ""
    metrics: tuple[str, ...] = ()


def is_emf_name(name: str) -> bool:
    """Whether a figure may have this name in a line: `reports_total`, `closed_total_4108` (with its label), `save_p95`."""
    plain, _, share = name.rpartition("_p")
    if share in ("50", "95", "99") and f"{plain}_seconds" in _HELP:
        return True
    return any(name == known or name.startswith(known + "_") for known in _HELP)


def emf(before: Figures, now: Figures, instance: str, settings: EmfSettings) -> bytes:
    """One line of CloudWatch's embedded metric format: gauges as they are, counts since `before`, quantiles in milliseconds."""
    values: dict[str, float] = {}
    units: dict[str, str] = {}
    for name, value in now.gauges.items():
        values[_plain(name)] = value
        units[_plain(name)] = "Bytes" if "bytes" in name else "Seconds" if "seconds" in name else "None"
    for name, value in now.counters.items():
        plain = _plain(name)
        values[plain] = max(0.0, value - before.counters.get(name, 0.0))
        units[plain] = "Seconds" if "seconds" in name else "Count"
    for name, histogram in now.histograms.items():
        since = Histogram(list(histogram.counts))
        if name in before.histograms:
            since.counts = [max(0, a - b) for a, b in zip(since.counts, before.histograms[name].counts, strict=True)]
        for share in (50, 95, 99):
            plain = f"{name.removesuffix('_seconds')}_p{share}"
            values[plain] = min(since.quantile(share / 100), 2 * BOUNDS[-1]) * 1000
            units[plain] = "Milliseconds"
    chosen = settings.metrics or sorted(values)
    described = [{"Name": name, "Unit": units[name]} for name in chosen if name in values]
    line = {
        "_aws": {
            "Timestamp": int(now.at * 1000),
            "CloudWatchMetrics": [
                {
                    "Namespace": _EMF_NAMESPACE,
                    "Dimensions": [["Group"]] if settings.group else [["Instance"], []],
                    "Metrics": described[start : start + 100],
                }
                for start in range(0, len(described), 100)
            ],
        },
        "Instance": instance,
        **({"Group": settings.group} if settings.group else {}),
        **values,
    }
    return msgspec.json.encode(line)


def labelled(counted: Mapping[str, int], prefix: str, name: str, label: str) -> Iterable[tuple[str, float]]:
    """Counts whose names begin with a prefix, as counts of one name with a label."""
    for key, value in counted.items():
        if key.startswith(prefix):
            yield f'{name}{{{label}="{key.removeprefix(prefix)}"}}', value


def _by_name(values: Mapping[str, float]) -> list[tuple[str, list[tuple[str, float]]]]:
    found: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for member, value in sorted(values.items()):
        found[member.partition("{")[0]].append((member, value))
    return sorted(found.items())


def _header(name: str, kind: str) -> list[str]:
    return [f"# HELP proctorwire_{name} {_HELP[name]}", f"# TYPE proctorwire_{name} {kind}"]


def _number(value: float) -> str:
    """All of its digits: of a counter that lost some, a rate would be taken from steps."""
    return str(int(value)) if value == int(value) else repr(value)


def _plain(name: str) -> str:
    """A name without braces: `closed_total{code="1000"}` is `closed_total_1000`."""
    name, brace, rest = name.partition("{")
    return f"{name}_{rest.partition(chr(34))[2].partition(chr(34))[0]}" if brace else name


def _memory_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
