"""Where an agent stands in its two streams, what it has seen, and what it may acknowledge.

No I/O and no clock. An ack is cumulative and means "taken into the bounded queue": of the mail
that waits for a handler beyond that bound nothing is acknowledged, so the hub stops sending.
Positions count per connection; the hub repeats what it has no ack for, and repeats are known by
their ids (docs/protocol.md#frames).
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from atp.errors import SessionTransport
from atp.wire.frames import Ack
from atp.wire.words import ANSWERS, MAIL, Stream

__all__ = ["Inbox"]

BACKLOG_LIMIT: Final = 256  # mail taken and not yet begun; the hub's own window on top
SEEN_LIMIT: Final = 65_536  # ids remembered; the first to expire go first (some 20 MB)

_Id = tuple[str, str]  # sender and message id


@dataclass(slots=True)
class _Position:
    """A stream on this connection: the last place seen, and the last one acknowledged."""

    seen: int | None = None
    acknowledged: int | None = None
    refused: deque[tuple[int, str]] = field(default_factory=deque)


class Inbox:
    """Positions, repeats and acks."""

    def __init__(self, *, backlog_limit: int = BACKLOG_LIMIT, seen_limit: int = SEEN_LIMIT) -> None:
        self._backlog_limit = self._limit = backlog_limit
        self._seen_limit = seen_limit
        self._streams: dict[Stream, _Position] = {}
        self._backlog: deque[tuple[int, _Id]] = deque()  # mail whose handler has not begun
        self._seen: set[_Id] = set()
        self._expiries: list[tuple[float, _Id]] = []  # a heap
        self.open()

    def open(self) -> None:
        """A new connection: positions begin with what it brings."""
        self._streams = {MAIL: _Position(), ANSWERS: _Position()}

    def advance(self, stream: Stream, *, first: int, last: int) -> bool:
        """The places from `first` to `last` are spoken for; whether that is new here.

        Raises `SessionTransport` on a gap before them: going on would acknowledge what never
        came, so the connection must end.
        """
        position = self._streams[stream]
        if position.seen is not None and first > position.seen + 1:
            raise SessionTransport(
                f"stream {stream} went from {position.seen} to {first};"
                " a new connection gets what is missing"
            )
        if position.seen is not None and last <= position.seen:
            return False
        position.seen = last
        return True

    def refuse(self, stream: Stream, seq: int, code: str) -> None:
        """Turn the envelope at `seq` away when the acks get there."""
        self._streams[stream].refused.append((seq, code))

    def remember(self, sender: str, message_id: str, *, expires_at: float, now: float) -> bool:
        """Whether this envelope is new; it is remembered until it expires."""
        key = (sender, message_id)
        if key in self._seen:
            return False
        self._seen.add(key)
        heapq.heappush(self._expiries, (expires_at, key))
        while self._expiries[0][0] <= now or len(self._seen) > self._seen_limit:
            self._seen.discard(heapq.heappop(self._expiries)[1])
            if not self._expiries:
                break
        return True

    def hold(self, seq: int, sender: str, message_id: str) -> None:
        """The mail at `seq` waits for a handler."""
        self._backlog.append((seq, (sender, message_id)))

    def set_taking(self, *, taking: bool) -> None:
        """While not taking, no more mail is acknowledged: the rest stays with the hub."""
        self._limit = self._backlog_limit if taking else 0

    def abandon(self) -> int:
        """No handler will begin any more: what comes again is new. How many had not begun."""
        count = len(self._backlog)
        self._seen.difference_update(key for _, key in self._backlog)
        self._backlog.clear()
        return count

    def begin(self) -> bool:
        """The handler of the longest-waiting mail begins; `True` when that allows a held-up ack."""
        self._backlog.popleft()
        return len(self._backlog) >= self._limit

    def has_acks(self) -> bool:
        """Whether `acks` would give any."""
        return any(
            (self._allowed(stream, position) or 0) > (position.acknowledged or 0)
            for stream, position in self._streams.items()
        )

    def acks(self) -> list[bytes]:
        """The acks to send now: at most one a stream, and one more for each refusal."""
        frames: list[bytes] = []
        for stream, position in self._streams.items():
            upto = self._allowed(stream, position)
            if upto is None or (position.acknowledged or 0) >= upto:
                continue
            last = position.acknowledged or 0
            while position.refused and position.refused[0][0] <= upto:
                last, code = position.refused.popleft()
                frames.append(Ack(stream, last, code).to_bytes())
            if last < upto:
                frames.append(Ack(stream, upto).to_bytes())
            position.acknowledged = upto
        return frames

    def _allowed(self, stream: Stream, position: _Position) -> int | None:
        """The last place of the stream that may be acknowledged, `None` before the first."""
        if stream == ANSWERS or len(self._backlog) <= self._limit:
            return position.seen
        first_held_up, _ = self._backlog[self._limit]
        return None if position.seen is None else min(position.seen, first_held_up - 1)
