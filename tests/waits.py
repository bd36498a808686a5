"""Waits that end, and say what they waited for."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

LONGEST_SECONDS = 20.0  # a failing test ends then; a passing one never waits for it


def result(future: Future[T], what: str, *, seconds: float = LONGEST_SECONDS) -> T:
    """What a thread returns, or raises."""
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():
            raise
        raise AssertionError(f"waited {seconds:g} s for {what}") from None


async def happens(event: asyncio.Event, what: str, *, seconds: float = LONGEST_SECONDS) -> None:
    """Wait for an event of this loop."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        raise AssertionError(f"waited {seconds:g} s for {what}") from None
