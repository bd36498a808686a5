"""Find deliveries that were not pushed: for new connections at once, for all others by a poll."""

from __future__ import annotations

import asyncio
import logging

from django.conf import settings
from django.db import Error as DatabaseProblem

from messaging.mail import inbox
from messaging.node.lanes import Lane
from messaging.node.roster import Roster
from messaging.node.streams import Streams
from messaging.node.threads import NodeThreads

logger = logging.getLogger(__name__)

POLL_CHUNK = 500  # agents asked for in one query


class CatchUp:
    """Compares the inboxes in the database with the positions written to the sockets."""

    def __init__(self, threads: NodeThreads, roster: Roster, streams: Streams) -> None:
        self._threads = threads
        self._roster = roster
        self._streams = streams
        self.newcomers: Lane[str] = Lane("newcomers", self._catch_up)

    async def poll(self) -> None:
        """Find deliveries whose push was lost, every `ATP_POLL_SECONDS`."""
        while True:
            await asyncio.sleep(settings.ATP_POLL_SECONDS)
            agents = self._roster.names()
            for start in range(0, len(agents), POLL_CHUNK):
                await self._catch_up(agents[start : start + POLL_CHUNK])

    async def _catch_up(self, agents: list[str]) -> None:
        """Read on in each stream of these agents that has deliveries not written yet."""
        try:
            last_numbers = await self._threads.run(inbox.last_sequence_numbers, agents)
        except DatabaseProblem:
            logger.exception("the inboxes could not be looked at; the next poll does")
            return
        for (agent, stream), last in last_numbers.items():
            for connection in self._roster.of_agent(agent):
                if connection.hears(stream):
                    self._streams.catch_up(connection, stream, last)
