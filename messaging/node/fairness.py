"""The order of a lane's items: fair queueing between their owners, whose unit is the lane's time.

Without it, an agent that floods the hub would delay all others. Four rules hold:
1. Of the owners with waiting items, the one that used the least of the lane's time is next
   (start-time fair queueing). An owner that comes, or comes back, is next, and gets no credit for
   the time before.
2. A batch holds at most a slice of one owner's items: 1/16 of it; 1/4 while at most two owners
   were seen for a second (often a pair that asks and answers); and where many have items, 1/8, or
   up to 1/4 if it would not be full otherwise.
3. An owner has items in one batch at a time, so its items are handled in order.
4. If there are more than two places for batches and few owners hold all but one, the last place is
   for owners whose waiting items fit in one slice.

No owner waits while a place for a batch is free, except by rules 3 and 4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

SLICES = 16  # in a batch: an owner that comes waits for the end of one, so slices are short
FEW = 2  # owners, often a pair: a larger slice delays only the other one
SLICES_OF_FEW = 4  # larger ones would not be faster, as nothing is sent meanwhile
MANY = 8  # owners that can fill a batch with their slices
SLICES_OF_MANY = 8  # with 16, many would fill one batch, and leave small parts for the next
BYTE_SLICES = 4  # an owner may have 1/4 of a batch's bytes
SEEN_SECONDS = 1.0  # for so long an owner counts as there
ITEM_BYTES = 4_096  # added to the bytes of an item to get its cost
LIGHT = 64  # an owner that uses at most 1/64 of a whole batch is charged nothing
REMEMBERED = 1_000  # owners; beyond that, those that used no more than others are forgotten


class Slice(NamedTuple):
    """How much of a batch one owner may have."""

    items: int
    size: int  # in bytes


@dataclass(frozen=True, slots=True)
class LaneBatch(Generic[T]):
    """The items taken, and the cost of each owner's items: bytes, and `ITEM_BYTES` an item."""

    items: list[T] = field(default_factory=list)
    costs: dict[str, int] = field(default_factory=dict)


class Turns(Generic[T]):
    """A queue for each owner; times are seconds of the event loop's clock.

    `whose` names the owner of an item. Without it all items have one owner, which may use whole
    batches.
    """

    def __init__(
        self, *, most_items: int, most_bytes: int, whose: Callable[[T], str] | None = None
    ) -> None:
        self._whose = whose
        self._whole = Slice(most_items, most_bytes)
        self._light_cost = (most_items * ITEM_BYTES + most_bytes) // LIGHT
        self._queues: dict[str, deque[tuple[T, int]]] = {}
        self._count = 0
        self._served = 0.0  # seconds of use at which the owner that was served last began
        self._used: dict[str, float] = {}  # seconds of use by owner, if more than `_served`
        self._under_way: dict[str, float] = {}  # by owner: its seconds of use before the batch
        self._seen: dict[str, float] = {}  # when an owner's last item came, in this order

    def __len__(self) -> int:
        return self._count

    def put(self, item: T, size: int, now: float) -> None:
        """Queue an item of `size` bytes behind the others of its owner."""
        owner = self._whose(item) if self._whose else ""
        self._queues.setdefault(owner, deque()).append((item, size))
        self._count += 1
        self._seen.pop(owner, None)
        self._seen[owner] = now

    def keeps_last_place(self) -> bool:
        """Return whether so few owners are under way that rule 4 holds."""
        return self._whose is not None and len(self._under_way) < MANY

    def holds(self, count: int, now: float, *, last_place: bool = False) -> bool:
        """Return whether `take` would give a batch of at least `count` items now."""
        share = self._slice(now)
        for owner in self._eligible(share, last_place=last_place):
            count -= self._in_a_slice(owner, share, most=count)
            if count <= 0:
                return True
        return False

    def take(self, now: float, *, last_place: bool = False) -> LaneBatch[T]:
        """Take the next batch; it is empty if no owner may have part in it.

        `last_place` is whether no other batch can begin before one ends (rule 4).
        """
        batch: LaneBatch[T] = LaneBatch()
        share, room = self._slice(now), self._whole.size
        owners = sorted(self._eligible(share, last_place=last_place), key=self._use)
        for owner in owners:
            if len(batch.items) >= self._whole.items or (batch.items and room <= 0):
                break
            room -= self._take_from(owner, batch, room, share)
        if batch.items:
            self._served = max(self._served, self._use(owners[0]))
        self._under_way.update((owner, self._use(owner)) for owner in batch.costs)
        self._count -= len(batch.items)
        return batch

    def done(self, batch: LaneBatch[T], seconds: float) -> None:
        """Charge the owners of a batch, which took `seconds`.

        The seconds are divided by cost. An owner with few items is charged nothing, because most of
        the time of a small batch is a round trip and a commit.
        """
        total = sum(batch.costs.values())
        for owner, cost in batch.costs.items():
            began = self._under_way.pop(owner)
            charged = seconds * cost / total if cost > self._light_cost else 0.0
            self._used[owner] = began + charged
        if len(self._used) > REMEMBERED:
            self._used = {o: used for o, used in self._used.items() if used > self._served}

    def _use(self, owner: str) -> float:
        """Return the seconds of use that count for an owner; at least those served last."""
        return max(self._served, self._used.get(owner, 0.0))

    def _slice(self, now: float) -> Slice:
        """Return the slice of each owner in a batch that begins now (rule 2)."""
        if self._whose is None:
            return self._whole
        while self._seen and now - next(iter(self._seen.values())) >= SEEN_SECONDS:
            del self._seen[next(iter(self._seen))]
        busy = self._queues.keys() | self._under_way.keys()
        parts = _slices(len(self._seen.keys() | busy), len(busy), len(busy) - len(self._under_way))
        return Slice(max(1, self._whole.items // parts), self._whole.size // BYTE_SLICES)

    def _eligible(self, share: Slice, *, last_place: bool) -> list[str]:
        """Return the owners that may have part in the next batch (rules 3 and 4)."""
        free = [owner for owner in self._queues if owner not in self._under_way]
        if not last_place or not self.keeps_last_place():
            return free
        return [owner for owner in free if self._fits(owner, share)]

    def _fits(self, owner: str, share: Slice) -> bool:
        queue = self._queues[owner]
        return len(queue) <= share.items and sum(size for _, size in queue) <= share.size

    def _in_a_slice(self, owner: str, share: Slice, *, most: int) -> int:
        """Return how many items of one owner, up to `most`, fit in one batch."""
        room, taken = share.size, 0
        for _, size in islice(self._queues[owner], min(most, share.items)):
            if taken and size > room:
                break
            room, taken = room - size, taken + 1
        return taken

    def _take_from(self, owner: str, batch: LaneBatch[T], room: int, share: Slice) -> int:
        """Move an owner's slice into the batch, as far as `room` bytes allow; return its bytes."""
        queue = self._queues.pop(owner)
        most = min(share.items, self._whole.items - len(batch.items))
        taken = size = 0
        while queue and taken < most:
            item, item_size = queue[0]
            if (taken or batch.items) and size + item_size > min(room, share.size):
                break
            queue.popleft()
            batch.items.append(item)
            taken, size = taken + 1, size + item_size
        if queue:
            self._queues[owner] = queue  # last now
        if taken:
            batch.costs[owner] = size + taken * ITEM_BYTES
        return size


def _slices(there: int, busy: int, free: int) -> int:
    """Return how many slices a batch has (rule 2).

    So many owners were seen, so many of them have items, and so many may have part in the batch.
    """
    if there <= FEW:
        return SLICES_OF_FEW
    return min(max(free, SLICES_OF_FEW), SLICES_OF_MANY) if busy >= MANY else SLICES
