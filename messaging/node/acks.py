"""The lane of acks: it stores the acks of many agents in one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from django.db import Error as DatabaseProblem

from atp.wire.agent_frames import Ack
from atp.wire.words import STREAMS
from messaging.mail.acknowledging import AcksPutOff, MailboxAck, acknowledge
from messaging.node.connections import AgentConnection
from messaging.node.lanes import Lane
from messaging.node.roster import Roster
from messaging.node.streams import Streams
from messaging.node.threads import NodeThreads
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

LINGER_SECONDS = 0.25  # acks that come within it share a commit; a node that is killed loses them
# Acks of 1/4 of a window do not wait: that many come so fast only if the window would soon be full,
# and then the deliveries would stop.
HURRY = 4
RETRY_SECONDS = 1.0  # while the database is away, or others hold a mailbox


class Acks:
    """Collects acks from sockets, stores them, and then continues the streams."""

    def __init__(self, threads: NodeThreads, roster: Roster, streams: Streams) -> None:
        self._threads = threads
        self._roster = roster
        self._streams = streams
        self._storing: list[MailboxAck] = []  # the batch that is under way
        self.lane: Lane[tuple[AgentConnection, str]] = Lane(
            "acks", self._write_down, linger_seconds=LINGER_SECONDS
        )

    def take(self, connection: AgentConnection, ack: Ack) -> None:
        """Note an ack, as far as it is about deliveries written to this socket.

        However many come, the lane holds one item for each stream of a socket, and none for acks
        that tell nothing new.
        """
        position = connection.position(ack.stream)
        if connection.send_only:
            position.hear_copy(ack, places=connection.tells_done)
            if position.behind:
                self._streams.read_on(connection, ack.stream)
        elif connection.tells_done:
            position.hear_places(ack)
        else:
            position.hear(ack)
        if position.has_news:
            self._put(connection, ack.stream)
        if position.heard_of_late >= max(1, position.window // HURRY):
            self.lane.hurry()

    def last(self, connection: AgentConnection) -> list[MailboxAck]:
        """Return the acks of a closed connection that are not stored yet, as far as is known.

        Those that are being stored are among them: the session may end before that, and what comes
        later does not count. To store one twice changes nothing.
        """
        storing = [ack for ack in self._storing if ack.session == connection.session]
        waiting = [stream for stream in STREAMS if connection.position(stream).acking]
        return [*storing, *(ack for stream in waiting for ack in _heard(connection, stream))]

    def _put(self, connection: AgentConnection, stream: str) -> None:
        position = connection.position(stream)
        if not position.acking:
            position.acking = True
            self.lane.put((connection, stream))

    async def _write_down(self, waiting: list[tuple[AgentConnection, str]]) -> None:
        self._storing = [ack for one in waiting for ack in _heard(*one)]
        try:
            await self._store(self._storing)
        finally:
            self._storing = []

    async def _store(self, acks: list[MailboxAck]) -> None:
        try:
            taken = await self._threads.run(acknowledge, acks)
        except AcksPutOff as some:
            taken = some.taken
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_SECONDS, self._take_again, some.put_off)
        except DatabaseProblem:  # told again by the hub itself: an agent acknowledges once
            logger.exception("%d acks could not be written down", len(acks))
            await asyncio.sleep(RETRY_SECONDS)
            self._take_again(acks)
            return
        instruments.ACKS.inc(len(taken))
        for ack in taken:
            self._go_on(ack)

    def _take_again(self, acks: Iterable[MailboxAck]) -> None:
        for ack in acks:
            if (connection := self._roster.sessions.get(ack.session)) is not None:
                connection.position(ack.stream).hear_again(ack)
                self._put(connection, ack.stream)

    def _go_on(self, ack: MailboxAck) -> None:
        """Advance a stream's window; if rows wait, read on."""
        if (connection := self._roster.sessions.get(ack.session)) is None:
            return
        position = connection.position(ack.stream)
        position.taken = max(position.taken, ack.seq)
        if position.behind:
            self._streams.read_on(connection, ack.stream)


def _heard(connection: AgentConnection, stream: str) -> list[MailboxAck]:
    key = (connection.agent, connection.session, stream)
    position = connection.position(stream)
    if not connection.send_only:
        return position.take_heard(key, places=connection.tells_done)
    return [replace(ack, copy=True) for ack in position.take_heard(key, places=True)]
