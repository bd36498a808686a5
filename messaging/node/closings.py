"""The lane of closings: it closes the sessions of closed sockets in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.db import Error as DatabaseProblem

from atp.errors import SessionSuperseded
from messaging import failpoints
from messaging.mail.absences import BegunPlace
from messaging.mail.acknowledging import AcksPutOff, MailboxAck, acknowledge
from messaging.node.lanes import Lane
from messaging.node.threads import NodeThreads
from messaging.sessions.sessions import Opened, close_sessions
from messaging.sessions.takeovers import count_takeovers
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

SUPERSEDED = SessionSuperseded.code
RETRY_SECONDS = 1.0  # while the database is away


@dataclass(frozen=True, slots=True)
class Closing:
    """A session to close, the code of its end, and its last acks.

    `broken` is whether the agent's process may come back and go on with what it has. `begun` are
    the streams and places whose handlers have failed if it does not.
    """

    agent: str
    session: str
    code: str
    acks: Sequence[MailboxAck] = ()
    broken: bool = False
    begun: Sequence[BegunPlace] = ()


class Closings:
    """Stores the ends of sessions, with their last acks."""

    def __init__(self, threads: NodeThreads) -> None:
        self._threads = threads
        self.lane: Lane[Closing] = Lane("closings", self._close)

    def abandon(self, opened: Opened) -> None:
        """Close a session whose socket closed before it was attached to the node.

        The process that it goes on from may log in again.
        """
        broken = opened.taker != opened.session
        self.lane.put(
            Closing(opened.agent, opened.session, "session.closed", (), broken, opened.begun)
        )

    async def _close(self, closings: list[Closing]) -> None:
        try:
            if acks := [ack for closing in closings for ack in closing.acks]:
                instruments.ACKS.inc(await self._threads.run(_acknowledge, acks))
            await self._threads.run(_end, closings)
            if taken_over := [one.agent for one in closings if one.code == SUPERSEDED]:
                closings = [replace(one, begun=()) for one in closings]  # they are charged now
                await self._threads.run(count_takeovers, taken_over)
        except DatabaseProblem:  # try again, or they would count as live while this node lives
            logger.exception("%d sessions could not be closed", len(closings))
            await asyncio.sleep(RETRY_SECONDS)
            for closing in closings:
                self.lane.put(closing)


def _end(closings: Sequence[Closing]) -> None:
    failpoints.hit("before_close", closings)
    broken = {c.session: c.begun for c in closings if c.broken}
    close_sessions([(c.agent, c.session, c.code) for c in closings], broken=broken)


def _acknowledge(acks: Sequence[MailboxAck]) -> int:
    """Take last acks, and return how many; what is put off now is delivered again."""
    try:
        return len(acknowledge(acks))
    except AcksPutOff as some:
        return len(some.taken)
