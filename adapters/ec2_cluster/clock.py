"""The service's clock: Redis time, carried on by this process's monotonic clock, so that a wrong wall clock harms nobody."""

from __future__ import annotations

import time
from collections.abc import Callable


class ServiceClock:
    """Epoch seconds, the same on every instance to within a round trip to Redis; never goes back.

    Until the first sample it is the wall clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = time.time() - monotonic()
        self._latest = 0.0

    def now(self) -> float:
        """The present moment."""
        moment = self._monotonic() + self._offset
        if moment < self._latest:
            return self._latest
        self._latest = moment
        return moment

    def sampled(self, redis_seconds: float, sent_at: float, received_at: float) -> None:
        """Take over Redis's `TIME`, asked and answered at these moments of the monotonic clock."""
        self._offset = redis_seconds - (sent_at + received_at) / 2
