"""Copies of an agent's answers, for its sessions that only send (docs/protocol.md#connecting).

The stream `answers` belongs to the session that takes the agent's mail: only that one acknowledges.
A session that only sends hears the answers that come while it is open, at the same places. What it
acknowledges is kept here, for flow control, and not stored.
"""

from __future__ import annotations

from atp.wire.agent_frames import Ack
from atp.wire.words import ANSWERS
from messaging.node.connections import AgentConnection
from messaging.node.streams import Streams
from messaging.sessions.sessions import Opened

MOST_REMEMBERED = 4096  # positions of ended sessions; the oldest are forgotten first


class Copies:
    """The positions at which sessions that only send begin and go on."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._ended: dict[str, tuple[str, int]] = {}  # by session: its agent, and its position

    def begin(self, opened: Opened, resumed: AgentConnection | None) -> dict[str, int]:
        """Return where each stream begins: behind the last answer that the process took.

        That is known if the login names its earlier session, and this node had it: `resumed` is
        its connection, if that is still there.
        """
        agent, seq = self._ended.get(opened.resumes, ("", 0))
        if resumed is not None:
            agent, seq = resumed.agent, resumed.position(ANSWERS).taken
        if opened.send_only and agent == opened.agent:
            return {ANSWERS: seq}
        return opened.acked

    def take_ack(self, connection: AgentConnection, ack: Ack) -> None:
        """Note that a session that only sends has taken the answers up to the `seq` of the ack."""
        position = connection.position(ack.stream)
        position.hear_copy(ack)
        if position.behind:
            self._streams.read_on(connection, ack.stream)

    def note_end(self, connection: AgentConnection) -> None:
        """Remember up to where a session that ended has taken its answers."""
        self._ended[connection.session] = connection.agent, connection.position(ANSWERS).taken
        while len(self._ended) > MOST_REMEMBERED:
            del self._ended[next(iter(self._ended))]
