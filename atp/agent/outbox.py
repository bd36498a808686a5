"""What an agent has sent and has no final word on: the same bytes go again until there is one.

No I/O and no clock: `ticks` are seconds of one that only goes forward. At most a window of
envelopes is under way without a receipt; the rest waits here in the order in which it was
submitted (docs/protocol.md#frames).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from atp.wire.frames import Receipt

__all__ = ["Outbox"]

TRY_AGAIN: Final = frozenset({"throttled", "busy"})  # docs/protocol.md#frames: leave no id behind
RETRY_AFTER_SECONDS: Final = 1.0  # where such a receipt does not say


class Outbox:
    """Envelopes without a receipt, by message id, in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, bytes] = {}
        self._due: dict[str, float] = {}  # when those that were told to wait may go again
        self._queue: deque[str] = deque()  # to be sent; may name what was given up meanwhile
        # What is under way counts against the window even when its sender gave up: the hub
        # counts it, too, until its receipt comes.
        self._under_way: set[str] = set()
        self._window = 0  # nothing goes while there is no connection

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, message_id: str, data: bytes) -> None:
        """Take an envelope, to be sent in its turn."""
        self._waiting[message_id] = data
        self._queue.append(message_id)

    def forget(self, message_id: str) -> None:
        """Its sender no longer wants to know; it is not sent again."""
        self._waiting.pop(message_id, None)
        self._due.pop(message_id, None)

    def open(self, window: int) -> None:
        """A new connection: whatever has no receipt goes (again), in order."""
        self._window = window
        self._under_way.clear()
        self._queue = deque(key for key in self._waiting if key not in self._due)

    def close(self) -> None:
        """The connection is gone."""
        self._window = 0
        self._under_way.clear()

    def settle(self, receipt: Receipt, *, ticks: float) -> bool:
        """Note a receipt; `False` when no caller waits for it."""
        self._under_way.discard(receipt.message_id)
        if receipt.message_id not in self._waiting:
            return False
        if receipt.status in TRY_AGAIN:
            after = receipt.retry_after
            wait = RETRY_AFTER_SECONDS if after is None else after
            self._due[receipt.message_id] = ticks + wait
        else:
            self.forget(receipt.message_id)
        return True

    def next_due(self) -> float | None:
        """When the first of those that were told to wait may go again."""
        return min(self._due.values(), default=None)

    def take(self, *, ticks: float) -> list[bytes]:
        """What may be sent now; it counts as under way from here on."""
        for message_id in [key for key, due in self._due.items() if due <= ticks]:
            del self._due[message_id]
            self._queue.append(message_id)
        taken: list[bytes] = []
        while self._queue and len(self._under_way) < self._window:
            message_id = self._queue.popleft()
            data = self._waiting.get(message_id)
            if data is not None:
                self._under_way.add(message_id)
                taken.append(data)
        return taken
