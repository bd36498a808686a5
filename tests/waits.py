"""Waits with a limit; a failed wait names its purpose."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

LONGEST_SECONDS = 20.0  # the limit of a failing test; a passing one ends earlier


def result(future: Future[T], what: str, *, seconds: float = LONGEST_SECONDS) -> T:
    """Run a function in a thread; return its result or raise its exception."""
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.done():
            raise
        raise AssertionError(f"waited {seconds:g} s for {what}") from None


async def happens(event: asyncio.Event, what: str, *, seconds: float = LONGEST_SECONDS) -> None:
    """Wait for an event of this loop. Fails after `LONGEST_SECONDS`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        raise AssertionError(f"waited {seconds:g} s for {what}") from None
