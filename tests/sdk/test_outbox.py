"""The outbox: in order, within the window, and again until there is a receipt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atp.agent.outbox import Outbox
from atp.wire.frames import Receipt

WINDOW = 4
STEPS = st.lists(
    st.one_of(
        st.just("submit"),
        st.just("send"),
        st.just("cut"),
        st.tuples(st.sampled_from(["accepted", "denied", "busy"]), st.integers(0, 20)),
    ),
    max_size=60,
)


def filled(count: int) -> Outbox:
    outbox = Outbox()
    for n in range(count):
        outbox.submit(str(n), str(n).encode())
    return outbox


def test_it_sends_nothing_without_a_connection() -> None:
    assert filled(3).take(ticks=0) == []


def test_it_sends_in_order_and_only_a_window_of_them() -> None:
    outbox = filled(6)
    outbox.open(WINDOW)
    assert outbox.take(ticks=0) == [b"0", b"1", b"2", b"3"]
    assert outbox.take(ticks=0) == []
    outbox.settle(Receipt("1", "accepted"), ticks=0)
    assert outbox.take(ticks=0) == [b"4"]


def test_it_counts_what_was_given_up_until_its_receipt() -> None:
    """The hub counts it, too: more than its window would not be read."""
    outbox = filled(5)
    outbox.open(WINDOW)
    outbox.take(ticks=0)
    outbox.forget("0")
    assert outbox.take(ticks=0) == []
    assert outbox.settle(Receipt("0", "accepted"), ticks=0) is False
    assert outbox.take(ticks=0) == [b"4"]


def test_it_waits_as_long_as_it_was_told() -> None:
    outbox = filled(2)
    outbox.open(WINDOW)
    outbox.take(ticks=0)
    outbox.settle(Receipt("0", "busy", retry_after=5), ticks=10)
    outbox.settle(Receipt("1", "throttled"), ticks=10)
    assert outbox.next_due() == 11
    assert outbox.take(ticks=11) == [b"1"]
    assert outbox.next_due() == 15
    outbox.open(WINDOW)
    assert outbox.take(ticks=14) == [b"1"]
    assert outbox.take(ticks=15) == [b"0"]


@given(STEPS)
def test_it_loses_nothing_whatever_happens(steps: list[object]) -> None:
    """Against a hub that takes what it is sent: all of it is settled in the end."""
    outbox, under_way, open_ids, ticks, count = Outbox(), [], set(), 0.0, 0
    outbox.open(WINDOW)
    for step in steps:
        ticks += 1
        if step == "submit":
            outbox.submit(str(count), str(count).encode())
            open_ids.add(str(count))
            count += 1
        elif step == "send":
            under_way += [data.decode() for data in outbox.take(ticks=ticks)]
        elif step == "cut":
            under_way.clear()
            outbox.open(WINDOW)
        elif isinstance(step, tuple) and under_way:
            status, place = step
            message_id = under_way.pop(place % len(under_way))
            outbox.settle(Receipt(message_id, status, retry_after=0), ticks=ticks)
            if status != "busy":
                open_ids.discard(message_id)
        assert len(under_way) <= WINDOW
        assert len(set(under_way)) == len(under_way)
        assert len(outbox) == len(open_ids)
    for _ in range(count + 1):
        ticks += 1
        under_way += [data.decode() for data in outbox.take(ticks=ticks)]
        while under_way:
            message_id = under_way.pop()
            outbox.settle(Receipt(message_id, "accepted"), ticks=ticks)
            open_ids.discard(message_id)
    assert not open_ids
    assert not outbox
