"""Exports in chunks, each read when it is asked for: of any size in constant memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from registry.trail.reading.formats import Format
from registry.trail.reading.search import Query, find, read, span_of

PAGE_ENTRIES = 1_000  # in one chunk: about a MiB
GZIP_LEVEL = 1  # a third of the time of level 6, for a file that is a fifth larger
_GZIP_BITS = 16 + zlib.MAX_WBITS  # with the head and the end of a gzip file (RFC 1952)


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
