"""The outbox on disk of a connected agent: it stores what is sent, and forgets what has a receipt.

The file is opened before the first connection or send. The messages in it go out again in order,
with the bytes that were signed first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from atp.agent.exchanges import Exchange
from atp.agent.outbox import TRY_AGAIN
from atp.agent.outbox_file import OutboxFile
from atp.agent.session import AgentSession
from atp.agent.signed import SignedMessages, expiry_of
from atp.errors import ATPError, SessionClosed, from_code
from atp.trust.envelope import Envelope
from atp.wire.frames import Receipt

__all__ = ["DurableOutbox"]

logger = logging.getLogger(__name__)

NAMED_MOST: Final = 5  # ids in one log line

T = TypeVar("T")


class DurableOutbox:
    """The messages of `agent` that are on disk, in the file `path`, until their receipts.

    Messages go to the hub through `session`; `signed` keeps their bytes for callers that send one
    of them again. `clock` is in seconds since 1970. `wake` says that there is something to send.
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
        wake: Callable[[], None],
    ) -> None:
        self.path = path
        self._session = session
        self._signed = signed
        self._agent = agent
        self._hub_id = hub_id
        self._clock = clock
        self._wake = wake
        self._held: set[str] = set()
        self._settled: set[str] = set()  # to be removed from the file
        self._opening = asyncio.Lock()
        self._file: OutboxFile | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._storing: set[asyncio.Task[None]] = set()
        self._removing: asyncio.Task[None] | None = None

    def holds(self, message_id: str) -> bool:
        """Whether a message is in the outbox: stored, and without a final receipt."""
        return message_id in self._held

    def kept(self, problem: BaseException, message_id: str) -> BaseException:
        """Return the error of a send; if the message stays in the outbox, it says so."""
        if not self.holds(message_id):
            return problem
        note = f"the message is kept in the outbox {self.path}, and sent until it expires"
        if not isinstance(problem, ATPError):  # a cancellation
            problem.add_note(note)
            return problem
        detail = f"{problem.detail}; {note}"
        return from_code(problem.code, detail, retry_after=problem.retry_after)

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
                self._held.clear()
                for envelope, expires_at in await self._in_thread(self._file.messages):
                    self._take_up(envelope, expires_at)
            except BaseException:
                await self._close_file()
                raise
            await self._remove_settled()

    async def deliver(
        self, envelope: Envelope, exchange: Exchange, *, connect: Callable[[], Awaitable[object]]
    ) -> Receipt:
        """Store a message, connect if needed, and wait for the receipt until the deadline.

        `connect` has a deadline of its own, and its error says so. Raises `OutboxFull` if there is
        no room, `TimeoutError`, or the error of a refusal.
        """
        exchange.submitted = True
        await self.store(envelope)
        await connect()
        async with asyncio.timeout_at(exchange.deadline):
            return await exchange.receipt

    async def store(self, envelope: Envelope) -> None:
        """Store a message and send it; raises `OutboxFull` if there is no room.

        A caller that is cancelled meanwhile does not interrupt it.
        """
        storing = asyncio.create_task(self._store(envelope))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
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
        if self._removing is None or self._removing.done():
            self._removing = asyncio.create_task(self._remove_settled())

    async def close(self) -> None:
        """Close the file. What is in it is sent after the next `open`."""
        async with self._opening:
            if self._file is None:
                return
            under_way = [*self._storing, *([self._removing] if self._removing else [])]
            await asyncio.gather(*under_way, return_exceptions=True)
            await self._remove_settled()
            if self._held:
                message = "%s: %d messages stay in the outbox %s and are sent at the next start"
                logger.warning(message, self._agent, len(self._held), self.path)
            for message_id in self._held:
                self._session.forget(message_id)
            await self._close_file()

    async def _store(self, envelope: Envelope) -> None:
        if self._file is None:
            raise SessionClosed("the client was disconnected, and its outbox is closed")
        message_id = envelope.message_id
        if not self.holds(message_id):
            self._held.add(message_id)
            try:
                await self._remove_settled()  # their room may be needed
                self._settled.discard(message_id)
                await self._in_thread(self._file.put, envelope, expiry_of(envelope))
            except BaseException:
                self._held.discard(message_id)
                raise
        self._session.submit(message_id, envelope.canonical)
        self._wake()

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
        while self._settled and self._file is not None:
            settled, self._settled = self._settled, set()
            try:
                await self._in_thread(self._file.remove, settled)
            except ATPError as problem:
                self._settled |= settled - self._held  # it is tried again after the next receipt
                logger.warning("%s: messages stay in the outbox: %s", self._agent, problem)
                return

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
