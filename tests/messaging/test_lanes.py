"""Concurrent batches: small ones wait, unless many items wait or a batch is stuck."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from messaging.node import lanes
from messaging.node.lanes import Lane


class Play:
    """A lane of at most four batches at a time, which stay under way until the end."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.end = asyncio.Event()
        self.lane: Lane[str] = Lane(
            "play", self._handle, whose=lambda item: item[0], most_batches=4
        )
        self.lane.start()

    async def _handle(self, batch: list[str]) -> None:
        self.begun.append(batch)
        await self.end.wait()

    async def put(self, *items: str) -> None:
        for item in items:
            self.lane.put(item)
        for _ in range(5):
            await asyncio.sleep(0.001)


@pytest.fixture
async def play(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Play]:
    monkeypatch.setattr(lanes, "STUCK_SECONDS", 3_600.0)
    play = Play()
    yield play
    play.end.set()
    await play.lane.stop(within_seconds=5)


async def test_half_of_the_places_are_for_small_batches(play: Play) -> None:
    for item in ("a0", "b0", "c0", "d0"):
        await play.put(item)
    assert play.begun == [["a0"], ["b0"]]
    play.end.set()
    await play.put("a1")
    assert sorted(item for batch in play.begun[2:] for item in batch) == ["a1", "c0", "d0"]


async def test_a_crowd_opens_the_others(play: Play) -> None:
    await play.put("a0")
    await play.put("b0")
    await play.put(*(f"{chr(ord('c') + n)}0" for n in range(lanes.CROWD)))
    assert [len(batch) for batch in play.begun] == [1, 1, lanes.CROWD]


async def test_a_stuck_batch_keeps_no_small_one_waiting(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "STUCK_SECONDS", 0.0)
    for item in ("a0", "b0", "c0", "a1"):
        await play.put(item)
    assert play.begun == [["a0"], ["b0"], ["c0"]]  # an owner has part in one at a time


async def test_the_last_place_is_free_for_one_who_comes_while_few_hold_the_others(
    play: Play,
) -> None:
    await play.put("a0")
    await play.put("b0")
    await play.put(*(f"m{n}" for n in range(lanes.CROWD)))
    await play.put(*(f"g{n}" for n in range(40)))
    assert len(play.begun) == 3
    await play.put("c0")
    assert play.begun[3:] == [["c0"]]


async def test_who_hurries_does_not_wait_for_a_batch_to_grow() -> None:
    handled: list[str] = []

    async def handle(batch: list[str]) -> None:
        handled.extend(batch)

    lane: Lane[str] = Lane("play", handle, linger_seconds=3_600.0)
    lane.start()
    lane.put("a")
    await asyncio.sleep(0.01)
    assert handled == []
    lane.put("b")
    lane.hurry()
    await asyncio.wait_for(lane.settled(), 5)
    assert handled == ["a", "b"]
    await lane.stop(within_seconds=5)
