"""What developers test against judges as the hub does: same envelopes, same status and code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atp.wire.frames import Receipt
from tests.cast import OWN, Letter, answer, ask, broadcast, forged, tampered, write
from tests.sdk.courts import Court, FakeHubCourt, HubCourt, MemoryCourt

Told = tuple[str, str]
Case = Callable[[Court], list[Told]]
ACCEPTED = ("accepted", "")
NO_REQUEST = ("denied", "recipient.no_request")
LONG = 3600  # seconds; of an answer that outlives the request


@pytest.fixture(params=["memory", "fake hub", "hub"])
def court(request: pytest.FixtureRequest) -> Iterator[Court]:
    """Each judge in turn."""
    court: Court
    if request.param == "hub":
        court = HubCourt(request.getfixturevalue("hub"))
    else:
        court = MemoryCourt() if request.param == "memory" else FakeHubCourt()
    yield court
    court.close()


def told(receipt: Receipt) -> Told:
    return receipt.status, receipt.code


def a_message(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    return [told(court.submit(alice, write(alice, bob)))]


def a_late_answer(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    request = ask(alice, bob, lifetime=1)
    asked = told(court.submit(alice, request))
    court.later(1.5)
    return [asked, told(court.submit(bob, answer(bob, request, lifetime=LONG)))]


def an_expired_message(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    letter = write(alice, bob, lifetime=1)
    court.later(1.5)
    return [told(court.submit(alice, letter)) for _ in range(2)]


def a_message_of_the_future(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    return [told(court.submit(alice, forged(alice, bob, claims={"iat": 2**32, "exp": 2**32 + 9})))]


def a_second_answer(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    request = ask(alice, bob)
    letters = [answer(bob, request), answer(bob, request)]
    return [told(court.submit(alice, request))] + [told(court.submit(bob, x)) for x in letters]


def an_answer_by_another(court: Court) -> list[Told]:
    alice, bob, carol = (court.player(name) for name in ("alice", "bob", "carol"))
    request = ask(alice, bob)
    asked = told(court.submit(alice, request))
    return [asked, told(court.submit(carol, answer(carol, request)))]


def an_answer_under_another_request_id(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    request = ask(alice, bob)
    asked = told(court.submit(alice, request))
    return [asked, told(court.submit(bob, answer(bob, request, request_id="another")))]


def an_answer_to_nothing(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    return [told(court.submit(bob, answer(bob, ask(alice, bob))))]


def a_demand_for_more_trust(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    levels = ("verified", "certified")
    return [told(court.submit(alice, ask(alice, bob, requires_trust=x))) for x in levels]


def a_demand_for_capabilities(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    wanted = (("finance.read",), ("finance.fly",))
    return [told(court.submit(alice, ask(alice, bob, required_capabilities=x))) for x in wanted]


def a_demand_in_a_broadcast(court: Court) -> list[Told]:
    alice = court.player("alice")
    court.player("bob", level="sandboxed")
    return [told(court.submit(alice, broadcast(alice, requires_trust="certified")))]


def a_broadcast_to_nobody(court: Court) -> list[Told]:
    alice = court.player("alice")
    return [told(court.submit(alice, broadcast(alice, requires_trust="certified")))]


def a_missing_recipient(court: Court) -> list[Told]:
    alice = court.player("alice")
    letter = write(alice, "nobody-here")
    return [told(court.submit(alice, letter)) for _ in range(2)]


def a_message_to_oneself(court: Court) -> list[Told]:
    alice = court.player("alice")
    return [told(court.submit(alice, write(alice, alice)))]


def a_repeat(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    letter = write(alice, bob)
    return [told(court.submit(alice, letter)) for _ in range(2)]


def a_repeat_with_other_content(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    first = write(alice, bob)
    second = write(alice, bob, message_id=first.message_id, data="other")
    return [told(court.submit(alice, x)) for x in (first, second)]


def a_message_for_another_hub(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    return [told(court.submit(alice, write(alice, bob, hub="hub-elsewhere")))]


def a_changed_message(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    letter = tampered(write(alice, bob), lambda document: document["payload"].update(data=1))
    return [told(court.submit(alice, letter))]


def a_message_in_anothers_name(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    return [told(court.submit(bob, write(alice, bob)))]


def a_message_signed_by_another(court: Court) -> list[Told]:
    alice, bob = court.player("alice"), court.player("bob")
    forgeries: list[Letter] = [
        forged(alice, bob, header={"kid": bob.key.kid}, key=bob.key),
        forged(alice, bob, header={"kid": "nobody's"}, key=OWN),
        forged(alice, bob, key=bob.key),
        tampered(write(alice, bob), lambda document: document.pop("signature")),
    ]
    return [told(court.submit(alice, letter)) for letter in forgeries]


def an_agent_that_nobody_attests(court: Court) -> list[Told]:
    alice, bob = court.player("alice", level=None), court.player("bob")
    return [told(court.submit(alice, write(alice, bob)))]


def a_cause(court: Court) -> list[Told]:
    alice, bob, carol = (court.player(name) for name in ("alice", "bob", "carol"))
    first = write(alice, bob)
    court.submit(alice, first)
    letters = [write(sender, alice, cause=first.digest) for sender in (bob, carol)]
    return [told(court.submit(x, y)) for x, y in zip((bob, carol), letters, strict=True)]


CASES: list[tuple[Case, list[Told]]] = [
    (a_message, [ACCEPTED]),
    (a_late_answer, [ACCEPTED, ("expired", "clock.expired")]),
    (an_expired_message, [("expired", "clock.expired")] * 2),
    (a_message_of_the_future, [("invalid", "clock.mismatch")]),
    (a_second_answer, [ACCEPTED, ACCEPTED, NO_REQUEST]),
    (an_answer_by_another, [ACCEPTED, NO_REQUEST]),
    (an_answer_under_another_request_id, [ACCEPTED, NO_REQUEST]),
    (an_answer_to_nothing, [NO_REQUEST]),
    (a_demand_for_more_trust, [ACCEPTED, ("denied", "trust.level")]),
    (a_demand_for_capabilities, [ACCEPTED, ("denied", "attestation.capability")]),
    (a_demand_in_a_broadcast, [("denied", "trust.level")]),
    (a_broadcast_to_nobody, [ACCEPTED]),
    (a_missing_recipient, [("denied", "recipient.unavailable")] * 2),
    (a_message_to_oneself, [("denied", "recipient.self")]),
    (a_repeat, [ACCEPTED] * 2),
    (a_repeat_with_other_content, [ACCEPTED, ("invalid", "replay.conflict")]),
    (a_message_for_another_hub, [("invalid", "signature.audience")]),
    (a_changed_message, [("invalid", "signature.digest")]),
    (a_message_in_anothers_name, [("invalid", "identity.mismatch")]),
    (
        a_message_signed_by_another,
        [
            ("invalid", "key.unknown"),
            ("invalid", "key.unknown"),
            ("invalid", "signature.invalid"),
            ("invalid", "signature.missing"),
        ],
    ),
    (an_agent_that_nobody_attests, [("denied", "attestation.missing")]),
    (a_cause, [ACCEPTED, ("denied", "trust.cause")]),
]


@pytest.mark.parametrize(("case", "expected"), CASES, ids=lambda x: getattr(x, "__name__", ""))
def test_it_judges_as_the_hub_does(court: Court, case: Case, expected: list[Told]) -> None:
    assert case(court) == expected


def test_it_leaves_out_the_hearers_that_the_hub_does(court: Court) -> None:
    alice = court.player("alice")
    court.player("bob", level="sandboxed")
    court.player("carol", level="certified")
    wanted: tuple[dict[str, Any], ...] = (
        {},
        {"requires_trust": "certified"},
        {"required_capabilities": ("finance.fly",)},
    )
    receipts = [court.submit(alice, broadcast(alice, **parts)) for parts in wanted]
    assert [r.recipients for r in receipts] == [2, 1, 0]
    denied = ("denied", "attestation.capability")
    assert [told(r) for r in receipts] == [ACCEPTED, ACCEPTED, denied]


def test_it_judges_a_minimum_as_the_hub_does(court: Court) -> None:
    """Over the in-process hub no recipient can ask for one."""
    alice, bob = court.player("alice"), court.player("bob", minimum="certified")
    receipt = court.submit(alice, write(alice, bob))
    expected = ("denied", "trust.level") if court.keeps_minimum else ACCEPTED
    assert told(receipt) == expected


def test_it_takes_no_answer_of_today_to_a_request_of_5_seconds() -> None:
    court = MemoryCourt()
    alice, bob = court.player("alice"), court.player("bob")
    request = ask(alice, bob, lifetime=5)
    assert told(court.submit(alice, request)) == ACCEPTED
    court.later(60)
    receipt = court.submit(bob, answer(bob, request, lifetime=LONG))
    assert told(receipt) == ("expired", "clock.expired")
    assert receipt.detail == "the request expired before it was answered"
    court.close()
