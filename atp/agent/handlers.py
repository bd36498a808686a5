"""The pool that runs an agent's message handlers side by side.

At most `running` handlers run at once. A handler that waits for the answer to its own request does
not count while it waits; otherwise agents whose handlers send requests to each other could
deadlock. The number of unfinished handlers is bounded too. Further messages wait in order.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["HANDLERS_RUNNING", "HandlerPool", "handler_slot_freed"]

logger = logging.getLogger(__name__)

HANDLERS_RUNNING: Final = 64  # at once; the default of `max_handlers`
ALIVE_PER_RUNNING: Final = 16  # unfinished handlers, those that wait included, for each slot

Job = Callable[[], Awaitable[None]]


class _Slot:
    """The state of one handler: `held` while it counts as running, `waits` by open requests."""

    __slots__ = ("finished", "held", "pool", "waits")

    def __init__(self, pool: HandlerPool) -> None:
        self.pool = pool
        self.held = True
        self.waits = 0
        self.finished = False


_slot: ContextVar[_Slot | None] = ContextVar("atp_handler_slot", default=None)


class HandlerPool:
    """A pool that starts jobs in the order of `submit`, at most `running` at a time."""

    def __init__(self, *, running: int = HANDLERS_RUNNING) -> None:
        self._limit = running
        self._alive_limit = running * ALIVE_PER_RUNNING
        self._running = 0
        self._queue: deque[Job] = deque()
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def alive(self) -> int:
        """The number of handlers that have begun and not finished, those that wait included."""
        return len(self._tasks)

    def submit(self, job: Job) -> None:
        """Run `job` as soon as there is room. The job must handle its own exceptions."""
        self._queue.append(job)
        self._start_jobs()

    async def call(self, handler: Callable[..., Any], *args: Any) -> None:
        """Run one handler. A plain function runs in a thread, because it may block."""
        if inspect.iscoroutinefunction(handler):
            await handler(*args)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._limit, thread_name_prefix="atp-handler")
        context = contextvars.copy_context()
        outcome = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: context.run(handler, *args)
        )
        if inspect.isawaitable(outcome):  # a partial, a lambda, or an object with async __call__
            await outcome

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until all other handlers have finished; return `False` if the time is over."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while others := self._tasks - {asyncio.current_task()}:  # a handler may end its client
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.wait(others, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        return True

    async def close(self) -> None:
        """Drop the queued jobs and cancel the running ones."""
        self._queue.clear()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    def _start_jobs(self) -> None:
        while self._queue and self._running < self._limit and self.alive < self._alive_limit:
            self._running += 1
            task = asyncio.create_task(self._run(self._queue.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    async def _run(self, job: Job) -> None:
        slot = _Slot(self)
        _slot.set(slot)  # the task has a context of its own
        try:
            await job()
        finally:
            slot.finished = True
            if slot.held:
                slot.held = False
                self._give_back()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.error("a handler's job failed", exc_info=problem)
        self._start_jobs()  # there is room for one more unfinished handler

    def _give_back(self) -> None:
        """Give a slot to a handler that has its answer; if there is none, start a new job."""
        while self._resuming:
            waiter = self._resuming.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._running -= 1
        self._start_jobs()

    async def _take_again(self, slot: _Slot) -> None:
        if self._running < self._limit:
            self._running += 1
        else:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._resuming.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._give_back()  # the slot arrived together with the cancellation
                raise
        if slot.finished or slot.held or slot.waits:
            self._give_back()  # another task of the handler was first, or waits again
        else:
            slot.held = True


@asynccontextmanager
async def handler_slot_freed() -> AsyncIterator[None]:
    """Free the slot of the handler that runs this code while the `with` block lasts."""
    slot = _slot.get()
    if slot is None or slot.finished:
        yield
        return
    slot.waits += 1
    if slot.held:
        slot.held = False
        slot.pool._give_back()
    try:
        yield
    finally:
        slot.waits -= 1
        # If the handler made several requests at once, it takes its slot after the last answer.
        if not slot.waits and not slot.held and not slot.finished:
            await slot.pool._take_again(slot)
