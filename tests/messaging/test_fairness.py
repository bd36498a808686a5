"""Fair queueing of a lane: who is next, with how much, and that nobody waits without need."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.node.fairness import FEW, MANY, SEEN_SECONDS, LaneBatch, Turns

PLACES = 4
SLICE = 4  # of a batch of 64


def turns() -> Turns[str]:
    """A queue for items such as "a3", the fourth of the owner "a"."""
    return Turns(most_items=64, most_bytes=400_000, whose=lambda item: item[0])


def crowd(queue: Turns[str], now: float = 0.0) -> None:
    """Let two owners be seen, so that slices are short."""
    for owner in "yz":
        queue.put(f"{owner}0", 100, now)
    queue.done(queue.take(now), 0.0)


def put(queue: Turns[str], owner: str, count: int, now: float = 0.0) -> None:
    for n in range(count):
        queue.put(f"{owner}{n}", 100, now)


def test_a_batch_has_a_slice_of_each_and_a_newcomer_is_next() -> None:
    queue = turns()
    crowd(queue)
    put(queue, "m", 30)
    put(queue, "a", 1)
    first = queue.take(0.0)
    assert first.items == ["m0", "m1", "m2", "m3", "a0"]
    queue.done(first, 1.0)
    put(queue, "b", 1)
    assert queue.take(0.0).items == ["b0", "m4", "m5", "m6", "m7"]


def test_nobody_has_part_in_two_batches_at_once() -> None:
    """Or the second might be judged before the first."""
    queue = turns()
    crowd(queue)
    put(queue, "a", 6)
    first = queue.take(0.0)
    assert first.items == ["a0", "a1", "a2", "a3"]
    assert not queue.holds(1, 0.0)
    assert queue.take(0.0).items == []
    queue.done(first, 0.0)
    assert queue.holds(2, 0.0)
    assert not queue.holds(3, 0.0)
    assert queue.take(0.0).items == ["a4", "a5"]


@pytest.mark.parametrize(("owners", "slices"), [(1, 4), (2, 4), (3, 16), (7, 16), (20, 16)])
def test_a_slice_goes_by_how_many_owners_were_seen(owners: int, slices: int) -> None:
    queue = turns()
    for n in range(owners - 1):
        queue.put(f"{chr(ord('A') + n)}0", 100, 0.1)
    queue.done(queue.take(0.1), 0.0)
    put(queue, "a", 64, 1.0)
    assert len(queue.take(1.0).items) == 64 // slices


@pytest.mark.parametrize(("free", "each"), [(1, 16), (4, 16), (5, 12), (8, 8), (20, 8)])
def test_many_with_items_fill_a_batch(free: int, each: int) -> None:
    queue = turns()
    for owner in "ABCDEFGH":
        put(queue, owner, 1)
    assert len(queue.take(0.0).costs) == MANY
    for n in range(free):
        put(queue, chr(ord("a") + n), 64)
    taken = Counter(item[0] for item in queue.take(0.0).items)
    assert set(taken.values()) <= {each, 64 % each}
    assert taken["a"] == each


def test_an_owner_counts_as_there_for_a_second() -> None:
    queue = turns()
    crowd(queue)
    put(queue, "a", 64, 0.5)
    early = queue.take(SEEN_SECONDS - 0.1)
    assert len(early.items) == SLICE
    queue.done(early, 0.1)
    assert len(queue.take(SEEN_SECONDS).items) == 16


def test_the_last_place_is_for_what_fits_in_a_slice() -> None:
    queue = turns()
    crowd(queue)
    put(queue, "m", SLICE + 1)
    assert not queue.holds(1, 0.0, last_place=True)
    assert queue.take(0.0, last_place=True).items == []
    put(queue, "a", SLICE)
    assert queue.holds(SLICE, 0.0, last_place=True)
    assert queue.take(0.0, last_place=True).items == ["a0", "a1", "a2", "a3"]


def test_the_last_place_is_for_all_where_many_hold_the_others() -> None:
    queue = turns()
    for owner in "abcdefgh":
        put(queue, owner, 1)
    assert len(queue.take(0.0).costs) == MANY
    put(queue, "m", 30)
    assert len(queue.take(0.0, last_place=True).items) == 16


def test_it_charges_nothing_for_a_few_items_at_a_time() -> None:
    """A batch of one takes a round trip and a commit, which is not its owner's doing."""
    queue: Turns[str] = Turns(most_items=256, most_bytes=1_048_576, whose=lambda item: item[0])
    crowd(queue)
    for _ in range(20):
        put(queue, "a", 1)
        queue.done(queue.take(0.0), 1.0)
    put(queue, "m", 40)
    queue.done(queue.take(0.0), 1.0)
    put(queue, "a", 1)
    assert queue.take(0.0).items[0] == "a0"


def test_an_owner_gets_no_credit_for_the_time_before() -> None:
    """Else one that was away for an hour could keep all others waiting for as long."""
    queue = turns()
    crowd(queue)
    for _ in range(100):
        put(queue, "m", SLICE)
        queue.done(queue.take(0.0), 1.0)
    put(queue, "a", 40)
    put(queue, "m", 40)
    used: Counter[str] = Counter()
    for _ in range(12):
        batch = take_one_owner(queue)
        used[batch.items[0][0]] += 1
        queue.done(batch, 1.0)
    assert abs(used["a"] - used["m"]) <= 1


def test_large_items_cost_more_time() -> None:
    queue: Turns[str] = Turns(most_items=64, most_bytes=160_000, whose=lambda item: item[0])
    crowd(queue)
    for n in range(40):
        queue.put(f"s{n}", 100, 0.0)
        queue.put(f"l{n}", 18_000, 0.0)
    served: Counter[str] = Counter()
    for _ in range(9):
        batch = queue.take(0.0)
        served.update(item[0] for item in batch.items)
        queue.done(batch, sum(batch.costs.values()) / 1e6)
    assert served["l"] < served["s"]


def take_one_owner(queue: Turns[str]) -> LaneBatch[str]:
    """Take a batch of the owner that is next alone; put the other owner's items aside."""
    batch = queue.take(0.0)
    first = batch.items[0][0]
    others = [item for item in batch.items if item[0] != first]
    kept = LaneBatch([i for i in batch.items if i[0] == first], {first: batch.costs[first]})
    queue.done(LaneBatch(others, {o: c for o, c in batch.costs.items() if o != first}), 0.0)
    for item in others:
        queue.put(item, 100, 0.0)
    return kept


OWNERS = "abcdef"
STEPS = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.integers(0, 40), st.floats(0.001, 0.5)), max_size=60
)


@given(STEPS)
def test_it_never_idles_and_keeps_each_owners_order(steps: list[tuple[str, int, float]]) -> None:
    """Whatever comes, and however long batches take: a place that is free is used."""
    queue, under_way, now = turns(), list[tuple[float, LaneBatch[str]]](), 0.0
    sent, handled = Counter[str](), {owner: list[int]() for owner in OWNERS}
    came = dict.fromkeys(OWNERS, float("-inf"))

    def begin() -> None:
        while len(under_way) < PLACES:
            last_place = len(under_way) == PLACES - 1
            batch = queue.take(now, last_place=last_place)
            busy = {owner for _, one in under_way for owner in one.costs}
            waiting = {owner: sent[owner] - sum(map(len, parts(owner))) for owner in OWNERS}
            free = [o for o in OWNERS if waiting[o] and o not in busy]
            there = {o for o in OWNERS if waiting[o] or now - came[o] < SEEN_SECONDS} | busy
            small = [o for o in free if waiting[o] <= (16 if len(there) <= FEW else SLICE)]
            assert bool(batch.items) == bool(small if last_place else free)
            if not batch.items:
                return
            assert len({i[0] for i in batch.items} & busy) == 0
            under_way.append((now + 0.1, batch))

    def parts(owner: str) -> list[list[int]]:
        flying = [[int(i[1:]) for i in b.items if i[0] == owner] for _, b in under_way]
        return [handled[owner], *flying]

    def end_one() -> None:
        under_way.sort(key=lambda one: one[0])
        _, batch = under_way.pop(0)
        for item in batch.items:
            handled[item[0]].append(int(item[1:]))
        queue.done(batch, 0.1)

    for owner, count, seconds in steps:
        now += seconds
        for _ in range(count):
            queue.put(f"{owner}{sent[owner]}", 100, now)
            sent[owner] += 1
            came[owner] = now
        begin()
        if under_way:
            end_one()
            begin()
    while under_way:
        end_one()
        begin()
    assert len(queue) == 0
    assert handled == {owner: list(range(sent[owner])) for owner in OWNERS}


@given(st.lists(st.floats(0.01, 1.0), min_size=8, max_size=40))
def test_two_greedy_owners_share_the_time(durations: list[float]) -> None:
    """Their seconds of use differ by at most two of the longest batches."""
    queue, used = turns(), {"a": 0.0, "m": 0.0}
    crowd(queue)
    put(queue, "a", 400)
    put(queue, "m", 400)
    for seconds in durations:
        batch = take_one_owner(queue)
        used[batch.items[0][0]] += seconds
        queue.done(batch, seconds)
    assert abs(used["a"] - used["m"]) <= 2 * max(durations)


@given(STEPS)
def test_a_newcomer_begins_in_the_next_batch(steps: list[tuple[str, int, float]]) -> None:
    queue, now = turns(), 0.0
    for owner, count, seconds in steps:
        now += seconds
        put(queue, owner, count, now)
        queue.done(queue.take(now), seconds)
    put(queue, "n", 1, now)
    assert "n0" in queue.take(now).items
