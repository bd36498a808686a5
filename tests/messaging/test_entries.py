"""Every verdict stands in the trail, in one unbroken log."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from django.db.models import Count, Max, Min

from messaging.mail import acknowledging
from messaging.models import Batch, Delivery, Envelope, Mailbox, Presence, Session
from registry.hub.secrets import blinded
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount
from tests.cast import Player, answer, ask, broadcast, forged, make_agent, write
from tests.messaging.conftest import LogIn, until

MOST_LEAF_BYTES = 800  # of an envelope from one organisation to another
MOST_BODY_BYTES = 1_900


def test_it_enters_every_verdict(log_in: LogIn, alice: Player, bob: Player) -> None:
    """One entry for each accepted or denied envelope, named in its receipt."""
    low = make_agent("unverified", organisation=alice.organisation)
    wires = {p.id: log_in(p) for p in (alice, bob, low)}
    request = ask(alice, bob, sensitivity="confidential")
    letters = [
        (alice, request, "accepted"),
        (bob, answer(bob, request), "accepted"),
        (alice, broadcast(alice), "accepted"),
        (low, write(low, bob, sensitivity="internal"), "denied"),
        (low, write(low, "nobody-at-all"), "denied"),
    ]
    for sender, letter, status in letters:
        receipt = wires[sender.id].submit(letter)
        assert receipt["status"] == status
        entry = Entry.objects.get(position=receipt["entry"])
        envelope = letter.envelope
        assert (entry.kind, entry.verdict) == (f"envelope.{status}", status)
        assert (entry.sender, entry.recipient) == (sender.id, envelope.target)
        assert entry.message_id == letter.message_id
        assert entry.request_id == blinded("requestId", envelope.request_id or "")
        assert entry.actor == f"agent:{sender.id}"
        assert entry.score == receipt["trustScore"]
        body = entry.body.read()
        assert body.get("requestId") == envelope.request_id
        assert body["jws"] == envelope.signature
        assert body.get("code") == receipt.get("code")
        assert entry.attestation == (sender.attestation.jti if sender.attestation else "")
        assert (entry.issuer, entry.session) == ("local", wires[sender.id].welcome["session"])
        uid = sender.organisation.uid
        assert (entry.sender_organisation, entry.organisations) == (uid, [uid])

    ids = [letter.message_id for _, letter, _ in letters]
    verdicts = Entry.objects.filter(message_id__in=ids, kind__startswith="envelope.")
    assert verdicts.count() == len(letters)


def test_it_records_what_a_decision_was_made_of(log_in: LogIn, alice: Player, bob: Player) -> None:
    receipt = log_in(alice).submit(ask(alice, bob, sensitivity="confidential"))
    entry = Entry.objects.get(position=receipt["entry"])
    assert (entry.policy, entry.sensitivity) == ("Baseline", "confidential")
    assert entry.rule == "Verified and certified agents may reach confidential data from score 70"
    shared = entry.body.read()
    assert shared["matched"] == [
        {"policy": "Baseline", "rule": entry.rule, "action": "allow", "severity": "low"}
    ]
    assert (shared["level"], shared["message"]["type"]) == ("certified", "request")
    agent = {"organisation": alice.organisation.name}
    assert entry.body.read("sender")["agent"] == agent
    recipient = entry.body.read("recipient")
    assert (recipient["agent"], recipient["level"]) == (agent, "certified")
    assert (recipient["stream"], recipient["seq"]) == ("mail", 1)
    assert entry.score == receipt["trustScore"]


def test_it_shows_neither_side_what_is_the_others(log_in: LogIn, alice: Player) -> None:
    """Whoever reads for the recipient's organisation reads no score inputs of the sender."""
    other = make_agent(tags=["secretive"], sensitivity_floor="internal")
    receipt = log_in(alice).submit(write(alice, other))
    entry = Entry.objects.get(position=receipt["entry"])
    uids = sorted([alice.organisation.uid, other.organisation.uid])
    assert entry.organisations == uids
    shared, own, others = (entry.body.read(name) for name in ("shared", "sender", "recipient"))
    assert "secretive" not in str(shared) + str(own)
    assert others["agent"]["tags"] == ["secretive"]
    assert "inputs" in own
    assert "inputs" not in {**shared, **others}


def test_it_names_what_led_to_an_entry(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    asked = alices.submit(request := ask(alice, bob))
    answered = bobs.submit(answer(bob, request))
    caused = bobs.submit(write(bob, alice, cause=request.digest))
    causes = Entry.objects.filter(position__in=[answered["entry"], caused["entry"]])
    assert set(causes.values_list("cause", flat=True)) == {asked["entry"]}


def test_it_enters_for_whom_an_agent_acts(log_in: LogIn, alice: Player, bob: Player) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    letter = write(alice, bob, trace=trace, on_behalf_of="jane@example.org")
    entry = Entry.objects.get(position=log_in(alice).submit(letter)["entry"])
    assert entry.trace == trace
    assert entry.on_behalf_of == blinded("onBehalfOf", "jane@example.org")
    assert entry.body.read()["onBehalfOf"] == "jane@example.org"
    assert b"jane" not in bytes(entry.leaf)


def test_it_enters_acknowledgements_as_ranges(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    for _ in range(5):
        alices.submit(write(alice, bob))
        bobs.mail()
    for seq in (2, 5):
        bobs.ack(seq)
        acked = Mailbox.objects.filter(agent_id=bob.id, acked_seq=seq)
        until(acked.exists, "the ack")

    entries = Entry.objects.filter(kind=Kind.DELIVERY_ACKNOWLEDGED, recipient=bob.id)
    assert list(entries.values_list("subject", flat=True)) == ["mail 1-2", "mail 3-5"]


def test_it_enters_which_mail_an_agent_refused(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letters = [write(alice, bob) for _ in range(3)]
    for letter in letters:
        alices.submit(letter)
        bobs.mail()
    bobs.ack(2, refused="handler.failed")
    entries = Entry.objects.filter(kind=Kind.DELIVERY_REFUSED, recipient=bob.id)
    until(entries.exists, "the entry")

    (entry,) = entries
    assert (entry.actor, entry.sender) == (f"agent:{bob.id}", alice.id)
    assert (entry.message_id, entry.verdict) == (letters[1].message_id, "refused")
    assert entry.body.read()["code"] == "handler.failed"
    place = entry.body.read("recipient")
    assert (place["stream"], place["seq"]) == ("mail", 2)
    (acked,) = Entry.objects.filter(kind=Kind.DELIVERY_ACKNOWLEDGED, recipient=bob.id)
    assert acked.subject == "mail 1-2"


def test_it_turns_nothing_into_refused_that_was_acknowledged_before(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """That the agent had taken it is in the trail; a later word without evidence is none."""
    alices, bobs = log_in(alice), log_in(bob)
    for _ in range(2):
        alices.submit(write(alice, bob))
        bobs.mail()
    bobs.ack(1)
    box = Mailbox.objects.filter(agent_id=bob.id)
    until(box.filter(acked_seq=1).exists, "the ack")
    bobs.ack(1, refused="handler.failed")
    bobs.ack(2)
    until(box.filter(acked_seq=2).exists, "the second ack")

    states = Delivery.objects.filter(recipient_id=bob.id).order_by("seq")
    assert list(states.values_list("state", flat=True)) == ["waiting", "waiting"]
    assert not Entry.objects.filter(kind=Kind.DELIVERY_REFUSED, recipient=bob.id).exists()


def test_it_enters_more_refusals_than_one_append_takes(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks, each with its range; whatever order they came in."""
    monkeypatch.setattr(acknowledging, "ENTRIES_A_TIME", 4)
    alices, bobs = log_in(alice), log_in(bob)
    for _ in range(5):
        alices.submit(write(alice, bob))
        bobs.mail()
    session = str(Presence.objects.get(agent_id=bob.id).session_id)
    acks = [
        acknowledging.MailboxAck(bob.id, session, "mail", seq, "handler.failed")
        for seq in range(5, 0, -1)
    ]
    acknowledging.acknowledge(acks)

    entries = Entry.objects.filter(recipient=bob.id, kind__startswith="delivery.")
    kinds = [
        kind.partition(".")[2]
        for kind in entries.order_by("position").values_list("kind", flat=True)
    ]
    one, two = ["acknowledged", "refused"], ["acknowledged", "refused", "refused"]
    assert kinds == [*two, *two, *one]
    ranges = entries.filter(kind=Kind.DELIVERY_ACKNOWLEDGED).order_by("position")
    assert list(ranges.values_list("subject", flat=True)) == ["mail 1-2", "mail 3-4", "mail 5"]


def test_it_counts_refusals_instead_of_entering_each(
    log_in: LogIn, bob: Player, mallory: Player
) -> None:
    """Forgeries can be made by the million: what they leave is a number, and no row."""
    wire = log_in(mallory)
    forgeries = [forged(mallory, bob, header={"typ": "JWT"}) for _ in range(20)]
    wire.send_together(*forgeries)
    assert {wire.receipt(letter)["status"] for letter in forgeries} == {"invalid"}

    counts = RefusalCount.objects.filter(agent=mallory.id, code="signature.header")
    assert sum(counts.values_list("count", flat=True)) == 20
    assert not Envelope.objects.filter(sender_id=mallory.id).exists()
    assert not Entry.objects.filter(kind__startswith="envelope.", sender=mallory.id).exists()


def test_it_keeps_one_log_without_a_gap(log_in: LogIn, alice: Player, bob: Player) -> None:
    """After all that the tests before this one have done to it."""
    log_in(alice).submit(write(alice, bob))
    log = Entry.objects.aggregate(first=Min("position"), last=Max("position"), n=Count("position"))

    assert log["first"] == 0
    assert log["n"] == log["last"] + 1
    last_time = None
    for entry in Entry.objects.order_by("position").iterator():
        assert bytes(entry.leaf_hash) == hashlib.sha256(b"\x00" + bytes(entry.leaf)).digest()
        assert last_time is None or entry.time >= last_time
        last_time = entry.time
    entered = Counter(
        Entry.objects.filter(kind__in=[Kind.ENVELOPE_ACCEPTED, Kind.ENVELOPE_DENIED])
        .values_list("sender", "message_id", "verdict")
        .iterator()
    )
    judged = Envelope.objects.filter(batch_id__in=Batch.objects.values("id"))
    for key in judged.values_list("sender_id", "message_id", "status").iterator():
        assert entered[key] == 1, key


def test_it_gives_every_stream_its_places_without_a_gap(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    log_in(alice).submit(write(alice, bob))
    connected = Session.objects.values("agent_id")  # others' rows may be made up
    boxes = Mailbox.objects.filter(last_seq__gt=0, agent_id__in=connected)
    places = {
        (agent, stream): (first, last, n)
        for agent, stream, first, last, n in Delivery.objects.values_list("recipient_id", "stream")
        .annotate(first=Min("seq"), last=Max("seq"), n=Count("id"))
        .values_list("recipient_id", "stream", "first", "last", "n")
    }
    for box in boxes:
        assert places[box.agent_id, box.stream] == (1, box.last_seq, box.last_seq)
        assert box.acked_seq <= box.last_seq


@pytest.mark.parametrize("parts", [{}, {"sensitivity": "confidential"}])
def test_it_keeps_the_entry_of_a_usual_envelope_small(
    log_in: LogIn, alice: Player, parts: dict[str, Any]
) -> None:
    """Larger rows are compressed and moved to a table of their own by PostgreSQL (TOAST)."""
    bob = make_agent(name="bob")
    alices = log_in(alice)
    for _ in range(3):  # beyond its first signatures, which its stored score has not counted
        receipt = alices.submit(write(alice, bob, **parts))
    entry = Entry.objects.get(position=receipt["entry"])
    sections = [entry.body.content(name) for name in ("shared", "sender", "recipient")]
    assert sum(map(len, (bytes(entry.body.digests), *sections))) <= MOST_BODY_BYTES
    assert len(bytes(entry.leaf)) <= MOST_LEAF_BYTES
