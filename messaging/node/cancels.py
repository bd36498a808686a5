"""The lane of cancelled requests: it tells recipients which senders no longer wait.

Nothing is stored. A cancellation that is lost, or that comes while the database is away, only means
that the recipient does work that nobody needs.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from django.db import Error as DatabaseProblem

from messaging.mail.cancelled import Cancellation, tell_recipients
from messaging.node.connections import AgentConnection
from messaging.node.lanes import Lane
from messaging.node.threads import NodeThreads

logger = logging.getLogger(__name__)

BURST = 1024  # cancellations of one connection at once; those beyond the limit are dropped
PER_SECOND = 100.0  # in the long run


@dataclass(slots=True)
class Allowance:
    """What one connection may still cancel, and what it has cancelled last."""

    left: float = BURST
    counted_at: float = field(default_factory=time.monotonic)
    told: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def take(self, message_id: str) -> bool:
        """Count a cancellation; return whether it may go on: once for each request."""
        now = time.monotonic()
        self.left = min(BURST, self.left + (now - self.counted_at) * PER_SECOND)
        self.counted_at = now
        if self.left < 1 or message_id in self.told:
            return False
        self.left -= 1
        self.told[message_id] = None
        if len(self.told) > BURST:
            self.told.popitem(last=False)
        return True


class Cancels:
    """Collects the cancellations of this node's agents and passes them on."""

    def __init__(self, threads: NodeThreads) -> None:
        self._threads = threads
        self._allowances: dict[str, Allowance] = {}
        self.lane: Lane[Cancellation] = Lane("cancels", self._tell)

    def take(self, connection: AgentConnection, message_id: str) -> None:
        """Note that the agent no longer waits for the answer to its request."""
        allowance = self._allowances.setdefault(connection.session, Allowance())
        if allowance.take(message_id):
            self.lane.put(Cancellation(connection.agent, connection.session, message_id))

    def forget(self, connection: AgentConnection) -> None:
        """Forget what a closed connection has cancelled."""
        self._allowances.pop(connection.session, None)

    async def _tell(self, cancellations: list[Cancellation]) -> None:
        try:
            await self._threads.run(tell_recipients, cancellations)
        except DatabaseProblem:
            logger.exception("%d cancelled requests could not be told", len(cancellations))
