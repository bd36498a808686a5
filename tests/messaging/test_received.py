"""Who received what is in the trail: each place of each stream, once, broadcasts included."""

from __future__ import annotations

from messaging.mail.notices import place_notices
from messaging.models import Delivery
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import Player, answer, ask, broadcast, make_agent, write
from tests.messaging.conftest import LogIn, until
from tests.messaging.received import received, received_by


def test_it_tells_all_that_carol_received(log_in: LogIn, alice: Player, bob: Player) -> None:
    carol = make_agent(name="carol", organisation=alice.organisation)
    alices, bobs, carols = log_in(alice), log_in(bob), log_in(carol)
    asked = ask(carol, alice)
    assert carols.submit(asked)["status"] == "accepted"
    letters = [write(alice, carol), broadcast(bob), answer(alice, asked), broadcast(alice)]
    for wire, letter in zip((alices, bobs, alices, alices), letters, strict=True):
        assert wire.submit(letter)["status"] == "accepted"
    alices.submit(write(alice, bob))  # not hers
    seen = [carols.next("delivery") for _ in letters]

    heard = {(f["stream"], f["seq"]): (f["ATP"]["messageId"], "mail") for f in seen}
    assert received_by(carol.id) == heard
    assert sorted(heard) == [("answers", 1), ("mail", 1), ("mail", 2), ("mail", 3)]


def test_it_tells_of_a_chunk_of_a_broadcast_who_got_it(log_in: LogIn, alice: Player) -> None:
    hearers = [make_agent(organisation=alice.organisation) for _ in range(3)]
    wires = [log_in(one) for one in hearers]
    letter = broadcast(alice)
    receipt = log_in(alice).submit(letter)
    for wire in wires:
        wire.mail()

    (entry,) = Entry.objects.filter(kind=Kind.DELIVERY_PLACED, message_id=letter.message_id)
    assert (entry.sender, entry.recipient, entry.cause) == (alice.id, "*", receipt["entry"])
    assert entry.organisations == [alice.organisation.uid]
    places = entry.body.read("recipient")
    assert places["stream"] == "mail"
    assert sorted(places["places"]) == sorted([one.id, 1] for one in hearers)


def test_it_tells_of_notices(log_in: LogIn, alice: Player) -> None:
    sender, target = make_agent(), make_agent(name="target")
    senders = log_in(sender)
    letters = [write(sender, target, notify=True) for _ in range(2)]
    for letter in letters:
        senders.submit(letter)
    targets = log_in(target)
    for _ in letters:
        targets.mail()
    targets.ack(1, refused="handler.failed")
    refused = Entry.objects.filter(kind=Kind.DELIVERY_REFUSED, recipient=target.id)
    until(refused.exists, "the refusal")
    place_notices()

    assert received_by(sender.id) == {("answers", 1): (letters[0].message_id, "refused")}
    assert received_by(target.id) == {
        ("mail", n): (letter.message_id, "mail") for n, letter in enumerate(letters, 1)
    }


def test_it_knows_each_place_of_each_stream(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Of these two agents: some tests make mail of others by hand."""
    alices, bobs = log_in(alice), log_in(bob)
    for letter in (write(alice, bob), broadcast(alice), ask(alice, bob)):
        assert alices.submit(letter)["status"] == "accepted"
        bobs.mail()
    told = received()
    sent = Delivery.objects.filter(recipient_id__in=(alice.id, bob.id))
    assert sent.count() == 3
    places = sent.values_list("recipient_id", "stream", "seq", "envelope__message_id")
    for agent, stream, seq, message_id in places:
        assert told[agent][stream, seq][0] == message_id
