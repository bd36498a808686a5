"""How fast a socket is read, of what no window limits: acks and cancellations.

The event loop parses these bytes while all agents wait. An agent that handles thousands of messages
a second needs less than a quarter of the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Pace"]

BURST_BYTES = 524_288
BYTES_PER_SECOND = 262_144.0  # in the long run (docs/protocol.md#frames)


@dataclass(slots=True)
class Pace:
    """The bytes that one connection may still send at once. `ticks` is a monotonic clock."""

    ticks: Callable[[], float] = time.monotonic
    _left: float = BURST_BYTES
    _counted_at: float | None = field(default=None)

    def spend(self, size: int) -> float:
        """Count `size` bytes that were read; return for how many seconds to read no more."""
        now = self.ticks()
        since = now - (now if self._counted_at is None else self._counted_at)
        self._left = min(BURST_BYTES, self._left + since * BYTES_PER_SECOND) - size
        self._counted_at = now
        return max(0.0, -self._left / BYTES_PER_SECOND)
