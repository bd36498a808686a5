"""The position of one stream on one socket: what is sent, taken, begun and done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from django.conf import settings

from atp.wire.agent_frames import Ack
from atp.wire.ranges import Range
from messaging.mail.acknowledging import MailboxAck
from messaging.mail.attempts import MOST_FAILURES
from messaging.mail.done_places import DonePlaces

MOST_UNDONE = 2048  # places sent and not done, in one stream (docs/protocol.md#acks)


@dataclass(slots=True)
class StreamPosition:
    """How far a stream is written to this socket, and what its agent has told about it.

    All that it holds is about places that were sent and are not done, of which there are at most
    `MOST_UNDONE` and a window.
    """

    sent: int = 0
    taken: int = 0  # acknowledged as taken, and stored
    behind: bool = False  # rows beyond `sent` wait in the database
    reading: bool = False
    done: DonePlaces = field(default_factory=DonePlaces)  # also what is not stored yet
    begun: set[int] = field(default_factory=set)  # places whose handler runs
    acking: bool = False  # an ack waits to be stored
    _heard: int = 0  # the highest ack; acks are cumulative, so it covers the others
    _new: list[Range] = field(default_factory=list)  # told as done, and not stored
    _own: set[int] = field(default_factory=set)  # sent to a session that only sends, and for it
    _refused: dict[int, str] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)  # told, and not stored
    _counted: dict[int, int] = field(default_factory=dict)  # the failures told of open places

    @property
    def window(self) -> int:
        """How many deliveries may be under way that are not taken."""
        window: int = settings.ATP_DELIVERY_WINDOW
        return window

    @property
    def undone(self) -> int:
        """How many places were sent and are not done."""
        return self.sent - self.done.mark - self.done.ahead_count

    @property
    def room(self) -> int:
        """How many more deliveries may be written before the next ack."""
        return max(0, min(self.window - (self.sent - self.taken), MOST_UNDONE - self.undone))

    @property
    def heard_of_late(self) -> int:
        """How many deliveries were acknowledged as taken, and that is not stored."""
        return self._heard - self.taken

    @property
    def has_news(self) -> bool:
        """Whether there is anything to store that was not stored before."""
        return bool(self._heard > self.taken or self._new or self._refused or self._failures)

    def begin(self, done: int) -> None:
        """Begin behind the place up to which everything is done."""
        self.sent = self.taken = done
        self.done = DonePlaces(done)

    def note_sent(self, last: int, done: Iterable[Range] = (), own: Iterable[int] = ()) -> None:
        """Note that the stream is written up to `last`; `done` are places that were done before.

        `own` are those that are for this session, if it only sends.
        """
        self.sent = last
        self._own.update(own)
        for first, end in done:
            self.done.add(first, end)

    def hear(self, ack: Ack) -> None:
        """Note an ack of a session without the feature `done`: what it takes is done.

        An ack beyond what was sent counts up to there; its refusal is ignored.
        """
        if ack.refused and self._is_open(ack.seq):
            self._refused[ack.seq] = ack.refused
        self._heard = max(self._heard, min(ack.seq, self.sent))
        self.done.add(1, self._heard)

    def hear_places(self, ack: Ack) -> None:
        """Note an ack of a session with the feature `done`.

        Places that were not sent, or are done already, are ignored. If one ack tells several
        things about a place, done and refused count most, then failed, then begun.
        """
        self._heard = max(self._heard, min(ack.seq, self.sent))
        self.begun.update(filter(self._is_open, ack.begun))
        for place, failures in ack.retry:
            if self._is_open(place):
                self.begun.discard(place)
                self._count(place, min(failures, MOST_FAILURES))
        for place, code in ack.refusals:
            if self._is_open(place):
                self._refused[place] = code
                self._end(place, place)
        for first, last in ack.done:
            self._end(first, min(last, self.sent))

    def hear_copy(self, ack: Ack, *, places: bool) -> None:
        """Note an ack of a session that only sends. `places` is whether it tells about places.

        What it takes counts for this socket alone. What is done counts for the agent, at the places
        that are for this session; a refusal counts as done, because others may hear the answer.
        """
        self.taken = max(self.taken, min(ack.seq, self.sent))
        refused = ((seq, seq) for seq, _ in ack.refusals)
        for first, last in (*ack.done, *refused) if places else ((1, self.taken),):
            for begin, end in self.done.add(first, min(last, self.sent)):
                self._new += [(seq, seq) for seq in self._take_own(begin, end)]

    def _take_own(self, first: int, last: int) -> list[int]:
        """Return the places of this range that are for this session, and forget them."""
        few = range(first, last + 1) if last - first < len(self._own) else self._own
        found = sorted(seq for seq in few if seq in self._own and first <= seq <= last)
        self._own.difference_update(found)
        return found

    def take_heard(self, key: tuple[str, str, str], *, places: bool) -> list[MailboxAck]:
        """Return the acks to store, and forget them.

        `key` is agent, session and stream; `places` is whether the session tells about places.
        """
        heard, new, self._new = self._heard, self._new, []
        refused, self._refused = self._refused, {}
        failures, self._failures = self._failures, {}
        self.acking = False
        if not places:
            codes = sorted({heard: "", **refused}.items())
            return [MailboxAck(*key, seq, code) for seq, code in codes]
        ack = MailboxAck(*key, heard, done=tuple(new))
        if not refused and not failures:
            return [ack]
        return [replace(ack, refusals=tuple(refused.items()), retries=tuple(failures.items()))]

    def hear_again(self, ack: MailboxAck) -> None:
        """Note an ack once more that could not be stored."""
        self._heard = max(self._heard, ack.seq)
        self._new += ack.done or ()
        self._refused |= ack.refused_places
        for place, failures in ack.retries:
            self._failures[place] = max(failures, self._failures.get(place, 0))

    def _is_open(self, place: int) -> bool:
        return place <= self.sent and place not in self.done

    def _count(self, place: int, failures: int) -> None:
        if failures > self._counted.get(place, 0):
            self._counted[place] = self._failures[place] = failures

    def _end(self, first: int, last: int) -> None:
        for begin, end in self.done.add(first, last):
            self._new.append((begin, end))
            self.begun.difference_update(range(begin, end + 1))
            for place in self._counted.keys() & set(range(begin, end + 1)):
                del self._counted[place]
                if place not in self._refused:
                    self._failures.pop(place, None)
