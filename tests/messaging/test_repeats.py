"""A repeated envelope: its sender gets its present state, and no agent gets it twice."""

from __future__ import annotations

import time
from typing import Any

import pytest

from atp.types import MessageType
from messaging.models import Envelope
from registry.models import Violation
from tests.cast import Letter, Player, ask, forged, make_agent, tampered, write
from tests.messaging.conftest import LogIn
from tests.wire import Wire


def test_it_tells_a_repeat_the_current_state(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letter = write(alice, bob)
    first = alices.submit(letter)

    assert alices.submit(letter) == first
    bobs.mail()
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert bobs.mail()["seq"] == 2
    assert bobs.unasked() == []
    assert Envelope.objects.filter(sender_id=alice.id).count() == 2


def test_it_tells_a_repeat_over_another_socket(log_in: LogIn, alice: Player, bob: Player) -> None:
    """What an agent does that lost its connection before the receipt."""
    letter = write(alice, bob)
    first = log_in(alice).submit(letter)

    assert log_in(alice).submit(letter) == first


def test_it_tells_repeats_within_one_batch_alike(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letter = write(alice, bob)
    alices.send_together(letter, letter, letter)

    receipts = [alices.receipt(letter) for _ in range(3)]
    assert receipts[0]["status"] == "accepted"
    assert receipts[1:] == receipts[:1] * 2
    assert bobs.mail()["seq"] == 1
    alices.submit(write(alice, bob))
    assert bobs.mail()["seq"] == 2


def test_it_repeats_a_denial(log_in: LogIn, bob: Player) -> None:
    newcomer = make_agent("unverified")
    wire = log_in(newcomer)
    letter = write(newcomer, bob, sensitivity="confidential")
    first = wire.submit(letter)

    assert first["status"] == "denied"
    assert wire.submit(letter) == first


def test_it_looks_repeats_up_before_dates_are_judged(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """A repeat that has expired meanwhile still hears that it was accepted."""
    alices = log_in(alice)
    letter = ask(alice, bob, lifetime=2)
    first = alices.submit(letter)
    assert first["status"] == "accepted"
    time.sleep(
        max(
            0,
            Envelope.objects.get(message_id=letter.message_id).expires_at.timestamp() - time.time(),
        )
    )

    assert alices.submit(letter) == first


@pytest.mark.parametrize("together", [False, True], ids=["later", "in one batch"])
def test_rejects_other_content_under_the_same_id(
    log_in: LogIn, alice: Player, bob: Player, together: bool
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    honest = write(alice, bob)
    other = forged(alice, bob, before=lambda d: d.update(messageId=honest.message_id))
    if together:
        alices.send_together(honest, other)
    else:
        alices.send(honest, other)

    receipts = [alices.receipt(honest), alices.receipt(honest)]
    assert [r["status"] for r in receipts] == ["accepted", "invalid"]
    assert receipts[1]["code"] == "replay.conflict"
    assert bobs.mail()["ATP"]["payload"]["data"] == {"text": "hello"}
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert bobs.mail()["seq"] == 2
    assert alices.unasked() == []  # one receipt each


def test_it_leaves_no_id_behind_for_what_was_invalid(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    letter = write(alice, bob)
    broken = tampered(letter, lambda d: d["payload"].update(data={"text": "other"}))
    assert alices.submit(broken)["status"] == "invalid"

    assert alices.submit(letter)["status"] == "accepted"
    assert bobs.mail()["ATP"]["messageId"] == letter.message_id


def test_it_keeps_senders_ids_apart(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Bob may use the id that Alice used: neither learns that the other did."""
    alices, bobs = log_in(alice), log_in(bob)
    letter = write(alice, bob)
    first = alices.submit(letter)
    same_id = write(bob, alice, message_id=letter.message_id, kind=MessageType.NOTIFICATION)

    second = bobs.submit(same_id)
    assert (second["status"], second["recipients"]) == (first["status"], 1)
    assert second["entry"] != first["entry"]
    assert alices.submit(letter) == first
    assert bobs.submit(same_id) == second
    assert alices.mail()["ATP"]["agentIdentity"]["id"] == bob.id


@pytest.mark.parametrize("together", [False, True], ids=["later", "in one batch"])
def test_it_tells_a_conflict_the_state_of_the_first(
    log_in: LogIn, alice: Player, bob: Player, together: bool
) -> None:
    """What a process does that was restarted and has lost the bytes that it had signed."""
    alices = log_in(alice)
    first = write(alice, bob)
    anew = write(alice, bob, message_id=first.message_id)
    assert first.digest != anew.digest
    _send_both(alices, first, anew, together=together)

    accepted, refused = alices.receipt(first), alices.receipt(first)
    assert (refused["status"], refused["code"]) == ("invalid", "replay.conflict")
    assert refused["first"] == {"status": "accepted", "entry": accepted["entry"]}
    assert "entry" not in refused


def test_it_tells_a_conflict_that_the_first_was_denied(log_in: LogIn, bob: Player) -> None:
    newcomer = make_agent("unverified")
    wire = log_in(newcomer)
    first = write(newcomer, bob, sensitivity="confidential")
    denied = wire.submit(first)
    anew = write(newcomer, bob, sensitivity="confidential", message_id=first.message_id)

    assert wire.submit(anew)["first"] == {"status": "denied", "entry": denied["entry"]}


def test_it_tells_the_state_of_the_own_first_and_of_no_other_agent_s(
    log_in: LogIn, alice: Player, bob: Player, mallory: Player
) -> None:
    """Mallory has used the id as well, and hears of her own envelope."""
    letter = write(alice, bob)
    log_in(alice).submit(letter)
    mallorys = log_in(mallory)
    own = mallorys.submit(write(mallory, alice, message_id=letter.message_id))
    anew = write(mallory, alice, message_id=letter.message_id)
    assert mallorys.submit(anew)["first"] == {"status": own["status"], "entry": own["entry"]}


@pytest.mark.parametrize("together", [False, True], ids=["later", "in one batch"])
@pytest.mark.parametrize("kind", ["request", "notification"])
def test_it_is_no_violation_to_sign_a_message_anew(
    log_in: LogIn, alice: Player, bob: Player, kind: str, together: bool
) -> None:
    alices = log_in(alice)
    first = write(alice, bob, kind=MessageType(kind))
    anew = write(alice, bob, kind=MessageType(kind), message_id=first.message_id)
    _send_both(alices, first, anew, together=together)
    assert [alices.receipt(first)["status"] for _ in range(2)] == ["accepted", "invalid"]
    assert not Violation.objects.filter(agent_id=alice.id).exists()


@pytest.mark.parametrize("together", [False, True], ids=["later", "in one batch"])
@pytest.mark.parametrize("other", [{"data": "other"}, {"sensitivity": "internal"}])
def test_other_content_under_the_same_id_is_a_violation(
    log_in: LogIn, alice: Player, bob: Player, other: dict[str, Any], together: bool
) -> None:
    alices = log_in(alice)
    first = write(alice, bob)
    changed = write(alice, bob, message_id=first.message_id, **other)
    _send_both(alices, first, changed, together=together)
    assert [alices.receipt(first)["status"] for _ in range(2)] == ["accepted", "invalid"]
    assert Violation.objects.filter(agent_id=alice.id, rule="replay.conflict").exists()


def _send_both(wire: Wire, first: Letter, second: Letter, *, together: bool) -> None:
    """Send both in one batch, or one after the other."""
    if together:
        wire.send_together(first, second)
    else:
        wire.send(first, second)
