"""The service's clock: Redis time, carried on by this process's monotonic clock, so that a wrong wall clock harms nobody."""

from __future__ import annotations

import time
from collections.abc import Callable

_DRIFT = 1e-4  # seconds a second by which two clocks may part between samples: crystals keep to half of it


class ServiceClock:
    """Epoch seconds, the same on every instance to within a round trip to Redis; never goes back.

    Until the first sample it is the wall clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset = time.time() - monotonic()
        self._latest = 0.0
        self._uncertain_seconds = float("inf")
        self._sampled_at = 0.0

    def now(self) -> float:
        """The present moment."""
        moment = self._monotonic() + self._offset
        if moment < self._latest:
            return self._latest
        self._latest = moment
        return moment

    def sampled(self, redis_seconds: float, sent_at: float, received_at: float) -> None:
        """Take over Redis's `TIME`, asked and answered at these moments of the monotonic clock.

        A sample is right to within half its round trip, so that one from a busy moment must not replace a better one, which it does
        not contradict. One that does contradict it is from a Redis with another clock.
        """
        offset = redis_seconds - (sent_at + received_at) / 2
        uncertain = (received_at - sent_at) / 2
        known = self._uncertain_seconds + _DRIFT * (received_at - self._sampled_at)
        if uncertain <= known or abs(offset - self._offset) > uncertain + known:
            self._offset, self._uncertain_seconds, self._sampled_at = offset, uncertain, received_at
