"""Before harm, the numbers: who loses an attestation, which sockets close."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from registry.agents.actions import suspend_agent
from registry.agents.models import Agent
from registry.issuers.actions import revoke_issuer, suspend_issuer
from registry.issuers.models import Issuer
from tests.cast import make_agent
from tests.conftest import LiveHub
from tests.registry.admin_cast import form_of, officer_client, text_of
from tests.registry.agent_cast import OFFICER, active, attest, issuer, register
from tests.wire import Wire

pytestmark = pytest.mark.usefixtures("database")
ADMIN = "/admin/registry"


def told(url: str) -> str:
    """What the page says that the decision does now."""
    text = text_of(officer_client().get(url))
    return text.partition("What it does now</th><td>")[2].partition("</td>")[0]


def test_it_tells_what_an_issuer_takes_with_it(hub: LiveHub) -> None:
    anchor = issuer()
    branch = issuer(parent=anchor)
    closed = issuer(parent=anchor)
    suspend_issuer(closed.pk, actor=OFFICER, reason="before")
    players = [make_agent(None) for _ in range(3)]
    for player in players:
        attest(player.id, issuer=branch)
    attest(players[2].id, issuer=issuer())  # another one vouches for it, too
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire.log_in(hub, player)) for player in players]
        for row in (anchor, branch):
            below = " and 1 issuer below lose their" if row == anchor else " lose an"
            for decision in ("suspend", "revoke"):
                assert told(f"{ADMIN}/issuer/{row.pk}/{decision}/") == (
                    f"3 agents{below} attestation, 2 of the agents have no other,"
                    " 2 sockets close now."
                )
        revoke_issuer(anchor.pk, actor=OFFICER, reason="fraud")
        assert [wire.ended()[0] for wire in wires[:2]] == ["session.revoked"] * 2


def test_it_tells_that_nothing_is_lost() -> None:
    row = issuer()
    assert told(f"{ADMIN}/issuer/{row.pk}/revoke/") == (
        "0 agents lose an attestation, no socket closes."
    )


def test_it_counts_no_agent_that_is_not_active() -> None:
    row, agent = issuer(), active().agent
    attest(agent, issuer=row)
    suspend_agent(agent, actor=OFFICER, reason="before")
    assert told(f"{ADMIN}/issuer/{row.pk}/revoke/").startswith("0 agents")


def test_it_tells_what_a_key_of_an_issuer_takes_with_it() -> None:
    row = issuer()
    attest(active().agent, issuer=row)
    key = Issuer.objects.get(pk=row.pk).keys.get()
    assert told(f"{ADMIN}/issuer/{row.pk}/keys/{key.kid}/revoke-key/") == (
        "1 agent loses an attestation, 1 of the agents has no other, no socket closes."
    )


def test_it_tells_what_an_attestation_takes_with_it() -> None:
    agent = active().agent
    attest(agent)
    row = attest(agent)
    assert told(f"{ADMIN}/attestation/{row.pk}/revoke/") == (
        "1 agent loses an attestation, no socket closes."
    )


@pytest.mark.parametrize("decision", ["suspend", "revoke"])
def test_it_tells_what_an_agent_takes_with_it(hub: LiveHub, decision: str) -> None:
    alice = make_agent()
    url = f"{ADMIN}/agent/{alice.id}/{decision}/"
    assert told(url) == "No socket closes."
    child = make_agent(parent=Agent.objects.get(pk=alice.id))
    with Wire.log_in(hub, alice):
        assert told(url) == "1 agent below falls to score 0, 1 socket closes now."
        both = f"{ADMIN}/agent/{decision}-many/?id={alice.id}&id={child.id}"
        assert told(both) == "1 socket closes now."
        key = f"{ADMIN}/agent/{alice.id}/keys/{alice.key.kid}/revoke-key/"
        assert told(key) == "1 socket closes now."


def test_it_counts_the_chosen_by_status() -> None:
    ids = [register().pk, active().agent]
    suspend_agent(ids[0], actor=OFFICER, reason="before")
    text = text_of(officer_client().get(f"{ADMIN}/agent/suspend-many/?id={ids[0]}&id={ids[1]}"))
    assert "1 active, 1 suspended" in text


@pytest.mark.parametrize(
    ("limits", "loss"),
    [
        ({"highest_level": "unverified"}, "1 agent and 1 issuer below lose their attestation"),
        ({"capability_patterns": "other.*"}, "0 agents and 1 issuer below lose their"),
        ({"longest_validity_days": "5"}, "1 agent and 1 issuer below lose their attestation"),
        ({"not_after": "2020-01-01T00:00"}, "1 agent and 1 issuer below lose their attestation"),
    ],
)
def test_it_tells_what_narrower_limits_take_away(limits: dict[str, str], loss: str) -> None:
    row = issuer(level="verified")
    issuer(parent=row, level="verified")
    agent = active().agent
    attest(agent, issuer=row)
    url, officer = f"{ADMIN}/issuer/{row.pk}/edit/", officer_client()
    values = form_of(officer.get(url)) | limits | {"reason": "an incident"}
    asked = officer.post(url, values)
    assert f"What it does now: {loss}" in text_of(asked)
    row.refresh_from_db()
    assert row.longest_validity_days == 365
    assert officer.post(url, form_of(asked) | {"meant": "on"}).status_code == 302


def test_it_does_not_ask_about_limits_that_take_nothing_away() -> None:
    row = issuer()
    attest(active().agent, issuer=row)
    url, officer = f"{ADMIN}/issuer/{row.pk}/edit/", officer_client()
    values = form_of(officer.get(url)) | {"longest_validity_days": "100", "reason": "less"}
    assert officer.post(url, values).status_code == 302
