"""The claims that name the reason of a message: `cause` and `req`."""

from __future__ import annotations

import asyncio
from typing import Any

from atp import ATPEnvelope
from atp.agent.receiving import read_claims
from atp.trust.envelope import Envelope
from tests.sdk.waiting import until
from tests.sdk.worlds import SocketWorld
from tests.waits import happens


def sent(world: SocketWorld, sender: str, kind: str) -> list[Envelope]:
    """Return the accepted envelopes of an agent with one message type."""
    return [e for e in world.hub.accepted.values() if (e.sender, e.message_type) == (sender, kind)]


async def test_it_names_what_it_handles_as_the_cause(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    carol = await socket_world.online("carol")
    carol.on_message("request", lambda envelope, respond: respond("from carol"))

    async def pass_on(envelope: ATPEnvelope, respond: Any) -> None:
        answers = await asyncio.gather(*(bob.send_request("carol", n) for n in range(2)))
        await respond([answer.data for answer in answers])

    bob.on_message("request", pass_on)
    await alice.send_request("bob", {})
    (request,) = sent(socket_world, "alice", "request")
    (response,) = sent(socket_world, "bob", "response")
    nested = sent(socket_world, "bob", "request")
    assert "cause" not in read_claims(request)
    assert [read_claims(e)["cause"] for e in nested] == [request.digest] * 2
    assert read_claims(response)["req"] == request.digest
    assert read_claims(response)["cause"] == request.digest
    for answer in sent(socket_world, "carol", "response"):
        assert read_claims(answer)["req"] in {e.digest for e in nested}


async def test_it_names_no_cause_that_another_agent_received(socket_world: SocketWorld) -> None:
    """Two agents in one process: what one handles is no cause of what the other sends."""
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    carol = await socket_world.online("carol")
    done = asyncio.Event()

    async def speak_through_carol(envelope: ATPEnvelope) -> None:
        await carol.send_notification("alice", {})
        done.set()

    bob.on_message("notification", speak_through_carol)
    await alice.send_notification("bob", {})
    await happens(done, "the handler having spoken through carol")
    (notification,) = sent(socket_world, "carol", "notification")
    assert "cause" not in read_claims(notification)


async def test_it_names_the_cause_from_a_plain_function_as_well(
    socket_world: SocketWorld,
) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    carol = await socket_world.online("carol")
    carol.on_message("notification", lambda envelope: None)
    bob.on_message("notification", lambda envelope: bob.send_notification("carol", "passed on"))
    await alice.send_notification("bob", {})
    await until(lambda: sent(socket_world, "bob", "notification"))
    (first,) = sent(socket_world, "alice", "notification")
    (second,) = sent(socket_world, "bob", "notification")
    assert read_claims(second)["cause"] == first.digest


async def test_it_answers_with_at_least_the_requests_sensitivity(
    socket_world: SocketWorld,
) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond("answer"))
    await alice.send_request("bob", {}, {"sensitivity": "restricted"})
    (response,) = sent(socket_world, "bob", "response")
    assert response.sensitivity == "restricted"


async def test_it_lets_a_request_expire_with_its_timeout(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(None))
    await alice.send_request("bob", {}, {"timeout": 5000})
    await alice.send_notification("bob", {})
    (request,) = sent(socket_world, "alice", "request")
    (notification,) = sent(socket_world, "alice", "notification")
    lives = [claims["exp"] - claims["iat"] for claims in map(read_claims, (request, notification))]
    assert lives == [6, 24 * 3600]  # the cut of `iat` to the second is made up for
