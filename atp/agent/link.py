"""Keeps one agent's session running over a transport: reads, writes, connects anew.

Reading never waits for anything but the hub, writing never for a handler. After a connection is
lost the next one is tried with exponential backoff and full jitter, until it is pointless. A
connection that officers ended says only that they did: whether the agent may come back is what the
next login is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from secrets import SystemRandom
from typing import Final

from atp.agent.session import AgentSession, Event
from atp.errors import (
    ATPError,
    IdentityError,
    IdentityNotActive,
    KeyProblem,
    SessionAuthentication,
    SessionClosed,
    SessionRevoked,
    SessionSuperseded,
    SignatureError,
    from_code,
)
from atp.transports.base import Connection, Login, Transport
from atp.wire.frames import Failure, Welcome

__all__ = ["Link"]

logger = logging.getLogger(__name__)

BACKOFF_FIRST_SECONDS: Final = 0.25
BACKOFF_MAX_SECONDS: Final = 15.0
BACKOFF_DOUBLINGS: Final = 6  # enough to pass the maximum, and no number grows without bound
SUSPENDED_MAX_SECONDS: Final = 60.0  # between the tries of an agent that officers may let in again
RETRY_AFTER_MAX_SECONDS: Final = 300.0  # whatever a hub asks for
STEADY_SECONDS: Final = 5.0  # a connection that held this long starts the backoff afresh
LAST_WORDS_SECONDS: Final = 1.0  # for the hub's reason to be read after a write has failed

# Connecting again would end the same way, or take the agent away from the client that has it now.
_FINAL: Final = (
    IdentityError,
    KeyProblem,
    SessionAuthentication,
    SessionSuperseded,
    SignatureError,
)
_jitter = SystemRandom()


class Link:
    """The connection of one agent, and the ones after it.

    `on_event` is called for each event, in order, and must not block; `on_suspended` when the hub
    lets the agent in no more and may do so again, with an error for those who wait; `on_end` once,
    when the link has ended by itself, with the reason. `suspended` is that error until the agent is
    back.
    """

    def __init__(
        self,
        transport: Transport,
        login: Login,
        session: AgentSession,
        *,
        on_event: Callable[[Event], None],
        on_suspended: Callable[[ATPError], None],
        on_end: Callable[[ATPError], None],
    ) -> None:
        self._transport = transport
        self._login = login
        self._session = session
        self._on_event = on_event
        self._on_suspended = on_suspended
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self.connected = False
        self.welcome: Welcome | None = None
        self.suspended: ATPError | None = None

    async def start(self) -> Welcome:
        """Connect for the first time; raises when that fails, and does not try again."""
        connection = await self._transport.connect(self._login)
        self._open(connection)
        self._task = asyncio.create_task(self._run(connection), name="atp-link")
        return connection.welcome

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until all receipts are in and all acks out; `False` when that takes too long."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.connected and not self._session.settled:
                    self._moved.clear()
                    self._wake.set()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return self._session.settled

    async def stop(self) -> None:
        """Close the connection, and open no other."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self, connection: Connection) -> None:
        failures = 0
        while True:
            began = self._ticks()
            problem = await self._serve(connection)
            goes_on = "" if isinstance(problem, _FINAL) else " Connecting again."
            logger.warning("%s: connection ended: %s%s", self._login.identity.id, problem, goes_on)
            if not goes_on:
                break
            failures = 0 if self._ticks() - began >= STEADY_SECONDS else failures + 1
            try:
                connection = await self._reconnect(failures, problem)
            except _FINAL as refusal:
                problem = self._last_word(problem, refusal)
                break
            if self.suspended is None:  # or it is told in other words
                logger.warning("%s: connected again", self._login.identity.id)
            self._open(connection)
        self._on_end(problem)

    async def _reconnect(self, failures: int, ended: ATPError) -> Connection:
        refusals, asked = 0, _asked_to_wait(ended)
        while True:
            delay = _delay(failures) if not refusals else _long_delay(refusals)
            await asyncio.sleep(asked + delay)
            try:
                return await self._transport.connect(self._login)
            except IdentityNotActive as problem:
                refusals, asked = refusals + 1, _asked_to_wait(problem)
                self._suspend(problem)
            except _FINAL:
                raise
            except ATPError as problem:
                failures, asked = failures + 1, _asked_to_wait(problem)
                logger.info("%s: not connected yet: %s", self._login.identity.id, problem)
            except Exception:  # of a transport that does not keep to its types, or of a library
                failures, asked = failures + 1, 0.0
                logger.exception("%s: not connected yet, by a fault", self._login.identity.id)

    def _suspend(self, problem: IdentityNotActive) -> None:
        """The agent may not connect for now; who waits is told once, and who asks later, too."""
        if self.suspended is not None:
            return
        self.suspended = IdentityNotActive(
            f"{self._transport.hub_id} does not let {self._login.identity.id} in: {problem.detail};"
            f" the client goes on trying, every {SUSPENDED_MAX_SECONDS:.0f} s at the latest"
        )
        logger.warning("%s", self.suspended)
        self._on_suspended(self.suspended)

    def _last_word(self, problem: ATPError, refusal: ATPError) -> ATPError:
        """Why it is over: what ended the last connection, in the words of the login after it."""
        if not isinstance(problem, SessionRevoked):
            return refusal
        return SessionRevoked(
            f"{self._transport.hub_id} lets {self._login.identity.id} in no more:"
            f" {refusal.detail} ({refusal.code})"
        )

    def _open(self, connection: Connection) -> None:
        if self.suspended is not None:
            logger.warning("%s: the hub lets it in again", self._login.identity.id)
            self.suspended = None
        self.welcome = connection.welcome
        self.connected = True
        self._session.opened(connection.welcome)
        self._wake.set()

    async def _serve(self, connection: Connection) -> ATPError:
        """Read and write until the connection ends; the reason why it did."""
        reader = asyncio.create_task(self._read(connection), name="atp-reader")
        writer = asyncio.create_task(self._write(connection), name="atp-writer")
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            # A failed write says only that; why the hub ended it is still to be read.
            await asyncio.wait({reader}, timeout=LAST_WORDS_SECONDS)
            return _reason(reader if reader.done() else writer)
        finally:
            self.connected = False
            self._session.lost()
            self._moved.set()
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
            await connection.close()

    async def _read(self, connection: Connection) -> None:
        while True:
            message = await connection.receive()
            now, ticks = self._transport.clock(), self._ticks()
            for event in self._session.receive(message, now=now, ticks=ticks):
                if isinstance(event, Failure):
                    raise from_code(event.code, event.detail, retry_after=event.retry_after)
                self._on_event(event)
            self._moved.set()
            self._wake.set()

    async def _write(self, connection: Connection) -> None:
        while True:
            self._wake.clear()
            for message in self._session.data_to_send(ticks=self._ticks()):
                await connection.send(message)
            self._moved.set()
            due = self._session.next_due()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wake.wait()

    @staticmethod
    def _ticks() -> float:
        return asyncio.get_running_loop().time()


def _asked_to_wait(problem: ATPError) -> float:
    return min(problem.retry_after or 0.0, RETRY_AFTER_MAX_SECONDS)


def _delay(failures: int) -> float:
    ceiling = BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, BACKOFF_DOUBLINGS)
    return _jitter.uniform(0, min(BACKOFF_MAX_SECONDS, ceiling))


def _long_delay(refusals: int) -> float:
    ceiling = min(SUSPENDED_MAX_SECONDS, 2.0 ** min(refusals, BACKOFF_DOUBLINGS))
    return _jitter.uniform(ceiling / 2, ceiling)


def _reason(task: asyncio.Task[None]) -> ATPError:
    problem = task.exception() if task.done() and not task.cancelled() else None
    if isinstance(problem, ATPError):
        return problem
    if problem is not None:
        # Whatever it is, the agent must come back: the error is logged, the connection renewed.
        logger.error("the connection failed inside the SDK", exc_info=problem)
    return SessionClosed("the connection ended")
