"""Probes: each asks one service whether it works, and answers or raises in bounded time.

A probe that hangs keeps its one thread, and no second thread is started beside it. So neither a
dead Redis nor many requests for the health of the hub cost more than one thread a service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)

PROBE_SECONDS = 3.0  # until a service that has not answered counts as one that does not
FRESH_SECONDS = 1.0  # an answer so old is given again


class Probe(Generic[T_co]):
    """One thing to be looked at, by any number of threads of this process."""

    def __init__(self, look: Callable[[], T_co]) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._future: Future[T_co] | None = None
        self._began = 0.0

    def begin(self) -> Future[T_co]:
        """Begin to look, unless somebody does or has just done."""
        with self._lock:
            if self._future is None or (self._future.done() and self._age() > FRESH_SECONDS):
                self._future, self._began = Future(), time.monotonic()
                # No pool: at the end of the process Python waits for the threads of pools.
                threading.Thread(target=self._run, args=(self._future,), daemon=True).start()
            return self._future

    def result(self) -> T_co:
        """What was seen. Raises what the look raised, or `TimeoutError` after `PROBE_SECONDS`."""
        future = self.begin()
        return future.result(max(0.0, PROBE_SECONDS - self._age()))

    def _age(self) -> float:
        return time.monotonic() - self._began

    def _run(self, future: Future[T_co]) -> None:
        try:
            future.set_result(self._look())
        except BaseException as problem:  # whoever asks gets it
            future.set_exception(problem)
