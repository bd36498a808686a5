"""The node's state of one agent's socket: its queue, its window, its streams."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from django.conf import settings

from atp.wire.words import ANSWERS, DONE
from messaging.node.pace import Pace
from messaging.node.positions import StreamPosition

logger = logging.getLogger(__name__)

Send = Callable[[dict[str, object]], Awaitable[None]]

OUTBOX_BYTES = 4_194_304  # queued to be written; beyond that, deliveries wait in the database
WINDOW_BYTES = 4_194_304  # of envelopes without a receipt; beyond that, the socket is not read
STALLED_SECONDS = 30.0  # one write that takes longer: the agent does not read


class SocketEnd(Enum):
    """How a socket ended, as far as it tells about the process of its agent."""

    FINAL = "the agent said goodbye, or may not go on"
    CLOSED = "it was closed, and the agent's process may come back"
    CUT = "it broke, and it is not known whether the agent's process lives"


@dataclass(slots=True)
class AgentConnection:
    """An authenticated socket, bounded on both sides.

    `outstanding` counts the envelopes that were read and have no receipt yet. `features` are those
    of the protocol that the agent uses (docs/protocol.md#features). A socket that is `send_only`
    gets no mail, and copies of the answers (`copies.py`). `taker` is the first of the sessions that
    its process has resumed in turn.
    """

    agent: str
    session: str
    send: Send
    features: frozenset[str] = frozenset()
    send_only: bool = False
    taker: str = ""
    new_after: int = 0  # the place of `answers` up to which its process may have done some before
    streams: dict[str, StreamPosition] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    outstanding: int = 0
    close_code: str = ""
    paused: bool = False  # no envelope is taken any more: the node is about to stop
    _outbox: deque[str] = field(default_factory=deque)
    _outbox_bytes: int = 0
    _sizes: deque[int] = field(default_factory=deque)  # of envelopes taken, without a receipt
    _window_bytes: int = 0
    _pump: asyncio.Task[None] | None = None
    _room: asyncio.Event | None = None
    _closed: asyncio.Event = field(default_factory=asyncio.Event)
    _drained: asyncio.Event = field(default_factory=asyncio.Event)

    def position(self, stream: str) -> StreamPosition:
        """Return the position of a stream; the first call makes it."""
        return self.streams.setdefault(stream, StreamPosition())

    def hears(self, stream: str) -> bool:
        """Return whether this stream is written to the socket."""
        return stream == ANSWERS or not self.send_only

    @property
    def tells_done(self) -> bool:
        """Whether its acks tell what is done apart from what is taken."""
        return DONE in self.features

    @property
    def begun(self) -> list[tuple[str, int]]:
        """The streams and places whose handlers run, as far as the agent has told."""
        return [(name, place) for name, p in self.streams.items() for place in sorted(p.begun)]

    @property
    def holds_mail(self) -> bool:
        """Whether the agent may have mail in memory that is not done, and tells that apart.

        A process that has come back may have some from before.
        """
        is_back = self.taker != self.session
        return self.tells_done and (is_back or any(p.undone for p in self.streams.values()))

    def go_on_with(self, begun: Iterable[tuple[str, int]]) -> None:
        """Note handlers that have begun in the session before, of the same process."""
        for stream, place in begun:
            self.position(stream).begun.add(place)

    @property
    def writable(self) -> bool:
        """Whether the outbox has room for more deliveries."""
        return self._outbox_bytes < OUTBOX_BYTES

    def write(self, text: str) -> None:
        """Queue a message; drop it if the socket is being closed.

        A task writes the queue and ends when it is empty: an idle socket has no such task.
        """
        if self.close_code:
            return
        self._outbox.append(text)
        self._outbox_bytes += len(text)
        if not self.writable:
            self._drained.clear()
        if self._pump is None:
            self._pump = asyncio.create_task(self._write_all())

    def write_if_room(self, text: str) -> None:
        """Queue a message that may get lost; drop it if the agent does not read."""
        if self.writable:
            self.write(text)

    def settled(self, count: int) -> None:
        """Take `count` envelopes that are done with out of the window, the oldest first."""
        self.outstanding -= count
        for _ in range(count):
            self._window_bytes -= self._sizes.popleft()
        self._go_on_reading()

    async def window_open(self, size: int) -> None:
        """Wait until the window has room, and take it for an envelope of `size` bytes.

        The caller reads the socket, so it is not read meanwhile.
        """
        while not self._has_window and not self.close_code:
            self._room = asyncio.Event()
            await self._room.wait()
        self._room = None
        self._sizes.append(size)
        self._window_bytes += size

    @property
    def _has_window(self) -> bool:
        free = self.outstanding < settings.ATP_WINDOW and self._window_bytes < WINDOW_BYTES
        return free and not self.paused

    def _go_on_reading(self) -> None:
        if self._room is not None and self._has_window:
            self._room.set()

    def close(self, code: str) -> None:
        """Have the socket closed with an error `code`; do nothing if that was done before.

        What waits to be written is dropped: it is in the database.
        """
        if not self.close_code:
            self.close_code = code
            self._outbox.clear()
            self._closed.set()
            self._drained.set()
            if self._room is not None:
                self._room.set()

    async def closed(self) -> str:
        """Wait until the socket is to be closed; return the code that says why."""
        await self._closed.wait()
        return self.close_code

    async def drained(self) -> None:
        """Wait until the outbox has room for more deliveries, or the socket is closed."""
        if not self.writable:
            await self._drained.wait()

    async def written(self) -> None:
        """Wait until all that was queued has been handed to the socket."""
        if self._pump is not None:
            await asyncio.wait({self._pump})

    async def stop_writing(self) -> None:
        """Cancel a write that is under way; nothing is written afterwards."""
        if self._pump is not None:
            self._pump.cancel()
            with suppress(asyncio.CancelledError):
                await self._pump

    async def _write_all(self) -> None:
        try:
            while self._outbox:
                text = self._outbox.popleft()
                message: dict[str, object] = {"type": "websocket.send", "text": text}
                async with asyncio.timeout(STALLED_SECONDS):
                    await self.send(message)
                self._outbox_bytes -= len(text)
                if self.writable:
                    self._drained.set()
        except TimeoutError:
            logger.warning("agent %s does not read; closing its socket", self.agent)
            self.close("flow.window")
        except Exception:  # the socket broke under us: the read side sees it too
            self.close("session.transport")
        finally:
            self._pump = None
