"""CPU time by kind of process: what a change saves, also on a machine that others use.

A rate falls when other programs take the cores; the CPU time that a thousand envelopes cost hardly
moves. User and system time together, from the kernel's accounts, to 10 ms.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

import psutil

LOOK_SECONDS = 1.0  # between looks; what a process does after the last look before its end is lost

Processes = Callable[[], list[tuple[str, psutil.Process]]]
_Account = tuple[int, float]  # process id, and when it began: ids are used again


class CpuMeter:
    """Adds up CPU seconds by kind between the marks "begin" and "end"."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._first: dict[_Account, float] = {}
        self._last: dict[_Account, tuple[str, float]] = {}
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def mark(self, name: str) -> None:
        """What `fleet.run_python` calls at a mark."""
        if name == "begin":
            self._look()
            self._first = {account: seconds for account, (_, seconds) in self._last.items()}
            self._watching.start()
        else:
            self._ended.set()
            self._watching.join()
            self._look()

    @property
    def seconds(self) -> dict[str, float]:
        """CPU seconds by kind; of a process that came after the beginning, all that it had."""
        spent: dict[str, float] = defaultdict(float)
        for account, (kind, seconds) in self._last.items():
            spent[kind] += seconds - self._first.get(account, 0.0)
        return dict(spent)

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        with suppress(psutil.NoSuchProcess):  # one that ended between two steps of the look
            for kind, process in self._processes():
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    account = (process.pid, process.create_time())
                    self._last[account] = (kind, times.user + times.system)
