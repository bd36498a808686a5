"""Limit the sockets that have not authenticated yet; when there are too many, end the oldest.

If the newest were refused instead, one stranger with a thousand silent sockets could keep all
agents out. An agent sends its proof within one round trip. So the oldest silent socket is the
least likely to be an agent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from django.conf import settings

from atp.errors import FlowTooMany, SessionTimeout


class Handshakes:
    """The handshakes that are in progress on one node."""

    def __init__(self) -> None:
        self._silent: dict[object, asyncio.Timeout] = {}  # without a proof yet; the oldest first
        self._proving: set[object] = set()

    def __len__(self) -> int:
        return len(self._silent) + len(self._proving)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Callable[[], None]]:
        """Hold a slot for one handshake; yield a function to call when its proof has arrived.

        Raises `SessionTimeout` after `ATP_HANDSHAKE_SECONDS`. Raises `FlowTooMany` if all slots
        are taken by handshakes with a proof, or if a later handshake took this slot.
        """
        if len(self) >= settings.ATP_MAX_HANDSHAKES:
            self._free_slot()
        key = object()
        try:
            async with asyncio.timeout(settings.ATP_HANDSHAKE_SECONDS) as time_limit:
                self._silent[key] = time_limit
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

    def _free_slot(self) -> None:
        if not self._silent:
            raise FlowTooMany("too many sockets wait to be authenticated; try again later")
        oldest = self._silent.pop(next(iter(self._silent)))
        oldest.reschedule(asyncio.get_running_loop().time())
