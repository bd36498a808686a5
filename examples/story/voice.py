"""Print the story: chapters, sentences and facts in columns; with colour on a terminal only."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

__all__ = ["StoryError", "Voice"]

WIDTH_MAX_CHARS: Final = 110
LABEL_CHARS: Final = 24  # the width of the first column; names of agents fit
INDENT: Final = "    "
GAP_CHARS: Final = 2  # between columns
_STYLES: Final[Mapping[str, str]] = {
    "title": "1;36",
    "good": "32",
    "bad": "31",
    "faint": "2",
    "strong": "1",
}


class StoryError(Exception):
    """An event of the story that did not happen; the message says which."""


class Voice:
    """The printer of the story; it writes to `out`, by default to standard output."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._coloured = self._out.isatty() and "NO_COLOR" not in os.environ
        columns = shutil.get_terminal_size((WIDTH_MAX_CHARS, 24)).columns
        self.width = max(60, min(WIDTH_MAX_CHARS, columns))
        self._chapter = 0

    def title(self, text: str) -> None:
        """Print the first line of the story."""
        self._line(self._styled(text, "strong"))

    def chapter(self, text: str) -> None:
        """Print the heading of the next chapter, with its number."""
        self._chapter += 1
        self._line("")
        self._line(self._styled(f"{self._chapter:2}  {text}", "title"))

    def say(self, text: str) -> None:
        """Print sentences, wrapped."""
        for line in textwrap.wrap(text, self.width - len(INDENT), break_on_hyphens=False):
            self._line(f"{INDENT}{line}")

    def fact(self, label: str, text: str, *, refused: bool = False) -> None:
        """Print an event that happened; with `refused`, a refusal by the hub."""
        sign = self._styled("x", "bad") if refused else self._styled("+", "good")
        free = self.width - len(INDENT) - LABEL_CHARS - 3
        first, *rest = textwrap.wrap(text, free, break_on_hyphens=False) or [""]
        self._line(f"{INDENT}{sign} {label:<{LABEL_CHARS}} {first}")
        for line in rest:
            self._line(f"{INDENT}  {'':<{LABEL_CHARS}} {line}")

    def check(self, happened: object, label: str, text: str, *, refused: bool = False) -> None:
        """Print an event if `happened` is true. Raises `StoryError` otherwise."""
        if not happened:
            raise StoryError(f"{label}: this did not happen: {text}")
        self.fact(label, text, refused=refused)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns; the last column gets the rest of the line."""
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
        before = len(INDENT) + sum(widths) + GAP_CHARS * len(widths)
        free = max(20, self.width - before)
        self._line(self._styled(_cells(head, widths), "faint"))
        for row in rows:
            first, *rest = textwrap.wrap(row[-1], free, break_on_hyphens=False) or [""]
            self._line(_cells((*row[:-1], first), widths).rstrip())
            for line in rest:
                self._line(" " * before + line)

    def failure(self, text: str) -> None:
        """Print why the story ended early."""
        self._line("")
        self._line(self._styled(text, "bad"))

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._coloured else text

    def _line(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _cells(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return INDENT + (" " * GAP_CHARS).join((*cells, row[-1]))
