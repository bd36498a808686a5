"""Waiting for something to become true, without betting on how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LONGEST_SECONDS = 20  # a failing test ends then; a passing one never waits for it
PAUSE_SECONDS = 0.005


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONGEST_SECONDS):
        while not condition():
            await asyncio.sleep(PAUSE_SECONDS)
