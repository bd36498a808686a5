"""The sockets of this node, found by session and by agent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from messaging.node.connections import AgentConnection


class Roster:
    """Every authenticated socket of the node; an agent's newest one takes its mail.

    `send_only` are the sockets of an agent that take none, by agent and session.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, AgentConnection] = {}
        self.agents: dict[str, AgentConnection] = {}
        self.send_only: dict[str, dict[str, AgentConnection]] = {}
        self._emptied = asyncio.Event()

    def add(self, connection: AgentConnection) -> None:
        """Enter a socket; an older one of the same agent that takes mail is closed by such one."""
        self.sessions[connection.session] = connection
        if connection.send_only:
            self.send_only.setdefault(connection.agent, {})[connection.session] = connection
            return
        if (older := self.agents.get(connection.agent)) is not None:
            older.close("session.superseded")
        self.agents[connection.agent] = connection

    def remove(self, connection: AgentConnection) -> None:
        """Strike a socket off; do nothing if it is not listed."""
        agent = connection.agent
        self.sessions.pop(connection.session, None)
        if self.agents.get(agent) is connection:
            del self.agents[agent]
        beside = self.send_only.get(agent, {})
        if beside.pop(connection.session, None) is not None and not beside:
            del self.send_only[agent]
        if not self.sessions:
            self._emptied.set()

    def of_agent(self, agent: str) -> Iterator[AgentConnection]:
        """Yield the sockets of an agent: that which takes its mail, and those that only send."""
        if (connection := self.agents.get(agent)) is not None:
            yield connection
        yield from self.send_only.get(agent, {}).values()

    def names(self) -> list[str]:
        """Return the agents that have a socket."""
        return list({**self.agents, **self.send_only})

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
