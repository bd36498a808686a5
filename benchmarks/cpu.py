"""Measure CPU time by kind of process, to compare versions also on a busy machine.

Other programs lower a rate, but they hardly change the CPU time of a thousand envelopes. CPU time
is user and system time, as the kernel counts it, to 10 ms.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

import psutil

LOOK_SECONDS = 1.0  # between two reads; the time of a process after its last read is lost

Processes = Callable[[], list[tuple[str, psutil.Process]]]
_Account = tuple[int, float]  # process id and start time, because ids are used again


class CpuMeter:
    """A meter that adds CPU seconds by kind between the marks "begin" and "end"."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._first: dict[_Account, float] = {}
        self._last: dict[_Account, tuple[str, float]] = {}
        self._began = 0.0
        self.elapsed = 0.0  # seconds between the marks
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def mark(self, name: str) -> None:
        """Begin or end to measure; `fleet.run_python` calls this at each mark."""
        if name == "begin":
            self._look()
            self._first = {account: seconds for account, (_, seconds) in self._last.items()}
            self._began = time.perf_counter()
            self._watching.start()
        else:
            self._ended.set()
            self._watching.join()
            self._look()
            self.elapsed = time.perf_counter() - self._began

    @property
    def seconds(self) -> dict[str, float]:
        """Return CPU seconds by kind; processes that began in between count in full."""
        spent: dict[str, float] = defaultdict(float)
        for account, (kind, seconds) in self._last.items():
            spent[kind] += seconds - self._first.get(account, 0.0)
        return dict(spent)

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        with suppress(psutil.NoSuchProcess):  # a process can end at any step
            for kind, process in self._processes():
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    account = (process.pid, process.create_time())
                    self._last[account] = (kind, times.user + times.system)
