"""When a batch goes wrong, each of its envelopes still gets its receipt, once.

See docs/design/architecture.md#when-a-batch-goes-wrong.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from pytest_django.fixtures import Settings

from atp.trust.envelope import VerifiedEnvelope
from messaging import failpoints
from messaging.judging import pipeline
from messaging.layer.news import News
from messaging.models import Batch, Envelope
from messaging.node.process_node import process_node
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import Letter, Player, forged, write
from tests.messaging.conftest import Arm, LogIn, until
from tests.wire import Wire


class Broken(Exception):
    """The end of a worker's process."""


def test_it_refuses_a_poisoned_envelope_and_keeps_its_neighbours(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob, data={"n": n}) for n in range(5)]
    poison = letters[3]
    tries = []

    def choke(verified: VerifiedEnvelope) -> None:
        if verified.envelope.message_id == poison.message_id:
            tries.append(1)
            raise Broken

    arm("judge", choke)
    alices.send_together(*letters)
    receipts = [alices.receipt(letter) for letter in letters]

    assert [r["status"] for r in receipts] == [
        "invalid" if letter is poison else "accepted" for letter in letters
    ]
    assert receipts[3]["code"] == "malformed.envelope"
    assert 3 <= len(tries) <= 6  # bounded: twice whole, then in halves
    arrived = [bobs.mail() for _ in range(4)]
    assert [f["seq"] for f in arrived] == [1, 2, 3, 4]
    assert [f["ATP"]["payload"]["data"]["n"] for f in arrived] == [0, 1, 2, 4]
    assert Entry.objects.get(message_id=poison.message_id).kind == Kind.ENVELOPE_POISONED
    assert not Envelope.objects.filter(message_id=poison.message_id).exists()
    _assert_lives_on(alices, alice, bobs, bob, seq=5)


def test_it_judges_a_batch_again_that_failed_once(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob) for _ in range(3)]
    arm("before_commit", _once(Broken, about=letters[0]))
    alices.send_together(*letters)

    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    assert [bobs.mail()["seq"] for _ in range(3)] == [1, 2, 3]
    _assert_lives_on(alices, alice, bobs, bob, seq=4)


def test_it_tells_the_receipts_of_a_worker_that_died_after_its_commit(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob), forged(alice, bob, claims={"exp": 1}), write(alice, bob)]
    arm("after_commit", _once(Broken, about=letters[0]))
    alices.send_together(*letters)

    receipts = [alices.receipt(letter) for letter in letters]
    assert [r["status"] for r in receipts] == ["accepted", "expired", "accepted"]
    assert [bobs.mail()["seq"] for _ in range(2)] == [1, 2]
    _assert_entered_once(letters[0], letters[2])
    _assert_lives_on(alices, alice, bobs, bob, seq=3)


def test_it_tells_what_was_stored_when_every_worker_died_after_the_commit(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    """To call it invalid would be a lie: its recipient has it."""
    alices, bobs = log_in(alice), log_in(bob)
    letter = write(alice, bob)

    def die(items: Any) -> None:
        if any(item.message_id == letter.message_id for item in items):
            raise Broken

    arm("after_commit", die)
    receipt = alices.submit(letter)

    (entry,) = Entry.objects.filter(message_id=letter.message_id)
    assert (receipt["status"], receipt["entry"]) == ("accepted", entry.index)
    assert bobs.mail()["ATP"]["messageId"] == letter.message_id
    failpoints.disarm("after_commit")
    _assert_lives_on(alices, alice, bobs, bob, seq=2)


def test_it_stores_nothing_late_that_was_refused_as_poison(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    """A worker that was frozen over a batch wakes when the sender has been told."""
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob) for _ in range(2)]
    failed: set[str] = set()

    def choke(text: str) -> None:
        if letters[0].message_id in text:
            raise Broken

    def overhear(news: News) -> None:
        if news.status == "failed":
            failed.add(news.batch)

    arm("before_publish", overhear)
    arm("before_parse", choke)
    alices.send_together(*letters)
    assert [alices.receipt(letter)["status"] for letter in letters] == ["invalid", "accepted"]
    failpoints.disarm("before_parse")
    assert failed
    for batch in failed:
        pipeline.check({**_batch(alices, letters[:1]), "batch": batch})

    assert bobs.mail()["ATP"]["messageId"] == letters[1].message_id
    assert not Envelope.objects.filter(message_id=letters[0].message_id).exists()
    _assert_lives_on(alices, alice, bobs, bob, seq=2)


def test_it_sends_a_batch_again_whose_outcome_was_lost(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Settings
) -> None:
    settings.ATP_OUTCOME_SECONDS = 0.3
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob) for _ in range(3)]
    lost: list[str] = []

    def lose(news: bytes) -> None:
        """Drop the layer message of one batch, with its receipts, deliveries and outcome."""
        if not lost and letters[0].message_id.encode() in news:
            lost.append(News.unpack(news).batch)
            raise Broken

    arm("before_layer_send", lose)
    alices.send_together(*letters)

    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    assert [bobs.mail()["seq"] for _ in range(3)] == [1, 2, 3]
    assert len(lost) == 1
    assert Batch.objects.filter(id=lost[0]).exists()
    _assert_entered_once(*letters)
    _assert_lives_on(alices, alice, bobs, bob, seq=4)


def test_it_writes_nothing_for_a_batch_id_that_was_judged(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """What happens when the task is run a second time, long after or by another worker."""
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob), forged(alice, bob, header={"typ": "jwt"}), write(alice, bob)]
    batch = _batch(alices, letters)
    pipeline.check(batch)
    first = [alices.receipt(letter) for letter in letters]
    pipeline.check(batch)

    assert [alices.receipt(letter) for letter in letters] == first
    assert [r["status"] for r in first] == ["accepted", "invalid", "accepted"]
    assert [bobs.mail()["seq"] for _ in range(2)] == [1, 2]
    _assert_entered_once(letters[0], letters[2])
    _assert_lives_on(alices, alice, bobs, bob, seq=3)


def test_it_tells_the_receipts_when_two_workers_judged_the_same_batch(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    """The second one finds out only when it wants to store."""
    alices, bobs = log_in(alice), log_in(bob)
    twice = forged(alice, bob, header={"typ": "jwt"})
    letters = [write(alice, bob), twice, twice, write(alice, bob)]
    batch = _batch(alices, letters)

    def overtake(verified: VerifiedEnvelope) -> None:
        if verified.envelope.message_id == letters[0].message_id:
            failpoints.disarm("judge")
            pipeline.check(batch)

    arm("judge", overtake)
    pipeline.check(batch)

    rounds = [[alices.receipt(letter) for letter in letters] for _ in range(2)]
    assert [r["status"] for r in rounds[0]] == ["accepted", "invalid", "invalid", "accepted"]
    assert rounds[1] == rounds[0]
    assert [bobs.mail()["seq"] for _ in range(2)] == [1, 2]
    _assert_entered_once(letters[0], letters[3])
    _assert_lives_on(alices, alice, bobs, bob, seq=3)


@pytest.mark.parametrize("following", [True, False], ids=["by the gap", "by the poll"])
def test_it_finds_deliveries_whose_push_was_lost(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, following: bool
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob) for _ in range(1 + following)]

    def lose(news: News) -> None:
        if any(letters[0].message_id in text for *_, text in news.deliveries):
            news.deliveries.clear()

    arm("before_publish", lose)
    for letter in letters:
        assert alices.submit(letter)["status"] == "accepted"

    arrived = [bobs.mail() for _ in letters]
    assert [f["ATP"]["messageId"] for f in arrived] == [letter.message_id for letter in letters]
    assert [f["seq"] for f in arrived] == list(range(1, 1 + len(letters)))


def test_it_answers_busy_while_nobody_can_judge(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Settings
) -> None:
    settings.ATP_BUSY_AFTER_SECONDS = 0.5
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob) for _ in range(3)]

    def away(text: str) -> None:
        if letters[0].message_id in text:
            raise OperationalError("the database is away")

    arm("before_parse", away)
    alices.send_together(*letters)
    receipts = [alices.receipt(letter) for letter in letters]
    assert {(r["status"], r["code"]) for r in receipts} == {("busy", "flow.busy")}
    assert all(r["retryAfter"] > 0 for r in receipts)

    failpoints.disarm("before_parse")
    alices.send_together(*letters)  # busy left no id behind
    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    assert [bobs.mail()["seq"] for _ in range(3)] == [1, 2, 3]


def test_it_receipts_everything_even_when_poison_can_t_be_entered(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail being away at that moment must not swallow the rest of the batch."""
    from messaging.node import dispatch

    def away(*_: object) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(dispatch, "record_poison", away)
    alices = log_in(alice)
    letters = [write(alice, bob) for _ in range(3)]

    def choke(verified: VerifiedEnvelope) -> None:
        if verified.envelope.message_id == letters[0].message_id:
            raise Broken

    arm("judge", choke)
    alices.send_together(*letters)

    assert [alices.receipt(letter)["status"] for letter in letters] == [
        "busy",
        "accepted",
        "accepted",
    ]


def test_it_reads_no_further_than_the_window_and_drops_nothing(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Settings
) -> None:
    settings.ATP_WINDOW = 4
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob, data={"n": n}) for n in range(20)]
    go_on, held = threading.Event(), threading.Event()

    def hold(verified: VerifiedEnvelope) -> None:
        if verified.envelope.sender == alice.id:
            held.set()
            go_on.wait(10)

    arm("judge", hold)
    alices.send(*letters[:10])
    alices.send_together(*letters[10:])
    try:
        assert held.wait(10)
        until(lambda: _outstanding(alice) == 4, "a full window")
    finally:
        go_on.set()

    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    assert [bobs.mail()["ATP"]["payload"]["data"]["n"] for _ in letters] == list(range(20))
    until(lambda: _outstanding(alice) == 0, "an empty window")


def test_it_bounds_the_window_in_bytes_as_well(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob, data={"text": "x" * 500_000}) for _ in range(12)]
    go_on, held = threading.Event(), threading.Event()

    def hold(verified: VerifiedEnvelope) -> None:
        if verified.envelope.sender == alice.id:
            held.set()
            go_on.wait(10)

    arm("judge", hold)
    sending = threading.Thread(target=lambda: alices.send(*letters))
    sending.start()
    try:
        assert held.wait(10)
        until(lambda: _outstanding(alice) == 9, "a full window")  # 8 are less than 4 MiB
    finally:
        go_on.set()

    sending.join(10)
    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    assert [bobs.mail()["seq"] for _ in letters] == list(range(1, 13))
    until(lambda: _outstanding(alice) == 0, "an empty window")


def test_it_frees_no_place_twice_when_receipts_are_told_again(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices, go_on = log_in(alice), threading.Event()
    early, late = write(alice, bob), write(alice, bob)
    assert alices.submit(early)["status"] == "accepted"
    until(lambda: _outstanding(alice) == 0, "an empty window")

    def hold(verified: VerifiedEnvelope) -> None:
        if verified.envelope.message_id == late.message_id:
            go_on.wait(10)

    arm("judge", hold)
    alices.send(late)
    try:
        until(lambda: _outstanding(alice) == 1, "the second letter")
        pipeline.check(_batch(alices, [early]))
        alices.receipt(early)
        assert _outstanding(alice) == 1
    finally:
        go_on.set()
    assert alices.receipt(late)["status"] == "accepted"
    until(lambda: _outstanding(alice) == 0, "an empty window")


def _once(problem: type[Exception], *, about: Letter) -> Callable[[Any], None]:
    """Raise at the first hit of a batch that contains this envelope."""
    left = [problem]

    def action(items: Any) -> None:
        ids = {item.message_id for item in items}
        if left and about.message_id in ids:
            raise left.pop()

    return action


def _batch(wire: Wire, letters: list[Letter]) -> dict[str, Any]:
    """A batch as the node hands it to Celery, of letters that came over this socket."""
    assert wire.player is not None
    session = wire.welcome["session"]
    return {
        "batch": str(uuid.uuid4()),
        "channel": process_node.current().channel,
        "frames": [[session, wire.player.id, letter.text] for letter in letters],
        "announce": False,
    }


def _outstanding(player: Player) -> int:
    return process_node.current().roster.agents[player.id].outstanding


def _assert_entered_once(*letters: Letter) -> None:
    for letter in letters:
        assert Entry.objects.filter(message_id=letter.message_id).count() == 1
        assert Envelope.objects.filter(message_id=letter.message_id).count() == 1


def _assert_lives_on(alices: Wire, alice: Player, bobs: Wire, bob: Player, *, seq: int) -> None:
    """The lane goes on, nothing was told or delivered besides, and the stream has no gap."""
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert bobs.mail()["seq"] == seq
    assert alices.unasked() == bobs.unasked() == []
