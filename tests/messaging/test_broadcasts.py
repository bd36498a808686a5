"""A broadcast reaches the connected agents of the sender's organisation, and no other agent."""

from __future__ import annotations

import threading

import pytest
from pytest_django.fixtures import Settings

from messaging import failpoints
from messaging.judging import broadcasts
from messaging.mail import fan_out
from messaging.models import Delivery, Envelope
from messaging.tasks import sweep
from registry.agents.actions import revoke_agent
from tests.cast import OFFICER, Player, broadcast, make_agent, write
from tests.messaging.conftest import Arm, LogIn, until


def test_it_reaches_the_connected_agents_of_the_organisation(
    log_in: LogIn, alice: Player, bob: Player, mallory: Player
) -> None:
    offline = make_agent("verified", organisation=alice.organisation)
    carol = make_agent("verified", organisation=alice.organisation)
    alices, hearing = log_in(alice), [log_in(bob), log_in(carol)]
    stranger = log_in(mallory)
    letter = broadcast(alice, data={"text": "to all"})

    receipt = alices.submit(letter)
    assert (receipt["status"], receipt["recipients"]) == ("accepted", 2)
    for wire in hearing:
        frame = wire.mail()
        assert (frame["seq"], frame["entry"]) == (1, receipt["entry"])
        assert frame["ATP"]["messageId"] == letter.message_id
    assert not Delivery.objects.filter(recipient_id__in=[mallory.id, offline.id]).exists()
    assert stranger.submit(write(mallory, alice))["status"] == "accepted"
    assert stranger.unasked() == []
    assert alices.mail()["ATP"]["agentIdentity"]["id"] == mallory.id  # not an echo of its own


def test_it_takes_a_broadcast_that_nobody_is_there_to_hear(log_in: LogIn, alice: Player) -> None:
    receipt = log_in(alice).submit(broadcast(alice))

    assert (receipt["status"], receipt["recipients"]) == ("accepted", 0)
    until(lambda: not _waiting(alice), "the end of the fan-out")


def test_it_stands_in_one_order_with_other_mail(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    for n in range(4):
        alices.submit(broadcast(alice) if n % 2 else write(alice, bob))

    assert [bobs.mail()["seq"] for _ in range(4)] == [1, 2, 3, 4]


def test_it_keeps_the_order_of_a_senders_broadcasts(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """Of one batch as well, whatever ids the sender gave them."""
    alices, bobs = log_in(alice), log_in(bob)
    letters = [broadcast(alice) for _ in range(6)]
    letters.sort(key=lambda letter: letter.message_id, reverse=True)
    alices.send_together(*letters)

    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    arrived = [bobs.mail()["ATP"]["messageId"] for _ in letters]
    assert arrived == [letter.message_id for letter in letters]


def test_it_goes_on_with_a_broadcast_that_was_interrupted(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies half way: the rest is fanned out later, and no agent gets it twice."""
    monkeypatch.setattr(fan_out, "CHUNK", 2)
    members = [bob, *(make_agent("verified", organisation=alice.organisation) for _ in range(4))]
    alices, wires = log_in(alice), [log_in(member) for member in members]
    passed = []

    def die(envelope: Envelope) -> None:
        if envelope.sender_id == alice.id:
            passed.append(envelope)
            if len(passed) == 2:
                raise OSError("killed")

    arm("half_way_through_broadcast", die)
    letter = broadcast(alice)
    assert alices.submit(letter)["recipients"] == 5
    until(lambda: len(passed) >= 2, "the second chunk")
    failpoints.disarm("half_way_through_broadcast")
    sweep()

    assert [wire.mail()["seq"] for wire in wires] == [1] * 5
    assert Delivery.objects.filter(envelope__message_id=letter.message_id).count() == 5
    assert not _waiting(alice)


def test_it_withholds_a_broadcast_whose_sender_was_revoked_before_it_went_out(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    passed = threading.Event()

    def die(envelope: Envelope) -> None:
        if envelope.sender_id == alice.id:
            passed.set()
            raise OSError("killed")

    arm("half_way_through_broadcast", die)
    assert alices.submit(broadcast(alice))["status"] == "accepted"
    assert passed.wait(10)
    revoke_agent(alice.id, actor=OFFICER, reason="it is part of the play")
    failpoints.disarm("half_way_through_broadcast")
    sweep()

    expected = {"type": "delivery", "stream": "mail", "seq": 1, "withheld": "identity.revoked"}
    assert bobs.mail() == expected


def test_rejects_a_flood_of_broadcasts(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    """One sender fills a tenth of an inbox, with broadcasts, too; acks make room again."""
    settings.ATP_INBOX_LIMIT = 30
    alices, bobs = log_in(alice), log_in(bob)
    flood = [broadcast(alice, data={"n": n}) for n in range(12)]
    alices.send_together(*flood[:6])
    for letter in flood[6:]:
        alices.send(letter)
    receipts = [alices.receipt(letter) for letter in flood]

    accepted = [r for r in receipts if r["status"] == "accepted"]
    assert len(accepted) == 3
    refused = [r for r in receipts if r["status"] != "accepted"]
    assert {(r["status"], r["code"]) for r in refused} == {("busy", "flow.recipient_full")}
    assert [bobs.mail()["seq"] for _ in range(3)] == [1, 2, 3]
    assert alices.submit(write(alice, bob))["code"] == "flow.recipient_full"
    bobs.ack(3)
    until(lambda: alices.submit(write(alice, bob))["status"] == "accepted", "room")
    assert bobs.mail()["seq"] == 4


def test_it_throttles_who_broadcasts_faster_than_it_is_given_out(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a flood leaves nothing behind, and can be sent again when the first are out."""
    monkeypatch.setattr(broadcasts, "MOST_BROADCASTS", 2)
    alices, bobs = log_in(alice), log_in(bob)
    flood = [broadcast(alice, data={"n": n}) for n in range(4)]
    alices.send_together(*flood)
    receipts = [alices.receipt(letter) for letter in flood]

    assert [r["status"] for r in receipts] == ["accepted"] * 2 + ["throttled"] * 2
    assert (receipts[3]["code"], receipts[3]["retryAfter"]) == ("flow.throttled", 0.25)
    assert [bobs.mail()["seq"] for _ in range(2)] == [1, 2]
    assert alices.submit(flood[3])["status"] == "accepted"


def test_it_spares_only_the_full_inboxes(
    log_in: LogIn, alice: Player, bob: Player, settings: Settings
) -> None:
    settings.ATP_INBOX_LIMIT = 20
    carol = make_agent("verified", organisation=alice.organisation)
    alices, _, carols = log_in(alice), log_in(bob), log_in(carol)
    for _ in range(2):
        assert alices.submit(write(alice, bob))["status"] == "accepted"

    assert alices.submit(broadcast(alice))["recipients"] == 1
    assert carols.mail()["seq"] == 1


def _waiting(player: Player) -> bool:
    return Envelope.objects.filter(sender_id=player.id, fan_out__isnull=False).exists()


def test_it_throttles_who_broadcasts_to_more_than_a_hub_can_bear(
    log_in: LogIn, alice: Player, bob: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a broadcast's deliveries costs the hub; one that was refused can be sent again."""
    monkeypatch.setattr(broadcasts, "BROADCAST_LIMITS", ((0.5, 83), (3_600.0, 1_000)))
    alices, bobs = log_in(alice), log_in(bob)
    flood = [broadcast(alice, data={"n": n}) for n in range(5)]
    alices.send_together(*flood[:4])
    receipts = [alices.receipt(letter) for letter in flood[:4]]

    assert [r["status"] for r in receipts] == ["accepted"] * 3 + ["throttled"]
    assert receipts[3]["code"] == "flow.throttled"
    assert "in 0.5 s" in receipts[3]["detail"]
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    until(lambda: alices.submit(flood[3])["status"] == "accepted", "that the time is over")
    monkeypatch.setattr(broadcasts, "BROADCAST_LIMITS", ((3_600.0, 164),))
    assert alices.submit(flood[4])["status"] == "throttled"
    assert [bobs.mail()["seq"] for _ in range(5)] == [1, 2, 3, 4, 5]


def test_it_gives_a_senders_broadcasts_out_together(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as make a chunk; where one is cut, the next call begins with its rest."""
    monkeypatch.setattr(fan_out, "CHUNK", 5)
    members = [bob, make_agent("verified", organisation=alice.organisation)]
    alices, wires = log_in(alice), [log_in(member) for member in members]
    left: list[list[int]] = []

    def look(envelope: Envelope) -> None:
        if envelope.sender_id == alice.id:
            rows = Envelope.objects.filter(sender_id=alice.id).order_by("judged_at", "id")
            left.append(sorted(len(row.fan_out or []) for row in rows))

    arm("half_way_through_broadcast", look)
    letters = [broadcast(alice) for _ in range(4)]
    alices.send_together(*letters)

    assert {alices.receipt(letter)["status"] for letter in letters} == {"accepted"}
    for wire in wires:
        heard = [wire.mail() for _ in letters]
        assert [frame["seq"] for frame in heard] == [1, 2, 3, 4]
        assert [frame["ATP"]["messageId"] for frame in heard] == [x.message_id for x in letters]
    assert left == [[0, 0, 1, 2], [0, 0, 0, 0]]
