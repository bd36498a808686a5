"""The order of a lane's items: fair queueing between their owners, whose unit is the lane's time.

Without it, an agent that floods the hub would delay all others. Four rules hold:
1. Of the owners with waiting items, the one that used the least of the lane's time is next
   (start-time fair queueing). An owner that comes, or comes back, is next, and gets no credit for
   the time before.
2. A batch holds at most a slice of one owner's items: 1/16 of a batch. While no other owner was
   seen for a second, the slice is half of a batch, because nobody waits for its end.
3. An owner has items in one batch at a time, so its items are handled in order.
4. The last free place for a batch is for owners whose waiting items fit in one slice.

No owner waits while a place for a batch is free, except by rules 3 and 4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

SLICES = 16  # of different owners in a full batch
BYTE_SLICES = 8  # an owner may have 1/8 of a batch's bytes
ALONE_SECONDS = 1.0  # without items of others, until an owner gets larger slices
ALONE_SLICES = 2  # an owner that is alone may have half of a batch
ITEM_BYTES = 4_096  # added to the bytes of an item to get its cost
LIGHT = 8  # an owner that uses at most 1/8 of a slice in a batch is charged nothing
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
        self._usual = Slice(max(1, most_items // SLICES), most_bytes // BYTE_SLICES)
        self._alone = Slice(max(1, most_items // ALONE_SLICES), most_bytes // ALONE_SLICES)
        self._light_cost = (self._usual.items * ITEM_BYTES + self._usual.size) // LIGHT
        self._queues: dict[str, deque[tuple[T, int]]] = {}  # in the order in which they began
        self._count = 0
        self._served = 0.0  # seconds of use at which the owner that was served last began
        self._used: dict[str, float] = {}  # seconds of use by owner, if more than `_served`
        self._under_way: dict[str, float] = {}  # by owner: its seconds of use before the batch
        self._latest, self._latest_at = "", float("-inf")  # the owner of the last item
        self._others_at = float("-inf")  # when an item of another owner came last

    def __len__(self) -> int:
        return self._count

    def put(self, item: T, size: int, now: float) -> None:
        """Queue an item of `size` bytes behind the others of its owner."""
        owner = self._whose(item) if self._whose else ""
        self._queues.setdefault(owner, deque()).append((item, size))
        self._count += 1
        if owner != self._latest:
            self._latest, self._others_at = owner, self._latest_at
        self._latest_at = now

    def holds(self, count: int, now: float, *, last_place: bool = False) -> bool:
        """Return whether `take` would give a batch of at least `count` items now."""
        for owner in self._eligible(last_place=last_place):
            count -= self._in_a_slice(owner, now, most=count)
            if count <= 0:
                return True
        return False

    def take(self, now: float, *, last_place: bool = False) -> LaneBatch[T]:
        """Take the next batch; it is empty if no owner may have part in it.

        `last_place` is whether no other batch can begin before one ends (rule 4).
        """
        batch: LaneBatch[T] = LaneBatch()
        room = self._whole.size
        owners = sorted(self._eligible(last_place=last_place), key=self._use)
        for owner in owners:
            if len(batch.items) >= self._whole.items or (batch.items and room <= 0):
                break
            room -= self._take_from(owner, batch, room, now)
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

    def _eligible(self, *, last_place: bool) -> list[str]:
        """Return the owners that may have part in the next batch (rules 3 and 4)."""
        free = [owner for owner in self._queues if owner not in self._under_way]
        return [owner for owner in free if self._fits_a_slice(owner)] if last_place else free

    def _fits_a_slice(self, owner: str) -> bool:
        queue, most = self._queues[owner], self._usual.items
        return self._whose is None or (
            len(queue) <= most and sum(size for _, size in queue) <= self._usual.size
        )

    def _slice_of(self, owner: str, now: float) -> Slice:
        if self._whose is None:
            return self._whole
        others_at = self._others_at if owner == self._latest else self._latest_at
        return self._alone if now - others_at >= ALONE_SECONDS else self._usual

    def _in_a_slice(self, owner: str, now: float, *, most: int) -> int:
        """Return how many items of one owner, up to `most`, fit in one batch."""
        items, room = self._slice_of(owner, now)
        taken = 0
        for _, size in islice(self._queues[owner], min(most, items)):
            if taken and size > room:
                break
            room, taken = room - size, taken + 1
        return taken

    def _take_from(self, owner: str, batch: LaneBatch[T], room: int, now: float) -> int:
        """Move an owner's slice into the batch, as far as `room` bytes allow; return its bytes."""
        queue, share = self._queues.pop(owner), self._slice_of(owner, now)
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
