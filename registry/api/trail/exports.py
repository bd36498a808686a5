"""Exports as streams: the next page is read, with short queries, after the one before was sent.

The streams are asynchronous, because Django reads a synchronous iterator to its end before it sends
the first byte.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from asgiref.sync import sync_to_async

from registry.api.trail.places import ExportPlace
from registry.trail.reading.exporting import Progress

MOST_REST_SECONDS = 0.1  # between two chunks

logger = logging.getLogger(__name__)


async def stream(
    chunks: Iterator[bytes], progress: Progress, place: ExportPlace, end: Callable[[Progress], Any]
) -> AsyncGenerator[bytes, None]:
    """Yield the same chunks, each read in another thread; leave the place and call `end` at last.

    Between two chunks it rests for as long as it took to read the last one, so that an export takes
    at most half of a processor from the agents that this process serves.
    """
    try:
        async with aclosing(_rested(chunks)) as parts:
            async for part in parts:
                yield part
        progress.outcome = "complete"
    except Exception:
        progress.outcome = "failed"
        raise
    finally:
        place.leave()
        await sync_to_async(_enter_end)(end, progress)


async def _rested(chunks: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    while True:
        began = time.monotonic()
        chunk = await sync_to_async(lambda: next(chunks, None))()
        took = time.monotonic() - began
        if chunk is None:
            return
        if chunk:
            yield chunk
        await asyncio.sleep(min(took, MOST_REST_SECONDS))


def _enter_end(end: Callable[[Progress], Any], progress: Progress) -> None:
    """Enter the end. The bytes are sent already, so a failure is only logged."""
    try:
        end(progress)
    except Exception:
        logger.exception("the end of an export could not be entered in the trail")
