"""Who is next in a lane: agents take turns, so that nobody waits behind what another floods.

A batch holds at most a share of one agent's envelopes, and an agent has part in one batch at a
time, so that its envelopes keep their order. One that has used more than its part of the lane's
time waits until it is back within it, however full its window is; while several send, each of
them is within its part anyway, and the lane never rests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

NEVER = float("inf")

SHARE = 8  # an agent has at most this part of a batch's places, and twice that of its bytes
MOST_TIME = 0.25  # the part of a lane's time that one agent may use for long
BURST_SECONDS = 0.1  # of a lane's time, that an agent may use at once
MOST_REST_SECONDS = 0.5  # a batch that an outage held up was nobody's doing
ITEM_BYTES = 4_096  # what an item costs besides its own bytes, as if it were bytes
LIGHT = 8  # who uses no more than this part of a share is charged nothing
REMEMBERED = 1_000  # owners; beyond that, those who are within their part are forgotten


@dataclass(frozen=True, slots=True)
class LaneBatch(Generic[T]):
    """What was taken, and what each owner had in it."""

    items: list[T] = field(default_factory=list)
    costs: dict[str, int] = field(default_factory=dict)


class Turns(Generic[T]):
    """A queue for each owner, served in turns; times are seconds of the event loop's clock.

    Without `whose` all belongs to one owner, who may have all of a batch and of the time.
    """

    def __init__(
        self, *, most_items: int, most_bytes: int, whose: Callable[[T], str] | None = None
    ) -> None:
        self._whose = whose
        self._most_items, self._most_bytes = most_items, most_bytes
        self._share_items = max(1, most_items // SHARE) if whose else most_items
        self._share_bytes = 2 * most_bytes // SHARE if whose else most_bytes
        self._light_cost = self._share_items // LIGHT * ITEM_BYTES + self._share_bytes // LIGHT
        self._queues: dict[str, deque[tuple[T, int]]] = {}  # in the order of the turns
        self._count = 0
        self._within_at: dict[str, float] = {}  # when an owner will have made up for its time
        self._under_way: set[str] = set()  # who has part in a batch that is not done

    def __len__(self) -> int:
        return self._count

    def put(self, item: T, size: int) -> None:
        owner = self._whose(item) if self._whose else ""
        self._queues.setdefault(owner, deque()).append((item, size))
        self._count += 1

    def holds(self, count: int, now: float) -> bool:
        """Whether a batch of so many items could be taken."""
        for owner, queue in self._queues.items():
            if self.due(owner) <= now:
                count -= self._share_of(queue, count)
                if count <= 0:
                    return True
        return False

    def _share_of(self, queue: deque[tuple[T, int]], most: int) -> int:
        """How many of these items, up to `most`, could have part in one batch."""
        room, taken = self._share_bytes, 0
        for _, size in islice(queue, min(most, self._share_items)):
            if taken and size > room:
                break
            room, taken = room - size, taken + 1
        return taken

    def take(self, now: float) -> LaneBatch[T]:
        """The next batch; empty where everybody who has something waits."""
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
        """Tell that the batch has cost the lane so much time, ending now.

        Most of the time of a small batch goes by whatever is in it: a round trip, a commit. Who
        had next to nothing in it pays nothing, or a few requests a second would be too many.
        """
        self._under_way -= batch.costs.keys()
        if self._whose is None or not batch.costs:
            return
        a_byte = seconds / sum(batch.costs.values())
        for owner, cost in batch.costs.items():
            if cost <= self._light_cost:
                continue
            start = max(self._within_at.get(owner, 0.0), now - seconds)
            latest = now + BURST_SECONDS / MOST_TIME + MOST_REST_SECONDS
            self._within_at[owner] = min(start + cost * a_byte / MOST_TIME, latest)
        if len(self._within_at) > REMEMBERED:
            self._within_at = {o: at for o, at in self._within_at.items() if at > now}

    def due(self, owner: str) -> float:
        """When this owner may have its next turn; nobody knows it of one with a batch under way."""
        if owner in self._under_way:
            return NEVER
        return self._within_at.get(owner, 0.0) - BURST_SECONDS / MOST_TIME

    def next_due(self, now: float) -> float:
        """When the next of those who have something, and rest, may have its turn."""
        return min((due for o in self._queues if (due := self.due(o)) > now), default=NEVER)

    def _take_from(self, owner: str, batch: LaneBatch[T], room: int) -> int:
        """Move an owner's share, as far as there is room, into the batch; its bytes."""
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
