"""The sockets of this node, found by session and by agent."""

from __future__ import annotations

import asyncio

from messaging.node.connections import AgentConnection


class Roster:
    """Every authenticated socket of the node; an agent's newest one is the one that counts."""

    def __init__(self) -> None:
        self.sessions: dict[str, AgentConnection] = {}
        self.agents: dict[str, AgentConnection] = {}
        self._emptied = asyncio.Event()

    def add(self, connection: AgentConnection) -> None:
        """Enter a socket; an older one of the same agent is closed."""
        if (older := self.agents.get(connection.agent)) is not None:
            older.close("session.superseded")
        self.sessions[connection.session] = connection
        self.agents[connection.agent] = connection

    def remove(self, connection: AgentConnection) -> None:
        """Strike a socket off; do nothing if it is not listed."""
        self.sessions.pop(connection.session, None)
        if self.agents.get(connection.agent) is connection:
            del self.agents[connection.agent]
        if not self.sessions:
            self._emptied.set()

    def tell(self, session: str, text: str) -> None:
        """Write frames to a session's socket; drop them if it is not here."""
        if (connection := self.sessions.get(session)) is not None:
            connection.write(text)

    def settle(self, session: str, count: int) -> None:
        """Free `count` envelopes in a session's window; do nothing if it is not here."""
        if (connection := self.sessions.get(session)) is not None:
            connection.settled(count)

    def close_all(self, code: str) -> None:
        """Close every socket, with the error code that says why."""
        for connection in list(self.sessions.values()):
            connection.close(code)

    async def emptied(self) -> None:
        """Wait until no socket is left."""
        self._emptied.clear()
        if self.sessions:
            await self._emptied.wait()
