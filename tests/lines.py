"""Read the output of a running program line by line; each wait has a limit."""

from __future__ import annotations

import queue
import threading
from typing import IO

LONGEST_SECONDS = 60.0


class Lines:
    """The lines of a pipe, which a thread reads."""

    def __init__(self, pipe: IO[str] | None) -> None:
        assert pipe is not None, "the program was started without this pipe"
        self.heard: list[str] = []
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(pipe,), name="lines", daemon=True).start()

    def next(self, what: str, *, seconds: float = LONGEST_SECONDS) -> str:
        """Return the next line without its end. Fails with the earlier lines if none comes."""
        try:
            line = self._waiting.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(
                f"waited {seconds:g} s for {what}; heard {self.heard}; a program that prints into"
                " a pipe must flush"
            ) from None
        if line is None:
            self._waiting.put(None)
            raise AssertionError(f"the output ended before {what}; heard {self.heard}")
        self.heard.append(line)
        return line

    def until(self, part: str, *, seconds: float = LONGEST_SECONDS) -> str:
        """Return the next line that contains `part`."""
        while part not in (line := self.next(f"a line with {part!r}", seconds=seconds)):
            pass
        return line

    def rest(self, *, seconds: float = LONGEST_SECONDS) -> list[str]:
        """Return the lines up to the end, of a program that ends now."""
        left: list[str] = []
        while (line := self._line_or_end(seconds)) is not None:
            left.append(line)
        return left

    def _line_or_end(self, seconds: float) -> str | None:
        try:
            return self._waiting.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"waited {seconds:g} s for the end of the output") from None

    def _read(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._waiting.put(line.rstrip("\n"))
        self._waiting.put(None)
