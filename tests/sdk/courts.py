"""One interface to three judges: the in-process hub, the tests' fake hub and the project's own hub.

Tests give all of them the same envelopes.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from atp import (
    IAgentIdentity,
    IAttestation,
    InMemoryTransport,
    PrivateKey,
    TrustLevel,
    WebSocketTransport,
)
from atp.memory.keys import DEMO_HUB_ID
from atp.transports.base import Connection, Login, Transport
from atp.wire.frames import Receipt, parse_message
from tests.cast import CAPABILITIES, Letter, Player
from tests.sdk.fake_hub import FakeHub

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
    def submit(self, player: Player, letter: Letter) -> Receipt:
        """Send the envelope as `player`; return its receipt."""

    @abstractmethod
    def later(self, seconds: float) -> None:
        """Advance the judge's clock."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class TransportCourt(Court):
    """A judge behind a transport of the SDK, in the event loop of this court."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._connections: dict[str, Connection] = {}

    def submit(self, player: Player, letter: Letter) -> Receipt:
        return self._runner.run(self._submit(self._connections[player.id], letter))

    def close(self) -> None:
        self._runner.close()

    def _connect(self, transport: Transport, login: Login) -> None:
        self._connections[login.identity.id] = self._runner.run(transport.connect(login))

    async def _submit(self, connection: Connection, letter: Letter) -> Receipt:
        await connection.send(letter.text.encode())
        while True:
            for frame in parse_message(await connection.receive()):
                if isinstance(frame, Receipt):
                    return frame


class MemoryCourt(TransportCourt):
    """The in-process hub, by connections of its transport."""

    keeps_minimum = False

    def __init__(self) -> None:
        super().__init__()
        self._transport = InMemoryTransport()
        self._transport.reset()

    def player(self, name: str, *, level: str | None = "verified", minimum: str = "") -> Player:
        key = PrivateKey.generate()
        attestation = None if level is None else IAttestation("tests", TrustLevel(level))
        identity = IAgentIdentity(name, attestation=attestation, capabilities=list(CAPABILITIES))
        self._connect(self._transport, Login(identity, TrustLevel(level or "unverified"), key))
        return Player(name, key, DEMO_HUB_ID, key.public, NOTHING)

    def later(self, seconds: float) -> None:
        clock = self._transport.clock
        self._transport.clock = lambda: clock() + seconds

    def close(self) -> None:
        self._transport.reset()
        super().close()


class FakeHubCourt(TransportCourt):
    """The fake hub of the SDK's tests, through a WebSocket for each agent."""

    def __init__(self) -> None:
        super().__init__()
        self._hub = FakeHub()
        self._runner.run(self._hub.start())

    def player(self, name: str, *, level: str | None = "verified", minimum: str = "") -> Player:
        hub = self._hub
        key = hub.enrol(name, level=level, minimum=minimum, capabilities=CAPABILITIES)
        transport = WebSocketTransport(hub.url, hub_id=hub.id, hub_key=hub.key.public)
        self._connect(transport, Login(IAgentIdentity(name), TrustLevel.UNVERIFIED, key))
        return Player(name, key, hub.id, hub.key.public, NOTHING)

    def later(self, seconds: float) -> None:
        clock = self._hub.clock
        self._hub.clock = lambda: clock() + seconds

    def close(self) -> None:
        self._runner.run(self._hub.kill())
        super().close()


class HubCourt(Court):
    """The project's own hub, by a WebSocket for each agent."""

    def __init__(self, hub: LiveHub) -> None:
        from tests.cast import make_organisation

        self._hub = hub
        self._organisation = make_organisation()  # one, as in a process, so that broadcasts arrive
        self._opened = ExitStack()
        self._wires: dict[str, Any] = {}

    def player(self, name: str, *, level: str | None = "verified", minimum: str = "") -> Player:
        from tests.cast import make_agent
        from tests.wire import Wire

        player = make_agent(
            level, name=name, minimum_level=minimum, organisation=self._organisation
        )
        self._wires[player.id] = self._opened.enter_context(Wire.log_in(self._hub, player))
        return player

    def submit(self, player: Player, letter: Letter) -> Receipt:
        return Receipt.parse(self._wires[player.id].submit(letter))

    def later(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        self._opened.close()
