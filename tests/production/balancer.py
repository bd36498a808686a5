"""A TCP balancer: one address in front of several nodes, as a proxy in production."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

CHUNK_BYTES = 65_536


class Balancer:
    """A balancer that passes bytes on; `served` counts the connections of each node's port."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._turns = count()
        self.served: Counter[int] = Counter()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        try:
            near, far = await self._reach()
        except OSError:  # no node takes connections; the agent tries again
            writer.close()
            return
        passing = [
            asyncio.create_task(_pass(reader, far)),
            asyncio.create_task(_pass(near, writer)),
        ]
        await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far):
            end.close()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        first = next(self._turns)
        for turn in range(first, first + len(self._ports)):
            port = self._ports[turn % len(self._ports)]
            with suppress(OSError):
                ends = await asyncio.open_connection("127.0.0.1", port)
                self.served[port] += 1
                return ends
        raise OSError("no node takes connections")


@asynccontextmanager
async def balancer(ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """Run a balancer in front of the nodes on these ports."""
    made = Balancer(ports)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
