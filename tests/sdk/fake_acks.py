"""What the fake hub knows of one agent's acks with the feature `done` (docs/protocol.md#acks)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from atp.wire.agent_frames import Ack
from atp.wire.words import STREAMS, Stream

WINDOW = 256  # sent and not taken
UNDONE = 2048  # sent and not done
MOST_FAILURES = 5

Place = tuple[Stream, int]


@dataclass
class DoneBook:
    """The places of an agent: what it has taken, begun, failed and done beyond the last ack.

    `acked` is up to where everything is done, `pushed` what was sent on this connection.
    """

    acked: Counter[Stream]
    pushed: Counter[Stream]
    taken: Counter[Stream] = field(default_factory=Counter)
    beyond: dict[Stream, set[int]] = field(default_factory=lambda: {s: set() for s in STREAMS})
    begun: set[Place] = field(default_factory=set)
    failures: Counter[Place] = field(default_factory=Counter)
    refused: list[tuple[Stream, int, str]] = field(default_factory=list)
    most_begun: int = 0  # at once, on any connection
    acks: list[Ack] = field(default_factory=list)

    def open(self) -> None:
        """Begin with a new connection."""
        self.taken = self.acked.copy()
        self.begun.clear()

    def note(self, ack: Ack) -> list[str]:
        """Note an ack; return its faults."""
        self.acks.append(ack)
        stream, sent = ack.stream, self.pushed[ack.stream]
        told = [ack.seq, *ack.begun, *(place for place, _ in (*ack.retry, *ack.refusals))]
        told += [last for _, last in ack.done]
        self.taken[stream] = max(self.taken[stream], ack.seq)
        for place in ack.begun:
            self.begun.add((stream, place))
        self.most_begun = max(self.most_begun, len(self.begun))
        for place, failures in ack.retry:
            self.begun.discard((stream, place))
            self.failures[stream, place] = max(failures, self.failures[stream, place])
        for place, code in ack.refusals:
            self.refused.append((stream, place, code))
            self._finish(stream, place)
        for first, last in ack.done:
            for place in range(first, last + 1):
                self._finish(stream, place)
        return [f"{place} of {stream} before it was delivered" for place in told if place > sent]

    def break_off(self) -> None:
        """Charge what had begun: the agent's socket ended without a close frame."""
        for place in self.begun:
            self.failures[place] += 1
        self.begun.clear()

    def has_room(self, stream: Stream) -> bool:
        undone = self.pushed[stream] - self.acked[stream] - len(self.beyond[stream])
        return self.pushed[stream] - self.taken[stream] < WINDOW and undone < UNDONE

    def is_done(self, stream: Stream, place: int) -> bool:
        return place <= self.acked[stream] or place in self.beyond[stream]

    def undone(self, stream: Stream) -> Iterator[int]:
        """Yield the places that were sent and are not done."""
        places = range(self.acked[stream] + 1, self.pushed[stream] + 1)
        return (place for place in places if place not in self.beyond[stream])

    def _finish(self, stream: Stream, place: int) -> None:
        self.begun.discard((stream, place))
        if place <= self.acked[stream]:
            return
        beyond = self.beyond[stream]
        beyond.add(place)
        while self.acked[stream] + 1 in beyond:
            self.acked[stream] += 1
            beyond.remove(self.acked[stream])
