"""One interface to the two judges: the in-process hub and the project's own hub.

Tests give both the same envelopes.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from atp import IAgentIdentity, IAttestation, InMemoryTransport, PrivateKey, TrustLevel
from atp.memory.keys import DEMO_HUB_ID
from atp.transports.base import Connection, Login
from tests.cast import CAPABILITIES, Letter, Player

if TYPE_CHECKING:
    from tests.conftest import LiveHub

NOTHING: Any = None  # a player of these tests has no row in a registry


class Court(ABC):
    """The interface: make agents, take their envelopes and return the receipts."""

    keeps_minimum = True  # whether a recipient can ask for a minimum level

    @abstractmethod
    def player(self, name: str, *, level: str | None = "verified", minimum: str = "") -> Player:
        """Return a connected agent, attested at `level`; `None` means no attestation."""

    @abstractmethod
    def submit(self, player: Player, letter: Letter) -> dict[str, Any]:
        """Send the envelope as `player`; return its receipt."""

    @abstractmethod
    def later(self, seconds: float) -> None:
        """Advance the judge's clock."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class MemoryCourt(Court):
    """The in-process hub, by connections of its transport."""

    keeps_minimum = False

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._transport = InMemoryTransport()
        self._transport.reset()
        self._connections: dict[str, Connection] = {}

    def player(self, name: str, *, level: str | None = "verified", minimum: str = "") -> Player:
        key = PrivateKey.generate()
        attestation = None if level is None else IAttestation("tests", TrustLevel(level))
        identity = IAgentIdentity(name, attestation=attestation, capabilities=list(CAPABILITIES))
        login = Login(identity, TrustLevel(level or "unverified"), key)
        self._connections[name] = self._runner.run(self._transport.connect(login))
        return Player(name, key, DEMO_HUB_ID, key.public, NOTHING)

    def submit(self, player: Player, letter: Letter) -> dict[str, Any]:
        return self._runner.run(self._submit(self._connections[player.id], letter))

    def later(self, seconds: float) -> None:
        clock = self._transport.clock
        self._transport.clock = lambda: clock() + seconds

    def close(self) -> None:
        self._transport.reset()
        self._runner.close()

    async def _submit(self, connection: Connection, letter: Letter) -> dict[str, Any]:
        await connection.send(letter.text.encode())
        while True:
            frame: dict[str, Any] = json.loads(await connection.receive())
            if frame["type"] == "receipt":
                return frame


class HubCourt(Court):
    """The project's own hub, by a WebSocket for each agent."""

    def __init__(self, hub: LiveHub) -> None:
        self._hub = hub
        self._opened = ExitStack()
        self._wires: dict[str, Any] = {}

    def player(self, name: str, *, level: str | None = "verified", minimum: str = "") -> Player:
        from tests.cast import make_agent
        from tests.wire import Wire

        player = make_agent(level, name=name, minimum_level=minimum)
        self._wires[player.id] = self._opened.enter_context(Wire.log_in(self._hub, player))
        return player

    def submit(self, player: Player, letter: Letter) -> dict[str, Any]:
        receipt: dict[str, Any] = self._wires[player.id].submit(letter)
        return receipt

    def later(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        self._opened.close()
