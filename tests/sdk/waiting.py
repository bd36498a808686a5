"""Waiting for something to become true, without betting on how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LONGEST_SECONDS = 20  # a failing test ends then; a passing one never waits for it
PAUSE_SECONDS = 0.005


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; what fails says where it is written."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not true in {LONGEST_SECONDS} s: {_place(condition)}"
        await asyncio.sleep(PAUSE_SECONDS)


def _place(condition: Callable[[], object]) -> str:
    code = getattr(condition, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(condition)
