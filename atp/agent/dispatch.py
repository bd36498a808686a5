"""From a delivery to the handler it is for, and from the handler's word to the caller's answer.

While a handler runs, what its agent sends carries the handled envelope's digest as its cause; a
handler that fails answers its caller with an error, so that the caller need not wait for a timeout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol

from atp.agent.handlers import HandlerPool
from atp.agent.receiving import Received
from atp.envelope_shell import ATPEnvelope
from atp.errors import (
    ATPError,
    ClockExpired,
    HandlerFailed,
    MalformedDocument,
    RecipientNoRequest,
    excerpt,
)
from atp.types import MessageType

__all__ = ["Handler", "HandlerDispatcher", "current_cause", "error_data", "raise_handler_error"]

logger = logging.getLogger(__name__)

Handler = Callable[..., Any]  # (envelope, respond) for requests, (envelope) for anything else


class SendResponse(Protocol):
    """How a client answers: `seconds_left` is what is left of the request's life."""

    def __call__(
        self,
        request: Received,
        data: Any,
        *,
        options: Mapping[str, Any] | None,
        seconds_left: float,
    ) -> Awaitable[None]: ...


_handling: ContextVar[tuple[str, str] | None] = ContextVar("atp_handling", default=None)


def current_cause(agent: str) -> str | None:
    """The digest of the envelope that `agent` is handling here; `None` outside its handlers.

    Another agent in the same process did not receive it, so it is none of that one's causes.
    """
    handled = _handling.get()
    return handled[1] if handled is not None and handled[0] == agent else None


def error_data(problem: str) -> dict[str, str]:
    """The `data` of a response that stands for a failed handler."""
    return {"error": problem, "code": HandlerFailed.code}


def raise_handler_error(data: Any) -> None:
    """Raise `HandlerFailed` when `data` of a response says that the handler failed."""
    if isinstance(data, dict) and data.get("code") == HandlerFailed.code:
        raise HandlerFailed(str(data.get("error", ""))[:ERROR_MAX_CHARS])


ERROR_MAX_CHARS: Final = 500  # of what the other side says about its failure


class Responder:
    """What a request handler answers with: once, and while the request lives."""

    def __init__(self, received: Received, *, ticks: float, send: SendResponse) -> None:
        self._received = received
        self._expires_ticks = ticks + received.expires_at - received.accepted_at
        self._send = send
        self.used = False

    @property
    def seconds_left(self) -> float:
        """How long the requester still waits, by the hub's time of acceptance."""
        return self._expires_ticks - asyncio.get_running_loop().time()

    async def __call__(self, data: Any, options: Mapping[str, Any] | None = None) -> None:
        """Answer with `data`; returns once the hub has accepted the answer.

        Raises `RecipientNoRequest` for a second answer, `ClockExpired` when it comes too late, and
        what the hub refused it with.
        """
        if self.used:
            raise RecipientNoRequest("this request has been answered already")
        left = self.seconds_left
        if left <= 0:
            raise ClockExpired("the request expired before it was answered")
        self.used = True
        try:
            await self._send(self._received, data, options=options, seconds_left=left)
        except ATPError as problem:
            # What never left may be mended; what the hub refused is an answer all the same.
            self.used = not problem.code.startswith("malformed.")
            raise


class HandlerDispatcher:
    """The handlers of one agent, at most one for each message type."""

    def __init__(self, agent: str, pool: HandlerPool, *, send_response: SendResponse) -> None:
        self._agent = agent
        self._pool = pool
        self._send_response = send_response
        self._handlers: dict[MessageType, Handler] = {}

    def register(self, message_type: MessageType | str, handler: Handler) -> None:
        """Handle messages of a type with `handler` from now on, in place of the one before.

        Raises `MalformedDocument` for what is no message type or can't be called.
        """
        try:
            kind = MessageType(message_type)
        except ValueError as exc:
            raise MalformedDocument(
                f"{excerpt(message_type)} is no message type; there are {', '.join(MessageType)}"
            ) from exc
        if not callable(handler):
            raise MalformedDocument("a handler is something to call")
        self._handlers[kind] = handler

    def dispatch(
        self, received: Received, envelope: ATPEnvelope, *, begin: Callable[[], None]
    ) -> None:
        """Run the right handler as soon as there is room; `begin` is called when it starts."""
        respond = Responder(
            received, ticks=asyncio.get_running_loop().time(), send=self._send_response
        )

        async def job() -> None:
            begin()
            _handling.set((self._agent, received.envelope.digest))
            if received.envelope.message_type is MessageType.REQUEST:
                await self._handle_request(received, envelope, respond)
            else:
                await self._handle_other(received, envelope)

        self._pool.submit(job)

    async def _handle_request(
        self, received: Received, envelope: ATPEnvelope, respond: Responder
    ) -> None:
        if respond.seconds_left <= 0:
            logger.info("%s: a request expired before its turn", self._agent)
            return
        handler = self._handlers.get(MessageType.REQUEST)
        problem = "this agent has no handler for requests"
        if handler is not None:
            try:
                await self._pool.call(handler, envelope, respond)
                return
            except Exception as exc:  # whatever the handler raised, its caller must be told
                logger.exception("%s: the request handler failed", self._agent)
                # The type only: what an exception says may be meant for this side alone.
                problem = f"the handler failed ({type(exc).__name__})"
        if not respond.used:
            await self._answer_with_error(respond, problem)

    async def _answer_with_error(self, respond: Responder, problem: str) -> None:
        try:
            await respond(error_data(problem))
        except ATPError as exc:
            logger.warning("%s: the error could not be told: %s", self._agent, exc)

    async def _handle_other(self, received: Received, envelope: ATPEnvelope) -> None:
        kind = received.envelope.message_type
        handler = self._handlers.get(kind)
        if handler is None:
            logger.debug("%s: no handler for a %s", self._agent, kind)
            return
        try:
            await self._pool.call(handler, envelope)
        except Exception:  # no caller waits; the next message must still be handled
            logger.exception("%s: the %s handler failed", self._agent, kind)
