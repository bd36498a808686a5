"""Answers for sessions that only send, without a change to the stream of their agent.

A session that only sends hears what answers its own process, at the same places as the session that
takes the agent's mail. What it has done with them is done for the agent too; else the answers of an
agent that only has such sessions would fill its inbox.
"""

from __future__ import annotations

from atp.wire.words import ANSWERS
from messaging.node.connections import AgentConnection
from messaging.sessions.sessions import Opened

MOST_REMEMBERED = 4096  # positions of ended sessions; the oldest are forgotten first


class Copies:
    """The positions at which sessions that only send begin and go on."""

    def __init__(self) -> None:
        self._ended: dict[str, tuple[str, int]] = {}  # by session: its agent, and its position

    def begin(
        self, connection: AgentConnection, opened: Opened, resumed: AgentConnection | None
    ) -> dict[str, int]:
        """Return where each stream begins.

        A process that comes back to a session that only sends goes on behind the last answer that
        it took, if this node had its earlier session: `resumed` is the connection of that one, if
        it is still there. Elsewhere it goes on with what is not done.
        """
        connection.new_after = opened.answers_seq
        agent, seq = self._ended.get(opened.resumes, ("", 0))
        if resumed is not None:
            agent, seq = resumed.agent, resumed.position(ANSWERS).taken
        if opened.send_only and agent == opened.agent:
            connection.new_after = seq
            return {ANSWERS: seq}
        return opened.acked

    def note_end(self, connection: AgentConnection) -> None:
        """Remember up to where a session that ended has taken its answers."""
        self._ended[connection.session] = connection.agent, connection.position(ANSWERS).taken
        while len(self._ended) > MOST_REMEMBERED:
            self.forget(next(iter(self._ended)))

    def forget(self, session: str) -> None:
        """Forget up to where a session has taken its answers."""
        self._ended.pop(session, None)
