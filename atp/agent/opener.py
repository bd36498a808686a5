"""Opening a client: in which event loop, when, and for how long it tries while the hub is away."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from atp.agent.link import backoff_seconds
from atp.agent.options import SendOptions
from atp.errors import (
    ATPError,
    FlowBusy,
    FlowThrottled,
    FlowTimeout,
    FlowTooMany,
    SessionClosed,
    SessionForked,
    SessionLoop,
    SessionTimeout,
    SessionTransport,
    from_code,
)

__all__ = ["Opener"]

logger = logging.getLogger(__name__)

LEAST_LEFT_SECONDS: Final = 0.001  # of a timeout that the connecting used up

# With these errors the hub is away or busy, so a later try can succeed.
_AWAY: Final = (
    FlowBusy,
    FlowThrottled,
    FlowTooMany,
    SessionClosed,
    SessionTimeout,
    SessionTransport,
)


class Line(Protocol):
    """What is opened: the client's courier."""

    ended: ATPError | None

    @property
    def suspended(self) -> ATPError | None:
        """The error with which the hub refuses the agent for now, or `None`."""

    @property
    def running(self) -> bool:
        """Whether it is connected, or connecting again by itself."""

    async def start(self) -> None:
        """Connect; raises the error if that fails."""

    async def stop(self, timeout_seconds: float) -> None:
        """Close the connection."""


class Opener:
    """Opens the line of one client, in the event loop that uses the client first.

    `on_open` is called after each login. After `close`, only `open` opens the line again.
    """

    def __init__(self, line: Line, *, agent: str, on_open: Callable[[], None]) -> None:
        self._line = line
        self._agent = agent
        self._pid = os.getpid()
        self._on_open = on_open
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    def enter(self) -> None:
        """Check that the caller may use the client.

        Raises `SessionForked` in a child process of the one that made it, and `SessionLoop` unless
        the running event loop is the client's own.
        """
        if os.getpid() != self._pid:
            raise SessionForked(
                f"the client of {self._agent} was made in process {self._pid}, and this is its"
                f" child {os.getpid()}; make the client in the process that uses it"
            )
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is running:
            return
        if self._loop.is_closed():
            raise SessionLoop(
                "the event loop of this client has ended; make a new client in each asyncio.run()"
            )
        raise SessionLoop(
            "this client belongs to another event loop, perhaps of another thread; call it there,"
            " from elsewhere with asyncio.run_coroutine_threadsafe(...)"
        )

    async def open(self, *, wait_seconds: float) -> None:
        """Open the line; while the hub is away, try for `wait_seconds`. With 0, try once."""
        self.enter()
        self._closed = False
        await self._keep_trying(wait_seconds)

    async def open_unless_closed(self) -> None:
        """Open the line if it never was; raises `SessionClosed` after `close`."""
        self.enter()
        if not self._is_up():
            self._check_open()
            await self._keep_trying(0.0)

    def check_for_send(self) -> None:
        """Raise the error with which `open_for_send` would fail without connecting."""
        self.enter()
        if not self._is_up():
            self._check_open()

    async def open_for_send(self, options: SendOptions) -> SendOptions:
        """Open the line for a message; return the options with what is left of their timeout.

        Raises `FlowTimeout` if the hub is away until then, and as `open_unless_closed`.
        """
        self.check_for_send()
        if self._is_up():
            return options
        seconds, clock = options.timeout_seconds, asyncio.get_running_loop().time
        deadline = clock() + seconds
        try:
            await self._keep_trying(seconds)
        except _AWAY as problem:
            if self._is_lasting(problem):
                raise
            raise FlowTimeout(
                f"no receipt from the hub: no connection in {seconds:g} s, so nothing was sent"
                f" ({problem})"
            ) from problem
        left = max(LEAST_LEFT_SECONDS, deadline - clock())
        return replace(options, timeout=left * 1000)

    def close(self) -> None:
        """Open no more until `open` is called. What is closed may be closed from anywhere."""
        if not self._closed or self._line.running:
            self.enter()
        self._closed = True

    def _is_up(self) -> bool:
        """Whether the line is open, or ended for good with an error that each call raises."""
        return self._line.running or self._line.ended is not None

    def _check_open(self) -> None:
        if self._closed:
            raise SessionClosed("the client was disconnected; only connect() opens it again")

    def _is_lasting(self, problem: ATPError) -> bool:
        return self._closed or isinstance(problem, ValueError)  # a wrong address stays wrong

    async def _keep_trying(self, seconds: float) -> None:
        """Connect; try again for `seconds` while the hub is away, then raise the last error."""
        if seconds <= 0:
            await self._connect()
            return
        last: ATPError = SessionTimeout(f"no login within {seconds:g} s")
        failures = 0
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        await self._connect()
                        return
                    except _AWAY as problem:
                        if self._is_lasting(problem):
                            raise
                        last, failures = problem, failures + 1
                    pause = max(backoff_seconds(failures), last.retry_after or 0.0)
                    logger.debug("not connected yet: %s; trying again in %.2f s", last, pause)
                    await asyncio.sleep(pause)
        except TimeoutError:
            raise last from None

    async def _connect(self) -> None:
        async with self._connecting:  # a second login at once would end the first one
            self._check_open()
            if self._line.suspended is not None:
                raise from_code(self._line.suspended.code, self._line.suspended.detail)
            if self._line.running:
                return
            await self._line.start()
            if self._closed:  # while it connected
                await self._line.stop(0.0)
                self._check_open()
            self._on_open()
