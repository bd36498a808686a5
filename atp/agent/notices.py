"""The notices of an agent: each is done when the application's handler has ended.

They can come with the login, before the application has registered its handler. So they wait for it
a while. What is not done when the client disconnects stays with the hub, which repeats it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

from atp.wire.frames import Notice

__all__ = ["NoticeDesk", "NoticeHandler"]

logger = logging.getLogger(__name__)

WAITING_MOST: Final = 1_024  # without a handler; the oldest go first
WAITING_SECONDS: Final = 10.0  # for a handler, as for other mail (docs/sdk.md#until-it-is-done)

NoticeHandler = Callable[[Notice], Any]  # a plain function, or a coroutine function


class NoticeDesk:
    """The notices of `agent` and their handler. `done` is called for each that is handled.

    Without a handler, a notice is logged and done after a while.
    """

    def __init__(self, agent: str, *, done: Callable[[Notice], None]) -> None:
        self._agent = agent
        self._done = done
        self._handler: NoticeHandler | None = None
        self._waiting: deque[Notice] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def register(self, handler: NoticeHandler) -> None:
        """Handle notices with `handler`, those that wait first."""
        self._handler = handler
        waiting = list(self._waiting)
        self.drop_waiting()
        for notice in waiting:
            self._handle(handler, notice)

    def arrive(self, notice: Notice) -> None:
        """Handle a notice, or let it wait for the handler."""
        if self._handler is not None:
            self._handle(self._handler, notice)
            return
        self._waiting.append(notice)
        if len(self._waiting) > WAITING_MOST:
            self._pass_over(self._waiting.popleft())
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(WAITING_SECONDS, self._give_up)

    def drop_waiting(self) -> None:
        """Forget the notices that wait for a handler."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Forget the notices that wait, and end the handlers that run."""
        self.drop_waiting()
        tasks = self._tasks - {asyncio.current_task()}  # a handler may end its client
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _give_up(self) -> None:
        waiting = list(self._waiting)
        self.drop_waiting()
        for notice in waiting:
            self._pass_over(notice)

    def _pass_over(self, notice: Notice) -> None:
        logger.info("%s: there is no handler for a notice: %s", self._agent, notice)
        self._done(notice)

    def _handle(self, handler: NoticeHandler, notice: Notice) -> None:
        try:
            outcome = handler(notice)
        except Exception:  # the application's code may raise anything; the next frame goes on
            logger.exception("%s: the notice handler failed", self._agent)
            outcome = None
        if not inspect.isawaitable(outcome):
            self._done(notice)
            return
        task = asyncio.ensure_future(self._finish(outcome, notice))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, outcome: Awaitable[Any], notice: Notice) -> None:
        try:
            await outcome
        except Exception:  # as above
            logger.exception("%s: the notice handler failed", self._agent)
        self._done(notice)
