"""The courier writes, signs and sends an agent's messages, and waits for receipts and answers.

It stands between `ATPClient`, which applications use, and the session and the link, which do not
know that a caller waits.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from atp.agent.dispatch import current_cause
from atp.agent.durable import DurableOutbox
from atp.agent.exchanges import Exchange, Exchanges
from atp.agent.failures import HandlerFailure
from atp.agent.inbox import Inbox
from atp.agent.link import Link
from atp.agent.mail_claim import MailClaim
from atp.agent.mail_room import MAIL_BYTES
from atp.agent.opener import Opener
from atp.agent.options import SendOptions
from atp.agent.receiving import Received, Verifier
from atp.agent.session import AgentSession, Answered, Arrived, Event, Expected
from atp.agent.signed import SignedMessages
from atp.agent.writing import Author, Writer
from atp.errors import ATPError, SessionClosed, from_code
from atp.transports.base import Login, Transport
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS
from atp.types import MessageType, TrustLevel
from atp.wire.frames import Cancelled, Gone, Notice, Receipt, Withheld

__all__ = ["Courier"]

logger = logging.getLogger(__name__)

OUTBOX_LIMIT: Final = 1024  # messages that may wait for receipts at once; more wait for room


class Courier:
    """The messages of one agent over one transport.

    `on_arrived` gets the messages for handlers, `on_notice` the notices, `on_cancelled` the
    requests whose senders no longer wait. None of them may block. `claim` is the client's claim to
    mail. `outbox` is the path of the file for messages without a receipt, or `None`.
    `mail_bytes` limits the mail that is taken and not done.
    """

    def __init__(
        self,
        author: Author,
        transport: Transport,
        verifier: Verifier,
        *,
        on_arrived: Callable[[Arrived], None],
        on_notice: Callable[[Notice], None],
        on_cancelled: Callable[[Cancelled], None],
        claim: MailClaim,
        outbox: Path | None = None,
        mail_bytes: int = MAIL_BYTES,
    ) -> None:
        self._author = author
        self._transport = transport
        self._on_arrived = on_arrived
        self._on_notice = on_notice
        self._on_cancelled = on_cancelled
        self._claim = claim
        self._exchanges = Exchanges()
        self._room = asyncio.Semaphore(OUTBOX_LIMIT)
        self.session = AgentSession(verifier, mail_bytes=mail_bytes)
        self._signed = SignedMessages()
        self._writer = Writer(author, transport, self._signed, current_cause=current_cause)
        self._outbox: DurableOutbox | None = None
        if outbox is not None:
            self._outbox = DurableOutbox(
                outbox,
                self.session,
                self._signed,
                agent=author.identity.id,
                hub_id=transport.hub_id,
                clock=lambda: transport.clock(),
                wake=self.wake,
            )
        self.link: Link | None = None
        self.ended: ATPError | None = None
        self.score: int | None = None
        self._over = asyncio.Event()

    @property
    def suspended(self) -> ATPError | None:
        """The error with which the hub refuses the agent for now, or `None`."""
        return self.link.suspended if self.link is not None else None

    @property
    def running(self) -> bool:
        """Whether it is connected, or connecting again by itself."""
        return self.link is not None and self.ended is None

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self.link is not None and self.link.connected

    @property
    def goes_on(self) -> bool:
        """Whether the connection, or the attempt to connect again, goes on."""
        return self.link is not None and self.link.goes_on

    @property
    def inbox(self) -> Inbox:
        """The mail of the agent."""
        return self.session.inbox

    def take_mail(self) -> Iterator[Arrived]:
        """Take the mail for which there is room now; yield that whose handlers may begin."""
        return self.session.take_mail()

    def wake(self) -> None:
        """Wake the writer, because there may be something to send."""
        if self.link is not None:
            self.link.wake()

    async def written(self) -> None:
        """Wait until what there is to tell the hub now is written."""
        if self.link is not None:
            await self.link.written()

    async def start(self) -> None:
        """Connect; raises the error if that fails."""
        if self._outbox is not None:
            await self._outbox.open()
        author = self._author
        level = author.trust_level or TrustLevel.UNVERIFIED
        link = Link(
            self._transport,
            Login(author.identity, level, author.key),
            self.session,
            claim=self._claim,
            on_event=self._on_event,
            on_suspended=self._exchanges.fail_all,
            on_end=self._on_end,
        )
        self.ended = None
        self._over.clear()
        try:
            self.score = (await link.start()).score
        except BaseException:
            if self._outbox is not None and not self._exchanges:  # no call needs the file any more
                await self._outbox.close()
            raise
        self.link = link

    def notice_done(self, notice: Notice) -> None:
        """Note that a notice is handled, and tell the hub."""
        self.session.notices.done(notice, now=self._transport.clock())
        self.wake()

    def claim_mail(self) -> None:
        """Claim the agent's mail, now and in each later login."""
        self._claim.made = True
        if self.link is not None:
            self.link.claim_mail()

    async def over(self) -> None:
        """Wait until `stop`; raises the error that ended the connection for good."""
        await self._over.wait()
        if self.ended is not None:
            raise from_code(self.ended.code, self.ended.detail)

    async def stop(self, timeout_seconds: float) -> None:
        """Wait for receipts and send the acks, then close; open exchanges fail."""
        if (link := self.link) is not None:
            await link.flush(timeout_seconds)
            await link.stop()
            self.link = None
            self.session.notices.drop()
            self._over.set()
        self._exchanges.fail_all(SessionClosed("the client was disconnected"))
        if self._outbox is not None:
            await self._outbox.close()

    async def request(self, target: str, data: Any, options: SendOptions) -> Received:
        """Send a request and wait for its answer; raises the error of a failed request."""
        message = self._writer.message(
            MessageType.REQUEST,
            target,
            data,
            options,
            lifetime_seconds=options.request_lifetime(),
            welcomed_level=_welcomed_level(self.link),
        )
        if message.answer is not None:
            return message.answer
        envelope = message.envelope
        expected = Expected(
            request_id=envelope.request_id or "",
            message_id=envelope.message_id,
            target=target,
            digest=envelope.digest,
            signed=self._author.key is not None,
        )
        with self._opened(envelope.message_id, options.timeout_seconds) as exchange:
            try:
                async with asyncio.timeout_at(exchange.deadline):
                    self.session.expect(expected)
                    await self._deliver(exchange, envelope.canonical)
                    return await exchange.answer
            except (TimeoutError, asyncio.CancelledError) as caught:
                problem = _stopped(self, exchange, caught)
                if options.message_id is None:  # otherwise the caller may send it again
                    self.session.cancel(expected)
                    self.wake()
                raise problem from None
            finally:
                self.session.give_up(expected)

    async def send(
        self,
        message_type: MessageType,
        target: str,
        data: Any,
        options: SendOptions,
        *,
        opener: Opener,
    ) -> Receipt:
        """Send a message that has no answer, and wait for its receipt.

        `opener` connects if needed. With an outbox, the message is stored before.
        """
        opener.check_for_send()
        outbox = self._outbox
        if outbox is None:
            options = await opener.open_for_send(options)
        else:
            await outbox.open()
        message = self._writer.message(
            message_type,
            target,
            data,
            options,
            lifetime_seconds=options.message_lifetime(),
            welcomed_level=_welcomed_level(self.link),
        )
        envelope, seconds = message.envelope, options.timeout_seconds
        if outbox is None:
            return await self._await_receipt(envelope.message_id, envelope.canonical, seconds)
        with self._opened(envelope.message_id, seconds, offline=True) as exchange:
            try:
                connect = partial(opener.open_for_send, options)
                return await outbox.deliver(envelope, exchange, connect=connect)
            except (ATPError, TimeoutError, asyncio.CancelledError) as caught:
                stopped = not isinstance(caught, ATPError)
                problem = _stopped(self, exchange, caught) if stopped else caught
                raise outbox.kept(problem, envelope.message_id) from None

    async def respond(
        self, request: Received, data: Any, options: SendOptions, *, seconds_left: float
    ) -> None:
        """Answer a request that expires in `seconds_left`, and wait for the receipt.

        `data` may be a `HandlerFailure`.
        """
        envelope = request.envelope
        if options.sensitivity is None and envelope.sensitivity is not None:
            options = options.with_sensitivity(envelope.sensitivity)
        if options.trace is None and request.trace is not None:
            options = replace(options, trace=request.trace)
        failure = data.members() if isinstance(data, HandlerFailure) else None
        document = self._writer.document(
            MessageType.RESPONSE,
            envelope.sender,
            None if failure else data,
            options,
            welcomed_level=_welcomed_level(self.link),
            request_id=envelope.request_id,
            payload=failure,
        )
        lifetime = min(MESSAGE_MAX_LIFE_SECONDS, math.ceil(seconds_left) + 1)
        signed = self._writer.sign(document, lifetime, options, req=envelope.digest)
        await self._await_receipt(signed.message_id, signed.canonical, seconds_left)

    async def _await_receipt(self, message_id: str, data: bytes, seconds: float) -> Receipt:
        with self._opened(message_id, seconds) as exchange:
            try:
                async with asyncio.timeout_at(exchange.deadline):
                    return await self._deliver(exchange, data)
            except (TimeoutError, asyncio.CancelledError) as caught:
                raise _stopped(self, exchange, caught) from None
            finally:
                self.session.forget(message_id)

    def _opened(
        self, message_id: str, seconds: float, *, offline: bool = False
    ) -> AbstractContextManager[Exchange]:
        out = self.ended or self.suspended
        if out is not None:
            raise from_code(out.code, out.detail)
        if self.link is None and not offline:
            raise SessionClosed("the client was disconnected")
        deadline = asyncio.get_running_loop().time() + seconds
        return self._exchanges.opened(message_id, deadline=deadline)

    async def _deliver(self, exchange: Exchange, data: bytes) -> Receipt:
        async with self._room:
            self.session.submit(exchange.message_id, data)
            exchange.submitted = True
            self.wake()
            return await exchange.receipt

    def _on_event(self, event: Event) -> None:
        match event:
            case Answered():
                self._signed.note_answer(event.received)
                self._exchanges.answered(event)
            case Arrived():
                self._signed.note_answer(event.received)
                self._on_arrived(event)
            case Cancelled():
                self._on_cancelled(event)
            case Receipt():
                self._on_receipt(event)
            case Notice():
                self._exchanges.notice(event)
                if event.stream is not None or event.status != "refused":
                    self._on_notice(event)  # the other one is for the caller only
            case Gone() | Withheld():
                logger.info("%s: mail that will not come: %s", self._author.identity.id, event)

    def _on_receipt(self, receipt: Receipt) -> None:
        if receipt.trust_score is not None:
            self.score = receipt.trust_score
        if not receipt.message_id:
            logger.warning("the hub could not read a frame of ours: %s", receipt.detail)
        if self._outbox is not None:
            awaited = self._exchanges.waits_for(receipt.message_id)
            self._outbox.note_receipt(receipt, awaited=awaited)
        ticks = asyncio.get_running_loop().time()
        self._exchanges.receipt(receipt, ticks=ticks, now=self._transport.clock())

    def _on_end(self, problem: ATPError) -> None:
        logger.error("%s: disconnected for good: %s", self._author.identity.id, problem)
        self.ended = problem
        self._over.set()
        self._exchanges.fail_all(problem)


def _welcomed_level(link: Link | None) -> TrustLevel | None:
    welcome = link.welcome if link else None
    return TrustLevel(welcome.level) if welcome and welcome.level else None


def _stopped(courier: Courier, exchange: Exchange, caught: BaseException) -> BaseException:
    """Return what to raise if a caller stops waiting; see `Exchange.stopped`."""
    sent = courier.session.may_arrive(exchange.message_id)
    return exchange.stopped(caught, connected=courier.connected, sent=sent)
