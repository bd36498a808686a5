"""The link of one agent to its hub: it reads, writes and connects again.

Reading waits for the hub only; writing never waits for a handler. After a lost connection it tries
again with exponential backoff and full jitter, unless the error is final. When officers end a
connection, the hub does not say whether the agent may come back; the answer to the next login does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from secrets import SystemRandom
from typing import Any, Final

from atp.agent.frame_log import log_frames
from atp.agent.mail_claim import MailClaim, explained
from atp.agent.session import AgentSession, Event
from atp.errors import (
    ATPError,
    IdentityError,
    IdentityNotActive,
    KeyProblem,
    SessionAuthentication,
    SessionClosed,
    SessionError,
    SessionRevoked,
    SessionSuperseded,
    SignatureError,
    from_code,
)
from atp.transports.base import Connection, Login, Transport
from atp.wire.frames import Failure, Welcome

__all__ = ["Link", "backoff_seconds"]

logger = logging.getLogger(__name__)

BACKOFF_FIRST_SECONDS: Final = 0.25
BACKOFF_MAX_SECONDS: Final = 15.0
BACKOFF_DOUBLINGS: Final = 6  # enough to exceed the maximum
SUSPENDED_MAX_SECONDS: Final = 60.0  # between two tries of a suspended agent
RETRY_AFTER_MAX_SECONDS: Final = 300.0  # the longest wait that a hub may ask for
STEADY_SECONDS: Final = 5.0  # after a connection of this length, the backoff starts again
LAST_WORDS_SECONDS: Final = 1.0  # to read the hub's reason after a write has failed

# The final errors: a new login would fail the same way, or end the session of a newer client.
_FINAL: Final = (
    IdentityError,
    KeyProblem,
    SessionAuthentication,
    SessionSuperseded,
    SignatureError,
)
_jitter = SystemRandom()


class Link:
    """The connection of one agent, and the connections that replace it.

    `on_event` is called for each event, in order, and must not block. `on_suspended` is called when
    the hub refuses the agent for now, with the error for waiting callers; `suspended` is that error
    until the agent is connected again. `claim` is the client's claim to mail. `on_end` is called
    once, with the reason, when the link ended by itself.
    """

    def __init__(
        self,
        transport: Transport,
        login: Login,
        session: AgentSession,
        *,
        claim: MailClaim,
        on_event: Callable[[Event], None],
        on_suspended: Callable[[ATPError], None],
        on_end: Callable[[ATPError], None],
    ) -> None:
        self._transport = transport
        self._login = login
        self._session = session
        self._claim = claim
        self._on_event = on_event
        self._on_suspended = on_suspended
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        self._claimed = asyncio.Event()  # the client wants mail, and this session has none
        self._stops = False
        self.connected = False
        self.welcome: Welcome | None = None
        self.suspended: ATPError | None = None

    @property
    def goes_on(self) -> bool:
        """Whether its task runs and is not cancelled. The end of an event loop cancels it."""
        return self._task is not None and not self._task.done() and not self._task.cancelling()

    async def start(self) -> Welcome:
        """Connect for the first time. If this fails, raise the error and do not try again."""
        connection = await self._transport.connect(self._claim.login(self._login))
        self._open(connection)
        self._task = asyncio.create_task(self._run(connection), name="atp-link")
        return connection.welcome

    def wake(self) -> None:
        """Wake the writer if there is something to send."""
        if self._session.wants_to_send:
            self._wake.set()

    def claim_mail(self) -> None:
        """Log in again with a session that takes mail, if the session of now takes none."""
        if self.connected and self.welcome is not None and self._claim.is_unmet(self.welcome):
            self._claimed.set()

    async def written(self) -> None:
        """Write what the hub must hear at once; return when it is written, or can't be any more.

        This takes no turn of the event loop, unless the socket is full.
        """
        connection = self._connection
        if connection is None or not self.connected:
            return
        with suppress(SessionError):  # the reader has the reason
            await self._send(connection, self._session.urgent_acks(ticks=self._ticks()))

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait for all receipts and until all acks are sent; return `False` if the time is over."""
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
        """Close the connection, and do not connect again."""
        self._stops = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._connection is not None:  # also if the task was cancelled before it began
            self._lose()
            await self._connection.close()
            self._connection = None

    async def _run(self, connection: Connection) -> None:
        failures = 0
        while True:
            began = self._ticks()
            problem = await self._serve(connection)
            claimed = self._claimed.is_set()
            if isinstance(problem, _FINAL) and not self._claim.yields(problem, connection.features):
                problem = explained(problem, self._login.identity.id)
                logger.warning("%s: connection ended: %s", self._login.identity.id, problem)
                break
            if not claimed:
                name = self._login.identity.id
                logger.warning("%s: connection ended: %s Connecting again.", name, problem)
            failures = 0 if self._ticks() - began >= STEADY_SECONDS else failures + 1
            try:
                connection = await self._reconnect(failures, problem, at_once=claimed)
            except _FINAL as refusal:
                problem = self._last_word(problem, refusal)
                break
            if self.suspended is None:  # otherwise `_open` logs the return
                logger.warning("%s: connected again", self._login.identity.id)
            self._open(connection)
        self._on_end(problem)

    async def _reconnect(
        self, failures: int, ended: ATPError, *, at_once: bool = False
    ) -> Connection:
        refusals, asked = 0, _asked_to_wait(ended)
        while True:
            delay = backoff_seconds(failures) if not refusals else _long_delay(refusals)
            pause, at_once = 0.0 if at_once else asked + delay, False
            logger.debug("%s: connects again in %.2f s", self._login.identity.id, pause)
            await asyncio.sleep(pause)
            try:
                return await self._transport.connect(self._claim.login(self._login))
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
        """Note that the agent may not connect for now; fail the waiting callers once."""
        if self.suspended is not None:
            return
        self.suspended = IdentityNotActive(
            f"{self._transport.hub_id} refuses the login of {self._login.identity.id}:"
            f" {problem.detail}; the client tries again, at least every"
            f" {SUSPENDED_MAX_SECONDS:.0f} s"
        )
        logger.warning("%s", self.suspended)
        self._on_suspended(self.suspended)

    def _last_word(self, problem: ATPError, refusal: ATPError) -> ATPError:
        """Return the final error: that of the last connection, with the last login's reason."""
        if not isinstance(problem, SessionRevoked):
            return refusal
        return SessionRevoked(
            f"{self._transport.hub_id} no longer accepts {self._login.identity.id}:"
            f" {refusal.detail} ({refusal.code})"
        )

    def _open(self, connection: Connection) -> None:
        if self.suspended is not None:
            logger.warning("%s: the hub accepts it again", self._login.identity.id)
            self.suspended = None
        self._connection = connection
        self.welcome = connection.welcome
        self.connected = True
        self._claim.session = connection.welcome.session
        self._claimed.clear()
        self.claim_mail()  # a handler may have been registered during the login
        logger.debug(
            "%s: connected to %s in session %s; %d envelopes without a receipt are sent",
            self._login.identity.id,
            self._transport.hub_id,
            connection.welcome.session,
            self._session.unreceipted,
        )
        self._session.opened(connection.welcome, connection.features)
        self._wake.set()

    async def _serve(self, connection: Connection) -> ATPError:
        """Read and write until the connection ends; return the reason."""
        reader = asyncio.create_task(self._read(connection), name="atp-reader")
        writer = asyncio.create_task(self._write(connection), name="atp-writer")
        claimed = asyncio.create_task(self._claimed.wait(), name="atp-claim")
        tasks: set[asyncio.Task[Any]] = {reader, writer, claimed}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if claimed.done() and not reader.done():
                return SessionClosed("the client logs in again to take mail")
            # A failed write has no reason. The hub's reason may still be unread.
            await asyncio.wait({reader}, timeout=LAST_WORDS_SECONDS)
            return _reason(reader if reader.done() else writer)
        finally:
            self._lose()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await connection.close(comes_back=not self._stops)

    def _lose(self) -> None:
        self.connected = False
        self._session.lost()
        self._moved.set()

    async def _read(self, connection: Connection) -> None:
        while True:
            message = await connection.receive()
            log_frames(self._login.identity.id, "receives", message)
            now, ticks = self._transport.clock(), self._ticks()
            for event in self._session.receive(message, now=now, ticks=ticks):
                if isinstance(event, Failure):
                    raise from_code(event.code, event.detail, retry_after=event.retry_after)
                self._on_event(event)
            self._moved.set()
            self.wake()

    async def _write(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            await self._send(connection, self._session.data_to_send(ticks=loop.time()))
            self._moved.set()
            due = self._session.next_due()
            timer = None if due is None else loop.call_at(due, self._wake.set)
            await self._wake.wait()
            if timer is not None:
                timer.cancel()

    async def _send(self, connection: Connection, messages: list[bytes]) -> None:
        for message in messages:
            log_frames(self._login.identity.id, "sends", message)
            await connection.send(message)

    @staticmethod
    def _ticks() -> float:
        return asyncio.get_running_loop().time()


def _asked_to_wait(problem: ATPError) -> float:
    return min(problem.retry_after or 0.0, RETRY_AFTER_MAX_SECONDS)


def backoff_seconds(failures: int) -> float:
    """Return how long to wait before the next try after so many failures, a random time."""
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
        # A fault of the SDK. The agent must come back, so log it and connect again.
        logger.error("the connection failed inside the SDK", exc_info=problem)
    return SessionClosed("the connection ended")
