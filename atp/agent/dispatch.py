"""Dispatch of an agent's mail to its handlers, from its arrival until it is done.

The hub is told that a handler begins before it begins, so that it knows whose handler a crash of
this process has ended. While a handler runs, the messages that its agent sends carry the digest of
the handled envelope as their cause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Final, Protocol

from atp.agent.attempts import DONE, RETRY_SECONDS, AttemptOutcome, Attempts
from atp.agent.handler_table import Handler, HandlerTable, read_rule
from atp.agent.handlers import HandlerPool
from atp.agent.inbox import Inbox
from atp.agent.mail import Mail, MailState, name_mail
from atp.agent.open_requests import OpenRequests
from atp.agent.receiving import Received
from atp.agent.responding import Responder, SendResponse
from atp.agent.session import Arrived
from atp.agent.turns import Job
from atp.envelope_shell import ATPEnvelope
from atp.types import MessageType

__all__ = ["HandlerDispatcher", "HubSide", "current_cause"]

logger = logging.getLogger(__name__)

TIMER_SLACK_SECONDS: Final = 0.01  # a loop may call a timer early by the resolution of its clock

_handling: ContextVar[tuple[str, str] | None] = ContextVar("atp_handling", default=None)


def current_cause(agent: str) -> str | None:
    """Return the digest of the envelope that `agent` is handling, or `None` outside its handlers.

    It is not a cause for another agent in the same process, which did not receive it.
    """
    handled = _handling.get()
    return handled[1] if handled is not None and handled[0] == agent else None


class HubSide(Protocol):
    """What the dispatcher needs of the connection to the hub."""

    @property
    def inbox(self) -> Inbox:
        """The mail of the agent."""

    @property
    def goes_on(self) -> bool:
        """Whether the connection, or the attempt to connect again, goes on."""

    def take_mail(self) -> Iterator[Arrived]:
        """Take the mail for which there is room now; yield that whose handlers may begin."""

    def wake(self) -> None:
        """Say that there may be something to tell the hub."""

    async def written(self) -> None:
        """Wait until what there is to tell the hub now is written."""


class HandlerDispatcher:
    """The mail of one agent on its way through the handlers.

    `shell(received, attempt)` makes the envelope for a handler. `clock` gives the time in seconds
    since 1970, as the hub has it.
    """

    def __init__(
        self,
        agent: str,
        pool: HandlerPool,
        hub: HubSide,
        *,
        shell: Callable[..., ATPEnvelope],
        send_response: SendResponse,
        clock: Callable[[], float],
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._agent = agent
        self._pool = pool
        self._hub = hub
        self._shell = shell
        self._send_response = send_response
        self._clock = clock
        self._table = HandlerTable()
        self._attempts = Attempts(
            agent, self._table, pool, retry_seconds=retry_seconds, ends=lambda: not hub.goes_on
        )
        self._requests = OpenRequests()
        self._is_open = False
        self._grace_timer: asyncio.TimerHandle | None = None
        self._running: dict[Job, Mail] = {}
        self._cut: list[Mail] = []  # since `open`
        hub.inbox.needs_more = lambda: pool.all_wait
        pool.when_all_wait = lambda: self._take_soon()

    def register(
        self,
        message_type: MessageType | str,
        handler: Handler,
        *,
        ordered: str | None = None,
        max_running: int | None = None,
    ) -> None:
        """Handle messages of a type with `handler`; see `ATPClient.on_message`."""
        rule = read_rule(ordered, max_running)
        kind = self._table.register(message_type, handler)
        self._pool.set_rule(kind, rule)
        if self._is_open:
            self._take(anew=False)
            self._pool.start_jobs()

    def cancel(self, sender: str, message_id: str) -> None:
        """Stop handling a request, because `sender` no longer waits for its answer.

        A handler that has not begun does not run. One that is a coroutine is cancelled. One that
        runs in a thread goes on. No answer is sent, and the request is done.
        """
        logger.info("%s: %s has cancelled its request %s", self._agent, sender, message_id)
        self._requests.cancel(sender, message_id)

    def open(self) -> None:
        """Begin to take mail, if there is a handler for any."""
        self._is_open = True
        self._cut.clear()
        self._pool.open()
        self._take(anew=True)

    def pause(self) -> None:
        """Take no more mail, and let no further handler begin."""
        self._is_open = False
        self._pool.pause()
        self._hub.inbox.set_taking(taking=False)
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None

    async def close(self) -> None:
        """End the handlers that still run, hand back the mail that is not handled, and log both.

        Call it when the connection has ended.
        """
        await self._pool.close()
        for mail in self._cut:
            logger.warning("%s: its handler was cancelled: %s", self._agent, mail)
        self._cut.clear()
        for mail in self._running.values():
            logger.warning("%s: its handler goes on in a thread: %s", self._agent, mail)
        if handed_back := self._hub.inbox.hand_back():
            count, names = len(handed_back), name_mail(handed_back)
            logger.warning("%s: handed back to the hub (%d): %s", self._agent, count, names)

    def dispatch(self, arrived: Arrived) -> None:
        """Queue a message for its handler."""
        received, mail = arrived.received, arrived.mail
        kind, sender = received.envelope.message_type, received.envelope.sender
        if mail is None:
            if self._table.find(kind) is not None:
                self._pool.submit(Job(kind, sender, partial(self._handle_late, received)))
            return
        if mail.dispatched:  # it waits here since an earlier connection
            self._pool.start_jobs()
            return
        mail.dispatched = True
        loop = asyncio.get_running_loop()
        request = self._requests.add(*mail.key)
        respond = Responder(received, ticks=loop.time(), send=self._send_response, request=request)
        job = Job(
            kind,
            sender,
            run=lambda: self._handle(job, mail, respond),
            may_begin=lambda: mail.attached and self._table.is_ready(kind, loop.time()),
            is_over=lambda: not mail.is_open and mail.state is not MailState.RUNNING,
            is_alone=lambda: mail.is_alone,
            begin=lambda: self._begin(job, mail, respond),
            pass_over=lambda: self._pass_over(mail),
        )
        self._pool.submit(job)

    def _begin(self, job: Job, mail: Mail, respond: Responder) -> None:
        """Note that the handler of a message begins, unless there is no more use in it."""
        if mail.kind is MessageType.REQUEST and self._has_expired(mail, respond):
            logger.warning("%s: expired before its handler could begin: %s", self._agent, mail)
        elif respond.request.cancelled:
            logger.info("%s: cancelled before its handler could begin: %s", self._agent, mail)
        else:
            self._hub.inbox.begin(mail)
            self._running[job] = mail

    async def _handle(self, job: Job, mail: Mail, respond: Responder) -> None:
        inbox = self._hub.inbox
        if mail.state is not MailState.RUNNING:
            self._end(job, mail, DONE)
            return
        self._take_more()
        try:
            await self._hub.written()
            is_cancelled = respond.request.cancelled  # meanwhile
            outcome = DONE if is_cancelled else await self._attempt(mail, respond)
        except BaseException:
            self._cut.append(mail)
            inbox.cut(mail)
            self._pool.over(job)
            raise
        finally:
            del self._running[job]
        self._end(job, mail, outcome)

    async def _attempt(self, mail: Mail, respond: Responder) -> AttemptOutcome:
        received = mail.received
        _handling.set((self._agent, received.envelope.digest))
        envelope = partial(self._shell, received, mail.failures + 1)
        if mail.kind is MessageType.REQUEST:
            with respond.request.stoppable(self._table.find(mail.kind)):
                return await self._attempts.answer(envelope, respond, mail)
            return DONE  # its sender has cancelled it
        return await self._attempts.notify(envelope, mail)

    def _end(self, job: Job, mail: Mail, outcome: AttemptOutcome) -> None:
        inbox = self._hub.inbox
        if outcome.retry_after is None:
            inbox.finish(mail, outcome.code)
            self._pool.over(job)
        else:
            inbox.retry(mail)
            loop = asyncio.get_running_loop()
            loop.call_later(outcome.retry_after, self._try_again, job, mail)
        self._take_more()  # what expired has left room

    def _try_again(self, job: Job, mail: Mail) -> None:
        if mail.state is MailState.RETRY:
            self._pool.submit(job)
        else:  # the hub has taken it back
            self._pool.over(job)
            self._pool.start_jobs()

    def _pass_over(self, mail: Mail) -> None:
        """Take other mail instead of one that its own sender or type holds up."""
        if self._hub.inbox.pass_over(mail):
            self._take_soon()

    def _take_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._take_more)

    async def _handle_late(self, received: Received) -> None:
        """Give an answer that came too late to its handler. Nobody waits for the outcome."""
        _handling.set((self._agent, received.envelope.digest))
        handler = self._table.find(received.envelope.message_type)
        if handler is None:
            return
        try:
            await self._pool.call(handler, self._shell(received))
        except Exception:  # the application's code may raise anything
            logger.exception("%s: the handler of a late answer failed", self._agent)

    def _has_expired(self, mail: Mail, respond: Responder) -> bool:
        """Whether a request has expired, also while this process was stopped."""
        return respond.seconds_left <= 0 or self._clock() >= mail.received.expires_at

    def _take(self, *, anew: bool) -> None:
        loop = asyncio.get_running_loop()
        self._table.start_grace(loop.time(), anew=anew)
        self._hub.inbox.set_taking(taking=self._table.takes_mail)
        end = self._table.grace_end
        if end is not None and self._grace_timer is None:
            when = end + TIMER_SLACK_SECONDS
            self._grace_timer = loop.call_at(when, self._pool.start_jobs)
        self._take_more()

    def _take_more(self) -> None:
        """Queue the mail for which there is room now."""
        for arrived in self._hub.take_mail():
            self.dispatch(arrived)
        self._hub.wake()
