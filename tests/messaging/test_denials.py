"""Denied envelopes can't fill the trail, whose entries are never deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from atp.trust.provenance import chain_head
from atp.types import IPolicyContext, IProvenanceEntry
from atp.wire.canonical import serialize, sha256_b64url
from messaging.models import Envelope
from registry.models import Violation
from registry.trail.kinds import Kind
from registry.trail.models import Entry, EntryBody, RefusalCount
from tests.cast import Letter, Player, make_agent, write
from tests.messaging.conftest import LogIn

MOST_BYTES = 16_384


def _long_provenance(entries: int) -> list[IProvenanceEntry]:
    """Entries of three members of 200 characters, each three bytes long."""
    text = "\u6f22" * 200
    return [IProvenanceEntry(text, text, "2027-01-15T08:00:00Z", text)] * entries


def _body(receipt: dict[str, Any]) -> tuple[dict[str, Any], int]:
    content = EntryBody.objects.get(entry_id=receipt["entry"]).content()
    return json.loads(content), len(content)


def test_it_keeps_of_large_refused_provenance_what_tells_which_it_was(
    log_in: LogIn, alice: Player
) -> None:
    letter = write(alice, "nobody-there", provenance=_long_provenance(256))
    body, size = _body(log_in(alice).submit(letter))

    entries = letter.envelope.provenance
    written = serialize(entries)
    assert size < MOST_BYTES
    assert "provenance" not in body
    assert body["notKept"]["provenance"] == {
        "count": 256,
        "bytes": len(written),
        "digest": sha256_b64url(written),
        "head": chain_head(entries),
    }


def test_it_keeps_small_provenance_and_that_of_accepted_mail(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices = log_in(alice)
    for target, entries in (("nobody-there", 2), (bob, 64)):
        letter = write(alice, target, provenance=_long_provenance(entries))
        body, _ = _body(alices.submit(letter))
        assert body["provenance"] == letter.envelope.provenance
        assert "notKept" not in body


def test_it_keeps_of_long_lists_that_rules_look_at_what_tells_which_they_were(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    tools = [f"{n:03}" + "\u6f22" * 250 for n in range(256)]
    has_tools = {"field": "message.allowed_tools", "operator": "exists", "value": True}
    enforce(action="deny", severity="low", conditions=[has_tools])

    letter = _with_tools(alice, bob, tools)
    receipt = log_in(alice).submit(letter)
    body, size = _body(receipt)

    assert receipt["code"] == "policy.denied"
    assert size < MOST_BYTES
    cut = body["notKept"]["allowedTools"]
    assert (cut["count"], cut["digest"]) == (256, sha256_b64url(serialize(tools)))
    assert cut["holds"] == "1"  # the rule's only condition on the tools
    assert "allowedTools" not in body["message"]


def _with_tools(sender: Player, target: Player, tools: list[str]) -> Letter:
    return write(sender, target, policy_context=IPolicyContext(allowed_tools=tools))


def test_it_turns_a_flood_of_denials_into_counts(
    log_in: LogIn, bob: Player, settings: Settings
) -> None:
    """As many as the limit have a row and an entry; each hears its denial, and good mail passes."""
    settings.ATP_DENIALS_PER_MINUTE = 5
    sender = make_agent("unverified")
    wire, bobs = log_in(sender), log_in(bob)
    flood = [write(sender, "nobody-there", data={"n": n}) for n in range(40)]
    wire.send_together(*flood[:20])
    for letter in flood[20:]:
        wire.send(letter)
    receipts = [wire.receipt(letter) for letter in flood]

    assert {(r["status"], r["code"]) for r in receipts} == {("denied", "recipient.unavailable")}
    assert sum("entry" in r for r in receipts) == 5
    assert Envelope.objects.filter(sender_id=sender.id).count() == 5
    assert Entry.objects.filter(sender=sender.id, kind=Kind.ENVELOPE_DENIED).count() == 5
    counts = RefusalCount.objects.filter(agent=sender.id, code="recipient.unavailable")
    assert sum(counts.values_list("count", flat=True)) == 35
    assert wire.submit(write(sender, bob))["status"] == "accepted"
    assert bobs.mail()["seq"] == 1


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in batches"])
def test_it_enters_a_denial_behind_many_with_another_code(
    log_in: LogIn, settings: Settings, *, together: bool
) -> None:
    """Nobody hides what they tried behind harmless denials."""
    settings.ATP_DENIALS_PER_MINUTE = 3
    sender, target = make_agent("unverified"), make_agent()
    wire = log_in(sender)
    harmless = [write(sender, "nobody-there", data={"n": n}) for n in range(8)]
    bad = [write(sender, target, sensitivity="restricted", data={"n": n}) for n in range(5)]
    if together:
        wire.send_together(*harmless, *bad)
        receipts = [wire.receipt(letter) for letter in (*harmless, *bad)]
    else:
        receipts = [wire.submit(letter) for letter in (*harmless, *bad)]
    assert ["entry" in r for r in receipts[:8]] == [True] * 3 + [False] * 5
    assert ["entry" in r for r in receipts[8:]] == [True] * 3 + [False] * 2
    assert {r["code"] for r in receipts[8:]} == {"policy.denied"}


@pytest.mark.parametrize("twice", [False, True], ids=["apart", "in one batch"])
def test_it_judges_a_denial_that_was_only_counted_again(
    log_in: LogIn, settings: Settings, *, twice: bool
) -> None:
    settings.ATP_DENIALS_PER_MINUTE = 0
    sender = make_agent()
    wire = log_in(sender)
    letter = write(sender, "nobody-there")
    if twice:
        wire.send_together(letter, letter)
        receipts = [wire.receipt(letter) for _ in range(2)]
    else:
        receipts = [wire.submit(letter) for _ in range(2)]
    assert [(r["status"], r["code"]) for r in receipts] == [("denied", "recipient.unavailable")] * 2
    counts = RefusalCount.objects.filter(agent=sender.id)
    assert sum(counts.values_list("count", flat=True)) == 2


def test_it_notes_violations_beyond_the_limit(log_in: LogIn, settings: Settings) -> None:
    """What is not entered one by one still costs."""
    settings.ATP_DENIALS_PER_HOUR = 1
    sender, target = make_agent("unverified"), make_agent()
    wire = log_in(sender)
    receipts = [wire.submit(write(sender, target, sensitivity="restricted")) for _ in range(3)]
    assert ["entry" in r for r in receipts] == [True, False, False]
    assert Violation.objects.filter(agent_id=sender.id).count() == 3
