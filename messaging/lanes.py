"""Micro-batching: one batch in flight; what arrives meanwhile forms the next.

Latency is low when idle, batches grow under load, and a slow worker pushes back by itself
(architecture.md, "Why lanes", point 2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from messaging import loops
from messaging.turns import Turns

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Lane(Generic[T]):
    """Collects items and hands them, in order, to `handle`, one batch at a time."""

    def __init__(
        self,
        name: str,
        handle: Callable[[list[T]], Awaitable[None]],
        *,
        most_items: int = 256,
        most_bytes: int = 1_048_576,
        linger_seconds: float = 0.0,
        whose: Callable[[T], str] | None = None,
    ) -> None:
        """A lane that lingers waits so long for company before each batch: nobody awaits it.

        Where `whose` tells to whom an item belongs, owners take turns (`messaging.turns`).
        """
        self.name = name
        self._handle = handle
        self._linger_seconds = linger_seconds
        self._waiting = Turns(most_items=most_items, most_bytes=most_bytes, whose=whose)
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"lane {self.name}")

    def put(self, item: T, *, size: int = 0) -> None:
        """Add an item of `size` bytes. Whoever puts bounds how much: the lane refuses nothing."""
        self._waiting.put(item, size)
        self._idle.clear()
        self._arrived.set()

    async def settled(self) -> None:
        """Wait until all that is there has been handled."""
        await self._idle.wait()

    async def stop(self, *, within_seconds: float) -> None:
        """Let what is there be handled, for a bounded time, and end."""
        try:
            await asyncio.wait_for(self.settled(), within_seconds)
        except TimeoutError:
            logger.warning("lane %s stopped with %d items waiting", self.name, len(self))
        if self._task is not None:
            await loops.end([self._task])

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                if self._linger_seconds:
                    await asyncio.sleep(self._linger_seconds)
                batch = self._waiting.take(clock())
                if not batch:
                    await self._wait_for_a_turn(clock())
                    continue
                started = clock()
                try:
                    await self._handle(batch)
                except Exception:  # a lane outlives a batch that nobody could handle
                    logger.exception("lane %s dropped a batch of %d", self.name, len(batch))
                self._waiting.charge(clock() - started, clock())
            self._idle.set()

    async def _wait_for_a_turn(self, now: float) -> None:
        """Everybody who has something has had more than its part: until one is due, or comes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._waiting.next_due() - now)):
                await self._arrived.wait()
        self._arrived.clear()
