"""Nobody pays for what others brought: what came with a message, and what became of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from atp.judging.policy.fields import WEEKDAYS
from atp.trust.provenance import sign_entry
from atp.types import IProvenanceEntry
from messaging.models import Delivery, Envelope, Mailbox
from messaging.tasks import sweep
from registry.agents.actions import revoke_agent, revoke_key, suspend_agent
from registry.models import Violation
from registry.scores.models import Conduct
from registry.trail.models import Entry
from tests.cast import (
    OFFICER,
    Letter,
    Player,
    answer,
    ask,
    broadcast,
    make_agent,
    make_organisation,
    tampered,
    write,
)
from tests.messaging.conftest import LogIn

WHY = "it is part of the play"


def violations(player: Player) -> int:
    return Violation.objects.filter(agent_id=player.id).count()


def _sensitivity(receipt: dict[str, Any]) -> str:
    return Entry.objects.get(position=receipt["entry"]).sensitivity


# --- The chain carries its sensitivity ---


def test_it_keeps_the_sensitivity_of_a_request_along_its_chain(log_in: LogIn) -> None:
    first, second, third = make_agent(), make_agent(), make_agent()
    wires = [log_in(player) for player in (first, second, third)]
    request = ask(first, second, sensitivity="restricted")
    wires[0].submit(request)

    onward = write(second, third, sensitivity="public", cause=request.digest)
    receipt = wires[1].submit(onward)
    assert (receipt["status"], _sensitivity(receipt)) == ("accepted", "restricted")
    assert wires[2].mail()["chain"]["highestSensitivity"] == "restricted"
    last = wires[2].submit(write(third, first, sensitivity="public", cause=onward.digest))
    assert _sensitivity(last) == "restricted"


def test_rejects_restricted_data_passed_on_as_public(log_in: LogIn) -> None:
    """Whoever may not send it may not pass it on, and is not at fault for what came."""
    certified, verified = make_agent(), make_agent("verified")
    target = make_agent("unverified")
    certifieds, verifieds = log_in(certified), log_in(verified)
    request = ask(certified, verified, sensitivity="restricted")
    certifieds.submit(request)

    onward = write(verified, target, sensitivity="public", cause=request.digest)
    to_all = broadcast(verified, sensitivity="public", cause=request.digest)

    for letter in (onward, to_all):
        receipt = verifieds.submit(letter)
        assert (receipt["status"], receipt["code"]) == ("denied", "policy.denied")
        assert _sensitivity(receipt) == "restricted"
    assert violations(verified) == 0


def test_it_notes_restricted_data_of_ones_own(log_in: LogIn) -> None:
    """What an agent declares itself is its own doing, whatever it handles."""
    certified, verified = make_agent(), make_agent("verified")
    certifieds, verifieds = log_in(certified), log_in(verified)
    request = ask(certified, verified, sensitivity="restricted")
    certifieds.submit(request)

    own = write(verified, certified, sensitivity="restricted", cause=request.digest)
    assert verifieds.submit(own)["code"] == "policy.denied"
    (violation,) = Violation.objects.filter(agent_id=verified.id)
    assert violation.rule == "Restricted data needs a certified sender"


# --- What an asker does is no violation of the one who was asked ---


def _names_as_cause(wire: Any, sender: Player, cause: Letter) -> dict[str, Any]:
    receipt: dict[str, Any] = wire.submit(write(sender, make_agent(), cause=cause.digest))
    return receipt


def test_it_takes_a_cause_that_expired_while_it_was_handled(log_in: LogIn) -> None:
    asker, worker = make_agent(), make_agent()
    askers, workers = log_in(asker), log_in(worker)
    letter = write(asker, worker)
    askers.submit(letter)
    assert workers.mail()["seq"] == 1
    past = datetime.now(UTC) - timedelta(seconds=1)
    Envelope.objects.filter(message_id=letter.message_id).update(expires_at=past)
    Delivery.objects.filter(recipient_id=worker.id).update(expires_at=past)
    Mailbox.objects.filter(agent_id=worker.id).update(next_expiry=past)
    sweep()
    assert Delivery.objects.get(recipient_id=worker.id).state == Delivery.State.EXPIRED

    assert _names_as_cause(workers, worker, letter)["status"] == "accepted"
    assert violations(worker) == 0


def test_it_takes_a_cause_whose_sender_was_revoked_or_suspended_since(log_in: LogIn) -> None:
    worker = make_agent()
    workers = log_in(worker)
    for decide in (revoke_agent, suspend_agent):
        asker = make_agent()
        letter = write(asker, worker)
        log_in(asker).submit(letter)
        decide(asker.id, actor=OFFICER, reason=WHY)
        workers.close()  # what was not acknowledged is looked at again, and kept back
        workers = log_in(worker)
        assert workers.mail()["withheld"]

        assert _names_as_cause(workers, worker, letter)["status"] == "accepted"
    assert violations(worker) == 0


def test_it_blames_nobody_for_the_length_of_a_chain(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    sides = [(alice, bob, log_in(alice)), (bob, alice, log_in(bob))]
    cause: Letter | None = None
    for depth in range(34):
        sender, target, wire = sides[depth % 2]
        letter = write(sender, target, cause=cause.digest if cause else None)
        receipt = wire.submit(letter)
        if receipt["status"] != "accepted":
            break
        cause = letter

    assert receipt["code"] == "trust.cause"
    assert violations(alice) == violations(bob) == 0


def test_it_still_notes_a_cause_that_never_came(log_in: LogIn) -> None:
    """Nobody but the agent itself can bring that about."""
    worker = make_agent()
    wire = log_in(worker)
    assert wire.submit(write(worker, make_agent(), cause="A" * 43))["code"] == "trust.cause"
    assert violations(worker) == 1


def test_it_blames_nobody_for_an_answer_that_the_request_made_too_sensitive(
    log_in: LogIn,
) -> None:
    asker, victim = make_agent(), make_agent("verified")
    askers, victims = log_in(asker), log_in(victim)
    for _ in range(3):
        request = ask(asker, victim, sensitivity="restricted")
        assert askers.submit(request)["status"] == "accepted"
        receipt = victims.submit(answer(victim, request))
        assert (receipt["status"], receipt["code"]) == ("denied", "policy.denied")
    assert violations(victim) == 0


def test_it_blames_nobody_for_the_floor_of_a_recipient(log_in: LogIn) -> None:
    sender = make_agent("unverified")
    target = make_agent(sensitivity_floor="restricted")
    receipt = log_in(sender).submit(write(sender, target))
    assert (receipt["code"], _sensitivity(receipt)) == ("policy.denied", "restricted")
    assert violations(sender) == 0


def test_it_blames_nobody_for_the_weakest_link_before_them(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """A newcomer's mail makes the chain weak; what Alice sends meanwhile is hers to send."""
    newcomer = make_agent("unverified")
    newcomers, alices = log_in(newcomer), log_in(alice)
    wish = write(newcomer, alice)
    newcomers.submit(wish)
    receipt = alices.submit(write(alice, bob, sensitivity="restricted", cause=wish.digest))
    assert receipt["code"] == "policy.denied"
    assert violations(alice) == 0


def test_it_blames_nobody_for_whom_they_answer(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    """The requester chose the recipient of an answer; of a message, its sender does."""
    unwanted = {"field": "recipient.id", "operator": "equals", "value": bob.id}
    enforce(action="deny", severity="high", conditions=[unwanted])
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(bob, alice)
    bobs.submit(request)

    assert alices.submit(answer(alice, request))["code"] == "policy.denied"
    assert violations(alice) == 0
    assert alices.submit(write(alice, bob))["code"] == "policy.denied"
    assert violations(alice) == 1


def test_it_blames_nobody_for_how_often_they_are_asked(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    often = {"field": "context.messages_per_minute", "operator": "at_least", "value": 1}
    enforce(action="deny", severity="medium", conditions=[often])
    alices, bobs = log_in(alice), log_in(bob)
    requests = [ask(bob, alice) for _ in range(2)]
    for request in requests:
        bobs.submit(request)

    receipts = [alices.submit(answer(alice, request)) for request in requests]
    assert [r.get("code", "") for r in receipts] == ["", "policy.denied"]
    assert violations(alice) == 0


def test_it_blames_nobody_for_the_hour_at_which_they_are_asked(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    today = {"field": "time.weekday", "operator": "in", "value": list(WEEKDAYS)}
    enforce(action="deny", severity="high", conditions=[today])
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(bob, alice)
    bobs.submit(request)

    assert alices.submit(answer(alice, request))["code"] == "policy.denied"
    assert violations(alice) == 0
    assert alices.submit(write(alice, bob))["code"] == "policy.denied"
    assert violations(alice) == 1


def test_it_notes_how_often_one_broadcasts(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    """Nobody asks for a broadcast, so its sender chooses how many there are."""
    often = {"field": "context.messages_per_minute", "operator": "at_least", "value": 1}
    enforce(action="deny", severity="medium", conditions=[often])
    alices = log_in(alice)
    log_in(bob)
    receipts = [alices.submit(broadcast(alice)) for _ in range(2)]
    assert [r.get("code", "") for r in receipts] == ["", "policy.denied"]
    assert violations(alice) == 1


def test_it_blames_nobody_for_a_rule_that_did_not_deny(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    """A rule that only matches what the sender brought, without what came, has denied nothing."""
    unasked = {"field": "chain.depth", "operator": "at_most", "value": 1}
    enforce(action="deny", severity="high", conditions=[unasked])
    newcomer = make_agent("unverified")
    newcomers, alices = log_in(newcomer), log_in(alice)
    wish = write(newcomer, alice)
    newcomers.submit(wish)
    receipt = alices.submit(write(alice, bob, sensitivity="restricted", cause=wish.digest))
    assert receipt["code"] == "policy.denied"
    assert violations(alice) == 0


def test_it_names_the_rule_that_the_sender_itself_broke(log_in: LogIn) -> None:
    """Where another rule denies first because of what others brought."""
    organisation = make_organisation()
    sender = make_agent("sandboxed", organisation=organisation)
    target = make_agent("verified", organisation=organisation, sensitivity_floor="restricted")
    receipt = log_in(sender).submit(write(sender, target))
    assert Entry.objects.get(position=receipt["entry"]).rule.startswith("Restricted data")
    (violation,) = Violation.objects.filter(agent_id=sender.id)
    assert violation.rule.startswith("Sandboxed agents talk only to")


def test_it_blames_nobody_for_the_key_of_another_who_added_to_the_provenance(
    log_in: LogIn,
) -> None:
    """A helper signs an entry, and its key is revoked before the sender sends."""
    sender, helper = make_agent(), make_agent()
    letter = write(sender, make_agent())
    entry = IProvenanceEntry("tool", "t-1", "2027-01-15T08:00:00Z", "looked up")
    now = int(time.time())
    token = sign_entry(
        entry, helper.key, agent=helper.id, digest=letter.digest, entries=[], now=now
    )
    revoke_key(helper.key.kid, actor=OFFICER, reason=WHY)

    receipt = log_in(sender).submit(tampered(letter, lambda d: d.update(provenance=[token])))

    assert (receipt["status"], receipt["code"]) == ("invalid", "signature.provenance")
    assert violations(sender) == 0
    conduct = Conduct.objects.filter(agent_id=sender.id).first()
    assert conduct is None or "0" not in conduct.signatures
