"""The fake hub ends when it is told to, whatever its agents are doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from atp.wire.frames import SUBPROTOCOL, Challenge, parse_message
from tests.sdk.fake_hub import FakeHub

LONGEST_SECONDS = 10  # a failing test ends then


@pytest_asyncio.fixture
async def hub() -> AsyncIterator[FakeHub]:
    hub = FakeHub()
    await hub.start()
    yield hub
    async with asyncio.timeout(LONGEST_SECONDS):
        await hub.kill()


async def test_it_can_be_killed_while_an_agent_logs_in(hub: FakeHub) -> None:
    protocols = [Subprotocol(SUBPROTOCOL)]
    async with asyncio.timeout(LONGEST_SECONDS), connect(hub.url, subprotocols=protocols) as socket:
        (challenge,) = parse_message(await socket.recv(decode=False))
        assert isinstance(challenge, Challenge)
        await hub.kill()
        with pytest.raises(ConnectionClosed):
            await socket.recv(decode=False)
    await hub.start()
