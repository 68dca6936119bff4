"""The guard against floods: API Gateway has no limit per connection, and each frame is paid for several times.

More than 20 frames a second for 5 seconds end the socket, and its bearer is refused for a minute. Each execution environment counts
for itself, which costs nothing: a flood keeps several of them busy, and each sees enough of it.
"""

from __future__ import annotations

MAX_FRAMES = 100
WINDOW_SECONDS = 5.0
REVOKED_SECONDS = 60.0
_MAX_CONNECTIONS = 2_000


class FloodGuard:
    """Counts the frames of connections, in windows of five seconds."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}

    def exceeded(self, connection: str, at: float) -> bool:
        """Count a frame; True if it is one too many."""
        began_at, count = self._counts.get(connection, (at, 0))
        if not 0 <= at - began_at < WINDOW_SECONDS:
            began_at, count = at, 0
        if len(self._counts) >= _MAX_CONNECTIONS:
            self._counts.clear()
        self._counts[connection] = (began_at, count + 1)
        return count + 1 > MAX_FRAMES
