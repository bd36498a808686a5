"""The places of a stream that are done: all up to a mark, and ranges beyond it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from atp.wire.ranges import Range

MOST_UNDONE = 2048  # places sent and not done, in one stream (docs/protocol.md#acks)

_first = itemgetter(0)
_last = itemgetter(1)


class DonePlaces:
    """Everything up to `mark`, and the ranges `ahead` of it: sorted, apart from each other.

    In a stream with at most n places that are sent and not done, there are at most n ranges.
    """

    def __init__(self, mark: int = 0, ahead: Iterable[Sequence[int]] = ()) -> None:
        """Begin with ranges that are sorted, apart, and beyond the place after `mark`."""
        self.mark = mark
        self.ahead: list[Range] = [(first, last) for first, last in ahead] if ahead else []
        self.ahead_count = sum(map(_size, self.ahead)) if ahead else 0

    def __contains__(self, place: int) -> bool:
        if place <= self.mark:
            return True
        at = bisect_left(self.ahead, place, key=_last)
        return at < len(self.ahead) and self.ahead[at][0] <= place

    def add(self, first: int, last: int) -> list[Range]:
        """Add the places `first` to `last`; return the ranges of those that were not done."""
        first = max(first, self.mark + 1)
        if last < first:
            return []
        if not self.ahead and first == self.mark + 1:  # nearly always
            self.mark = last
            return [(first, last)]
        begin = bisect_left(self.ahead, first - 1, key=_last)
        end = bisect_right(self.ahead, last + 1, key=_first)
        touched = self.ahead[begin:end]
        new = list(_gaps(first, last, touched))
        self.ahead_count += sum(map(_size, new))
        if touched:
            first, last = min(first, touched[0][0]), max(last, touched[-1][1])
        self.ahead[begin:end] = [(first, last)]
        if first == self.mark + 1:
            self.mark = last
            self.ahead_count -= _size(self.ahead.pop(0))
        return new

    def gaps(self, after: int, upto: int) -> Iterator[Range]:
        """Yield, in order, the ranges of places after `after` and up to `upto` not done."""
        begin = bisect_right(self.ahead, after, key=_last)
        end = bisect_right(self.ahead, upto, key=_first)
        return _gaps(max(after, self.mark) + 1, upto, self.ahead[begin:end])

    def ranges(self, after: int, upto: int) -> Iterator[Range]:
        """Yield, in order, the ranges of places after `after` and up to `upto` that are done."""
        return _gaps(after + 1, upto, self.gaps(after, upto))

    def end_of_range(self, place: int) -> int:
        """Return the last place of the range in which `place` is; `place` must be done."""
        if place <= self.mark:
            return self.mark
        return self.ahead[bisect_left(self.ahead, place, key=_last)][1]


def _gaps(first: int, last: int, taken: Iterable[Range]) -> Iterator[Range]:
    """Yield the parts of `first` to `last` that are in none of the sorted ranges `taken`."""
    for begin, end in taken:
        if first < begin:
            yield first, begin - 1
        first = max(first, end + 1)
    if first <= last:
        yield first, last


def _size(places: Range) -> int:
    return places[1] - places[0] + 1
