"""How a request handler answers: by `respond`, or by the value that it returns."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, Protocol

from atp.agent.failures import HandlerFailure
from atp.agent.open_requests import OpenRequest
from atp.agent.receiving import Received
from atp.errors import ATPError, ClockExpired, RecipientNoRequest

__all__ = ["Answer", "Responder", "SendResponse"]

logger = logging.getLogger(__name__)


class SendResponse(Protocol):
    """The client's function that sends an answer. `seconds_left` is until the request expires.

    `data` is a `HandlerFailure` if there is no answer.
    """

    def __call__(
        self,
        request: Received,
        data: Any,
        *,
        options: Mapping[str, Any] | None,
        seconds_left: float,
    ) -> Awaitable[None]: ...


class Answer:
    """The answer that `respond` returned. It is sent when it is awaited, or else by the client.

    A plain function can't await it: it only calls `respond(data)`.
    """

    def __init__(self, send: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self.sent = False

    def __await__(self) -> Generator[Any, None, None]:
        return self.deliver().__await__()

    async def deliver(self) -> None:
        """Send the answer, if that was not done yet; raises the error of its refusal."""
        if not self.sent:
            self.sent = True
            await self._send()


class Responder:
    """The `respond` of a request handler. It answers once, before the request expires."""

    def __init__(
        self, received: Received, *, ticks: float, send: SendResponse, request: OpenRequest
    ) -> None:
        self.request = request
        self._received = received
        self._expires_ticks = ticks + received.expires_at - received.accepted_at
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # a plain function answers in its own thread
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.answer: Answer | None = None
        self.used = False
        self.is_later = False
        self.is_second = False  # whether there was a second answer
        request.when_cancelled = self._settled.set

    @property
    def seconds_left(self) -> float:
        """The seconds until the request expires, counted from the hub's time of acceptance."""
        return self._expires_ticks - self._loop.time()

    def __call__(self, data: Any, options: Mapping[str, Any] | None = None) -> Answer:
        """Answer with `data`. `await respond(data)` returns when the hub has accepted the answer.

        Raises `RecipientNoRequest` for a second answer, or if the sender has cancelled the request;
        and when it is awaited, `ClockExpired` if
        the request has expired, or the error with which the hub refused the answer.
        """
        if self.request.cancelled:
            raise RecipientNoRequest("the sender of this request no longer waits for an answer")
        with self._lock:
            if self.used:
                self.is_second = True
                raise RecipientNoRequest("this request has been answered already")
            self.used = True
        self.answer = Answer(lambda: self._deliver(data, options))
        if self.is_later:
            self._loop.call_soon_threadsafe(self._send_later, self.answer)
        return self.answer

    def later(self) -> None:
        """Say that the handler ends without an answer, and that another task calls `respond`.

        The request stays open until then, or until it expires.
        """
        self.is_later = True

    async def fail(self, failure: HandlerFailure) -> None:
        """Answer with a failure, if no answer was sent yet. If that is refused, only log it."""
        if self.answer is not None and not self.answer.sent:
            self.answer.sent = True  # and so it is not sent any more
            self.used = False
        if self.used or self.request.cancelled:
            return
        try:
            await self(failure)
        except ATPError as exc:
            logger.warning("the error could not be sent to the caller: %s", exc)

    async def wait(self) -> bool:
        """Wait until a task has answered, or the sender has cancelled the request.

        Return `False` if the request expired before.
        """
        try:
            async with asyncio.timeout(max(0.0, self.seconds_left)):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def _deliver(self, data: Any, options: Mapping[str, Any] | None) -> None:
        left = self.seconds_left
        try:
            if left <= 0:
                self.used = False
                raise ClockExpired("the request expired before it was answered")
            await self._send(self._received, data, options=options, seconds_left=left)
        except ATPError as problem:
            # A malformed answer was never sent, so the handler may answer again. An answer that
            # the hub refused counts as the answer.
            if problem.code.startswith("malformed."):
                self.used = False
            raise
        finally:
            if self.used:
                self._settled.set()

    def _send_later(self, answer: Answer) -> None:
        """Send an answer that its task may not await, as a callback can't."""
        task = self._loop.create_task(answer.deliver())
        self._tasks.add(task)
        task.add_done_callback(self._sent_later)

    def _sent_later(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            logger.warning("an answer could not be sent: %s", problem)
