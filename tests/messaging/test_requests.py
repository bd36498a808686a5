"""A request is judged, delivered and answered, and both sides hear of it."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from atp.trust.tokens import TokenKind, verify
from atp.wire.canonical import digest
from messaging.judging.item import Decided
from messaging.models import Envelope
from tests.cast import Player, answer, ask, make_agent, write
from tests.messaging.conftest import Arm, LogIn


def test_it_carries_a_request_and_its_answer(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(alice, bob, data={"question": "how much?"})

    receipt = alices.submit(request)
    assert (receipt["status"], receipt["recipients"]) == ("accepted", 1)
    delivery = bobs.mail()
    assert delivery["type"] == "delivery"
    assert delivery["seq"] == 1
    assert delivery["entry"] == receipt["entry"]
    assert delivery["ATP"] == request.envelope.document
    assert (delivery["level"], delivery["score"]) == ("certified", receipt["trustScore"])
    assert delivery["chain"] == {
        "lowestLevel": "certified",
        "lowestScore": receipt["trustScore"],
        "depth": 1,
        "highestSensitivity": "public",
    }

    response = answer(bob, request, data={"answer": 42})
    assert bobs.submit(response)["status"] == "accepted"
    answered = alices.answers()
    assert answered["seq"] == 1
    assert answered["ATP"] == response.envelope.document


def test_it_gives_answers_a_stream_of_their_own(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(alice, bob)
    alices.submit(request)
    assert bobs.submit(write(bob, alice))["status"] == "accepted"
    assert bobs.submit(answer(bob, request))["status"] == "accepted"

    assert alices.mail()["seq"] == 1
    assert alices.answers()["seq"] == 1


def test_it_welcomes_an_agent_with_its_standing_and_proves_itself(
    log_in: LogIn, alice: Player
) -> None:
    welcome = log_in(alice).welcome

    assert (welcome["agent"], welcome["level"]) == (alice.id, "certified")
    assert 0 < welcome["score"] <= 100
    assert welcome["pending"] == 0
    claims = verify(
        TokenKind.WELCOME,
        welcome["proof"],
        alice.hub_key,
        now=time.time(),
        audience=alice.id,
        issuer=alice.hub,
    )
    assert claims["session"] == welcome["session"]


def test_it_delivers_the_bytes_that_were_signed(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Floats, members beyond the BMP and unknown members of the payload come as they went."""
    alices, bobs = log_in(alice), log_in(bob)
    data = {
        "rate": 1.5e-7,
        "\U0001f600": "smile",
        "names": ["Zoë", "naïve", "日本"],
        "big": 2**53 - 1,
    }
    letter = write(alice, bob, data=data, payload={"extension": {"a": [None, True]}})
    alices.submit(letter)

    arrived = bobs.mail()["ATP"]
    assert arrived["payload"]["data"] == data
    assert arrived["payload"]["extension"] == {"a": [None, True]}
    unsigned = {k: v for k, v in arrived.items() if k != "signature"}
    assert digest(unsigned) == letter.digest


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "PS256"])
def test_it_takes_every_algorithm_that_agents_may_sign_with(
    log_in: LogIn, bob: Player, algorithm: str
) -> None:
    sender, bobs = make_agent(algorithm=algorithm), log_in(bob)

    assert log_in(sender).submit(write(sender, bob))["status"] == "accepted"
    assert bobs.mail()["ATP"]["agentIdentity"]["id"] == sender.id


def test_rejects_a_second_answer(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(alice, bob)
    alices.submit(request)
    first, second = answer(bob, request), answer(bob, request)
    bobs.send_together(first, second)  # even when both are judged in one batch

    assert bobs.receipt(first)["status"] == "accepted"
    refused = bobs.receipt(second)
    assert (refused["status"], refused["code"]) == ("denied", "recipient.no_request")
    assert bobs.submit(answer(bob, request))["code"] == "recipient.no_request"
    assert alices.answers()["ATP"]["messageId"] == first.message_id
    assert alices.unasked() == []


def test_rejects_an_answer_under_another_request_id(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    """`requestId` is what applications go by: it must not lead to another exchange."""
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(alice, bob)
    alices.submit(request)

    refused = bobs.submit(answer(bob, request, request_id="another-exchange"))
    assert (refused["status"], refused["code"]) == ("denied", "recipient.no_request")


def test_rejects_an_answer_after_the_request_expired(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(alice, bob, lifetime=2)
    assert alices.submit(request)["status"] == "accepted"
    expires = int(request.envelope.timestamp) + 2

    late = answer(bob, request)
    time.sleep(max(0, expires - time.time()))
    refused = bobs.submit(late)
    assert (refused["status"], refused["code"]) == ("expired", "clock.expired")


def test_it_stores_one_answer_whatever_two_nodes_judged(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    """Another lane's answer is there by the time this one is stored: it is judged once more."""
    alices, bobs = log_in(alice), log_in(bob)
    request = ask(alice, bob)
    alices.submit(request)
    met: list[int] = []

    def answer_elsewhere(judged: Any) -> None:
        if (
            any(one.verified.req == request.digest for one in judged if isinstance(one, Decided))
            and not met
        ):
            met.append(1)
            first = Envelope.objects.get(sender_id=alice.id, message_id=request.message_id)
            first.pk, first.answers = None, request.digest
            first.sender_id, first.message_id = bob.id, str(uuid.uuid4())
            first.save()

    arm("before_insert", answer_elsewhere)
    response = answer(bob, request)
    assert bobs.submit(response)["status"] == "accepted"
    assert met
    assert alices.answers()["ATP"] == response.envelope.document
    assert Envelope.objects.filter(answers=request.digest, status="accepted").count() == 1
