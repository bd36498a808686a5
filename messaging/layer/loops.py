"""Run channel-layer sends on one event loop of the process, from any thread.

A node uses the loop that serves its sockets. A worker or a command keeps one loop in a thread,
because a new loop for each send costs several times the send
(docs/design/architecture.md#why-lanes, 5).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Collection, Coroutine
from concurrent.futures import Future
from typing import Any

from messaging.telemetry import telemetry

logger = logging.getLogger(__name__)

SEND_TIMEOUT_SECONDS = 5.0
CANCEL_SECONDS = 0.5  # until a task that still runs is cancelled again
CANCEL_TRIES = 5


class SendLoop:
    """The loop for the channel-layer sends of a process: its node's, or one in a thread."""

    def __init__(self) -> None:
        self.node_loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._own_pid = 0
        self._lock = threading.Lock()

    def use(self, node_loop: asyncio.AbstractEventLoop | None) -> None:
        """Set the loop of this process's node; `None` when the node stops."""
        self.node_loop = node_loop

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run `coroutine` on this process's loop, from any other thread.

        On a node's loop, do not wait for it: a busy loop must not delay the thread that judges the
        next batch. Elsewhere, wait at most `SEND_TIMEOUT_SECONDS`. Log and count a failure, do not
        raise it; the node finds the rows later by its poll.
        """
        if (loop := self.node_loop) is not None:
            asyncio.run_coroutine_threadsafe(coroutine, loop).add_done_callback(_log_failure)
            return
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop_of_this_process())
        try:
            future.result(SEND_TIMEOUT_SECONDS)
        except Exception:  # the layer only saves time: a lost message must not fail the work
            telemetry.layer_failures.count()
            logger.exception("a channel-layer send failed")

    def _loop_of_this_process(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._own_loop is None or self._own_pid != os.getpid():  # a fork needs its own
                self._own_loop, self._own_pid = asyncio.new_event_loop(), os.getpid()
                run = self._own_loop.run_forever
                threading.Thread(target=run, name="layer-sends", daemon=True).start()
            return self._own_loop


send_loop = SendLoop()


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they end, for at most `CANCEL_TRIES` times `CANCEL_SECONDS`.

    Cancel more than once: `asyncio.wait_for` of Python 3.11 drops a cancellation that arrives in
    the same moment as its result, and libraries use it. Log tasks that do not end.
    """
    left = set(tasks)
    for _ in range(CANCEL_TRIES):
        for task in left:
            task.cancel()
        if left:
            _, left = await asyncio.wait(left, timeout=CANCEL_SECONDS)
    for task in left:
        logger.error("%s did not end", task.get_coro())
    await asyncio.gather(*set(tasks) - left, return_exceptions=True)


def _log_failure(future: Future[None]) -> None:
    if not future.cancelled() and (problem := future.exception()) is not None:
        telemetry.layer_failures.count()
        logger.error("a channel-layer send failed", exc_info=problem)
