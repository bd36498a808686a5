"""A socket that sends acks and cancellations without end is read slowly, and others are not."""

from __future__ import annotations

import pytest

from messaging.node import pace
from messaging.node.pace import BURST_BYTES, BYTES_PER_SECOND, Pace
from tests.cast import Player, write
from tests.messaging.acks import TELLS_DONE, box_of
from tests.messaging.conftest import LogIn, Scene, until

SIZE = 60_000  # of one message; a message may have 64 KiB that are not envelopes


def test_a_burst_is_read_at_once_and_more_in_the_long_run() -> None:
    now = [100.0]
    reading = Pace(ticks=lambda: now[0])
    read = 0
    while now[0] < 110.0:
        now[0] += reading.spend(SIZE)
        read += SIZE
    assert BURST_BYTES <= read - 10 * BYTES_PER_SECOND <= BURST_BYTES + 2 * SIZE
    now[0] += 60.0  # it saves no more than a burst
    while not (pause := reading.spend(SIZE)):
        read += SIZE
    assert pause <= SIZE / BYTES_PER_SECOND


def test_an_agent_at_work_is_never_held_up() -> None:
    """Four thousand messages a second: a place that begins and one that is done for each."""
    now = [0.0]
    reading = Pace(ticks=lambda: now[0])
    begun, done = len("123456,"), len("[123456,123456],")
    for _ in range(600):
        now[0] += 0.1
        assert reading.spend(400 * (begun + done) + 200) == 0


def test_a_flood_of_acks_is_read_slowly_and_nobody_else_waits(
    scene: Scene, log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "BYTES_PER_SECOND", 4 * BYTES_PER_SECOND)
    pauses: list[float] = []
    spend = Pace.spend

    def note(self: Pace, size: int) -> float:
        pauses.append(spend(self, size))
        return pauses[-1]

    monkeypatch.setattr(Pace, "spend", note)
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    alices.submit(write(alice, bob))
    bobs.mail()
    ack = {"type": "ack", "stream": "mail", "seq": 1, "begun": [1] * 2_000}
    for _ in range(20):
        bobs.send_frame([ack] * 10)
    scene.victims_saw_nothing()
    bobs.ack(1, done=[[1, 1]])
    until(lambda: box_of(bob).acked_seq == 1, "the ack behind the flood")
    assert sum(pause > 0 for pause in pauses) >= 8
