"""The mail of one agent of the in-process hub: what is delivered, taken and done.

It follows docs/protocol.md#acks, without a database: nothing outlives the process. Mail that an
agent has not handled is delivered again when the agent connects again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from atp.wire.agent_frames import Ack
from atp.wire.frames import Gone
from atp.wire.words import STREAMS, Stream

__all__ = ["MemoryMailbox"]

WINDOW: Final = 256  # docs/protocol.md#acks: deliveries that are sent and not taken
UNDONE_LIMIT: Final = 2048  # docs/protocol.md#acks: places that are sent and not done

Deliver = Callable[[int, int], bytes]  # (seq, attempt) -> the frame of a delivery


@dataclass(slots=True)
class _Places:
    """One stream. `undone` has the deliveries by place; `failures` counts their failed handlers."""

    last: int = 0
    sent: int = 0
    taken: int = 0
    undone: dict[int, Deliver] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)


class MemoryMailbox:
    """The two streams of one agent. Frames go to `send` while it is connected."""

    def __init__(self) -> None:
        self._streams: dict[Stream, _Places] = {stream: _Places() for stream in STREAMS}

    @property
    def undone(self) -> int:
        """The number of deliveries that are not done."""
        return sum(len(places.undone) for places in self._streams.values())

    def open(self) -> None:
        """Begin with a new connection: everything that is not done is delivered again."""
        for places in self._streams.values():
            places.sent = places.taken = min(places.undone, default=places.last + 1) - 1

    def copies(self) -> MemoryMailbox:
        """Return a mailbox for copies of the answers that come from now on, at the same places."""
        copies = MemoryMailbox()
        for stream, places in self._streams.items():
            copies._streams[stream].last = places.last
        return copies

    def put(self, stream: Stream, deliver: Deliver) -> None:
        """Put a delivery at the end of a stream."""
        places = self._streams[stream]
        places.last += 1
        places.undone[places.last] = deliver

    def acknowledge(self, ack: Ack) -> None:
        """Note what the agent has taken, what failed, and what is done or refused."""
        places = self._streams[ack.stream]
        places.taken = max(places.taken, min(ack.seq, places.sent))
        for place, failures in ack.retry:
            if place in places.undone:
                places.failures[place] = max(failures, places.failures.get(place, 0))
        for first, last in ack.done:
            for place in range(first, min(last, places.sent) + 1):
                self._finish(places, place)
        for place, _ in ack.refusals:
            self._finish(places, place)

    def to_send(self) -> Iterator[bytes]:
        """Yield the frames that may be sent now, answers first."""
        for stream, places in self._streams.items():
            while self._has_room(places):
                places.sent += 1
                deliver = places.undone.get(places.sent)
                if deliver is None:  # done on an earlier connection
                    yield Gone(stream, places.sent, places.sent, "delivery.done").to_bytes()
                else:
                    yield deliver(places.sent, places.failures.get(places.sent, 0) + 1)

    def _has_room(self, places: _Places) -> bool:
        return (
            places.sent < places.last
            and places.sent - places.taken < WINDOW
            and len(places.undone) - (places.last - places.sent) < UNDONE_LIMIT
        )

    @staticmethod
    def _finish(places: _Places, place: int) -> None:
        places.undone.pop(place, None)
        places.failures.pop(place, None)
