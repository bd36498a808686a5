"""The search for entries: which ones match a query, in short queries that each use an index.

A query has at most one leading filter. It names an index that holds the entries of one value in
the order of the log, so the next matches are the next rows of that index. All other filters are
checked against the entries that the leading filter finds, a bounded number at a time. So a search
never depends on the planner's guess of how many entries match
(docs/design/provenance.md#reading).
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from django.db.models import Q

from registry.trail.kinds import Kind
from registry.trail.models import Entry, EntryBody
from registry.trail.reading.columns import BODY, columns_of

SEARCHED_AT_ONCE = 5_000  # entries against which the other filters are checked with one query
SEARCH_SECONDS = 2.0  # for one page; a search that has not ended then says how far it got

Order = Literal["newest", "oldest"]
Row = Sequence[Any]  # the position, then the members that were asked for


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of a query: an entry matches if it fulfils any of `branches`.

    `rank` is the place in the order of preference for the leading filter; `None` if no index holds
    the entries of each branch in the order of the log. The lower, the fewer entries have one value.
    With `in_body` the condition is about columns of the body.
    """

    branches: tuple[Q, ...]
    rank: int | None = None
    in_body: bool = False

    @property
    def condition(self) -> Q:
        """Return the condition of all branches."""
        return Q(*self.branches, _connector=Q.OR)


@dataclass(frozen=True, slots=True)
class LogRange:
    """The limits of a query in the log: positions (both included), times, and the hub."""

    first: int | None = None
    last: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    hubs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched, in which order, and which members are read."""

    filters: Mapping[str, Filter]
    limits: LogRange
    order: Order
    fields: tuple[str, ...]
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def leading(self) -> Filter | None:
        """Return the filter whose index is read; `None` if the log itself is read."""
        ranked = [each for each in self.filters.values() if each.rank is not None]
        return min(ranked, key=lambda each: each.rank or 0, default=None)

    @property
    def others(self) -> list[Filter]:
        """Return the filters that are checked against what the leading one finds."""
        leading = self.leading
        return [each for each in self.filters.values() if each is not leading]


@dataclass(frozen=True, slots=True)
class Span:
    """The positions from `first` to before `end`."""

    first: int
    end: int

    def behind(self, position: int, order: Order) -> Span:
        """Return what is left behind a position that was read in this order."""
        if order == "oldest":
            return replace(self, first=max(self.first, position + 1))
        return replace(self, end=min(self.end, position))


@dataclass(frozen=True, slots=True)
class Found:
    """Positions that match, in the query's order.

    The search goes on behind `reached`, which is `None` at the end of the log.
    """

    positions: Sequence[int]
    reached: int | None


def span_of(limits: LogRange, *, log_size: int) -> Span:
    """Return the positions in a log of `log_size` entries that lie within the limits.

    Times never go back and a log has one hub, so a time or a hub is a position: one short query.
    """
    first, end = limits.first or 0, log_size
    if limits.last is not None:
        end = min(end, limits.last + 1)
    if limits.since is not None:
        first = max(first, Entry.objects.first_since(limits.since, default=log_size))
    if limits.until is not None:
        end = min(end, Entry.objects.first_since(limits.until, default=log_size))
    if limits.hubs:
        begin_of_hubs, end_of_hubs = _positions_of(limits.hubs, log_size=log_size)
        first, end = max(first, begin_of_hubs), min(end, end_of_hubs)
    return Span(first, max(first, end))


def find(query: Query, span: Span, *, limit: int, seconds: float | None = SEARCH_SECONDS) -> Found:
    """Return the next positions that match, at most `limit`.

    A search with other filters than the leading one ends after `seconds`, if it is not `None`.
    """
    step = limit + 1
    give_up = None if seconds is None else time.monotonic() + seconds
    found: list[int] = []
    while True:
        candidates = _candidates(query, span, step)
        found += _matching(candidates, query.others)
        if len(found) > limit:
            return Found(found[:limit], found[limit - 1])
        if len(candidates) < step:
            return Found(found, None)
        span = span.behind(candidates[-1], query.order)
        step = max(step, min(2 * step, SEARCHED_AT_ONCE))
        if give_up is not None and time.monotonic() >= give_up:
            return Found(found, candidates[-1])


def read(fields: tuple[str, ...], positions: Sequence[int]) -> list[Row]:
    """Return a row for each position, in this order: the position, then the members' columns.

    Header and body are read apart, each by position, so neither is read from the log's begin.
    """
    if not positions:
        return []
    columns = columns_of(fields)
    header = [name for name in columns if not name.startswith(BODY)]
    body = [name.removeprefix(BODY) for name in columns if name.startswith(BODY)]
    headers = Entry.objects.at(positions).rows(*header)
    bodies = EntryBody.objects.at(positions).rows(*body) if body else {}
    nothing = (None,) * len(body)
    places = _places(columns)
    return [
        _joined(places, position, headers[position], bodies.get(position, nothing))
        for position in positions
        if position in headers
    ]


def _places(columns: Sequence[str]) -> list[int]:
    """Return where each column is in a row of the header's columns and then the body's."""
    of_header = sum(not name.startswith(BODY) for name in columns)
    header, body = itertools.count(), itertools.count(of_header)
    return [next(body if name.startswith(BODY) else header) for name in columns]


def _joined(places: Sequence[int], position: int, of_header: Row, of_body: Row) -> Row:
    both = (*of_header, *of_body)
    return (position, *[both[place] for place in places])


def _candidates(query: Query, span: Span, most: int) -> Sequence[int]:
    """Return the next positions that the leading filter finds, at most `most`."""
    newest = query.order == "newest"
    if span.first >= span.end:
        return []
    leading = query.leading
    if leading is None:
        every = range(span.first, span.end)
        return list(itertools.islice(reversed(every) if newest else every, most))
    found = [_of_branch(branch, span, newest=newest, most=most) for branch in leading.branches]
    return found[0] if len(found) == 1 else _merged(found, newest=newest, most=most)


def _of_branch(branch: Q, span: Span, *, newest: bool, most: int) -> list[int]:
    within = Entry.objects.within(span.first, span.end).filter(branch)
    return within.positions(newest=newest, most=most)


def _merged(found: Iterable[list[int]], *, newest: bool, most: int) -> list[int]:
    """Return the positions of all branches in order, each once."""
    once = dict.fromkeys(heapq.merge(*found, reverse=newest))
    return list(itertools.islice(once, most))


def _matching(candidates: Sequence[int], others: Sequence[Filter]) -> Sequence[int]:
    for model, is_body in ((Entry, False), (EntryBody, True)):
        conditions = [each.condition for each in others if each.in_body is is_body]
        if candidates and conditions:
            kept = set(model.objects.at(candidates).filter(*conditions).positions())
            candidates = [position for position in candidates if position in kept]
    return candidates


def _positions_of(hubs: Sequence[str], *, log_size: int) -> tuple[int, int]:
    """Return from which position to before which one the logs of these hubs lie."""
    begins = Entry.objects.filter(kind=Kind.LOG_STARTED).hubs()
    ends = [position for position, _ in begins[1:]] + [log_size]
    logs = [(begin, end) for (begin, hub), end in zip(begins, ends, strict=True) if hub in hubs]
    return (logs[0][0], logs[-1][1]) if logs else (log_size, log_size)
