"""An agent's positions in its two streams, the ids that it has seen, and its acks.

No I/O and no clock. An ack is cumulative and means "taken into the bounded queue". Mail beyond that
bound is not acknowledged, so the hub stops sending. Positions begin anew with each connection. The
hub repeats deliveries without an ack, and repeats are found by their ids (docs/protocol.md#frames).
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

BACKLOG_LIMIT: Final = 256  # acknowledged mail whose handler has not begun
SEEN_LIMIT: Final = 65_536  # remembered ids (about 20 MB); those that expire first are dropped

_Id = tuple[str, str]  # sender and message id


@dataclass(slots=True)
class _Position:
    """A stream on this connection: the last `seq` seen, and the last one acknowledged."""

    seen: int | None = None
    acknowledged: int | None = None
    refused: deque[tuple[int, str]] = field(default_factory=deque)


class Inbox:
    """The positions, remembered ids and acks of one agent."""

    def __init__(self, *, backlog_limit: int = BACKLOG_LIMIT, seen_limit: int = SEEN_LIMIT) -> None:
        self._backlog_limit = self._limit = backlog_limit
        self._seen_limit = seen_limit
        self._streams: dict[Stream, _Position] = {}
        self._backlog: deque[tuple[int, _Id]] = deque()  # mail whose handler has not begun
        self._seen: set[_Id] = set()
        self._expiries: list[tuple[float, _Id]] = []  # a heap
        self.open()

    def open(self) -> None:
        """Begin with a new connection: positions start at its first delivery."""
        self._streams = {MAIL: _Position(), ANSWERS: _Position()}

    def advance(self, stream: Stream, *, first: int, last: int) -> bool:
        """Note the positions `first` to `last`; return whether they are new on this connection.

        Raises `SessionTransport` if there is a gap before them. To go on would acknowledge
        deliveries that never arrived, so the connection must end.
        """
        position = self._streams[stream]
        if position.seen is not None and first > position.seen + 1:
            raise SessionTransport(
                f"stream {stream} jumped from {position.seen} to {first};"
                " a new connection delivers the missing ones"
            )
        if position.seen is not None and last <= position.seen:
            return False
        position.seen = last
        return True

    def refuse(self, stream: Stream, seq: int, code: str) -> None:
        """Refuse the envelope at `seq` with `code`, in its turn among the acks."""
        self._streams[stream].refused.append((seq, code))

    def remember(self, sender: str, message_id: str, *, expires_at: float, now: float) -> bool:
        """Remember an envelope until it expires; return whether it is new."""
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
        """Note that the mail at `seq` waits for a handler."""
        self._backlog.append((seq, (sender, message_id)))

    def set_taking(self, *, taking: bool) -> None:
        """Set whether more mail is acknowledged. Mail without an ack stays with the hub."""
        self._limit = self._backlog_limit if taking else 0

    def abandon(self) -> int:
        """Drop the mail whose handler has not begun, and return how many there were.

        If the hub delivers it again, it counts as new.
        """
        count = len(self._backlog)
        self._seen.difference_update(key for _, key in self._backlog)
        self._backlog.clear()
        return count

    def begin(self) -> bool:
        """Note that the handler of the oldest mail begins; return whether an ack can go now."""
        self._backlog.popleft()
        return len(self._backlog) >= self._limit

    def has_acks(self) -> bool:
        """Return whether `acks` has any to send."""
        return any(
            (self._allowed(stream, position) or 0) > (position.acknowledged or 0)
            for stream, position in self._streams.items()
        )

    def acks(self) -> list[bytes]:
        """Return the acks to send now: at most one for each stream, and one for each refusal."""
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
        """Return the last `seq` of the stream that may be acknowledged, or `None`."""
        if stream == ANSWERS or len(self._backlog) <= self._limit:
            return position.seen
        first_held_up, _ = self._backlog[self._limit]
        return None if position.seen is None else min(position.seen, first_held_up - 1)
