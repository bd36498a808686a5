"""Each entry of the registry names the organisations that it concerns, as of then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from registry.agents.actions import (
    change_agent,
    change_organisation,
    create_organisation,
    revoke_agent,
)
from registry.agents.models import Organisation
from registry.trail.actions import count_refusals, summarise_refusals
from registry.trail.models import Entry
from tests.registry.agent_cast import OFFICER, active, attest, fresh

pytestmark = pytest.mark.usefixtures("database")


def organisation() -> Organisation:
    return create_organisation(fresh("acme"), actor=OFFICER)


def about(agent: str) -> dict[str, list[Entry]]:
    """The entries about an agent, by kind."""
    found: dict[str, list[Entry]] = {}
    for entry in Entry.objects.filter(subject=agent).select_related("body"):
        found.setdefault(entry.kind, []).append(entry)
    return found


def test_it_names_the_organisation_of_an_agent_in_all_that_happens_to_it() -> None:
    acme = organisation()
    agent = active(organisation=acme)
    attestation = attest(agent.agent)
    revoke_agent(agent.agent, actor=OFFICER, reason="left")
    entries = about(agent.agent)
    assert set(entries) >= {
        "agent.created", "agent.invited", "agent.enrolled", "agent.approved", "agent.revoked",
        "key.approved", "attestation.issued", "score.changed",
    }  # fmt: skip
    assert all(e.organisations == [acme.uid] for found in entries.values() for e in found)
    (issued,) = entries["attestation.issued"]
    assert (issued.attestation, issued.issuer) == (attestation.jti, attestation.issuer.slug)


def test_it_names_both_organisations_of_a_move_and_then_only_the_new_one() -> None:
    old, new = organisation(), organisation()
    agent = active(organisation=old).agent
    change_agent(agent, {"organisation": new}, actor=OFFICER, reason="sold")
    change_agent(agent, {"owner_name": "Bea"}, actor=OFFICER, reason="Ann left")
    moved, later = about(agent)["agent.changed"]
    assert moved.organisations == sorted([old.uid, new.uid])
    assert moved.body.read()["before"]["organisationUid"] == old.uid
    assert moved.body.read()["after"]["organisationUid"] == new.uid
    assert later.organisations == [new.uid]


def test_it_keeps_the_uid_of_an_organisation_when_the_name_changes() -> None:
    acme = organisation()
    name = fresh("emca")
    change_organisation(acme.pk, name=name, contact="", actor=OFFICER, reason="renamed")
    kinds = ("organisation.created", "organisation.changed")
    found = Entry.objects.filter(kind__in=kinds, organisations=acme.uid)
    assert [entry.subject for entry in found] == [acme.name, name]
    assert Organisation.objects.get(name=name).uid == acme.uid


def test_it_names_the_organisation_of_a_refused_agent_and_none_of_an_unknown_one() -> None:
    acme = organisation()
    agent, stranger = active(organisation=acme).agent, fresh("nobody")
    now = datetime.now(UTC)
    counts = {(agent, "signature.invalid"): 2, (stranger, "signature.invalid"): 1}
    with transaction.atomic():
        count_refusals(counts, now - timedelta(minutes=2))
    while summarise_refusals(now):
        pass
    known = Entry.objects.get(kind="refusals.counted", sender=agent)
    assert (known.sender_organisation, known.organisations) == (acme.uid, [acme.uid])
    unknown = Entry.objects.get(kind="refusals.counted", sender=stranger)
    assert (unknown.sender_organisation, unknown.organisations) == ("", [])


def test_it_gives_each_organisation_a_uid_of_its_own() -> None:
    uids = [row.uid for row in (organisation(), organisation())]
    assert len(set(uids)) == 2
    assert all(len(uid) == 20 and uid.startswith("org_") for uid in uids)
