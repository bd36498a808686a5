"""Wait until a condition is true, with a generous limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONGEST_SECONDS = 20  # the limit of a failing test; a passing one ends earlier
PAUSE_SECONDS = 0.005


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition. A failure names the line of the condition."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not true in {LONGEST_SECONDS} s: {_place(condition)}"
        await asyncio.sleep(PAUSE_SECONDS)


def _place(condition: Callable[[], object]) -> str:
    code = getattr(condition, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(condition)
