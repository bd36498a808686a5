"""Dispatch of deliveries to handlers, and of a handler's answer to the caller.

While a handler runs, the messages that its agent sends carry the digest of the handled envelope as
their cause. If a handler fails, its caller gets an error at once and need not wait for a timeout.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final, Protocol

from atp.agent.handlers import HandlerPool
from atp.agent.open_requests import OpenRequest, OpenRequests
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
    """The client's function that sends an answer. `seconds_left` is until the request expires."""

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
    """Return the digest of the envelope that `agent` is handling, or `None` outside its handlers.

    It is not a cause for another agent in the same process, which did not receive it.
    """
    handled = _handling.get()
    return handled[1] if handled is not None and handled[0] == agent else None


def error_data(problem: str) -> dict[str, str]:
    """Return the `data` of a response that reports a failed handler."""
    return {"error": problem, "code": HandlerFailed.code}


def raise_handler_error(data: Any) -> None:
    """Raise `HandlerFailed` if the `data` of a response reports a failed handler."""
    if isinstance(data, dict) and data.get("code") == HandlerFailed.code:
        raise HandlerFailed(str(data.get("error", ""))[:ERROR_MAX_CHARS])


ERROR_MAX_CHARS: Final = 500  # of the other side's text about its failure


class Responder:
    """The `respond` of a request handler. It answers once, before the request expires."""

    def __init__(
        self, received: Received, *, ticks: float, send: SendResponse, request: OpenRequest
    ) -> None:
        self.request = request
        self._received = received
        self._expires_ticks = ticks + received.expires_at - received.accepted_at
        self._send = send
        self.used = False

    @property
    def seconds_left(self) -> float:
        """The seconds until the request expires, counted from the hub's time of acceptance."""
        return self._expires_ticks - asyncio.get_running_loop().time()

    async def __call__(self, data: Any, options: Mapping[str, Any] | None = None) -> None:
        """Answer with `data`; return when the hub has accepted the answer.

        Raises `RecipientNoRequest` for a second answer, or if the sender has cancelled the request,
        `ClockExpired` if the request has expired,
        or the error with which the hub refused the answer.
        """
        if self.used:
            raise RecipientNoRequest("this request has been answered already")
        if self.request.cancelled:
            raise RecipientNoRequest("the sender of this request no longer waits for an answer")
        left = self.seconds_left
        if left <= 0:
            raise ClockExpired("the request expired before it was answered")
        self.used = True
        try:
            await self._send(self._received, data, options=options, seconds_left=left)
        except ATPError as problem:
            # A malformed answer was never sent, so the handler may answer again. An answer that
            # the hub refused counts as the answer.
            self.used = not problem.code.startswith("malformed.")
            raise


class HandlerDispatcher:
    """The handlers of an agent, at most one for each message type."""

    def __init__(self, agent: str, pool: HandlerPool, *, send_response: SendResponse) -> None:
        self._agent = agent
        self._pool = pool
        self._send_response = send_response
        self._handlers: dict[MessageType, Handler] = {}
        self._requests = OpenRequests()

    def cancel(self, sender: str, message_id: str) -> None:
        """Stop handling a request, because `sender` no longer waits for its answer.

        A handler that has not begun does not run. One that is a coroutine is cancelled. One that
        runs in a thread goes on. No answer is sent.
        """
        logger.info("%s: %s has cancelled its request %s", self._agent, sender, message_id)
        self._requests.cancel(sender, message_id)

    def register(self, message_type: MessageType | str, handler: Handler) -> None:
        """Handle messages of a type with `handler`; it replaces an earlier one.

        Raises `MalformedDocument` for an unknown type, or if `handler` can't be called.
        """
        try:
            kind = MessageType(message_type)
        except ValueError as exc:
            raise MalformedDocument(
                f"{excerpt(message_type)} is not a message type; use one of:"
                f" {', '.join(MessageType)}"
            ) from exc
        if not callable(handler):
            raise MalformedDocument("a handler must be a function or another callable")
        self._handlers[kind] = handler

    def dispatch(
        self, received: Received, envelope: ATPEnvelope, *, begin: Callable[[], None]
    ) -> None:
        """Run the handler of this type as soon as there is room; call `begin` when it starts."""
        document = received.envelope
        request = self._requests.add(document.sender, document.message_id)
        respond = Responder(
            received,
            ticks=asyncio.get_running_loop().time(),
            send=self._send_response,
            request=request,
        )

        async def job() -> None:
            begin()
            _handling.set((self._agent, received.envelope.digest))
            if received.envelope.message_type is MessageType.REQUEST:
                await self._handle_request(envelope, respond)
            else:
                await self._handle_other(received, envelope)

        self._pool.submit(job)

    async def _handle_request(self, envelope: ATPEnvelope, respond: Responder) -> None:
        if respond.request.cancelled:
            logger.info("%s: a request was cancelled before its handler could start", self._agent)
            return
        if respond.seconds_left <= 0:
            logger.info("%s: a request expired before its handler could start", self._agent)
            return
        handler = self._handlers.get(MessageType.REQUEST)
        problem = "this agent has no handler for requests"
        if handler is not None:
            try:
                with respond.request.stoppable(handler):
                    await self._pool.call(handler, envelope, respond)
                self._warn_if_unanswered(respond)
                return
            except Exception as exc:  # whatever the handler raised, its caller must be told
                logger.exception("%s: the request handler failed", self._agent)
                # Send the type only: the text of an exception may be confidential.
                problem = f"the handler failed ({type(exc).__name__})"
        if not respond.used and not respond.request.cancelled:
            await self._answer_with_error(respond, problem)

    def _warn_if_unanswered(self, respond: Responder) -> None:
        """Warn only: the handler may have left `respond` to a task that answers later."""
        if not respond.used and not respond.request.cancelled:
            logger.warning(
                "%s: the request handler ended without an answer, so the sender waits until its"
                " timeout; write the handler as `async def` and call `await respond(data)`",
                self._agent,
            )

    async def _answer_with_error(self, respond: Responder, problem: str) -> None:
        try:
            await respond(error_data(problem))
        except ATPError as exc:
            logger.warning("%s: the error could not be sent to the caller: %s", self._agent, exc)

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
