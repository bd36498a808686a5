"""Sockets that have not authenticated yet: bounded in number, and the oldest gives way.

To refuse the newest instead would let a stranger with a thousand silent sockets keep all agents
out. An agent sends its proof within a round trip, so the socket that has been silent longest is
the least likely to be an agent's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from django.conf import settings

from atp.errors import FlowTooMany, SessionTimeout


class Handshakes:
    """The handshakes that a node has under way."""

    def __init__(self) -> None:
        self._silent: dict[object, asyncio.Timeout] = {}  # no proof came yet; the oldest first
        self._proving: set[object] = set()

    def __len__(self) -> int:
        return len(self._silent) + len(self._proving)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Callable[[], None]]:
        """Bound one handshake; call what it gives when a proof has come.

        Raises `SessionTimeout` if it takes longer than `ATP_HANDSHAKE_SECONDS`, and `FlowTooMany`
        if it had to give way to a newer one, or if there are too many and none can give way.
        """
        if len(self) >= settings.ATP_MAX_HANDSHAKES:
            self._make_room()
        key = object()
        try:
            async with asyncio.timeout(settings.ATP_HANDSHAKE_SECONDS) as patience:
                self._silent[key] = patience
                yield lambda: self._note_proof(key)
        except TimeoutError:
            if key in self._silent or key in self._proving:
                raise SessionTimeout("not authenticated in time") from None
            raise FlowTooMany("others that came later wait to be authenticated") from None
        finally:
            self._silent.pop(key, None)
            self._proving.discard(key)

    def _note_proof(self, key: object) -> None:
        if self._silent.pop(key, None) is not None:
            self._proving.add(key)

    def _make_room(self) -> None:
        if not self._silent:
            raise FlowTooMany("too many sockets wait to be authenticated; try again later")
        oldest = self._silent.pop(next(iter(self._silent)))
        oldest.reschedule(asyncio.get_running_loop().time())
