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
from dataclasses import dataclass
from typing import Any, Final

from atp.agent.dispatch import current_cause
from atp.agent.exchanges import Exchange, Exchanges
from atp.agent.failures import HandlerFailure
from atp.agent.inbox import Inbox
from atp.agent.link import Link
from atp.agent.options import SendOptions
from atp.agent.receiving import Received, Verifier
from atp.agent.session import AgentSession, Answered, Arrived, Event, Expected
from atp.errors import ATPError, SessionClosed, from_code
from atp.transports.base import Login, Transport
from atp.trust.envelope import envelope_from_value, new_document, parse_envelope, sign_envelope
from atp.trust.keys import PrivateKey
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS
from atp.types import IAgentIdentity, IPolicyContext, MessageType, TrustLevel
from atp.wire.frames import Gone, Notice, Receipt, Withheld
from atp.wire.timestamps import format_timestamp

__all__ = ["Author", "Courier"]

logger = logging.getLogger(__name__)

OUTBOX_LIMIT: Final = 1024  # messages that may wait for receipts at once; more wait for room


@dataclass(slots=True)
class Author:
    """The author of messages. Without `trust_level`, they claim the level of the hub's welcome."""

    identity: IAgentIdentity
    trust_level: TrustLevel | None
    key: PrivateKey | None
    policy_context: IPolicyContext | None = None


class Courier:
    """The messages of one agent over one transport.

    `on_arrived` gets the messages for handlers, `on_notice` the notices. Neither may block.
    """

    def __init__(
        self,
        author: Author,
        transport: Transport,
        verifier: Verifier,
        *,
        on_arrived: Callable[[Arrived], None],
        on_notice: Callable[[Notice], None],
    ) -> None:
        self._author = author
        self._transport = transport
        self._on_arrived = on_arrived
        self._on_notice = on_notice
        self._exchanges = Exchanges()
        self._room = asyncio.Semaphore(OUTBOX_LIMIT)
        self.session = AgentSession(verifier)
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
        author = self._author
        level = author.trust_level or TrustLevel.UNVERIFIED
        link = Link(
            self._transport,
            Login(author.identity, level, author.key),
            self.session,
            on_event=self._on_event,
            on_suspended=self._exchanges.fail_all,
            on_end=self._on_end,
        )
        self.ended = None
        self._over.clear()
        self.score = (await link.start()).score
        self.link = link

    async def over(self) -> None:
        """Wait until `stop`; raises the error that ended the connection for good."""
        await self._over.wait()
        if self.ended is not None:
            raise from_code(self.ended.code, self.ended.detail)

    async def stop(self, timeout_seconds: float) -> None:
        """Wait for receipts and send the acks, then close; open exchanges fail."""
        if self.link is None:
            return
        await self.link.flush(timeout_seconds)
        await self.link.stop()
        self.link = None
        self._over.set()
        self._exchanges.fail_all(SessionClosed("the client was disconnected"))

    async def request(self, target: str, data: Any, options: SendOptions) -> Received:
        """Send a request and wait for its answer; raises the error of a failed request."""
        document = self._document(MessageType.REQUEST, target, data, options)
        envelope = parse_envelope(self._sign(document, options.request_lifetime()))
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
            except TimeoutError:
                raise exchange.timeout(connected=self.connected) from None
            finally:
                self.session.give_up(expected)

    async def send(
        self, message_type: MessageType, target: str, data: Any, options: SendOptions
    ) -> Receipt:
        """Send a message that has no answer, and wait for its receipt."""
        document = self._document(message_type, target, data, options)
        signed = self._sign(document, options.message_lifetime())
        return await self._await_receipt(document["messageId"], signed, options.timeout_seconds)

    async def respond(
        self, request: Received, data: Any, options: SendOptions, *, seconds_left: float
    ) -> None:
        """Answer a request that expires in `seconds_left`, and wait for the receipt.

        `data` may be a `HandlerFailure`.
        """
        envelope = request.envelope
        data = data.data() if isinstance(data, HandlerFailure) else data
        if options.sensitivity is None and envelope.sensitivity is not None:
            options = options.with_sensitivity(envelope.sensitivity)
        document = self._document(
            MessageType.RESPONSE, envelope.sender, data, options, request_id=envelope.request_id
        )
        lifetime = min(MESSAGE_MAX_LIFE_SECONDS, math.ceil(seconds_left) + 1)
        signed = self._sign(document, lifetime, req=envelope.digest)
        await self._await_receipt(document["messageId"], signed, seconds_left)

    async def _await_receipt(self, message_id: str, data: bytes, seconds: float) -> Receipt:
        with self._opened(message_id, seconds) as exchange:
            try:
                async with asyncio.timeout_at(exchange.deadline):
                    return await self._deliver(exchange, data)
            except TimeoutError:
                raise exchange.timeout(connected=self.connected) from None
            finally:
                self.session.forget(message_id)

    def _opened(self, message_id: str, seconds: float) -> AbstractContextManager[Exchange]:
        out = self.ended or self.suspended
        if out is not None:
            raise from_code(out.code, out.detail)
        if self.link is None:
            raise SessionClosed("the client was disconnected")
        deadline = asyncio.get_running_loop().time() + seconds
        return self._exchanges.opened(message_id, deadline=deadline)

    async def _deliver(self, exchange: Exchange, data: bytes) -> Receipt:
        async with self._room:
            self.session.submit(exchange.message_id, data)
            exchange.submitted = True
            self.wake()
            return await exchange.receipt

    def _document(
        self,
        message_type: MessageType,
        target: str,
        data: Any,
        options: SendOptions,
        *,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        author = self._author
        return new_document(
            identity=author.identity,
            message_type=message_type,
            target=target,
            data=data,
            request_id=request_id,
            required_capabilities=options.required_capabilities,
            requires_trust=options.requires_trust,
            trust_level=author.trust_level or self._welcomed_level(),
            policy_context=options.policy_context(author.policy_context),
            provenance=options.provenance,
            notify=options.notify,
        )

    def _welcomed_level(self) -> TrustLevel | None:
        welcome = self.link.welcome if self.link else None
        return TrustLevel(welcome.level) if welcome and welcome.level else None

    def _sign(
        self, document: dict[str, Any], lifetime_seconds: int, *, req: str | None = None
    ) -> bytes:
        now, author = self._transport.clock(), self._author
        if author.key is None:  # in memory only; the client checks that
            stamped = {**document, "timestamp": format_timestamp(now)}
            return envelope_from_value({"ATP": stamped}).canonical
        return sign_envelope(
            document,
            author.key,
            hub_id=self._transport.hub_id,
            now=now,
            lifetime_seconds=lifetime_seconds,
            req=req,
            cause=current_cause(author.identity.id),
        )

    def _on_event(self, event: Event) -> None:
        match event:
            case Answered():
                self._exchanges.answered(event)
            case Arrived():
                self._on_arrived(event)
            case Receipt():
                self._on_receipt(event)
            case Notice():
                self._exchanges.notice(event)
                self._on_notice(event)
            case Gone() | Withheld():
                logger.info("%s: mail that will not come: %s", self._author.identity.id, event)

    def _on_receipt(self, receipt: Receipt) -> None:
        if receipt.trust_score is not None:
            self.score = receipt.trust_score
        if not receipt.message_id:
            logger.warning("the hub could not read a frame of ours: %s", receipt.detail)
        self._exchanges.receipt(receipt, ticks=asyncio.get_running_loop().time())

    def _on_end(self, problem: ATPError) -> None:
        logger.error("%s: disconnected for good: %s", self._author.identity.id, problem)
        self.ended = problem
        self._over.set()
        self._exchanges.fail_all(problem)
