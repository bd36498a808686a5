"""SIGTERM and SIGINT end `ATPClient.serve` in order, where they have Python's default handlers.

A handler of another framework, such as that of uvicorn, stays as it is. Several clients of a
process share one handler.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final

__all__ = ["ending_signals"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Ending:
    """The handler of both signals. The first signal calls everyone and restores what was there.

    So a second signal ends the process as it would have done without the SDK.
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[[signal.Signals], None]] = []
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.restore()
        for callback in tuple(self._callbacks):
            callback(signal.Signals(number))

    def install(self) -> None:
        """Handle the signals that have Python's default handlers."""
        for number in SIGNALS:
            before = signal.getsignal(number)
            if _is_default(before):
                self._before[number] = before
                signal.signal(number, self)

    def restore(self) -> None:
        """Handle no more signals."""
        for number, before in self._before.items():
            if signal.getsignal(number) is self:
                signal.signal(number, before)
        self._before.clear()

    def add(self, callback: Callable[[signal.Signals], None]) -> None:
        """Call `callback` at the first signal."""
        self._callbacks.append(callback)

    def remove(self, callback: Callable[[signal.Signals], None]) -> None:
        """Forget a callback; after the last one, handle no more signals."""
        self._callbacks.remove(callback)
        if not self._callbacks:
            self.restore()


@contextmanager
def ending_signals(callback: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call `callback` in the event loop at the first SIGTERM or SIGINT of the `with` block.

    Outside of the main thread nothing is handled, nor is a signal that the application handles.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    call = partial(_call_in_loop, asyncio.get_running_loop(), callback)
    ending = _installed()
    ending.add(call)
    try:
        yield
    finally:
        ending.remove(call)


def _installed() -> _Ending:
    """Return the handler of this process, made by the first client that serves."""
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if isinstance(handler, _Ending):
            return handler
    ending = _Ending()
    ending.install()
    return ending


def _call_in_loop(
    loop: asyncio.AbstractEventLoop,
    callback: Callable[[signal.Signals], None],
    number: signal.Signals,
) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, number)


def _is_default(handler: Any) -> bool:
    """Whether a signal's handler is Python's own, or that of `asyncio.run`."""
    if handler in (signal.SIG_DFL, signal.default_int_handler):
        return True
    owner = getattr(getattr(handler, "func", None), "__self__", None)
    return isinstance(handler, partial) and isinstance(owner, asyncio.Runner)
