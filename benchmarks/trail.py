"""Figures of reading the trail: `python -m benchmarks.trail` on a trail that is filled already.

`trail.page` is the median time of a page of 100 entries, for each documented combination of filter
and order (docs/auditing.md#what-is-fast); `trail.export` is entries a second of an export with
bodies, from the begin of the log, and the memory of the process before and after it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import django

from benchmarks.report import Figure, append_jsonl, conditions, print_table

PAGES = 25  # for the median of one combination
EXPORTED = 300_000  # entries
VALUES = {
    "agent": "filled-7",
    "sender": "filled-7",
    "recipient": "filled-7",
    "actor": "officer:000000000007",
    "rule": "no restricted data after hours",
    "policy": "Baseline",
    "issuer": "Local authority",
    "verdict": "denied",
    "kind": "envelope.denied",
    "sensitivity": "restricted",
}
ABSENT = {"verdict": "redelivered", "kind": "key.revoked", "sensitivity": "restricted"}
MIB = 1024  # KiB, as the system counts resident memory


def combinations() -> Iterator[str]:
    """Yield the query strings of the documented combinations, with a value and with none."""
    from registry.trail.reading.filters import LEADING

    for order in ("newest", "oldest"):
        yield f"order={order}"
        for name in LEADING:
            for value in (VALUES.get(name), ABSENT.get(name, "none")):
                if value is not None:
                    yield f"{name}={value}&order={order}"


def page_times(asked: str, log_size: int) -> list[float]:
    """Return the milliseconds of pages that follow each other in a search."""
    from django.http import QueryDict

    from registry.trail.reading.filters import parse_query
    from registry.trail.reading.search import find, read, span_of

    query, times = parse_query(QueryDict(asked)), []
    started = time.perf_counter()
    span = span_of(query.limits, log_size=log_size)
    for _ in range(PAGES):
        found = find(query, span, limit=100)
        read(query.fields, found.positions)
        times.append(1000 * (time.perf_counter() - started))
        if found.reached is not None:
            span = span.behind(found.reached, query.order)
        started = time.perf_counter()
    return times


def export_rate(log_size: int) -> tuple[float, float]:
    """Return entries a second of an export, and how many MiB the process grew meanwhile."""
    from django.http import QueryDict

    from registry.trail.reading.exporting import Progress, chunks_of
    from registry.trail.reading.filters import parse_query
    from registry.trail.reading.formats import FORMATS

    written_as = FORMATS["ndjson"]
    query = parse_query(QueryDict(), fields=written_as.fields, order="oldest")
    progress = Progress()
    chunks = chunks_of(query, written_as, progress, log_size=min(log_size, EXPORTED))
    for _ in islice(chunks, 20):
        pass
    memory, rows, started = _memory(), progress.rows, time.perf_counter()
    for _ in chunks:
        pass
    rate = (progress.rows - rows) / (time.perf_counter() - started)
    return rate, (_memory() - memory) / MIB


def figures() -> list[Figure]:
    """Measure the trail of the environment's database."""
    from django.db import connection

    from registry.trail.models import Entry

    log_size = Entry.objects.latest("pk").pk + 1
    profile = connection.vendor
    medians = {asked: statistics.median(page_times(asked, log_size)) for asked in combinations()}
    rate, grown = export_rate(log_size)
    return [
        Figure("trail.entries", profile, log_size, "entries"),
        *(Figure(f"trail.page {asked}", profile, ms, "ms") for asked, ms in medians.items()),
        Figure("trail.page.slowest", profile, max(medians.values()), "ms"),
        Figure("trail.export", profile, rate, "entries/s"),
        Figure("trail.export.memory", profile, grown, "MiB more"),
    ]


def _memory() -> float:
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    """Print the figures."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    found: list[Any] = figures()
    print_table(found)
    append_jsonl(found, conditions())


if __name__ == "__main__":
    main()
