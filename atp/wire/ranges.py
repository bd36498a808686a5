"""Ranges of places in a stream, as acks tell them (docs/protocol.md#acks)."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["Range", "join_ranges"]

Range = tuple[int, int]  # first and last place


def join_ranges(ranges: Collection[Range]) -> list[Range]:
    """Return the ranges sorted, each joined with those that begin right after it or before."""
    if len(ranges) == 1:
        return list(ranges)
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined
