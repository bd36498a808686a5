"""What waits for an agent: kept until it comes, given in order, and not again once acknowledged."""

from __future__ import annotations

import threading
import time

import pytest
from pytest_django.fixtures import Settings

from messaging.mail import inbox
from messaging.models import Delivery, Mailbox
from messaging.tasks import sweep
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import Player, answer, ask, make_agent, write
from tests.messaging.conftest import LogIn, until


def test_it_keeps_mail_for_an_agent_that_comes_later(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices = log_in(alice)
    letters = [write(alice, bob, data={"n": n}) for n in range(5)]
    for letter in letters:
        assert alices.submit(letter)["status"] == "accepted"

    bobs = log_in(bob)
    assert bobs.welcome["pending"] == 5
    arrived = [bobs.mail() for _ in letters]
    assert [frame["seq"] for frame in arrived] == [1, 2, 3, 4, 5]
    assert [_id(frame) for frame in arrived] == [letter.message_id for letter in letters]
    assert all(frame["entry"] is not None for frame in arrived)


def test_it_delivers_again_what_was_not_acknowledged(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """From the acknowledged place on: acks are cumulative."""
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob, data={"n": n}) for n in range(6)]
    alices.send(*letters)
    for _ in letters:
        bobs.mail()
    bobs.ack(4)
    until(lambda: _acked(bob) == 4, "the ack")
    bobs.cut()

    back = log_in(bob)
    assert back.welcome["pending"] == 2
    assert [(f["seq"], _id(f)) for f in (back.mail(), back.mail())] == [
        (5, letters[4].message_id),
        (6, letters[5].message_id),
    ]
    alices.submit(last := write(alice, bob))
    assert (frame := back.mail())["seq"] == 7
    assert _id(frame) == last.message_id


def test_it_takes_an_ack_that_is_the_last_thing_an_agent_says(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Acks wait a moment to share a commit; those of a socket that closes meanwhile count."""
    alices, bobs = log_in(alice), log_in(bob)
    alices.submit(write(alice, bob))
    bobs.mail()
    bobs.ack(1)
    bobs.close()

    until(lambda: _acked(bob) == 1, "the ack")
    assert log_in(bob).welcome["pending"] == 0


def test_it_keeps_the_acks_of_the_streams_apart(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    alices.submit(write(alice, bob))
    bobs.mail()
    bobs.ack(1, stream="answers")  # nothing has come there
    bobs.ack(1)
    until(lambda: _acked(bob) == 1, "the ack")

    assert _acked(bob, "answers") == 0


def test_it_tells_what_expired_while_the_agent_was_away(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices = log_in(alice)
    brief = [ask(alice, bob, lifetime=2) for _ in range(2)]
    lasting = write(alice, bob)
    alices.send(*brief, lasting)
    assert {alices.receipt(letter)["status"] for letter in (*brief, lasting)} == {"accepted"}
    time.sleep(max(0, int(brief[-1].envelope.timestamp) + 2 - time.time()))

    bobs = log_in(bob)
    gone = [bobs.mail(), bobs.mail()]
    assert [(f["type"], f["from"], f["to"], f["code"]) for f in gone] == [
        ("gone", 1, 1, "clock.expired"),
        ("gone", 2, 2, "clock.expired"),
    ]
    assert (bobs.mail()["seq"], bobs.unasked()) == (3, [])
    bobs.ack(3)
    until(lambda: _acked(bob) == 3, "the ack")
    sweep()
    for letter in brief:
        kinds = Entry.objects.filter(message_id=letter.message_id).values_list("kind", flat=True)
        assert list(kinds) == [Kind.ENVELOPE_ACCEPTED, Kind.ENVELOPE_EXPIRED]


def test_it_turns_a_refused_delivery_into_a_dead_letter(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob) for _ in range(2)]
    alices.send(*letters)
    bobs.mail(), bobs.mail()
    bobs.ack(1, refused="signature.invalid")
    bobs.ack(2)
    until(lambda: _acked(bob) == 2, "the acks")

    states = Delivery.objects.filter(recipient_id=bob.id).order_by("seq")
    assert list(states.values_list("state", "code")) == [
        ("refused", "signature.invalid"),
        ("waiting", ""),
    ]


def test_it_stops_a_stream_until_its_window_is_acknowledged(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_DELIVERY_WINDOW = 3
    alices, bobs = log_in(alice), log_in(bob)
    alices.send_together(*(write(alice, bob) for _ in range(8)))

    assert [bobs.mail()["seq"] for _ in range(3)] == [1, 2, 3]
    request = ask(bob, alice)
    bobs.submit(request)  # whatever was on its way before this receipt has come with it
    assert bobs.unasked() == []
    bobs.ack(2)
    assert [bobs.mail()["seq"] for _ in range(2)] == [4, 5]
    bobs.ack(5)
    assert [bobs.mail()["seq"] for _ in range(3)] == [6, 7, 8]


def test_it_reads_no_more_at_once_than_fits_into_a_message(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    letters = [write(alice, bob, data={"text": "x" * 400_000}) for _ in range(4)]
    alices = log_in(alice)
    for letter in letters:
        assert alices.submit(letter)["status"] == "accepted"

    page = inbox.read_page(bob.id, "mail", after=0, most=256)
    assert page is not None
    assert (page.first, page.last) == (1, 2)
    assert len(page.text) <= inbox.PAGE_BYTES
    bobs = log_in(bob)
    assert [bobs.mail()["seq"] for _ in letters] == [1, 2, 3, 4]


def test_it_writes_nothing_twice_when_a_push_is_faster_than_a_page(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    alices, pushed, read_page = log_in(alice), threading.Event(), inbox.read_page

    def read_slowly(agent: str, stream: str, *, after: int, most: int) -> inbox.Page | None:
        if agent == bob.id:
            pushed.wait(10)
        return read_page(agent, stream, after=after, most=most)

    monkeypatch.setattr(inbox, "read_page", read_slowly)
    bobs = log_in(bob)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert bobs.mail()["seq"] == 1
    pushed.set()

    for seq in (2, 3):
        assert alices.submit(write(alice, bob))["status"] == "accepted"
        assert bobs.mail()["seq"] == seq


def test_it_answers_even_when_mail_stands_still(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:

    settings.ATP_DELIVERY_WINDOW = 2
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(bob, alice)
    bobs.submit(request)
    alices.send_together(*(write(alice, bob) for _ in range(5)))
    assert [bobs.mail()["seq"] for _ in range(2)] == [1, 2]
    alices.submit(answer(alice, request))

    assert bobs.answers()["seq"] == 1


def test_it_keeps_each_senders_order(log_in: LogIn, bob: Player) -> None:
    senders = [make_agent("verified", name=f"sender{n}") for n in range(3)]
    wires = [log_in(sender) for sender in senders]
    bobs = log_in(bob)
    letters = {s.id: [write(s, bob, data={"n": n}) for n in range(40)] for s in senders}
    for start in range(0, 40, 8):
        for sender, wire in zip(senders, wires, strict=True):
            wire.send_together(*letters[sender.id][start : start + 4])
            wire.send(*letters[sender.id][start + 4 : start + 8])

    arrived = [bobs.mail() for _ in range(120)]
    assert [frame["seq"] for frame in arrived] == list(range(1, 121))
    for sender in senders:
        assert [_id(f) for f in arrived if f["ATP"]["agentIdentity"]["id"] == sender.id] == [
            letter.message_id for letter in letters[sender.id]
        ]


def test_rejects_what_would_fill_an_inbox(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    """One sender gets a tenth; what is acknowledged makes room again."""
    settings.ATP_INBOX_LIMIT = 30
    alices, others = log_in(alice), log_in(other := make_agent())
    letters = [write(alice, bob) for _ in range(5)]
    alices.send_together(*letters)
    receipts = [alices.receipt(letter) for letter in letters]

    assert [r["status"] for r in receipts] == ["accepted"] * 3 + ["busy"] * 2
    assert receipts[-1]["code"] == "flow.recipient_full"
    assert receipts[-1]["retryAfter"] > 0
    assert others.submit(write(other, bob))["status"] == "accepted"

    bobs = log_in(bob)
    assert [bobs.mail()["seq"] for _ in range(4)] == [1, 2, 3, 4]
    bobs.ack(4)
    until(lambda: _acked(bob) == 4, "the ack")
    # Busy left no id behind: the same envelope can be sent again, and is judged then.
    assert alices.submit(letters[3])["status"] == "accepted"
    assert _id(bobs.mail()) == letters[3].message_id


def test_rejects_mail_to_a_full_inbox_from_anybody(
    log_in: LogIn, bob: Player, settings: Settings
) -> None:
    settings.ATP_INBOX_LIMIT = 10
    senders = [make_agent() for _ in range(11)]
    receipts = [log_in(sender).submit(write(sender, bob)) for sender in senders]

    assert [r["status"] for r in receipts] == ["accepted"] * 10 + ["busy"]
    assert receipts[-1]["code"] == "flow.recipient_full"


@pytest.mark.parametrize("unacknowledged", [0, 2])
def test_it_counts_a_sender_s_share_over_batches(
    log_in: LogIn,
    alice: Player,
    bob: Player,
    settings: Settings,
    unacknowledged: int,
) -> None:
    settings.ATP_INBOX_LIMIT = 40
    alices = log_in(alice)
    for letter in [write(alice, bob) for _ in range(unacknowledged)]:
        alices.submit(letter)
    letters = [write(alice, bob) for _ in range(8)]
    alices.send_together(*letters)

    statuses = [alices.receipt(letter)["status"] for letter in letters]
    assert statuses.count("accepted") + unacknowledged == 4


def _id(frame: dict[str, object]) -> object:
    envelope = frame["ATP"]
    assert isinstance(envelope, dict)
    return envelope["messageId"]


def _acked(player: Player, stream: str = "mail") -> int:
    row = Mailbox.objects.filter(agent_id=player.id, stream=stream).first()
    return row.acked_seq if row else 0
