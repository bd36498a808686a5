"""Attacks by acks of an agent with a valid account: they cost little, and change only its own."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError

from messaging.mail import acknowledging
from messaging.node.process_node import process_node
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import Player, write
from tests.messaging.acks import (
    TELLS_DONE,
    box_of,
    entered_ranges,
    hear,
    marks,
    position_of,
    states,
    stay_away,
    wait_for_marks,
)
from tests.messaging.conftest import LogIn, Scene, until
from tests.wire import Wire

MAIL = 12
HUGE = 2**53 - 1
MOST = 2_048  # in one list of an ack


@pytest.fixture
def bobs(log_in: LogIn, alice: Player, bob: Player) -> Wire:
    """Bob's socket, with mail that he has not taken."""
    alices, bobs = log_in(alice), log_in(bob, login=TELLS_DONE)
    letters = [write(alice, bob) for _ in range(MAIL)]
    alices.send_together(*letters)
    hear(bobs, MAIL)
    return bobs


def _heard(bobs: Wire, bob: Player) -> None:
    """Wait until all that was sent is taken: the last ack changes something."""
    box = box_of(bob)
    bobs.ack(1, done=[[1, 1]])
    until(lambda: box_of(bob).acked_seq > box.acked_seq, "the last ack")


def test_places_that_were_never_sent_are_ignored(bobs: Wire, bob: Player) -> None:
    beyond = [MAIL + 1, HUGE]
    bobs.ack(
        HUGE,
        done=[[place, HUGE] for place in beyond],
        begun=beyond,
        retry=[[place, 1] for place in beyond],
        refused=[[place, "handler.failed"] for place in beyond],
    )
    _heard(bobs, bob)
    assert marks(bob) == (MAIL, 1, [])
    assert position_of(bob).begun == set()
    assert set(states(bob)) == {("waiting", "", 0)}
    assert not Entry.objects.filter(kind=Kind.DELIVERY_REFUSED, recipient=bob.id).exists()


def test_a_range_ends_at_what_was_sent(bobs: Wire, bob: Player) -> None:
    bobs.ack(1, done=[[5, HUGE]])
    wait_for_marks(bob, 1, 0, [[5, MAIL]])
    assert entered_ranges(bob) == [[[5, MAIL]]]


@pytest.mark.parametrize(
    "members",
    [
        {"done": [[0, 1]]},
        {"done": [[3, 2]]},
        {"done": [[1]]},
        {"done": [[1, 2, 3]]},
        {"done": [["1", "2"]]},
        {"done": [[1.5, 2]]},
        {"done": {"1": 2}},
        {"done": [[1, 1]] * (MOST + 1)},
        {"begun": [-1]},
        {"begun": [True]},
        {"begun": [1] * (MOST + 1)},
        {"retry": [[1, 0]]},
        {"retry": [[1, 10**30]]},
        {"refused": [[1, "No Code"]]},
        {"refused": [[1, ""]]},
    ],
    ids=repr,
)
def test_rejects_what_is_no_place(bobs: Wire, bob: Player, members: dict[str, Any]) -> None:
    bobs.ack(1, **members)
    assert bobs.ended()[0].startswith("malformed.")
    assert box_of(bob).acked_seq == 0


def test_thousands_of_ranges_become_few(bobs: Wire, bob: Player) -> None:
    """Overlapping, backwards, again and again: the mailbox has the places once."""
    overlapping = [[place % MAIL + 1, HUGE if place % 2 else MAIL] for place in range(MOST)]
    alternating = [[place, place] for place in range(MAIL, 0, -2)] * (MOST // MAIL)
    for _ in range(3):
        bobs.ack(MAIL, done=alternating)
    wait_for_marks(bob, MAIL, 0, [[n, n] for n in range(2, MAIL + 1, 2)])
    bobs.ack(MAIL, done=overlapping)
    wait_for_marks(bob, MAIL, MAIL, [])
    told = [place for ranges in entered_ranges(bob) for place in ranges]
    assert sum(last - first + 1 for first, last in told) == MAIL


def test_begun_without_end_is_bounded(bobs: Wire, bob: Player) -> None:
    for first in range(1, 20_000, MOST):
        bobs.ack(1, begun=list(range(first, first + MOST)))
    _heard(bobs, bob)
    assert position_of(bob).begun == set(range(2, MAIL + 1))
    bobs.cut()
    stay_away(bob)
    assert {f for _, _, f in states(bob)} == {0, 1}


def test_what_is_done_can_neither_fail_nor_begin_nor_be_refused(bobs: Wire, bob: Player) -> None:
    bobs.ack(MAIL, done=[[1, 2], [4, 4]])
    wait_for_marks(bob, MAIL, 2, [[4, 4]])
    told = [1, 2, 4]
    bobs.ack(
        MAIL,
        begun=told,
        retry=[[place, 3] for place in told],
        refused=[[place, "handler.failed"] for place in told],
    )
    bobs.ack(MAIL, done=[[3, 3]])
    wait_for_marks(bob, MAIL, 4, [])
    assert position_of(bob).begun == set()
    assert set(states(bob)) == {("waiting", "", 0)}


def test_a_number_of_failures_is_counted_up_to_five(bobs: Wire, bob: Player) -> None:
    bobs.ack(1, retry=[[1, HUGE], [2, 6]])
    until(lambda: [f for _, _, f in states(bob)][:3] == [5, 5, 0], "the failures")


def test_a_storm_of_acks_leaves_one_item_a_stream(
    scene: Scene, log_in: LogIn, bob: Player, bobs: Wire
) -> None:
    """Nobody else waits for it, and what it leaves is about the places of the window."""
    lane = process_node.current().acks.lane
    ack = {"type": "ack", "stream": "mail", "seq": MAIL, "begun": [2, 3], "retry": [[4, 1]]}
    storm = [{**ack, "done": [[5 + n % 3, 5 + n % 3]]} for n in range(250)]
    most = 0
    for _ in range(60):
        bobs.send_frame(storm)
        most = max(most, len(lane))
    scene.victims_saw_nothing()
    assert most < 250
    wait_for_marks(bob, MAIL, 0, [[5, 7]])
    assert position_of(bob).begun == {2, 3}
    assert sum(last - first + 1 for ranges in entered_ranges(bob) for first, last in ranges) == 3


def test_it_enters_more_refusals_than_one_append_takes(
    bobs: Wire, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ack may refuse a whole window; it is stored in portions."""
    monkeypatch.setattr(acknowledging, "ENTRIES_A_TIME", 4)
    refused = [[place, "handler.failed"] for place in range(1, MAIL + 1)]
    bobs.ack(MAIL, refused=refused, retry=[[place, 2] for place in range(1, MAIL + 1)])
    wait_for_marks(bob, MAIL, MAIL, [])
    until(lambda: set(states(bob)) == {("refused", "handler.failed", 2)}, "the refusals")
    refusals = Entry.objects.filter(kind=Kind.DELIVERY_REFUSED, recipient=bob.id)
    assert refusals.count() == MAIL


def test_acks_change_nothing_of_another_agent(
    log_in: LogIn, alice: Player, bob: Player, bobs: Wire, mallory: Player
) -> None:
    """The stream of an ack is that of its own session, whatever else it tells."""
    mallorys = log_in(mallory, login={**TELLS_DONE, "resumes": bobs.welcome["session"]})
    mallorys.ack(MAIL, done=[[1, MAIL]], agent=bob.id, session=bobs.welcome["session"])
    log_in(alice).submit(write(alice, mallory))
    assert mallorys.mail()["seq"] == 1
    mallorys.ack(1, done=[[1, 1]])
    wait_for_marks(mallory, 1, 1, [])
    assert marks(bob) == (0, 0, [])


def test_a_storm_that_tells_nothing_new_reaches_no_row(
    bobs: Wire, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same failures, acks and beginnings, again and again, and what a failure can't raise."""
    stored: list[list[acknowledging.MailboxAck]] = []

    def acknowledge(acks: list[acknowledging.MailboxAck]) -> list[acknowledging.MailboxAck]:
        stored.append(list(acks))
        return acknowledging.acknowledge(acks)

    monkeypatch.setattr("messaging.node.acks.acknowledge", acknowledge)
    told: dict[str, Any] = {"retry": [[place, 5] for place in range(1, MAIL)], "begun": [MAIL]}
    bobs.ack(MAIL, **told)
    until(lambda: {f for _, _, f in states(bob)} == {5, 0}, "the failures")
    for failures in (1, 5, 6, HUGE):
        told["retry"] = [[place, failures] for place in range(1, MAIL)]
        bobs.ack(1, **told)
        bobs.ack(MAIL, **told)
    bobs.ack(MAIL, done=[[MAIL, MAIL]])
    wait_for_marks(bob, MAIL, 0, [[MAIL, MAIL]])
    assert len(stored) <= 3  # the second may come before the node knows that the first is stored
    assert not any(ack.retries for acks in stored[1:] for ack in acks)


def test_a_failure_that_could_not_be_stored_is_stored_later(
    bobs: Wire, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the agent tells nothing new meanwhile."""
    monkeypatch.setattr("messaging.node.acks.RETRY_SECONDS", 0.1)
    tries = []

    def acknowledge(acks: list[acknowledging.MailboxAck]) -> list[acknowledging.MailboxAck]:
        tries.append(acks)
        if len(tries) == 1:
            raise OperationalError("away")
        return acknowledging.acknowledge(acks)

    monkeypatch.setattr("messaging.node.acks.acknowledge", acknowledge)
    bobs.ack(1, retry=[[1, 2]])
    bobs.ack(1, retry=[[1, 2]])
    until(lambda: states(bob)[0][2] == 2, "the failure")
