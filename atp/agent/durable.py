"""The outbox on disk of a connected agent: it stores what is sent, and forgets what has a receipt.

The file is opened before the first connection or send. The messages in it go out again in order,
with the bytes that were signed first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from atp.agent.outbox import TRY_AGAIN
from atp.agent.outbox_file import OutboxFile
from atp.agent.session import AgentSession
from atp.agent.signed import SignedMessages, expiry_of
from atp.errors import ATPError, SessionClosed
from atp.trust.envelope import Envelope
from atp.wire.frames import Receipt

__all__ = ["DurableOutbox"]

logger = logging.getLogger(__name__)

NAMED_MOST: Final = 5  # ids in one log line

T = TypeVar("T")


class DurableOutbox:
    """The messages of `agent` that are on disk, in the file `path`, until their receipts.

    Messages go to the hub through `session`; `signed` keeps their bytes for callers that send one
    of them again. `clock` is in seconds since 1970.
    """

    def __init__(
        self,
        path: Path,
        session: AgentSession,
        signed: SignedMessages,
        *,
        agent: str,
        hub_id: str,
        clock: Callable[[], float],
    ) -> None:
        self.path = path
        self._session = session
        self._signed = signed
        self._agent = agent
        self._hub_id = hub_id
        self._clock = clock
        self._held: set[str] = set()
        self._settled: set[str] = set()  # to be removed from the file
        self._opening = asyncio.Lock()
        self._file: OutboxFile | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def holds(self, message_id: str) -> bool:
        """Whether a message is in the outbox: stored, and without a final receipt."""
        return message_id in self._held

    async def open(self) -> None:
        """Open the file and send what is in it; do nothing if it is open.

        Raises an `OutboxError` if it can't be used.
        """
        async with self._opening:
            if self._file is not None:
                return
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="atp-outbox")
            try:
                self._file = await self._in_thread(self._open_file)
                for envelope, expires_at in await self._in_thread(self._file.messages):
                    self._take_up(envelope, expires_at)
            except BaseException:
                await self._close_file()
                raise
            await self._remove_settled()

    async def store(self, envelope: Envelope) -> None:
        """Store a message and send it; raises `OutboxFull` if there is no room.

        A caller that is cancelled meanwhile does not interrupt it.
        """
        storing = asyncio.create_task(self._store(envelope))
        self._tasks.add(storing)
        storing.add_done_callback(self._tasks.discard)
        await asyncio.shield(storing)

    def note_receipt(self, receipt: Receipt, *, awaited: bool) -> None:
        """Forget a message that has its final receipt; log the receipt if no caller waits."""
        if receipt.message_id not in self._held or receipt.status in TRY_AGAIN:
            return
        self._held.discard(receipt.message_id)
        self._settled.add(receipt.message_id)
        if not awaited:
            level = logging.INFO if receipt.status == "accepted" else logging.WARNING
            said = f"{receipt.status} {receipt.code} {receipt.detail}".rstrip()
            message = "%s: the hub has answered a message of the outbox, %s: %s"
            logger.log(level, message, self._agent, receipt.message_id, said)
        if len(self._tasks) < 2:  # noqa: PLR2004  # one removal under way, one for what came since
            removing = asyncio.create_task(self._remove_settled())
            self._tasks.add(removing)
            removing.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Close the file. What is in it is sent after the next `open`."""
        async with self._opening:
            if self._file is None:
                return
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._remove_settled()
            if self._held:
                message = "%s: %d messages stay in the outbox %s and are sent at the next start"
                logger.warning(message, self._agent, len(self._held), self.path)
            for message_id in self._held:
                self._session.forget(message_id)
            self._held.clear()
            await self._close_file()

    async def _store(self, envelope: Envelope) -> None:
        if self._file is None:
            raise SessionClosed("the client was disconnected, and its outbox is closed")
        if not self.holds(envelope.message_id):
            await self._remove_settled()  # it may be there, to be removed, or its room be needed
            await self._in_thread(self._file.put, envelope, expiry_of(envelope))
            self._held.add(envelope.message_id)
        self._session.submit(envelope.message_id, envelope.canonical)

    def _take_up(self, envelope: Envelope, expires_at: float) -> None:
        """Send a message that was in the file, unless it has expired."""
        if expires_at <= self._clock():
            logger.warning(
                "%s: dropped %s of the outbox, which expired before the hub could be reached",
                self._agent,
                envelope.message_id,
            )
            self._settled.add(envelope.message_id)
            return
        self._signed.first(envelope, now=self._clock())
        self._held.add(envelope.message_id)
        self._session.submit(envelope.message_id, envelope.canonical)

    async def _remove_settled(self) -> None:
        """Remove from the file what has its receipt. What stays there is a repeat for the hub."""
        settled, self._settled = self._settled, set()
        if not settled or self._file is None:
            return
        try:
            await self._in_thread(self._file.remove, settled)
        except ATPError as problem:
            self._settled |= settled
            logger.warning("%s: messages stay in the outbox: %s", self._agent, problem)

    def _open_file(self) -> OutboxFile:
        return OutboxFile(self.path, agent=self._agent, hub_id=self._hub_id)

    async def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await self._in_thread(file.close)
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
