"""How often one key may ask: a token bucket for each, in this process.

On EC2 that is one process an instance; on Lambda one execution environment, beside what API Gateway throttles for all. So the limit
guards against a client that runs wild, and is no quota.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

_MOST_KEYS = 10_000


class RateLimit:
    """`per_second` requests in the long run, `burst` at once. Safe to use from several threads."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_seconds(self, key: str) -> float:
        """Take one request of this key's; 0 if it may be served, else the seconds until it may be sent again."""
        digest, now = hashlib.sha256(key.encode()).digest(), self._clock()
        with self._lock:
            left, at = self._buckets.pop(digest, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_second)
            allowed = left >= 1
            self._buckets[digest] = (left - 1 if allowed else left, now)
            if len(self._buckets) > _MOST_KEYS:
                self._buckets.popitem(last=False)  # the one that has been quiet for longest
        return 0.0 if allowed else (1 - left) / self._per_second
