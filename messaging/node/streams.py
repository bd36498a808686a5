"""Write streams to sockets in order: deliveries are pushed, or else read from the rows.

A stream is `behind` while it has rows that are not written. Until they are, nothing is pushed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from django.db import Error as DatabaseProblem

from atp.wire.words import NOTICES, STREAMS
from messaging.layer import loops
from messaging.mail import copies, inbox
from messaging.node.connections import AgentConnection
from messaging.node.threads import NodeThreads
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

BACKLOG_READERS = 4  # pages read from the database at once


class Streams:
    """Writes the streams of each connection while `sees()` allows deliveries."""

    def __init__(self, threads: NodeThreads, sees: Callable[[], bool]) -> None:
        self._threads = threads
        self._sees = sees
        self._page_reads: set[asyncio.Task[None]] = set()
        self._readers = asyncio.Semaphore(BACKLOG_READERS)

    def begin(self, connection: AgentConnection, acked: Mapping[str, int]) -> None:
        """Begin each stream behind its acknowledged `seq`; `catch_up` reads the rest."""
        for stream in STREAMS:
            connection.position(stream).begin(acked.get(stream, 0))

    def push(
        self,
        connection: AgentConnection,
        stream: str,
        first: int,
        last: int,
        text: str,
        own: Iterable[int] = (),
    ) -> None:
        """Write `text`, deliveries `first` to `last`, if they come next and fit in the window.

        Otherwise, or if `text` is empty, read the rows in order. `own` are those that are for this
        session, if it only sends.
        """
        position = connection.position(stream)
        fits = first == position.sent + 1 and last - first < position.room
        if text and fits and not position.behind and connection.writable and self._sees():
            position.note_sent(last, own=own)
            connection.write(text)
            instruments.count_pushed(last - first + 1)
        elif last > position.sent:
            position.behind = True
            self.read_on(connection, stream)

    def catch_up(self, connection: AgentConnection, stream: str, last: int) -> None:
        """Read on if the stream has deliveries that are not written; `last` is its last `seq`."""
        position = connection.position(stream)
        if last > position.sent or position.behind:
            position.behind = True
            self.read_on(connection, stream)

    def resume(self, connections: Iterable[AgentConnection]) -> None:
        """Read on in each stream of `connections` that is behind."""
        for connection in connections:
            for stream in STREAMS:
                if connection.position(stream).behind:
                    self.read_on(connection, stream)

    def read_on(self, connection: AgentConnection, stream: str) -> None:
        """Read the stream from the database; do nothing if that is under way already."""
        position = connection.position(stream)
        if position.reading or connection.close_code:
            return
        position.reading = True
        task = asyncio.create_task(self._read_pages(connection, stream))
        self._page_reads.add(task)
        task.add_done_callback(self._page_reads.discard)

    async def stop(self) -> None:
        """Cancel the reads that are under way. The rows stay for the next session."""
        await loops.end(self._page_reads)

    async def _read_pages(self, connection: AgentConnection, stream: str) -> None:
        position = connection.position(stream)
        try:
            while position.room and not connection.close_code:
                await connection.drained()
                if not self._sees():
                    return
                position.behind = False  # a push that comes during the read sets it again
                read = _reader(connection, stream, after=position.sent, most=position.room)
                async with self._readers:
                    page = await self._threads.run(read)
                if page is None:
                    if not position.behind:
                        return
                    continue
                if page.first <= position.sent:  # a push was faster; nothing is written twice
                    position.behind = True
                    continue
                if page.first != position.sent + 1:
                    logger.error("a gap before %s %d of %s", stream, page.first, connection.agent)
                position.note_sent(page.last, page.done, page.own)
                position.behind = True
                connection.write(page.text)
                instruments.count_read(page.last - page.first + 1)
        except DatabaseProblem:
            logger.exception("a page of %s could not be read", stream)
        finally:
            position.reading = False


def _reader(
    connection: AgentConnection, stream: str, *, after: int, most: int
) -> Callable[[], inbox.Page | None]:
    """Return a call that reads on in the stream of this socket."""
    notices = NOTICES in connection.features
    if not connection.send_only:
        read = partial(inbox.read_page, connection.agent, stream)
        return partial(read, after=after, most=most, notices=notices)
    heard = copies.Heard(connection.taker, connection.new_after)
    read_own = partial(copies.read_copies, connection.agent, heard)
    return partial(read_own, after=after, most=most, notices=notices)
