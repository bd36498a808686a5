"""Ending database sessions of the hub whose process stopped in the middle of a transaction.

A process that is frozen between its last statement and its commit keeps its locks, the log lock
among them, and then nothing is accepted. PostgreSQL's `idle_in_transaction_session_timeout` does
not end it while a pipeline is open. So every node looks who waits for its client while others wait
for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import datetime

from django.db import Error as DatabaseProblem
from django.db import connection

from messaging.node.threads import NodeThreads
from registry.trail.actions import LOG_LOCK

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
HELD_SECONDS = 3.0  # a client that says nothing for so long within such a transaction has stopped

# Sessions of the hub that wait for their client in a transaction, and hold the log lock or keep
# others waiting. An operator's own session has another name, and is left alone.
_STOPPED = """
SELECT a.pid, a.query_start FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.usename = current_user
    AND a.application_name = current_setting('application_name')
    AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL AND a.wait_event_type = 'Client'
    AND a.pid IN (
        SELECT l.pid FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND ((l.classid::bigint << 32) | l.objid::bigint) = %s
        UNION ALL
        SELECT unnest(pg_blocking_pids(w.pid)) FROM pg_stat_activity AS w
        WHERE w.datname = current_database() AND w.wait_event_type = 'Lock'
    )
"""
_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND query_start = %s AND wait_event_type = 'Client'
"""

Holder = tuple[int, datetime]  # process id of the backend, and when its last statement began


class LockWatch:
    """Remembers since when each session was seen to wait for its client; ends it after a time.

    A statement begins that time anew: who goes on asking has not stopped.
    """

    def __init__(self, threads: NodeThreads) -> None:
        self._threads = threads
        self._since: dict[Holder, float] = {}

    async def follow(self) -> None:
        """Look every second until cancelled; on SQLite, end at once."""
        while connection.vendor == "postgresql":
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._threads.run(self.look)
            except DatabaseProblem:
                logger.warning("who holds locks could not be looked at; the next look does")

    def look(self) -> None:
        """Look once, from a database thread, and end what was seen for `HELD_SECONDS`."""
        now = time.monotonic()
        self._since = {holder: self._since.get(holder, now) for holder in _stopped()}
        for holder in [h for h, since in self._since.items() if now - since >= HELD_SECONDS]:
            logger.critical(
                "a process of the hub stopped within a transaction and kept others waiting; "
                "its database session was ended"
            )
            _end(holder)
            del self._since[holder]


def _stopped() -> Iterable[Holder]:
    with connection.cursor() as cursor:
        cursor.execute(_STOPPED, [LOG_LOCK])
        return [(pid, asked_at) for pid, asked_at in cursor.fetchall()]


def _end(holder: Holder) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_END, holder)
