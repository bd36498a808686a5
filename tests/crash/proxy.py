"""A balancer between the agents and the nodes, whose connections can be cut.

It passes bytes on and does not parse WebSockets. It runs in its own thread.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 65_536
DIAL_SECONDS = 2.0
STOP_SECONDS = 10.0


class Proxy:
    """A balancer that passes each connection to the first node that answers, in random order."""

    def __init__(self, nodes: Sequence[int], *, seed: int) -> None:
        self.port = 0
        self._nodes = list(nodes)
        self._chance = random.Random(seed)  # noqa: S311  # a run is to be repeatable
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._forgotten: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._flowing = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()

    def cut(self, share: float) -> int:
        """Reset about this share of the connections (0 to 1), also in the middle of a message."""
        return self._run(self._cut(share))

    def hush(self) -> None:
        """Hold all bytes back, with open connections, until `speak`."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def speak(self) -> None:
        """Pass on the bytes that were held back."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def forget(self) -> None:
        """Swallow for ever what the connections of now send, as a firewall that forgot them.

        New connections are passed on. Neither side hears of it if the other closes.
        """
        self._run(self._forget())

    def bury(self) -> None:
        """End the nodes' side of what was forgotten, as keepalives of their machine do."""
        self._run(self._bury())

    def _run(self, work: Coroutine[Any, Any, int]) -> int:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STOP_SECONDS)

    async def _open(self) -> int:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return 0

    async def _close(self) -> int:
        self._server.close()
        await self._cut(1.0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return 0

    async def _cut(self, share: float) -> int:
        chosen = [pair for pair in self._pairs if self._chance.random() < share]
        for pair in chosen:
            for writer in pair:
                writer.transport.abort()
        return len(chosen)

    async def _forget(self) -> int:
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._forgotten |= self._pairs
        return len(self._pairs)

    async def _bury(self) -> int:
        for _, there in self._forgotten:
            there.transport.abort()
        buried = len(self._forgotten)
        self._forgotten.clear()
        return buried

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled = await self._dial()
        if dialled is None:
            writer.transport.abort()
            return
        there_reader, there_writer = dialled
        pair = (writer, there_writer)
        self._pairs.add(pair)
        flowing = self._flowing
        try:
            with suppress(asyncio.CancelledError):  # by `_close`; asyncio would log it
                await asyncio.gather(
                    self._pass_on(reader, there_writer, flowing),
                    self._pass_on(there_reader, writer, flowing),
                )
        finally:
            self._pairs.discard(pair)
            self._forgotten.discard(pair)
            for side in pair:
                side.close()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._chance.sample(self._nodes, len(self._nodes)):
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(DIAL_SECONDS):
                    return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        """Pass bytes on until one side ends; then end the other."""
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await flowing.wait()
                writer.write(data)
                await writer.drain()
        await flowing.wait()
        writer.close()
