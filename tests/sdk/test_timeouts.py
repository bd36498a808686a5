"""What a timeout says: what had arrived from the hub until then, and what had not."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from atp import ATPEnvelope
from atp.errors import FlowTimeout
from tests.sdk.waiting import until
from tests.sdk.worlds import HubWorld, SocketWorld
from tests.waits import happens

SHORT = {"timeout": 200}


@pytest.mark.parametrize("method", ["send_request", "send_notification", "broadcast"])
async def test_it_says_that_no_receipt_came(socket_world: SocketWorld, method: str) -> None:
    """The hub is there and reads, as one that is stopped: the connection stays open."""
    hub, alice = socket_world.hub, await socket_world.online("alice")
    await socket_world.online("bob")
    release, taken = asyncio.Event(), asyncio.Event()
    take = hub._take

    async def hold_back(agent: str, frame: Any) -> Any:
        taken.set()
        await happens(release, "the end of the test")
        return await take(agent, frame)

    hub._take = hold_back  # type: ignore[method-assign]
    arguments = ({}, SHORT) if method == "broadcast" else ("bob", {}, SHORT)
    with pytest.raises(FlowTimeout, match="no receipt from the hub") as caught:
        await getattr(alice, method)(*arguments)
    assert taken.is_set()
    assert alice.get_trust_status()["connected"]
    assert "accepted" not in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    release.set()


async def test_it_says_when_the_hub_accepted_it(socket_world: SocketWorld) -> None:
    alice, bob = await socket_world.online("alice"), await socket_world.online("bob")

    async def think(envelope: ATPEnvelope, respond: Any) -> None:
        await asyncio.sleep(60)

    bob.on_message("request", think)
    with pytest.raises(FlowTimeout) as caught:
        await alice.send_request("bob", {}, SHORT)
    told = str(caught.value)
    assert re.search(r"the hub accepted it at 20\d\d-\S+Z, no answer yet", told)
    assert "the recipient was connected then" in told


async def test_it_says_that_the_recipient_is_not_connected(hub_world: HubWorld) -> None:
    alice, bob = await hub_world.online("alice"), await hub_world.agent("bob")
    with pytest.raises(FlowTimeout, match="the recipient was not connected then"):
        await alice.send_request(bob.identity.id, {}, {"timeout": 1500})


async def test_it_tells_of_the_recipient_of_a_request_only(hub_world: HubWorld) -> None:
    """Whether an agent is there is told to whom it takes requests of, and to nobody else."""
    alice, bob = await hub_world.online("alice"), await hub_world.online("bob")
    receipt = await alice.send_notification(bob.identity.id, {})
    assert (receipt.status, receipt.connected) == ("accepted", None)


async def test_it_is_a_timeout_of_python_too(socket_world: SocketWorld) -> None:
    alice = await socket_world.online("alice")
    await socket_world.hub.kill()
    await until(lambda: not alice.get_trust_status()["connected"])
    with pytest.raises(TimeoutError, match="no receipt from the hub: it can't be reached"):
        await alice.send_notification("bob", {}, SHORT)
    await socket_world.hub.start()
