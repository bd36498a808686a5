"""A broadcast is judged for each connected agent by the checks for a single recipient."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from messaging.judging import broadcasts, pipeline
from messaging.models import Envelope
from registry.models import Violation
from registry.trail.models import Entry, EntryBody
from tests.cast import Player, broadcast, make_agent, make_organisation, write
from tests.messaging.conftest import LogIn


def _body(receipt: dict[str, Any]) -> dict[str, Any]:
    return EntryBody.objects.get(entry_id=receipt["entry"]).read()


def _hearers(receipt: dict[str, Any]) -> list[str]:
    """Return who hears a broadcast, as the section of its recipients has it."""
    said = EntryBody.objects.get(entry_id=receipt["entry"]).read("recipient")
    groups = [group for group in said["audience"] if group.get("heard", True)]
    return [agent for group in groups for agent in group["agents"]]


@pytest.mark.parametrize(
    ("hearer", "parts", "code"),
    [
        ({"minimum_level": "certified"}, {}, "trust.level"),
        ({"minimum_score": 99}, {}, "trust.score"),
        ({"sensitivity_floor": "restricted"}, {}, "policy.denied"),
        ({}, {"requires_trust": "certified"}, "trust.level"),
        ({}, {"required_capabilities": ("nobody.has",)}, "attestation.capability"),
    ],
    ids=["minimum level", "minimum score", "floor", "demanded level", "demanded capability"],
)
def test_rejects_for_many_what_it_rejects_for_one(
    log_in: LogIn, hearer: dict[str, Any], parts: dict[str, Any], code: str
) -> None:
    organisation = make_organisation()
    sender = make_agent("unverified", organisation=organisation)
    target = make_agent("unverified", organisation=organisation, **hearer)
    senders, targets = log_in(sender), log_in(target)

    direct = senders.submit(write(sender, target, **parts))
    to_all = senders.submit(broadcast(sender, **parts))

    assert (direct["status"], direct["code"]) == ("denied", code)
    assert (to_all["status"], to_all["code"], to_all["recipients"]) == ("denied", code, 0)
    assert (_hearers(to_all), _body(to_all)["leftOut"]) == ([], {code: 1})
    assert not Violation.objects.filter(agent_id=sender.id).exists()
    assert targets.unasked() == []


def test_it_leaves_out_those_who_do_not_fit(log_in: LogIn) -> None:
    organisation = make_organisation()
    sender = make_agent("unverified", organisation=organisation)
    fits = make_agent("unverified", organisation=organisation)
    picky = [
        make_agent("certified", organisation=organisation, minimum_level="certified"),
        make_agent("certified", organisation=organisation, minimum_level="verified"),
        make_agent("certified", organisation=organisation, minimum_score=99),
    ]
    senders, hearing = log_in(sender), log_in(fits)
    deaf = [log_in(one) for one in picky]

    letter = broadcast(sender)
    receipt = senders.submit(letter)

    assert (receipt["status"], receipt["recipients"]) == ("accepted", 1)
    assert hearing.mail()["ATP"]["messageId"] == letter.message_id
    assert [wire.unasked() for wire in deaf] == [[], [], []]
    assert _hearers(receipt) == [fits.id]
    assert _body(receipt)["leftOut"] == {"trust.level": 2, "trust.score": 1}


def test_it_asks_rules_about_each_hearer(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    """Fields of the recipient are those of the hearer, of a broadcast too."""
    carol = make_agent("verified", organisation=alice.organisation)
    not_bob = {"field": "recipient.id", "operator": "equals", "value": bob.id}
    enforce(action="deny", severity="high", conditions=[not_bob])
    alices, bobs, carols = log_in(alice), log_in(bob), log_in(carol)

    receipt = alices.submit(broadcast(alice))

    assert (receipt["status"], receipt["recipients"]) == ("accepted", 1)
    assert carols.mail()["seq"] == 1
    assert bobs.unasked() == []
    assert _body(receipt)["leftOut"] == {"policy.denied": 1}
    assert not Violation.objects.filter(agent_id=alice.id).exists()


def test_it_records_the_sensitivity_that_the_hearers_floors_give(
    log_in: LogIn, alice: Player
) -> None:
    """And the chain goes on without it: each hearer's own floor counts when that one writes."""
    internal = make_agent("verified", organisation=alice.organisation, sensitivity_floor="internal")
    public = make_agent("unverified", organisation=alice.organisation)
    alices, internals, publics = log_in(alice), log_in(internal), log_in(public)

    letter = broadcast(alice)
    receipt = alices.submit(letter)

    assert receipt["recipients"] == 2
    assert Entry.objects.get(position=receipt["entry"]).sensitivity == "internal"
    assert internals.mail()["chain"]["highestSensitivity"] == "public"
    assert publics.mail()["seq"] == 1
    onward = publics.submit(write(public, alice, cause=letter.digest))
    assert onward["status"] == "accepted"


def test_it_counts_a_broadcast_once_for_a_throttle_rule(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any
) -> None:
    """However many hear it, and whatever rules tell them apart."""
    carol = make_agent("verified", organisation=alice.organisation)
    known = {"field": "recipient.id", "operator": "exists", "value": True}
    limit = {"limit": 2, "per_seconds": 3_600}
    enforce(action="throttle", throttle=limit, conditions=[known])
    alices, bobs, carols = log_in(alice), log_in(bob), log_in(carol)

    receipts = [alices.submit(broadcast(alice)) for _ in range(3)]

    assert [r["status"] for r in receipts] == ["accepted", "accepted", "throttled"]
    assert [bobs.mail()["seq"], carols.mail()["seq"]] == [1, 1]


def test_it_holds_a_demand_that_nobody_is_there_to_meet(log_in: LogIn, alice: Player) -> None:
    """Without a connected agent, the broadcast is accepted and reaches no agent."""
    receipt = log_in(alice).submit(broadcast(alice, requires_trust="certified"))
    assert (receipt["status"], receipt["recipients"]) == ("accepted", 0)
    row = Envelope.objects.get(message_id=receipt["messageId"])
    assert row.recipients == 0


def test_it_asks_the_database_no_more_for_a_larger_audience(
    log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one query for each table and batch, for any number of hearers."""
    seen: list[list[str]] = []
    judge_and_store = pipeline._judge_and_store

    def counted(*arguments: Any) -> Any:
        with CaptureQueriesContext(connection) as queries:
            outcome = judge_and_store(*arguments)
        seen.append([query["sql"] for query in queries])
        return outcome

    monkeypatch.setattr(pipeline, "_judge_and_store", counted)
    lengths = []
    for size in (2, 7):
        organisation = make_organisation()
        sender = make_agent(organisation=organisation)
        wires = [log_in(make_agent(organisation=organisation)) for _ in range(size)]
        senders = log_in(sender)
        seen.clear()
        assert senders.submit(broadcast(sender))["recipients"] == len(wires)
        lengths.append(len(seen[0]))
    assert lengths[0] == lengths[1] > 5, seen


def test_it_throttles_who_broadcasts_what_nobody_may_hear(
    log_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is judged for all who are there: of one batch, no more than others may cost."""
    organisation = make_organisation()
    sender = make_agent("unverified", organisation=organisation)
    picky = make_agent(organisation=organisation, minimum_level="certified")
    senders, _ = log_in(sender), log_in(picky)
    monkeypatch.setattr(broadcasts, "BROADCAST_LIMITS", ((3_600.0, 82),))
    flood = [broadcast(sender, data={"n": n}) for n in range(4)]
    senders.send_together(*flood)

    receipts = [senders.receipt(letter) for letter in flood]
    assert [r["status"] for r in receipts] == ["denied"] * 2 + ["throttled"] * 2


def test_it_throttles_who_broadcasts_what_a_rule_throttles(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a rule holds back was judged for all who are there as well."""
    enforce(action="throttle", throttle={"limit": 1, "per_seconds": 3_600})
    alices, _ = log_in(alice), log_in(bob)
    assert alices.submit(broadcast(alice))["status"] == "accepted"
    monkeypatch.setattr(broadcasts, "BROADCAST_LIMITS", ((3_600.0, 41 + 82),))
    flood = [broadcast(alice, data={"n": n}) for n in range(4)]
    alices.send_together(*flood)

    codes = [alices.receipt(letter)["code"] for letter in flood]
    assert codes == ["policy.throttled"] * 2 + ["flow.throttled"] * 2
