"""The client of a suspended or revoked agent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atp import ATPClient
from atp.errors import (
    ATPError,
    IdentityNotActive,
    IdentityRevoked,
    KeyRevoked,
    SessionClosed,
    SessionRevoked,
)
from atp.judging.judgement import Verdict
from registry.agents.actions import resume_agent, revoke_agent, suspend_agent
from registry.officers.actor import Actor
from tests.sdk.waiting import until
from tests.sdk.worlds import HubWorld, SocketWorld


async def waiting_request(world: SocketWorld, client: ATPClient) -> asyncio.Task[Any]:
    """A request that the hub holds, so that nothing but the end of the session ends it."""
    world.hub.script = lambda envelope: Verdict("quarantined", "", "")
    request = asyncio.create_task(client.send_request("nobody-answers", {}))
    await until(lambda: client.get_trust_status()["open_requests"])
    return request


@pytest.mark.parametrize("refusal", [IdentityRevoked, KeyRevoked])
async def test_it_stays_away_once_it_was_revoked(
    socket_world: SocketWorld, refusal: type[ATPError]
) -> None:
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    request = await waiting_request(socket_world, alice)
    serving = asyncio.create_task(alice.serve())
    hub.refusing["alice"] = refusal("an officer said so")
    await hub.end("alice", "session.revoked")
    for call in (request, serving, alice.send_notification("bob", {}), alice.serve()):
        with pytest.raises(SessionRevoked) as caught:
            await call
        for told in (hub.id, "alice", "an officer said so", refusal.code):
            assert told in str(caught.value)
    assert alice.get_trust_status()["ended"] == "session.revoked"
    assert (hub.logins["alice"], hub.refused_logins["alice"]) == (1, 1)


async def test_it_comes_back_when_a_suspension_is_over(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    request = await waiting_request(socket_world, alice)
    hub.refusing["alice"] = IdentityNotActive("it is suspended")
    await hub.end("alice", "session.revoked")
    for call in (request, alice.send_notification("bob", {}), alice.connect()):
        with pytest.raises(IdentityNotActive, match="it is suspended"):
            await call
    status = alice.get_trust_status()
    assert (status["suspended"], status["ended"], status["unreceipted"]) == (True, None, 0)
    del hub.refusing["alice"]
    await until(lambda: alice.get_trust_status()["connected"])
    assert not alice.get_trust_status()["suspended"]
    hub.script = lambda envelope: None
    await socket_world.online("bob")
    assert (await alice.send_notification("bob", {})).status == "accepted"


async def test_it_can_be_disconnected_while_suspended(socket_world: SocketWorld) -> None:
    hub = socket_world.hub
    alice = await socket_world.online("alice")
    serving = asyncio.create_task(alice.serve())
    hub.refusing["alice"] = IdentityNotActive("it is suspended")
    await hub.end("alice", "session.revoked")
    await until(lambda: alice.get_trust_status()["suspended"])
    await alice.disconnect()
    await serving
    with pytest.raises(IdentityNotActive):
        await alice.connect()


async def test_it_serves_until_it_is_disconnected(socket_world: SocketWorld) -> None:
    alice = await socket_world.agent("alice")
    serving = asyncio.create_task(alice.serve())
    await until(lambda: alice.get_trust_status()["connected"])
    request = await waiting_request(socket_world, alice)
    assert not serving.done()
    await alice.disconnect(timeout_seconds=0)
    await serving
    with pytest.raises(SessionClosed):
        await request


async def test_it_is_told_apart_by_the_real_hub(hub_world: HubWorld) -> None:
    alice = await hub_world.online("alice")
    me, officer = alice.identity.id, Actor.hub()
    await asyncio.to_thread(suspend_agent, me, actor=officer, reason="a drill")
    await until(lambda: alice.get_trust_status()["suspended"])
    with pytest.raises(IdentityNotActive, match="suspended"):
        await alice.send_notification("bob", {})
    await asyncio.to_thread(resume_agent, me, actor=officer, reason="over")
    await until(lambda: alice.get_trust_status()["connected"])
    await asyncio.to_thread(revoke_agent, me, actor=officer, reason="no drill")
    await until(lambda: alice.get_trust_status()["ended"])
    with pytest.raises(SessionRevoked, match=r"identity\.revoked"):
        await alice.send_notification("bob", {})
