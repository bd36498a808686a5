"""What an agent tells the hub about the places of one stream, on one connection.

No I/O and no clock. `DoneAcks` are for a hub with the feature `done`: they tell what is taken, what
has begun, what failed and what is done (docs/protocol.md#acks). `PlainAcks` are for any other hub:
they acknowledge a place when it and all places before it are done, so nothing is lost there either.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Final

from atp.wire.frames import Ack
from atp.wire.ranges import join_ranges
from atp.wire.words import Stream

__all__ = ["DoneAcks", "PlainAcks", "StreamAcks"]

# The places in each list of one frame: two such frames stay within the 64 KiB that a hub reads of
# other data than envelopes (docs/protocol.md#frames).
PLACES_PER_FRAME: Final = 256
DONE_AT_ONCE: Final = 64  # ranges that are told without waiting for more


class StreamAcks(ABC):
    """The acks of one stream on one connection."""

    def __init__(self, stream: Stream) -> None:
        self._stream: Stream = stream

    @property
    @abstractmethod
    def waiting(self) -> bool:
        """Whether there is anything to tell."""

    @property
    @abstractmethod
    def urgent(self) -> bool:
        """Whether the hub or a handler waits for what there is to tell."""

    @abstractmethod
    def take(self, first: int, last: int) -> None:
        """Note that the places `first` to `last`, which follow what was taken, are taken."""

    @abstractmethod
    def begin(self, place: int) -> None:
        """Note that the handler of a place has begun."""

    @abstractmethod
    def fail(self, place: int, failures: int) -> None:
        """Note how many handlers of a place have failed; it will be handled again."""

    @abstractmethod
    def finish(self, first: int, last: int, code: str = "") -> None:
        """Note that taken places are done; with `code`, that the place `first` is refused."""

    @abstractmethod
    def frames(self) -> list[bytes]:
        """Return the frames to send now. If `waiting` is still true, there are more."""


class DoneAcks(StreamAcks):
    """Acks that tell about single places."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._taken = self._told = 0
        self._begun: dict[int, None] = {}
        self._failures: dict[int, int] = {}
        self._refused: dict[int, str] = {}
        self._done: list[tuple[int, int]] = []

    @property
    def waiting(self) -> bool:
        return self.urgent or bool(self._done)

    @property
    def urgent(self) -> bool:
        news = self._taken > self._told or self._begun or self._failures or self._refused
        return bool(news) or len(self._done) >= DONE_AT_ONCE

    def take(self, first: int, last: int) -> None:
        self._taken = last

    def begin(self, place: int) -> None:
        self._begun[place] = None

    def fail(self, place: int, failures: int) -> None:
        self._begun.pop(place, None)
        self._failures[place] = failures

    def finish(self, first: int, last: int, code: str = "") -> None:
        self._begun.pop(first, None)
        self._failures.pop(first, None)
        if code:
            self._refused[first] = code
        else:
            self._done.append((first, last))

    def frames(self) -> list[bytes]:
        if not self.waiting:
            return []
        # A retry ends what has begun. So if a place has begun again since, that is told later.
        begun = _first(place for place in self._begun if place not in self._failures)
        retry = _first(self._failures)
        refused = _first(self._refused)
        done = join_ranges(self._done)
        frame = Ack(
            self._stream,
            self._taken,
            done=tuple(done[:PLACES_PER_FRAME]),
            begun=tuple(begun),
            retry=tuple((place, self._failures.pop(place)) for place in retry),
            refusals=tuple((place, self._refused.pop(place)) for place in refused),
        )
        self._done = done[PLACES_PER_FRAME:]
        for place in begun:
            del self._begun[place]
        self._told = self._taken
        return [frame.to_bytes()]


class PlainAcks(StreamAcks):
    """Cumulative acks: a place counts as handled, and so do all places before it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._upto: int | None = None  # everything up to here is done
        self._told = 0
        self._finished: list[tuple[int, int, str]] = []  # a heap of what is done beyond
        self._refused: deque[tuple[int, str]] = deque()

    @property
    def waiting(self) -> bool:
        return self._upto is not None and self._upto > self._told

    @property
    def urgent(self) -> bool:
        return self.waiting

    def take(self, first: int, last: int) -> None:
        if self._upto is None:
            self._upto = self._told = first - 1

    def begin(self, place: int) -> None:
        """Such a hub is not told."""

    def fail(self, place: int, failures: int) -> None:
        """Such a hub is not told."""

    def finish(self, first: int, last: int, code: str = "") -> None:
        heapq.heappush(self._finished, (first, last, code))
        while self._finished and self._finished[0][0] <= (self._upto or 0) + 1:
            place, end, refusal = heapq.heappop(self._finished)
            self._upto = max(self._upto or 0, end)
            if refusal:
                self._refused.append((place, refusal))

    def frames(self) -> list[bytes]:
        """Return one ack for each refusal, in order, and one for everything else."""
        if not self.waiting:
            return []
        assert self._upto is not None
        acks = [Ack(self._stream, place, code) for place, code in self._refused]
        if not acks or acks[-1].seq < self._upto:
            acks.append(Ack(self._stream, self._upto))
        self._refused.clear()
        self._told = self._upto
        return [ack.to_bytes() for ack in acks]


def _first(places: Iterable[int]) -> list[int]:
    return [place for _, place in zip(range(PLACES_PER_FRAME), places, strict=False)]
