"""The envelopes of an agent without a final receipt. The same bytes are sent until it arrives.

No I/O and no clock: `ticks` are the seconds of a monotonic clock. At most a window of envelopes is
under way without a receipt. The others wait here, in the order of `submit`
(docs/protocol.md#frames).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from atp.wire.frames import Receipt

__all__ = ["Outbox"]

# docs/protocol.md#frames: after these, the same message id may be sent again
TRY_AGAIN: Final = frozenset({"throttled", "busy"})
RETRY_AFTER_SECONDS: Final = 1.0  # the default, if such a receipt has no retryAfter


class Outbox:
    """Envelopes without a receipt, by message id, in order."""

    def __init__(self) -> None:
        self._waiting: dict[str, bytes] = {}
        self._due: dict[str, float] = {}  # when an envelope that was told to wait may go again
        self._queue: deque[str] = deque()  # to be sent; may hold ids that `forget` removed
        # An envelope under way counts against the window also after `forget`, because the hub
        # counts it too until its receipt.
        self._under_way: set[str] = set()
        self._sent: set[str] = set()  # waiting envelopes that went to the hub at least once
        self._window = 0  # without a connection, nothing is sent

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, message_id: str, data: bytes) -> None:
        """Queue an envelope; do nothing if it waits already."""
        if message_id not in self._waiting:
            self._waiting[message_id] = data
            self._queue.append(message_id)

    def forget(self, message_id: str) -> None:
        """Stop sending an envelope, because its caller stopped waiting."""
        self._waiting.pop(message_id, None)
        self._due.pop(message_id, None)
        self._sent.discard(message_id)

    def was_sent(self, message_id: str) -> bool:
        """Whether a waiting envelope went to the hub, so that it may arrive there."""
        return message_id in self._sent

    def is_under_way(self, message_id: str) -> bool:
        """Whether an envelope went to the hub on this connection, and has no receipt."""
        return message_id in self._under_way

    def waits(self, message_id: str) -> bool:
        """Whether an envelope has no final receipt, and was not forgotten."""
        return message_id in self._waiting

    def open(self, window: int) -> None:
        """Begin with a new connection: queue all envelopes without a receipt, in order."""
        self._window = window
        self._under_way.clear()
        self._queue = deque(key for key in self._waiting if key not in self._due)

    def close(self) -> None:
        """Note that the connection was lost."""
        self._window = 0
        self._under_way.clear()

    def settle(self, receipt: Receipt, *, ticks: float) -> bool:
        """Note a receipt; return whether a caller waits for it."""
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

    @property
    def wants_to_send(self) -> bool:
        """Whether envelopes may go now, or wait until they may."""
        return bool(self._due) or (bool(self._queue) and len(self._under_way) < self._window)

    def next_due(self) -> float | None:
        """Return the tick at which the next waiting envelope may be sent, or `None`."""
        return min(self._due.values(), default=None)

    def take(self, *, ticks: float) -> list[bytes]:
        """Return the envelopes to send now, and count them as under way."""
        for message_id in [key for key, due in self._due.items() if due <= ticks]:
            del self._due[message_id]
            self._queue.append(message_id)
        taken: list[bytes] = []
        while self._queue and len(self._under_way) < self._window:
            message_id = self._queue.popleft()
            data = self._waiting.get(message_id)
            if data is not None and message_id not in self._under_way:
                self._under_way.add(message_id)
                self._sent.add(message_id)
                taken.append(data)
        return taken
