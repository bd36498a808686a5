"""The places that are done, compared with a plain set of numbers."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from atp.wire.ranges import Range, join_ranges
from messaging.mail.done_places import DonePlaces

PLACES = 60


def spread(ranges: Iterable[Range]) -> list[int]:
    return [place for first, last in ranges for place in range(first, last + 1)]


@pytest.mark.parametrize("seed", range(40))
def test_it_knows_what_a_set_knows(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    done, known = DonePlaces(), set[int]()
    for _ in range(60):
        first = chance.randint(1, PLACES)
        last = min(PLACES, first + chance.choice((0, 0, 0, 1, 5)))
        new = spread(done.add(first, last))
        assert new == sorted(set(range(first, last + 1)) - known)
        known.update(new)

        mark = next(place for place in range(PLACES + 1) if place + 1 not in known)
        ahead = sorted(place for place in known if place > mark)
        assert (done.mark, spread(done.ahead)) == (mark, ahead)
        assert done.ahead == join_ranges(done.ahead)
        assert done.ahead_count == len(ahead)
        assert {place for place in range(PLACES + 9) if place in done} == {0, *known}

        after, upto = chance.randint(0, PLACES), chance.randint(0, PLACES)
        there = range(after + 1, upto + 1)
        assert spread(done.gaps(after, upto)) == [place for place in there if place not in known]
        assert spread(done.ranges(after, upto)) == [place for place in there if place in known]


def test_it_tells_where_a_range_ends() -> None:
    done = DonePlaces(3, [(5, 7), (9, 9)])
    assert [done.end_of_range(place) for place in (1, 3, 5, 6, 9)] == [3, 3, 7, 7, 9]


def test_it_ignores_a_range_that_is_done_or_empty() -> None:
    done = DonePlaces(3, [(5, 7)])
    assert [done.add(*places) for places in ((1, 3), (6, 7), (9, 8), (4, 3))] == [[]] * 4


def test_it_joins_ranges_that_touch_or_overlap() -> None:
    assert join_ranges([(7, 9), (1, 2), (3, 4), (8, 12), (14, 14)]) == [(1, 4), (7, 12), (14, 14)]
