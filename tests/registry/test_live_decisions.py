"""What officers decide in the admin reaches agents that are connected, within a second."""

from __future__ import annotations

import httpx
import pytest

from registry.agents.models import Agent
from tests.cast import Player, make_agent, write
from tests.conftest import LiveHub
from tests.registry.admin_cast import officer_client, text_of
from tests.wire import Wire


def decide(player: Player, *decision: str, **values: str) -> None:
    url = "/".join(["/admin/registry/agent", player.id, *decision, ""])
    response = officer_client().post(url, values, follow=True)
    assert "errornote" not in text_of(response)


def test_it_shows_who_is_connected(hub: LiveHub) -> None:
    alice = make_agent()
    page = f"/admin/registry/agent/{alice.id}/change/"
    officer = officer_client()
    assert "badge-online" not in text_of(officer.get(page))
    with Wire.log_in(hub, alice):
        assert "badge-online" in text_of(officer.get(page))
        listed = text_of(officer.get(f"/admin/registry/agent/?q={alice.id}"))
        assert 'alt="True"' in listed


def test_it_shows_who_sends_with_the_key_of_an_agent(hub: LiveHub) -> None:
    """A stolen key opens a session beside the running agent, which does not notice it."""
    alice = make_agent()
    page = f"/admin/registry/agent/{alice.id}/"
    officer = officer_client()
    with Wire.log_in(hub, alice) as running:
        assert "it only sends" not in text_of(officer.get(f"{page}change/"))
        with Wire.log_in(hub, alice, login={"takeover": False, "client": "thief"}) as tool:
            text = text_of(officer.get(f"{page}change/"))
            assert text.count("no, it only sends") == 1
            assert "thief" in text
            for wire in (running, tool):
                assert f"/session/{wire.welcome['session']}/" in text
            assert "2 sockets close now" in text_of(officer.get(f"{page}revoke/"))
            listed = text_of(
                officer.get(f"/admin/messaging/session/?q={alice.id}&send_only__exact=1")
            )
            assert "1 session" in listed
            decide(alice, "revoke", reason="a stolen key")
            assert running.ended()[0] == tool.ended()[0] == "session.revoked"


@pytest.mark.parametrize("decision", ["suspend", "revoke"])
def test_it_cuts_the_socket_of_an_agent_that_ends(hub: LiveHub, decision: str) -> None:
    mallory, bob = make_agent(), make_agent()
    with Wire.log_in(hub, mallory) as wire:
        assert wire.submit(write(mallory, bob))["status"] == "accepted"
        decide(mallory, decision, reason="odd traffic")
        assert wire.ended()[0] == "session.revoked"
    with Wire(hub, mallory) as again:
        again.authenticate(again.prove(again.challenge()["nonce"]))
        assert again.ended()[0] in {"identity.not_active", "identity.revoked"}


def test_it_cuts_the_socket_of_a_revoked_key(hub: LiveHub) -> None:
    alice = make_agent()
    with Wire.log_in(hub, alice) as wire:
        decide(alice, "keys", alice.key.kid, "revoke-key", reason="laptop lost")
        assert wire.ended()[0] == "session.revoked"
    assert Agent.objects.get(pk=alice.id).status == "active"


def test_it_lets_a_resumed_agent_in_again(hub: LiveHub) -> None:
    alice = make_agent()
    decide(alice, "suspend", reason="drill")
    decide(alice, "resume", reason="drill over")
    with Wire.log_in(hub, alice) as wire:
        assert wire.welcome["agent"] == alice.id


def test_it_serves_the_officers_style(hub: LiveHub) -> None:
    response = httpx.get(f"{hub.http_url}/static/registry/officers.css")
    assert response.status_code == 200
    assert ".badge-revoked" in response.text
