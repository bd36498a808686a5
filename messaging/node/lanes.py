"""Micro-batching: the items that arrive while batches are under way form the next batch.

Latency is low when idle, batches grow under load, and a slow worker makes batches larger
(docs/design/architecture.md#why-lanes, 2). A batch of one item costs nearly as much as a batch of
thirty. So a batch of any size may begin while fewer than half of `most_batches` are under way;
beyond that, a batch begins only when `CROWD` items wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar, cast

from messaging.layer import loops
from messaging.node.fairness import LaneBatch, Turns

T = TypeVar("T")

logger = logging.getLogger(__name__)


CROWD = 16  # items that are worth one more batch beside those under way
STUCK_SECONDS = 0.25  # a batch that takes longer no longer keeps small ones waiting


class Lane(Generic[T]):
    """Collects items and hands them to `handle`, in the order in which their owners put them."""

    def __init__(
        self,
        name: str,
        handle: Callable[[list[T]], Awaitable[None]],
        *,
        most_items: int = 256,
        most_bytes: int = 1_048_576,
        linger_seconds: float = 0.0,
        whose: Callable[[T], str] | None = None,
        most_batches: int = 1,
    ) -> None:
        """`handle` gets each batch, of up to `most_items` items and about `most_bytes` bytes.

        `whose` names the owner of an item (`messaging.node.fairness`). At most `most_batches` are
        under way at a time, and an owner has items in only one of them. The lane waits
        `linger_seconds` before each batch, so that it grows. That is for acks: an agent waits for
        them only if its window is full, and `hurry` ends the wait.
        """
        self.name = name
        self._handle = handle
        self._linger_seconds = linger_seconds
        self._waiting = Turns(most_items=most_items, most_bytes=most_bytes, whose=whose)
        self._most_batches = most_batches
        self._under_way: dict[asyncio.Task[None], float] = {}  # and when each began
        self._changed = asyncio.Event()
        self._hurried = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether an item waits or is in a batch under way."""
        return not self._idle.is_set()

    def start(self) -> None:
        """Begin to hand over batches. Items that were put before wait until then."""
        self._task = asyncio.create_task(self._run(), name=f"lane {self.name}")

    def put(self, item: T, *, size: int = 0) -> None:
        """Add an item of `size` bytes. The lane has no limit; the caller limits waiting items."""
        self._waiting.put(item, size, asyncio.get_running_loop().time())
        self._idle.clear()
        self._changed.set()

    def hurry(self) -> None:
        """Let the next batch begin without waiting `linger_seconds`."""
        self._hurried.set()

    async def settled(self) -> None:
        """Wait until no item waits and no batch is under way."""
        await self._idle.wait()

    async def stop(self, *, within_seconds: float) -> None:
        """Handle waiting items for at most `within_seconds`, drop the others, and end."""
        try:
            await asyncio.wait_for(self.settled(), within_seconds)
        except TimeoutError:
            under_way = len(self._under_way)
            message = "lane %s stopped with %d items waiting and %d batches under way"
            logger.warning(message, self.name, len(self), under_way)
        if self._task is not None:
            await loops.end([self._task, *self._under_way])

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        looked_at = clock()
        while True:
            await self._change(looked_at)
            while self._may_begin(looked_at := clock()):
                if self._linger_seconds:
                    await self._linger()
                if not self._begin(looked_at):
                    break

    async def _linger(self) -> None:
        """Wait for more items: `linger_seconds`, or until `_hurried` is set."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger_seconds):
                await self._hurried.wait()
        self._hurried.clear()

    def _begin(self, now: float) -> bool:
        """Begin the next batch; return whether there was one.

        Only the task refers to the batch, so that its items are freed when it ends.
        """
        batch = self._waiting.take(now, last_place=self._last_place)
        if batch.items:
            task = asyncio.create_task(self._work_off(batch))
            self._under_way[task] = now
        return bool(batch.items)

    async def _change(self, looked_at: float) -> None:
        """Wait until an item arrives, a batch ends, or it is time to look again."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_look(looked_at)):
                await self._changed.wait()
        self._changed.clear()

    def _next_look(self, looked_at: float) -> float | None:
        """Return when a batch that could not begin at `looked_at` may begin by itself."""
        if not self._waiting or len(self._under_way) >= self._most_batches:
            return None
        quiet_until = self._quiet_until()
        return quiet_until if quiet_until > looked_at else None

    def _may_begin(self, now: float) -> bool:
        if not self._waiting or len(self._under_way) >= self._most_batches:
            return False
        last_place = self._last_place
        kept = last_place and self._waiting.keeps_last_place()
        least = 1 if kept or now >= self._quiet_until() else CROWD
        return self._waiting.holds(least, now, last_place=last_place)

    @property
    def _last_place(self) -> bool:
        """Whether one more batch would be the last that can begin, of more than two."""
        return 2 < self._most_batches == len(self._under_way) + 1

    def _quiet_until(self) -> float:
        """Return when a small batch may begin.

        A small batch may begin while fewer than half of `most_batches` are under way; batches
        older than `STUCK_SECONDS` do not count. So the time depends on the start of the batch that
        is the `kept`-th newest.
        """
        kept = (self._most_batches + 1) // 2
        began = sorted(self._under_way.values(), reverse=True)
        return began[kept - 1] + STUCK_SECONDS if len(began) >= kept else 0.0

    async def _work_off(self, batch: LaneBatch[T]) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            await self._handle(batch.items)
        except Exception:  # one batch that fails must not end the lane
            logger.exception("lane %s dropped a batch of %d", self.name, len(batch.items))
        finally:
            self._waiting.done(batch, clock() - started)
            self._under_way.pop(cast(asyncio.Task[None], asyncio.current_task()), None)
            self._changed.set()
            if not self._waiting and not self._under_way:
                self._idle.set()
