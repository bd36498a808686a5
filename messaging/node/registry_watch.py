"""Keep a node's lease, and follow the registry's epoch.

The node sees a revocation when it next reads the epoch, with or without the channel layer. A node
that can't read the epoch is blind: it delivers nothing until it can.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Collection

from django.conf import settings
from django.db import Error as DatabaseProblem

from messaging.node.roster import Roster
from messaging.node.threads import NodeThreads
from messaging.sessions import leases as lease
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0  # for an answer of the database; two such waits are shorter than a lease


class RegistryWatch:
    """Reads epoch and lease in its own thread, so that no batch delays it.

    `epoch` is the epoch as it was read last. `on_sight` is called when the epoch is read for the
    first time after the node was blind.
    """

    def __init__(
        self, node_id: uuid.UUID, epoch: int, roster: Roster, on_sight: Callable[[], None]
    ) -> None:
        self.threads = NodeThreads(1, "hub-watch", answer_seconds=LOOK_SECONDS)
        self._node_id = node_id
        self._epoch = epoch
        self._sessions = roster.sessions
        self._close_all = roster.close_all
        self._on_sight = on_sight
        self._saw_at = time.monotonic()  # when the last successful read of the epoch began
        self._fresh: set[str] = set()  # sessions that are not checked since they were attached
        self._closed: list[
            float
        ] = []  # times of closed sockets of revoked agents, not measured yet

    def sees(self) -> bool:
        """Whether the epoch was read within `ATP_EPOCH_BLIND_SECONDS`."""
        return time.monotonic() - self._saw_at < settings.ATP_EPOCH_BLIND_SECONDS

    def look_at(self, session: str) -> None:
        """Check this session's agent and key at the next read of the epoch."""
        self._fresh.add(session)

    def note_closed(self) -> None:
        """Note the time at which a revoked agent's socket was closed, to measure the delay."""
        self._closed.append(time.monotonic())

    async def keep_lease(self) -> None:
        """Renew the lease until cancelled; if it had run out, close every socket."""
        while True:
            await asyncio.sleep(settings.ATP_LEASE_RENEW_SECONDS)
            try:
                held = await self.threads.run(lease.renew, self._node_id)
            except DatabaseProblem:
                logger.exception("the lease could not be renewed")
                continue
            if not held:  # frozen for longer than the lease: agents may be connected elsewhere
                logger.warning("the lease had run out; closing every socket")
                self._close_all("session.fenced")

    async def follow_epoch(self) -> None:
        """Read the epoch until cancelled; close the sockets of agents that lost their standing."""
        while True:
            asked = time.monotonic()
            try:
                epoch = await self.threads.run(lease.epoch)
                fresh, self._fresh = self._fresh, set()
                if epoch != self._epoch:
                    fresh = set(self._sessions)
                if fresh:
                    self._epoch = -1  # if this fails half-way, all sessions are checked again
                    await self._drop_the_revoked(fresh)
                self._epoch = epoch
                self._look_up(asked)
                await self._measure_closings()
            except Exception:  # of any kind: without the epoch the node delivers nothing
                logger.exception("the registry's epoch could not be read")
            await asyncio.sleep(settings.ATP_EPOCH_POLL_SECONDS)

    def _look_up(self, asked: float) -> None:
        """Note that the epoch was read, at `asked` or later; end blindness."""
        was_blind, self._saw_at = not self.sees(), asked
        if was_blind:
            self._on_sight()

    async def _drop_the_revoked(self, sessions: Collection[str]) -> None:
        """Close the sockets of agents that may no longer be connected."""
        for session in await self.threads.run(lease.sessions_without_standing, sessions):
            if (connection := self._sessions.get(session)) is not None:
                connection.close("session.revoked")

    async def _measure_closings(self) -> None:
        """Measure how long after the registry's last change sockets were closed.

        The database's clock gives the age of the change; both clocks need not agree.
        """
        closed, self._closed = self._closed, []
        if closed and (age := await self.threads.run(lease.epoch_age)) is not None:
            moved = time.monotonic() - age
            for closed_at in closed:
                instruments.REVOCATION_SECONDS.observe(max(0.0, closed_at - moved))
