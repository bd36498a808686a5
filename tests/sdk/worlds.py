"""One interface to the transports and hubs that agents are tested on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from atp import (
    ATPClient,
    IAgentIdentity,
    IAttestation,
    InMemoryTransport,
    PrivateKey,
    TrustLevel,
    WebSocketTransport,
)
from tests.sdk.fake_hub import FakeHub

if TYPE_CHECKING:
    from tests.cast import Player
    from tests.conftest import LiveHub


class World(ABC):
    """The interface: make agents that can reach each other, and cut their connections."""

    def __init__(self) -> None:
        self._clients: list[ATPClient] = []

    @abstractmethod
    async def agent(self, name: str, *, level: str = "verified", **options: Any) -> ATPClient:
        """Return a registered agent that is not connected yet; its id may be longer than `name`."""

    @abstractmethod
    def cut(self, client: ATPClient) -> None:
        """Break an agent's connection, as a broken network does."""

    @abstractmethod
    def twin(self, client: ATPClient, **options: Any) -> ATPClient:
        """Return a second client of the same agent."""

    async def online(self, name: str, **options: Any) -> ATPClient:
        client = await self.agent(name, **options)
        await client.connect()
        return client

    def keep(self, client: ATPClient) -> ATPClient:
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.disconnect(timeout_seconds=0.2)


class MemoryWorld(World):
    """Agents of one process with the in-memory transport, with real keys."""

    def __init__(self) -> None:
        super().__init__()
        self.transport = InMemoryTransport()
        self._keys: dict[str, PrivateKey] = {}

    async def agent(self, name: str, *, level: str = "verified", **options: Any) -> ATPClient:
        self._keys[name] = PrivateKey.generate()
        return self._client(name, level, **options)

    def cut(self, client: ATPClient) -> None:
        self.transport.drop_connection(client.identity.id)

    def twin(self, client: ATPClient, **options: Any) -> ATPClient:
        return self._client(client.identity.id, "verified", **options)

    async def close(self) -> None:
        await super().close()
        self.transport.reset()

    def _client(self, name: str, level: str, **options: Any) -> ATPClient:
        identity = IAgentIdentity(name, attestation=IAttestation("tests", TrustLevel(level)))
        transport, key = self.transport, self._keys[name]
        return self.keep(ATPClient(identity, level, key, transport=transport, **options))


class SocketWorld(World):
    """Agents with WebSockets to the fake hub."""

    def __init__(self, hub: FakeHub) -> None:
        super().__init__()
        self.hub = hub
        self._keys: dict[str, PrivateKey] = {}

    async def agent(self, name: str, *, level: str = "verified", **options: Any) -> ATPClient:
        self._keys[name] = self.hub.enrol(name, level=level)
        return self._client(name, **options)

    def cut(self, client: ATPClient) -> None:
        self.hub.cut(self.hub.accounts[client.identity.id])

    def twin(self, client: ATPClient, **options: Any) -> ATPClient:
        return self._client(client.identity.id, **options)

    async def close(self) -> None:
        await super().close()
        await self.hub.kill()
        assert not self.hub.faults

    def _client(self, name: str, **options: Any) -> ATPClient:
        hub = self.hub
        transport = WebSocketTransport(hub.url, hub_id=hub.id, hub_key=hub.key.public)
        identity, key = IAgentIdentity(name), self._keys[name]
        return self.keep(ATPClient(identity, None, key, transport=transport, **options))


class HubWorld(World):
    """Agents with WebSockets to the project's own hub, by a TCP relay that can be cut."""

    def __init__(self, hub: LiveHub) -> None:
        super().__init__()
        self._hub = hub
        self._players: dict[str, Player] = {}
        self._wires: dict[str, Wire] = {}

    @property
    def url(self) -> str:
        """The hub's own address, past the relays."""
        return self._hub.ws_url

    def player(self, client: ATPClient) -> Player:
        """What the registry knows of a client's agent."""
        return self._players[client.identity.id]

    async def agent(self, name: str, *, level: str = "verified", **options: Any) -> ATPClient:
        from tests.cast import make_agent

        known = next(iter(self._players.values()), None)
        organisation = known.organisation if known else None
        player = await asyncio.to_thread(make_agent, level, name=name, organisation=organisation)
        self._players[player.id] = player
        self._wires[player.id] = wire = Wire(self._hub.ws_url)
        await wire.open()
        return self._client(player.id, **options)

    def cut(self, client: ATPClient) -> None:
        self._wires[client.identity.id].cut()

    def twin(self, client: ATPClient, **options: Any) -> ATPClient:
        return self._client(client.identity.id, **options)

    async def close(self) -> None:
        await super().close()
        for wire in self._wires.values():
            await wire.close()

    def _client(self, agent_id: str, **options: Any) -> ATPClient:
        player = self._players[agent_id]
        transport = WebSocketTransport(
            self._wires[agent_id].url, hub_id=player.hub, hub_key=player.hub_key
        )
        client = ATPClient(player.identity, None, player.key, transport=transport, **options)
        return self.keep(client)


class Wire:
    """A TCP relay between an agent and a hub."""

    def __init__(self, hub_url: str) -> None:
        self._host, _, port = hub_url.split("/")[2].partition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws/agents/"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        self.cut()
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(
        self, agent_reads: asyncio.StreamReader, agent_writes: asyncio.StreamWriter
    ) -> None:
        hub_reads, hub_writes = await asyncio.open_connection(self._host, self._port)
        self._writers |= {agent_writes, hub_writes}
        for reader, writer in ((agent_reads, hub_writes), (hub_reads, agent_writes)):
            task = asyncio.create_task(_carry(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
