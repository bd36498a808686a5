"""The received requests that have no answer yet, and which of them their senders have cancelled."""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

__all__ = ["OpenRequest", "OpenRequests"]

EARLY_MOST: Final = 1_024  # cancelled requests that did not arrive yet; the oldest go first

_Id = tuple[str, str]  # sender and message id


class OpenRequest:
    """A received request. `cancelled` is whether its sender no longer waits for the answer.

    `stopped` is whether its handler was cancelled because of that. `when_cancelled` is called then,
    in the event loop.
    """

    def __init__(self, *, cancelled: bool) -> None:
        self.cancelled = cancelled
        self.when_cancelled: Callable[[], None] = lambda: None
        self._task: asyncio.Task[Any] | None = None
        self.stopped = False

    @contextmanager
    def stoppable(self, handler: Callable[..., Any] | None) -> Iterator[None]:
        """Let `cancel` end the `with` block, in which this task runs `handler`.

        A function that runs in a thread can't be stopped: its block goes on. A cancellation of the
        task by others goes on out of the block.
        """
        task = asyncio.current_task()
        self._task = task if inspect.iscoroutinefunction(handler) else None
        try:
            yield
        except asyncio.CancelledError:
            if task is None or not self.stopped or task.uncancel() > 0:
                raise
        finally:
            self._task = None

    def cancel(self) -> None:
        """Stop the handler if it is a coroutine; it does not begin if it has not begun."""
        self.cancelled = True
        self.when_cancelled()
        if self._task is not None:
            self.stopped = True
            self._task.cancel()
            self._task = None  # once is enough


class OpenRequests:
    """The open requests of one agent, by sender and message id."""

    def __init__(self) -> None:
        self._open: WeakValueDictionary[_Id, OpenRequest] = WeakValueDictionary()
        self._early: OrderedDict[_Id, None] = OrderedDict()

    def add(self, sender: str, message_id: str) -> OpenRequest:
        """Return a received request. It is open as long as the caller refers to it."""
        key = sender, message_id
        cancelled = key in self._early
        self._early.pop(key, None)
        request = self._open[key] = OpenRequest(cancelled=cancelled)
        return request

    def cancel(self, sender: str, message_id: str) -> None:
        """Cancel a request, also one that arrives later; do nothing if it was answered."""
        key = sender, message_id
        request = self._open.get(key)
        if request is not None:
            request.cancel()
            return
        self._early[key] = None
        if len(self._early) > EARLY_MOST:
            self._early.popitem(last=False)
