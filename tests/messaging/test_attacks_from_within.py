"""Attacks of a valid agent with valid signatures: other agents' mail and ids, and floods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from atp.types import TrustLevel
from messaging.mail.mailboxes import credit_good_traffic
from messaging.models import Delivery, Envelope, Mailbox, Session
from messaging.node import connections
from messaging.node.process_node import process_node
from registry.agents.actions import revoke_agent, suspend_agent
from registry.scores.models import GoodTraffic
from registry.trail.models import Entry
from tests.cast import OFFICER, Player, answer, ask, attest, forged, make_agent, write
from tests.conftest import LiveHub
from tests.messaging.conftest import LogIn, Scene, until
from tests.wire import Wire

# --- What the hub says must not tell of others ---------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        lambda hub: "nobody-at-all",
        lambda hub: hub,
        lambda hub: make_agent(approved=False).id,
        lambda hub: _ended(suspend_agent),
        lambda hub: _ended(revoke_agent),
    ],
    ids=["unknown", "the hub", "pending", "suspended", "revoked"],
)
def test_it_tells_no_recipient_that_can_t_be_reached_from_another(
    log_in: LogIn, mallory: Player, target: Callable[[str], str]
) -> None:
    name = target(mallory.hub)
    receipt = log_in(mallory).submit(write(mallory, name))

    assert (receipt["status"], receipt["code"]) == ("denied", "recipient.unavailable")
    assert receipt["detail"] == f"no agent {name} can be reached through this hub"
    assert receipt["recipients"] == 0


def _ended(action: Callable[..., object]) -> str:
    player = make_agent()
    action(player.id, actor=OFFICER, reason="part of the play")
    return player.id


def test_it_treats_another_s_message_id_as_any(
    scene: Scene, log_in: LogIn, mallory: Player
) -> None:
    """With the id of an envelope that exists, Mallory hears the same as with a fresh one."""
    known = write(scene.alice, scene.bob)
    scene.alices.submit(known)
    scene.bobs.mail()
    scene.skip(scene.bob)
    wire, friend = log_in(mallory), make_agent()

    def told(message_id: str | None) -> dict[str, Any]:
        receipt = wire.submit(write(mallory, friend, message_id=message_id))
        return {k: v for k, v in receipt.items() if k not in {"messageId", "entry"}}

    assert told(known.message_id) == told(None)
    entries = Entry.objects.filter(message_id=known.message_id)
    assert set(entries.values_list("sender", flat=True)) == {scene.alice.id, mallory.id}
    scene.victims_saw_nothing()


@pytest.mark.parametrize("whose", ["another's request", "no request", "one's own request"])
def test_rejects_an_answer_to_a_request_that_was_not_sent_to_it(
    scene: Scene, log_in: LogIn, mallory: Player, whose: str
) -> None:
    """Whether such a request exists can't be heard from the refusal."""
    wire = log_in(mallory)
    request = ask(scene.alice, scene.bob)
    assert scene.alices.submit(request)["status"] == "accepted"
    scene.bobs.mail()
    scene.skip(scene.bob)
    if whose == "another's request":
        forgery = answer(mallory, request)
    elif whose == "no request":
        forgery = answer(mallory, request, req="A" * 43)
    else:
        own = ask(mallory, scene.bob)
        assert wire.submit(own)["status"] == "accepted"
        scene.bobs.mail()
        scene.skip(scene.bob)
        forgery = answer(mallory, own, target=scene.alice)
    receipt = wire.submit(forgery)

    assert (receipt["status"], receipt["code"]) == ("denied", "recipient.no_request")
    assert receipt["detail"] == "no such request was sent to this agent by its target"
    scene.victims_saw_nothing()
    honest = answer(scene.bob, request)  # and the right answer still gets through
    assert scene.bobs.submit(honest)["status"] == "accepted"
    assert scene.alices.answers()["ATP"]["messageId"] == honest.message_id
    scene.alices.ack(1, stream="answers")


# --- Acks and frames that are not its own --------------------------------------------------------


def test_it_takes_no_ack_beyond_what_was_delivered(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    bobs.ack(1_000_000)
    alices.submit(write(alice, bob))
    bobs.mail()
    bobs.ack(2**53 - 1)
    until(lambda: _acked(bob) == 1, "the ack")

    alices.submit(write(alice, bob))
    assert bobs.mail()["seq"] == 2
    assert _acked(bob) == 1
    assert log_in(bob).mail()["seq"] == 2


def test_it_refuses_nothing_on_an_ack_beyond_what_was_delivered(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """`refused` names one delivery: where that has not come, it must not fall on another."""
    alices, bobs = log_in(alice), log_in(bob)
    alices.submit(write(alice, bob))
    bobs.mail()
    bobs.ack(7, refused="handler.failed")
    bobs.ack(1)
    until(lambda: _acked(bob) == 1, "the ack")

    assert Delivery.objects.get(recipient_id=bob.id).state == "waiting"


def test_it_takes_acks_for_the_agent_s_own_inbox_only(
    scene: Scene, log_in: LogIn, mallory: Player
) -> None:
    """Whatever the frame says besides: the session says whose inbox it is."""
    scene.alices.submit(write(scene.alice, scene.bob))
    seq = scene.bobs.mail()["seq"]
    scene.skip(scene.bob)
    wire = log_in(mallory)
    for name in ("agent", "recipient", "session", "iss"):
        session = scene.bobs.welcome["session"]
        wire.ack(seq, **{name: session if name == "session" else scene.bob.id})
        wire.ack(seq, refused="x", **{name: scene.bob.id})
    wire.submit(write(mallory, make_agent()))  # by its receipt, the acks have been read
    log_in(make_agent()).close()

    assert _acked(scene.bob) < seq
    assert not Delivery.objects.filter(recipient_id=scene.bob.id, state="refused").exists()
    scene.victims_saw_nothing()


ACK = {"type": "ack", "stream": "mail", "seq": 1}
FRAMES: dict[str, object] = {
    "a stream that is none": {**ACK, "stream": "trail"},
    "a stream that is no text": {**ACK, "stream": ["mail"]},
    "seq 0": {**ACK, "seq": 0},
    "seq below 0": {**ACK, "seq": -1},
    "seq as text": {**ACK, "seq": "1"},
    "seq as truth": {**ACK, "seq": True},
    "seq as fraction": {**ACK, "seq": 1.5},
    "no seq": {"type": "ack", "stream": "mail"},
    "refused as number": {**ACK, "refused": 1},
    "refused with NUL": {**ACK, "refused": "a\u0000b"},
    "refused that is no code": {**ACK, "refused": "<script>alert(1)</script>"},
    "a receipt": {"type": "receipt", "messageId": "x", "status": "accepted"},
    "a delivery": {"type": "delivery", "stream": "mail", "seq": 1},
    "a welcome": {"type": "welcome", "agent": "hub"},
    "a second login": {"type": "authenticate", "proof": "x"},
    "a layer event": {"type": "node.news", "payload": ""},
    "no type": {},
    "a number": 7,
    "null": None,
    "an array in an array": [[ACK]],
    "257 frames": [ACK] * 257,
}


@pytest.mark.parametrize("name", FRAMES)
def test_rejects_a_frame_that_agents_do_not_send(
    scene: Scene, log_in: LogIn, intruder: Player, name: str
) -> None:
    wire = log_in(intruder)
    wire.send_frame(FRAMES[name])

    assert wire.ended() == ("malformed.frame", 4400)
    scene.victims_saw_nothing()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"type":"ack","seq":1,"seq":2,"stream":"mail"}', "malformed.duplicate_member"),
        ('{"type":"ack","stream":"mail","seq":NaN}', "malformed.number"),
        ('{"type":"\\ud800"}', "malformed.text"),
        ("[" * 100_000, "malformed.too_deep"),
        ("[" + "1," * 400_000 + "1]", "malformed.frame"),
        ("", "malformed.json"),
        (b"\x00\x01", "malformed.frame"),
        (" " * 1_048_576, "malformed.json"),
    ],
    ids=[
        "duplicates",
        "NaN",
        "surrogate",
        "depth",
        "many values",
        "empty",
        "binary",
        "a mebibyte of space",
    ],
)
def test_rejects_a_frame_that_can_t_be_read(
    scene: Scene, log_in: LogIn, intruder: Player, text: str | bytes, code: str
) -> None:
    """An error frame and the end of this socket, and of no other."""
    wire = log_in(intruder)
    wire.send_text(text)

    assert wire.ended() == (code, 4400)
    scene.victims_saw_nothing()
    assert log_in(intruder).welcome["agent"] == intruder.id


@pytest.mark.parametrize("client", ["a\u0000b", "x" * 5_000, "\u202egnp.exe\r\nforged: line", 7])
def test_it_keeps_only_a_decent_name_of_the_client(
    log_in: LogIn, knock: LogIn, intruder: Player, client: object
) -> None:
    wire = knock(intruder)
    wire.authenticate(wire.prove(wire.challenge()["nonce"]), client=client)
    session = wire.next("welcome")["session"]

    stored = Session.objects.get(id=session).client
    assert len(stored) <= 120
    assert stored.isprintable()


# --- Claims about oneself ------------------------------------------------------------------------


def test_it_goes_by_the_registry_whatever_an_envelope_claims(scene: Scene, log_in: LogIn) -> None:
    """Level, score, attestation and capabilities in an envelope are claims, signed or not."""
    liar = make_agent("unverified", name="liar")
    wire = log_in(liar)

    def boast(document: dict[str, Any]) -> None:
        document["trustLevel"] = "certified"
        document["trustScore"] = 100
        document["agentIdentity"]["capabilities"] = ["everything.at_all"]
        document["agentIdentity"]["attestation"] = {"issuer": "me", "level": "certified"}

    receipt = wire.submit(forged(liar, scene.bob, before=boast))
    assert (receipt["status"], receipt["trustScore"]) == ("accepted", wire.welcome["score"])
    frame = scene.bobs.mail()
    scene.skip(scene.bob)
    assert (frame["level"], frame["score"]) == ("unverified", wire.welcome["score"])
    assert frame["chain"]["lowestLevel"] == "unverified"

    def reach(document: dict[str, Any]) -> None:
        boast(document)
        document["policyContext"] = {"dataSensitivity": "restricted"}

    denied = wire.submit(forged(liar, scene.bob, before=reach))
    assert (denied["status"], denied["code"]) == ("denied", "policy.denied")
    scene.victims_saw_nothing()


def test_it_keeps_a_score_that_was_written_onto_a_signed_envelope_out(
    scene: Scene, log_in: LogIn, mallory: Player
) -> None:
    """`trustScore` is not signed: what the recipient is told stands beside the envelope."""
    wire = log_in(mallory)
    letter = forged(mallory, scene.bob, after=lambda d: d.update(trustScore=100))
    assert wire.submit(letter)["trustScore"] == wire.welcome["score"] < 100

    assert scene.bobs.mail()["score"] == wire.welcome["score"]
    scene.skip(scene.bob)


def test_rejects_capabilities_that_the_recipient_only_declares(
    log_in: LogIn, alice: Player
) -> None:
    """It declares both and is attested for one."""
    boaster = make_agent(None)
    attest(boaster.id, "certified", capabilities=("finance.read",))
    request = ask(alice, boaster, required_capabilities=["finance.write"])
    assert log_in(alice).submit(request)["code"] == "attestation.capability"


def test_rejects_messages_to_oneself(log_in: LogIn, mallory: Player) -> None:
    receipt = log_in(mallory).submit(write(mallory, mallory))

    assert (receipt["status"], receipt["code"]) == ("denied", "recipient.self")


def test_it_counts_no_traffic_among_friends_for_the_score(log_in: LogIn, mallory: Player) -> None:
    """Of the same organisation nothing, of one counterparty ten a day."""
    friend = make_agent(organisation=mallory.organisation)
    stranger = make_agent()
    wire = log_in(mallory)
    before = wire.welcome["score"]
    for target in (friend, stranger):
        letters = [write(mallory, target) for _ in range(30)]
        wire.send_together(*letters)
        assert {wire.receipt(letter)["status"] for letter in letters} == {"accepted"}
        hearing = log_in(target)
        for _ in letters:
            last = hearing.mail()["seq"]
        hearing.ack(last)
        _wait_for_ack(target, last)
    credit_good_traffic()

    rows = GoodTraffic.objects.filter(agent_id=mallory.id)
    assert dict(rows.values_list("counterparty", "count")).get(friend.id, 0) == 0
    assert sum(min(n, 10) for n in rows.values_list("count", flat=True)) == 10
    after = log_in(mallory).welcome["score"]
    assert before <= after <= before + 1  # ten good envelopes are worth 0.75 points


# --- Too much of it ------------------------------------------------------------------------------


def test_rejects_nobody_else_s_mail_while_one_sender_floods(
    scene: Scene, log_in: LogIn, mallory: Player
) -> None:
    """A window of envelopes at a time; every one has its receipt, and others go on."""
    target = make_agent()
    wire = log_in(mallory)
    letters = [write(mallory, target) for _ in range(400)]
    wire.send(*letters)
    scene.victims_saw_nothing()

    assert {wire.receipt(letter)["status"] for letter in letters} == {"accepted"}


def test_it_bounds_what_a_flood_of_acks_leaves_waiting(
    scene: Scene, log_in: LogIn, mallory: Player
) -> None:
    """Acks are cumulative: of many that wait, one is enough."""
    wire = log_in(mallory)
    lane = process_node.current().acks.lane
    most = 0
    for _ in range(100):
        wire.send_frame([ACK] * 250)
        most = max(most, len(lane))
    scene.victims_saw_nothing()

    assert most < 250


def test_it_parts_with_a_recipient_that_never_reads(
    scene: Scene, log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory on the hub is bounded, others are served, and its mail waits for it in rows."""
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr(connections, "OUTBOX_BYTES", 200_000)
    sender, deaf = make_agent(), make_agent(name="deaf")
    sending, hearing = log_in(sender), log_in(deaf, read_ahead=1)
    letters = [write(sender, deaf, data={"filler": "x" * 100_000}) for _ in range(100)]
    for start in range(0, len(letters), 5):
        sending.send(*letters[start : start + 5])
        assert {sending.receipt(x)["status"] for x in letters[start : start + 5]} == {"accepted"}
    scene.victims_saw_nothing()

    until(lambda: deaf.id not in process_node.current().roster.agents, "the end of its socket")
    again = log_in(deaf)
    assert again.welcome["pending"] == 100
    assert [again.mail()["seq"] for _ in letters] == list(range(1, 101))
    hearing.cut()


def test_rejects_what_asks_for_too_much_trust(log_in: LogIn, mallory: Player) -> None:
    low = make_agent("unverified")
    receipt = log_in(mallory).submit(ask(mallory, low, requires_trust=TrustLevel.CERTIFIED))

    assert (receipt["status"], receipt["code"]) == ("denied", "trust.level")


def _wait_for_ack(player: Player, seq: int) -> None:
    until(lambda: _acked(player) == seq, "the ack")


def _acked(player: Player) -> int:
    row = Mailbox.objects.filter(agent_id=player.id, stream="mail").first()
    return row.acked_seq if row else 0


def test_rejects_an_ack_with_more_in_it_than_an_ack(hub: LiveHub) -> None:
    """A mebibyte of anything could be called an ack, and is read where all sockets are."""
    with Wire.log_in(hub, make_agent(name="mallory")) as wire:
        wire.send_frame({"type": "ack", "stream": "mail", "seq": 1, "filler": "x" * 100_000})
        assert wire.next("error")["code"] == "malformed.frame"


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_it_keeps_of_large_refused_mail_what_tells_which_it_was(
    hub: LiveHub, log_in: LogIn, alice: Player, size: int
) -> None:
    letter = write(alice, "nobody-there", data={"filler": "x" * size})
    assert log_in(alice).submit(letter)["status"] == "denied"
    row = Envelope.objects.get(sender_id=alice.id, message_id=letter.message_id)
    assert row.digest == letter.digest
    assert row.size > size
    assert len(bytes(row.content)) == (row.size if size == 1_000 else 0)
