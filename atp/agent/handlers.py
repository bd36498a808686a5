"""The pool that runs an agent's message handlers side by side.

At most `running` handlers run at once. A handler that waits for the answer to its own request does
not count while it waits; otherwise agents whose handlers send requests to each other could
deadlock. The number of unfinished handlers is bounded too. Further messages wait, and begin as
`atp.agent.turns` says.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

from atp.agent.turns import HandlerRule, Job, JobQueue
from atp.types import MessageType

__all__ = ["HANDLERS_RUNNING", "HandlerPool", "handler_slot_freed", "is_cut"]

logger = logging.getLogger(__name__)

HANDLERS_RUNNING: Final = 64  # at once; the default of `max_handlers`
ALIVE_PER_RUNNING: Final = 16  # unfinished handlers, those that wait included, for each slot


class _Slot:
    """The state of one handler.

    `held` while it counts as running, `waits` by open requests, `in_thread` while a plain function
    runs, which can't be cancelled, `cut` when the client has cancelled it.
    """

    __slots__ = ("cut", "finished", "held", "in_thread", "job", "pool", "waits")

    def __init__(self, pool: HandlerPool, job: Job) -> None:
        self.pool = pool
        self.job = job
        self.held = True
        self.waits = 0
        self.in_thread = False
        self.finished = False
        self.cut = False


_slot: ContextVar[_Slot | None] = ContextVar("atp_handler_slot", default=None)


class HandlerPool:
    """A pool that starts jobs as their turns come, at most `running` at a time.

    It calls `when_all_wait` when that has become true.
    """

    def __init__(self, *, running: int = HANDLERS_RUNNING) -> None:
        self._limit = running
        self._alive_limit = running * ALIVE_PER_RUNNING
        self._running = 0
        self._turns = JobQueue()
        self._starting = False  # whether jobs may begin
        self.when_all_wait: Callable[[], None] = lambda: None
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._tasks: dict[asyncio.Task[None], _Slot] = {}
        self._hold_timer: asyncio.TimerHandle | None = None
        self._threads: ThreadPoolExecutor | None = None

    @property
    def alive(self) -> int:
        """The number of handlers that have begun and not finished, those that wait included."""
        return len(self._tasks)

    @property
    def all_wait(self) -> bool:
        """Whether there are handlers, and each waits for the answer to a request of its own."""
        if self._running:
            return False
        return any(slot.waits and not slot.finished for slot in self._tasks.values())

    def set_rule(self, kind: MessageType, rule: HandlerRule) -> None:
        """Set how many handlers of a type run at once, and in what order."""
        self._turns.set_rule(kind, rule)

    def submit(self, job: Job) -> None:
        """Run `job` as soon as its turn comes. The job must handle its own exceptions."""
        self._turns.submit(job)
        self.start_jobs()

    def over(self, job: Job) -> None:
        """Note that a job will not be submitted again; the next one of its sender may begin."""
        self._turns.over(job)

    def open(self) -> None:
        """Let jobs begin."""
        self._starting = True

    def pause(self) -> None:
        """Let no further job begin."""
        self._starting = False

    async def call(self, handler: Callable[..., Any], *args: Any) -> Any:
        """Run one handler; return what it returned. A plain function runs in a thread."""
        if inspect.iscoroutinefunction(handler):
            return await handler(*args)
        outcome = await self._call_in_thread(handler, *args)
        if inspect.isawaitable(outcome):  # a partial, a lambda, or an object with async __call__
            return await outcome
        return outcome

    async def _call_in_thread(self, handler: Callable[..., Any], *args: Any) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._limit, thread_name_prefix="atp-handler")
        context = contextvars.copy_context()
        slot = _slot.get()
        if slot is not None:
            slot.in_thread = True
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: context.run(handler, *args)
            )
        finally:
            if slot is not None:
                slot.in_thread = False

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until all other handlers have finished; return `False` if the time is over."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while others := self._others():  # a handler may end its client
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            await asyncio.wait(others, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        return True

    async def close(self) -> list[Job]:
        """Drop the queued jobs and cancel the running ones; return those that did not finish.

        A plain function that runs in a thread can't be cancelled. Its job goes on until it ends.
        """
        self._turns.clear()
        await asyncio.sleep(0)  # so that each job that has begun can say that it was cut
        others = self._others()
        jobs = [self._tasks[task].job for task in others]
        cancelled = [task for task in others if not self._tasks[task].in_thread]
        for task in cancelled:
            self._tasks[task].cut = True
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        return jobs

    def runs_caller(self) -> bool:
        """Whether one of its handlers, or a task that it began, calls this."""
        slot = _slot.get()
        return slot is not None and slot.pool is self and not slot.finished

    def _others(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks if task is not asyncio.current_task()]

    def start_jobs(self) -> None:
        """Begin the jobs whose turn has come."""
        while self._starting and self._running < self._limit and self.alive < self._alive_limit:
            job = self._turns.next(
                alive=self.alive,
                alone_waits=self._running == 0,
                ticks=asyncio.get_running_loop().time(),
            )
            if job is None:
                break
            self._running += 1
            slot = _Slot(self, job)
            task = asyncio.create_task(self._run(slot))
            self._tasks[task] = slot
            task.add_done_callback(self._finished)
            job.begin()  # all that begin together, before the first one runs
        self._wait_for_hold()

    def _wait_for_hold(self) -> None:
        """Begin jobs again when the turns no longer hold them back."""
        loop = asyncio.get_running_loop()
        end = self._turns.hold_end(loop.time())
        if end is None:
            return
        if self._hold_timer is None or self._hold_timer.when() > end:
            if self._hold_timer is not None:
                self._hold_timer.cancel()
            self._hold_timer = loop.call_at(end, self._hold_ended)

    def _hold_ended(self) -> None:
        self._hold_timer = None
        self.start_jobs()

    async def _run(self, slot: _Slot) -> None:
        _slot.set(slot)  # the task has a context of its own
        try:
            await slot.job.run()
        finally:
            slot.finished = True
            if slot.held:
                slot.held = False
                self._give_back()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._turns.ended(self._tasks.pop(task).job, asyncio.get_running_loop().time())
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.error("a handler's job failed", exc_info=problem)
        self.start_jobs()  # there is room for one more unfinished handler

    def _give_back(self) -> None:
        """Give a slot to a handler that has its answer; if there is none, start a new job."""
        while self._resuming:
            waiter = self._resuming.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._running -= 1
        self.start_jobs()
        if self.all_wait:
            self.when_all_wait()

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


def is_cut() -> bool:
    """Whether the client has cancelled the handler that runs this code."""
    slot = _slot.get()
    return slot is not None and slot.cut


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
