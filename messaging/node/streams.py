"""Writing streams to sockets: pushed while they are level, else read from the rows, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from django.db import Error as DatabaseProblem

from atp.wire.words import STREAMS
from messaging.layer import loops
from messaging.mail import inbox
from messaging.node.connections import Connection
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

BACKLOG_READERS = 4  # pages read from the database at once


class Streams:
    """Brings each connection's streams forward; `sees` says whether anything may be delivered."""

    def __init__(self, in_thread: Callable[..., Awaitable[Any]], sees: Callable[[], bool]) -> None:
        self._in_thread = in_thread
        self._sees = sees
        self._page_reads: set[asyncio.Task[None]] = set()
        self._readers = asyncio.Semaphore(BACKLOG_READERS)

    def begin(self, connection: Connection, acked: Mapping[str, int]) -> None:
        """Go on behind the places acknowledged so far, once `catch_up` is told of more."""
        for stream in STREAMS:
            position = connection.position(stream)
            position.sent = position.acked = acked.get(stream, 0)

    def push(self, connection: Connection, stream: str, first: int, last: int, text: str) -> None:
        """Write what comes next in the stream; anything else is read from the rows in order."""
        position = connection.position(stream)
        fits = first == position.sent + 1 and last - first < position.room
        if text and fits and not position.behind and connection.writable and self._sees():
            position.sent = last
            connection.write(text)
            instruments.count_pushed(last - first + 1)
        elif last > position.sent:
            position.behind = True
            self.read_on(connection, stream)

    def catch_up(self, connection: Connection, stream: str, last: int) -> None:
        """Read on where the stream goes further than was written, as `last` says."""
        position = connection.position(stream)
        if last > position.sent or position.behind:
            position.behind = True
            self.read_on(connection, stream)

    def resume(self, connections: Iterable[Connection]) -> None:
        """Read on wherever something was left in the rows."""
        for connection in connections:
            for stream in STREAMS:
                if connection.position(stream).behind:
                    self.read_on(connection, stream)

    def read_on(self, connection: Connection, stream: str) -> None:
        """Have the stream read from the database, unless it is being read."""
        position = connection.position(stream)
        if position.reading or connection.close_code:
            return
        position.reading = True
        task = asyncio.create_task(self._read_pages(connection, stream))
        self._page_reads.add(task)
        task.add_done_callback(self._page_reads.discard)

    async def stop(self) -> None:
        """Give up what is being read."""
        await loops.end(self._page_reads)

    async def _read_pages(self, connection: Connection, stream: str) -> None:
        position = connection.position(stream)
        try:
            while position.room and not connection.close_code:
                await connection.drained()
                if not self._sees():
                    return
                position.behind = False  # a push that comes during the read sets it again
                read = partial(inbox.read_page, after=position.sent, most=position.room)
                async with self._readers:
                    page = await self._in_thread(read, connection.agent, stream)
                if page is None:
                    if not position.behind:
                        return
                    continue
                if page.first <= position.sent:  # a push was faster; nothing is written twice
                    position.behind = True
                    continue
                if page.first != position.sent + 1:
                    logger.error("a gap before %s %d of %s", stream, page.first, connection.agent)
                position.sent = page.last
                position.behind = True
                connection.write(page.text)
                instruments.count_read(page.last - page.first + 1)
        except DatabaseProblem:
            logger.exception("a page of %s could not be read", stream)
        finally:
            position.reading = False
