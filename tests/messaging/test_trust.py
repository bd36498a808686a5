"""The shipped baseline: an agent's attestation decides which envelopes it may send."""

from __future__ import annotations

from typing import Any

import pytest

from atp.types import TrustLevel
from messaging.models import Delivery
from registry.agents.actions import change_agent
from registry.attestations.actions import revoke_attestation
from registry.trail.models import Entry
from tests.cast import (
    OFFICER,
    Letter,
    Player,
    answer,
    ask,
    attest,
    broadcast,
    make_agent,
    write,
)
from tests.messaging.conftest import LogIn

LEVELS = ("certified", "verified", "unverified", "sandboxed")
SENSITIVITIES = ("public", "internal", "confidential", "restricted")
ALLOWED = {  # to a certified recipient, by agents without a past
    "certified": set(SENSITIVITIES),
    "verified": {"public", "internal", "confidential"},
    "unverified": {"public"},
    "sandboxed": set(),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_it_lets_a_level_reach_its_data(
    log_in: LogIn, bob: Player, level: str, sensitivity: str
) -> None:
    sender = make_agent(level)
    receipt = log_in(sender).submit(write(sender, bob, sensitivity=sensitivity))

    if sensitivity in ALLOWED[level]:
        assert receipt["status"] == "accepted"
    else:
        assert (receipt["status"], receipt["code"]) == ("denied", "policy.denied")
        assert "rule" in receipt["detail"]
        assert not Delivery.objects.filter(recipient_id=bob.id).exists()


def test_it_shows_two_agents_of_different_levels_the_difference(log_in: LogIn, bob: Player) -> None:
    """The same words to the same recipient, and what the trail says of it."""
    high, low = make_agent("certified"), make_agent("unverified")
    letters = {p.id: write(p, bob, sensitivity="confidential") for p in (high, low)}
    receipts = {p.id: log_in(p).submit(letters[p.id]) for p in (high, low)}

    assert receipts[high.id]["status"] == "accepted"
    assert receipts[low.id]["status"] == "denied"
    assert receipts[high.id]["trustScore"] > receipts[low.id]["trustScore"]
    entry = Entry.objects.get(position=receipts[low.id]["entry"])
    assert entry.rule == "Unverified and sandboxed agents handle public data only"
    assert (entry.policy, entry.verdict) == ("Baseline", "denied")
    body = entry.body.read()
    assert (body["level"], body["code"]) == ("unverified", "policy.denied")


def test_it_keeps_sandboxed_agents_among_themselves_and_their_hosts(
    log_in: LogIn, bob: Player
) -> None:
    sender, other = make_agent("sandboxed"), make_agent("sandboxed")
    host = make_agent("certified", tags=["sandbox-host"])
    wire = log_in(sender)

    assert wire.submit(write(sender, other))["status"] == "accepted"
    assert wire.submit(write(sender, host))["status"] == "accepted"
    assert wire.submit(write(sender, bob))["code"] == "policy.denied"
    assert wire.submit(broadcast(sender))["code"] == "policy.denied"


@pytest.mark.parametrize(
    ("attested", "code"),
    [("never", "attestation.missing"), ("revoked", "attestation.revoked")],
)
def test_rejects_agents_that_nobody_vouches_for(
    log_in: LogIn, bob: Player, attested: str, code: str
) -> None:
    sender = make_agent(None)
    if attested == "revoked":
        row = attest(sender.id, "certified")
        revoke_attestation(row.jti, actor=OFFICER, reason="a mistake")
    wire = log_in(sender)

    assert wire.welcome["level"] == ""
    receipt = wire.submit(write(sender, bob))
    assert (receipt["status"], receipt["code"]) == ("denied", code)
    assert receipt["trustScore"] == 0


def test_it_takes_the_best_of_several_attestations(log_in: LogIn, bob: Player) -> None:
    sender = make_agent("unverified")
    better = attest(sender.id, "certified")
    wire = log_in(sender)
    assert wire.submit(write(sender, bob, sensitivity="confidential"))["status"] == "accepted"

    revoke_attestation(better.jti, actor=OFFICER, reason="a mistake")
    receipt = wire.submit(write(sender, bob))
    assert receipt["status"] == "accepted"
    assert wire.submit(write(sender, bob, sensitivity="confidential"))["status"] == "denied"


# --- What is demanded of the other side ----------------------------------------------------------


@pytest.mark.parametrize("demanded", LEVELS)
@pytest.mark.parametrize("level", ["certified", "unverified"])
def test_it_holds_the_recipient_to_requires_trust(
    log_in: LogIn, alice: Player, level: str, demanded: str
) -> None:
    recipient = make_agent(level)
    receipt = log_in(alice).submit(ask(alice, recipient, requires_trust=TrustLevel(demanded)))

    if TrustLevel(level).rank >= TrustLevel(demanded).rank:
        assert receipt["status"] == "accepted"
    else:
        assert (receipt["status"], receipt["code"]) == ("denied", "trust.level")


def test_it_holds_the_one_who_answers_to_requires_trust(log_in: LogIn, alice: Player) -> None:
    """A level that was lost between request and answer counts when it answers."""
    helper = make_agent("unverified")
    better = attest(helper.id, "verified")
    alices, helpers = log_in(alice), log_in(helper)
    request = ask(alice, helper, requires_trust=TrustLevel.VERIFIED)
    assert alices.submit(request)["status"] == "accepted"
    revoke_attestation(better.jti, actor=OFFICER, reason="a mistake")

    receipt = helpers.submit(answer(helper, request))
    assert (receipt["status"], receipt["code"]) == ("denied", "trust.level")


def test_it_holds_the_recipient_to_required_capabilities(log_in: LogIn, alice: Player) -> None:
    """By one attestation: capabilities of two are never put together, nor is a level borrowed."""
    reader = make_agent("certified", capabilities=("finance.read",))
    attest(reader.id, "unverified", capabilities=("finance.write",))
    alices = log_in(alice)

    def submit(*names: str, **parts: Any) -> tuple[str, str]:
        receipt = alices.submit(ask(alice, reader, required_capabilities=names, **parts))
        return receipt["status"], receipt.get("code", "")

    assert submit("finance.read") == ("accepted", "")
    assert submit("finance.write") == ("accepted", "")
    assert submit("finance.read", "finance.write") == ("denied", "attestation.capability")
    assert submit("medical.read") == ("denied", "attestation.capability")
    demanding: dict[str, Any] = {"requires_trust": TrustLevel.VERIFIED}
    assert submit("finance.read", **demanding) == ("accepted", "")
    assert submit("finance.write", **demanding) == ("denied", "trust.level")


def test_it_holds_senders_to_what_a_recipient_demands(log_in: LogIn, alice: Player) -> None:
    strict = make_agent(minimum_level="verified")
    stricter = make_agent(minimum_score=99)
    low = make_agent("unverified")

    assert log_in(low).submit(write(low, strict))["code"] == "trust.level"
    alices = log_in(alice)
    assert alices.submit(write(alice, strict))["status"] == "accepted"
    assert alices.submit(write(alice, stricter))["code"] == "trust.score"


# --- Sensitivity is what it is, not what is said -------------------------------------------------


@pytest.mark.parametrize("whose", ["sender", "recipient"])
def test_it_raises_sensitivity_to_the_floor_of_both_sides(log_in: LogIn, whose: str) -> None:
    floor: dict[str, Any] = {"sensitivity_floor": "confidential"}
    sender = make_agent("unverified", **(floor if whose == "sender" else {}))
    recipient = make_agent("certified", **(floor if whose == "recipient" else {}))

    receipt = log_in(sender).submit(write(sender, recipient, sensitivity="public"))
    assert (receipt["status"], receipt["code"]) == ("denied", "policy.denied")


def test_it_raises_the_sensitivity_of_an_answer_to_its_request_s(
    log_in: LogIn, alice: Player
) -> None:
    helper = make_agent("unverified")
    alices, helpers = log_in(alice), log_in(helper)
    secret, open_ = ask(alice, helper, sensitivity="confidential"), ask(alice, helper)
    for request in (secret, open_):
        assert alices.submit(request)["status"] == "accepted"

    receipt = helpers.submit(answer(helper, secret, sensitivity="public"))
    assert (receipt["status"], receipt["code"]) == ("denied", "policy.denied")
    assert helpers.submit(answer(helper, open_, sensitivity="public"))["status"] == "accepted"


def test_it_judges_by_the_registry_of_the_moment(log_in: LogIn, bob: Player) -> None:
    sender = make_agent("unverified")
    wire = log_in(sender)
    assert wire.submit(write(sender, bob))["status"] == "accepted"
    change_agent(
        bob.id, {"minimum_level": "verified"}, actor=OFFICER, reason="only those we know better"
    )

    assert wire.submit(write(sender, bob))["code"] == "trust.level"


# --- The chain of causes -------------------------------------------------------------------------


def test_it_knows_the_weakest_link_behind_a_message(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    newcomer = make_agent("unverified")
    newcomers, alices, bobs = log_in(newcomer), log_in(alice), log_in(bob)
    first = ask(newcomer, alice)
    own = newcomers.submit(first)["trustScore"]
    alices.submit(second := ask(alice, bob, cause=first.digest))
    chain = {"lowestLevel": "unverified", "lowestScore": own, "highestSensitivity": "public"}
    assert bobs.mail()["chain"] == {**chain, "depth": 2}

    bobs.submit(third := write(bob, alice, cause=second.digest))
    frames = [alices.mail(), alices.mail()]
    assert frames[1]["ATP"]["messageId"] == third.message_id
    assert frames[1]["chain"] == {**chain, "depth": 3}


def test_rejects_a_request_laundered_through_a_better_trusted_agent(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """The newcomer may not reach restricted data, and Alice not on its behalf either."""
    newcomer = make_agent("unverified")
    newcomers, alices, bobs = log_in(newcomer), log_in(alice), log_in(bob)
    direct = newcomers.submit(ask(newcomer, bob, sensitivity="restricted"))
    assert (direct["status"], direct["code"]) == ("denied", "policy.denied")
    wish = ask(newcomer, alice)
    newcomers.submit(wish)

    laundered = alices.submit(ask(alice, bob, sensitivity="restricted", cause=wish.digest))
    assert (laundered["status"], laundered["code"]) == ("denied", "policy.denied")
    entry = Entry.objects.get(position=laundered["entry"])
    assert entry.rule == "Restricted data needs a chain of certified agents"
    assert bobs.unasked() == []


def test_rejects_causes_that_the_sender_did_not_receive(
    log_in: LogIn, alice: Player, bob: Player, mallory: Player
) -> None:
    """The refusal is the same for existing ids, so it does not tell which ids exist."""
    alices, mallorys = log_in(alice), log_in(mallory)
    foreign = write(alice, bob)
    alices.submit(foreign)

    def told(cause: str) -> tuple[str, str, str]:
        receipt = mallorys.submit(write(mallory, bob, cause=cause))
        return receipt["status"], receipt["code"], receipt["detail"]

    own = write(mallory, bob)
    mallorys.submit(own)
    assert told(foreign.digest)[:2] == ("denied", "trust.cause")
    assert told("A" * 43) == told(foreign.digest) == told(own.digest)


def test_rejects_endless_chains(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    sides = [(alice, bob, alices), (bob, alice, bobs)]
    cause: Letter | None = None
    for depth in range(1, 33):
        sender, target, wire = sides[depth % 2]
        letter = write(sender, target, cause=cause.digest if cause else None)
        assert wire.submit(letter)["status"] == "accepted"
        cause = letter

    assert cause is not None
    sender, target, wire = sides[1]
    assert wire.submit(write(sender, target, cause=cause.digest))["code"] == "trust.cause"
