"""The order of a lane's items: a round-robin over their owners.

Without it, an agent that floods the hub would delay all others. Three rules hold:
1. A batch holds at most a share of one owner's items (`SHARE`).
2. An owner has items in one batch at a time, so its items are handled in order.
3. An owner that used more than its part of the lane's time (`MOST_TIME`) waits until its average
   is back below that. If several owners send, rule 1 keeps each of them below its part, so the lane
   is never idle because of this rule.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

NEVER = float("inf")

SHARE = 8  # an owner has at most 1/8 of a batch's items, and 2/8 of its bytes
MOST_TIME = 0.25  # the part of a lane's time that one owner may use on average
BURST_SECONDS = 0.1  # of a lane's time that an owner may use before it has to wait
MOST_REST_SECONDS = 0.5  # the longest wait; slow batches may be due to an outage
ITEM_BYTES = 4_096  # added to the bytes of an item to get its cost
LIGHT = 8  # an owner that uses at most 1/8 of a share in a batch is charged nothing
REMEMBERED = 1_000  # owners; beyond that, those that need not wait are forgotten


@dataclass(frozen=True, slots=True)
class LaneBatch(Generic[T]):
    """The items taken, and the cost of each owner's items: bytes, and `ITEM_BYTES` an item."""

    items: list[T] = field(default_factory=list)
    costs: dict[str, int] = field(default_factory=dict)


class Turns(Generic[T]):
    """A queue for each owner, served round-robin; times are seconds of the event loop's clock.

    `whose` names the owner of an item. Without it all items have one owner, which may use whole
    batches and all of the time.
    """

    def __init__(
        self, *, most_items: int, most_bytes: int, whose: Callable[[T], str] | None = None
    ) -> None:
        self._whose = whose
        self._most_items, self._most_bytes = most_items, most_bytes
        self._share_items = max(1, most_items // SHARE) if whose else most_items
        self._share_bytes = 2 * most_bytes // SHARE if whose else most_bytes
        self._light_cost = self._share_items // LIGHT * ITEM_BYTES + self._share_bytes // LIGHT
        self._queues: dict[str, deque[tuple[T, int]]] = {}  # in round-robin order
        self._count = 0
        self._within_at: dict[str, float] = {}  # when an owner's average is back within `MOST_TIME`
        self._under_way: set[str] = set()  # owners with items in a batch that is not done

    def __len__(self) -> int:
        return self._count

    def put(self, item: T, size: int) -> None:
        """Queue an item of `size` bytes behind the others of its owner."""
        owner = self._whose(item) if self._whose else ""
        self._queues.setdefault(owner, deque()).append((item, size))
        self._count += 1

    def holds(self, count: int, now: float) -> bool:
        """Return whether a batch of `count` items could be taken now."""
        for owner, queue in self._queues.items():
            if self.due(owner) <= now:
                count -= self._share_of(queue, count)
                if count <= 0:
                    return True
        return False

    def _share_of(self, queue: deque[tuple[T, int]], most: int) -> int:
        """Return how many items of one queue, up to `most`, fit in one batch."""
        room, taken = self._share_bytes, 0
        for _, size in islice(queue, min(most, self._share_items)):
            if taken and size > room:
                break
            room, taken = room - size, taken + 1
        return taken

    def take(self, now: float) -> LaneBatch[T]:
        """Take the next batch; it is empty if every owner has to wait."""
        batch: LaneBatch[T] = LaneBatch()
        room = self._most_bytes
        for owner in [o for o in self._queues if self.due(o) <= now]:
            if len(batch.items) >= self._most_items or (batch.items and room <= 0):
                break
            room -= self._take_from(owner, batch, room)
        self._count -= len(batch.items)
        self._under_way |= batch.costs.keys()
        return batch

    def done(self, batch: LaneBatch[T], seconds: float, now: float) -> None:
        """Charge the owners of a batch, which took `seconds` and ended `now`.

        The seconds are divided by cost. An owner with few items is charged nothing, because most of
        the time of a small batch is a round trip and a commit. Otherwise a few requests a second
        would use up an owner's part.
        """
        self._under_way -= batch.costs.keys()
        if self._whose is None or not batch.costs:
            return
        a_byte = seconds / sum(batch.costs.values())
        for owner, cost in batch.costs.items():
            if cost <= self._light_cost:
                continue
            # Using s seconds takes s / MOST_TIME until the average is right again, counted from
            # the end of the last debt, or from the begin of this batch if there was none.
            start = max(self._within_at.get(owner, 0.0), now - seconds)
            latest = now + BURST_SECONDS / MOST_TIME + MOST_REST_SECONDS
            self._within_at[owner] = min(start + cost * a_byte / MOST_TIME, latest)
        if len(self._within_at) > REMEMBERED:
            self._within_at = {o: at for o, at in self._within_at.items() if at > now}

    def due(self, owner: str) -> float:
        """Return when items of this owner may be taken; `NEVER` while it has items in a batch.

        An owner does not have to wait for a debt of up to `BURST_SECONDS` of use.
        """
        if owner in self._under_way:
            return NEVER
        return self._within_at.get(owner, 0.0) - BURST_SECONDS / MOST_TIME

    def next_due(self, now: float) -> float:
        """Return the earliest time at which an owner that has to wait now may be taken."""
        return min((due for o in self._queues if (due := self.due(o)) > now), default=NEVER)

    def _take_from(self, owner: str, batch: LaneBatch[T], room: int) -> int:
        """Move an owner's share into the batch, as far as `room` bytes allow; return its bytes."""
        queue = self._queues.pop(owner)
        most = min(self._share_items, self._most_items - len(batch.items))
        taken = size = 0
        while queue and taken < most:
            item, item_size = queue[0]
            if (taken or batch.items) and size + item_size > min(room, self._share_bytes):
                break
            queue.popleft()
            batch.items.append(item)
            taken, size = taken + 1, size + item_size
        if queue:
            self._queues[owner] = queue  # last now
        if taken:
            batch.costs[owner] = size + taken * ITEM_BYTES
        return size
