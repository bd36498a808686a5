"""Probes: each asks one service whether it works, and answers or raises in bounded time.

A probe that hangs keeps its thread, and no second thread is started. So a dead Redis or many
requests for the health of the hub cost at most one thread for each service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)

PROBE_SECONDS = 3.0  # without an answer, then the service counts as down
FRESH_SECONDS = 1.0  # an answer up to this age is used again


class Probe(Generic[T_co]):
    """A check of one service, shared by all threads of this process; `look` does the check."""

    def __init__(self, look: Callable[[], T_co]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._future: Future[T_co] | None = None
        self._began = 0.0

    def begin(self) -> Future[T_co]:
        """Start the check, unless it runs or ended within `FRESH_SECONDS`; return its future."""
        with self._lock:
            if self._future is None or (self._future.done() and self._age() > FRESH_SECONDS):
                self._future, self._began = Future(), time.monotonic()
                # No pool: at the end of the process Python waits for the threads of pools.
                threading.Thread(target=self._run, args=(self._future,), daemon=True).start()
            return self._future

    def result(self) -> T_co:
        """Return what the check found.

        Raises what the check raised, or `TimeoutError` if it takes more than `PROBE_SECONDS`.
        """
        future = self.begin()
        return future.result(max(0.0, PROBE_SECONDS - self._age()))

    def _age(self) -> float:
        return time.monotonic() - self._began

    def _run(self, future: Future[T_co]) -> None:
        try:
            future.set_result(self._look())
        except BaseException as problem:  # `result` raises it to each caller
            future.set_exception(problem)
