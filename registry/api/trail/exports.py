"""Exports as streams in constant memory.

A stream reads its next page, with short queries, only after it has sent the one before. The
streams are asynchronous, because Django reads a synchronous iterator to its end before it sends
the first byte.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async

from registry.api.trail.places import Place
from registry.trail.reading.formats import Format
from registry.trail.reading.search import Query, find, read, span_of

PAGE_ENTRIES = 1_000  # in one query and one chunk of a stream: about a MiB
MOST_REST_SECONDS = 0.1  # between two chunks
GZIP_LEVEL = 1  # a third of the time of level 6, for a file that is a fifth larger
_GZIP_BITS = 16 + zlib.MAX_WBITS  # with the head and the end of a gzip file (RFC 1952)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """How far an export got. `outcome` is `complete` only if the last byte was handed over."""

    rows: int = 0
    outcome: str = "broken off"


def chunks_of(
    query: Query, written_as: Format, progress: Progress, *, log_size: int, compressed: bool = False
) -> Iterator[bytes]:
    """Yield an export in chunks, each read when it is asked for; count its rows in `progress`."""
    plain = _chunks(query, written_as, progress, log_size=log_size)
    return _compressed(plain) if compressed else plain


async def stream(
    chunks: Iterator[bytes], progress: Progress, place: Place, end: Callable[[Progress], Any]
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


def _chunks(
    query: Query, written_as: Format, progress: Progress, *, log_size: int
) -> Iterator[bytes]:
    yield written_as.begin(query.fields)
    span = span_of(query.limits, log_size=log_size)
    while True:
        found = find(query, span, limit=PAGE_ENTRIES)
        rows = read(query.fields, found.positions)
        yield written_as.write(query.fields, rows)
        progress.rows += len(rows)
        if found.reached is None:
            return
        span = span.behind(found.reached, query.order)


def _compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a gzip file; whoever reads can decompress all that was sent so far."""
    packer = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_BITS)
    for chunk in chunks:
        if chunk:
            yield packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
