"""Micro-batching: a batch or a few under way; what arrives meanwhile forms the next.

Latency is low when idle, batches grow under load, and a slow worker pushes back by itself
(docs/design/architecture.md#why-lanes, 2). A batch of one costs nearly as much as a batch of
thirty: so half of a lane's places are for batches that come by themselves, and the rest is for
crowds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar, cast

from messaging.layer import loops
from messaging.node.fairness import NEVER, LaneBatch, Turns

T = TypeVar("T")

logger = logging.getLogger(__name__)


CROWD = 16  # items that are worth a batch beside those that are under way
STUCK_SECONDS = 0.25  # a batch that takes longer keeps no small one waiting


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
        """A lane that lingers waits so long for company before each batch: nobody awaits it.

        Where `whose` tells to whom an item belongs, owners take turns (`messaging.turns`), and as
        many batches as there are `places` may be under way, each owner having part in one.
        """
        self.name = name
        self._handle = handle
        self._linger_seconds = linger_seconds
        self._waiting = Turns(most_items=most_items, most_bytes=most_bytes, whose=whose)
        self._most_batches = most_batches
        self._under_way: dict[asyncio.Task[None], float] = {}  # and when each began
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether something waits, or is being handled."""
        return not self._idle.is_set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"lane {self.name}")

    def put(self, item: T, *, size: int = 0) -> None:
        """Add an item of `size` bytes. Whoever puts bounds how much: the lane refuses nothing."""
        self._waiting.put(item, size)
        self._idle.clear()
        self._changed.set()

    async def settled(self) -> None:
        """Wait until all that is there has been handled."""
        await self._idle.wait()

    async def stop(self, *, within_seconds: float) -> None:
        """Let what is there be handled, for a bounded time, and end."""
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
                    await asyncio.sleep(self._linger_seconds)
                if not self._begin(looked_at):
                    break

    def _begin(self, now: float) -> bool:
        """Have the next batch handled, if there is one; nothing else holds on to what is in it."""
        batch = self._waiting.take(now)
        if batch.items:
            task = asyncio.create_task(self._work_off(batch))
            self._under_way[task] = now
        return bool(batch.items)

    async def _change(self, looked_at: float) -> None:
        """Until something arrives or is done, or what could not be taken then may be."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_look(looked_at)):
                await self._changed.wait()
        self._changed.clear()

    def _next_look(self, looked_at: float) -> float | None:
        if not self._waiting or len(self._under_way) >= self._most_batches:
            return None
        looks = [self._waiting.next_due(looked_at), self._quiet_until()]
        return min((look for look in looks if looked_at < look < NEVER), default=None)

    def _may_begin(self, now: float) -> bool:
        if not self._waiting or len(self._under_way) >= self._most_batches:
            return False
        return now >= self._quiet_until() or self._waiting.holds(CROWD, now)

    def _quiet_until(self) -> float:
        """When a small batch may begin: half of the places suffice, those that are stuck aside."""
        kept = (self._most_batches + 1) // 2
        began = sorted(self._under_way.values(), reverse=True)
        return began[kept - 1] + STUCK_SECONDS if len(began) >= kept else 0.0

    async def _work_off(self, batch: LaneBatch[T]) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            await self._handle(batch.items)
        except Exception:  # a lane outlives a batch that nobody could handle
            logger.exception("lane %s dropped a batch of %d", self.name, len(batch.items))
        finally:
            self._waiting.done(batch, clock() - started, clock())
            self._under_way.pop(cast(asyncio.Task[None], asyncio.current_task()), None)
            self._changed.set()
            if not self._waiting and not self._under_way:
                self._idle.set()
