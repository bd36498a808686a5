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
