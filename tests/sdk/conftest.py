"""Fixtures of the worlds: in memory, with the fake hub, and with the real hub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.conftest import LiveHub
from tests.sdk.fake_hub import FakeHub
from tests.sdk.worlds import HubWorld, MemoryWorld, SocketWorld, World


@pytest_asyncio.fixture
async def socket_world() -> AsyncIterator[SocketWorld]:
    """A fake hub that can be made to misbehave."""
    world = SocketWorld(await _listening())
    yield world
    await world.close()


@pytest_asyncio.fixture
async def hub_world(hub: LiveHub) -> AsyncIterator[HubWorld]:
    """The project's own hub."""
    world = HubWorld(hub)
    yield world
    await world.close()


@pytest.fixture(params=["memory", "websocket", "hub"])
def place(request: pytest.FixtureRequest) -> Any:
    """Return the name of a world; start the real hub for its world, outside of an event loop."""
    return request.getfixturevalue("hub") if request.param == "hub" else request.param


@pytest_asyncio.fixture
async def world(place: Any) -> AsyncIterator[World]:
    """Return each world in turn, so that a test covers all transports."""
    world: World
    if place == "memory":
        world = MemoryWorld()
    elif place == "websocket":
        world = SocketWorld(await _listening())
    else:
        world = HubWorld(place)
    yield world
    await world.close()


async def _listening() -> FakeHub:
    hub = FakeHub()
    await hub.start()
    return hub
