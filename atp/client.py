"""`ATPClient`: an agent that sends and handles messages over any transport.

Example::

    async with ATPClient.from_identity_file("analyst/identity.json") as client:
        response = await client.send_request("data-processor", {"task": "process-data"})
        print(response.data, response.trust_score)
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from atp.agent.attempts import RETRY_SECONDS
from atp.agent.courier import Courier
from atp.agent.dispatch import HandlerDispatcher
from atp.agent.failures import raise_failure
from atp.agent.handler_table import Handler
from atp.agent.handlers import HANDLERS_RUNNING, HandlerPool, handler_slot_freed
from atp.agent.identity_file import read_identity_file
from atp.agent.mail_claim import MailClaim
from atp.agent.mail_room import MAIL_BYTES
from atp.agent.notices import NoticeDesk, NoticeHandler
from atp.agent.opener import Opener
from atp.agent.options import SendOptions, parse_options
from atp.agent.receiving import KeyFinder, Received, Verifier, trusted_keys
from atp.agent.session import Arrived
from atp.agent.signals import ending_signals
from atp.agent.writing import Author
from atp.envelope_shell import ATPEnvelope
from atp.errors import (
    KeyMissing,
    KeyUnacceptable,
    MalformedDocument,
    TrustLevelTooLow,
    excerpt,
)
from atp.memory.keys import DIRECTORY, DemoKey, read_key
from atp.memory.transport import InMemoryTransport
from atp.transports.base import Transport
from atp.transports.websocket import WebSocketTransport
from atp.trust.keys import PrivateKey, PublicKey
from atp.types import (
    BROADCAST_TARGET,
    IAgentIdentity,
    IATPResponse,
    IPolicyContext,
    MessageType,
    TrustLevel,
    check_agent_id,
)
from atp.wire.frames import Receipt

__all__ = ["ATPClient"]

logger = logging.getLogger(__name__)

DISCONNECT_SECONDS: Final = 5.0  # for handlers to finish, and for receipts and acks
DRAIN_SECONDS: Final = 8.0  # the same after a signal; `docker stop` kills after 10 s
LAST_ACKS_SECONDS: Final = 0.5  # for receipts and acks, where the handlers took all the time


class ATPClient:
    """An agent that sends, answers and handles messages.

    `private_key` is a `PrivateKey` or a PEM; over the in-memory transport it may also be a plain
    string or `None`. `trust_level` is the level that messages claim; `None` claims the level of the
    hub's welcome. Without `transport`, all clients of the process use
    `InMemoryTransport.get_instance()`. `trusted_keys` are public keys of other agents: their
    signatures are verified here too, while for all other agents the client relies on the hub's
    check. At most `max_handlers` handlers run at once, and the client takes at most
    `max_mail_bytes` of mail that is not done; a larger message is taken alone. `retry_seconds` is
    the pause before a failed message is handled for the second time; each later pause is three
    times as long. `outbox` is the path of a file that keeps notifications and broadcasts without a
    receipt over a crash of this process, in clear; one client at a time can use it
    (docs/sdk.md#the-outbox-on-disk).

    One process of an agent takes its mail: that whose client has handlers. A client without a
    handler only sends, and hears the answers to its requests, beside a running process of the same
    agent. With `send_only`, it never takes mail: `on_message` raises `SessionSendOnly`.

    A send method connects first if the client was never connected. A client belongs to the event
    loop that uses it first. Raises `IdentityInvalidId` for a wrong id, `MalformedDocument` for an
    unknown level, and `KeyMissing`, `KeyUnacceptable` or `MalformedKey` for a key that can't be
    used.
    """

    def __init__(
        self,
        identity: IAgentIdentity,
        trust_level: TrustLevel | str | None,
        private_key: PrivateKey | str | bytes | None = None,
        *,
        transport: Transport | None = None,
        trusted_keys: Mapping[str, PublicKey | Sequence[PublicKey]] | None = None,
        policy_context: IPolicyContext | None = None,
        max_handlers: int = HANDLERS_RUNNING,
        max_mail_bytes: int = MAIL_BYTES,
        retry_seconds: float = RETRY_SECONDS,
        outbox: str | Path | None = None,
        send_only: bool = False,
    ) -> None:
        check_agent_id(identity.id)
        self.identity = identity
        self.trust_level = _level(trust_level)
        self.transport = transport or InMemoryTransport.get_instance()
        self._key = _usable_key(private_key, self.transport)
        self._verifier = Verifier(
            identity.id,
            self.transport.hub_id,
            _key_finder(trusted_keys or {}, self.transport),
            allow_unsigned=self.transport.demo,
        )
        self._author = Author(identity, self.trust_level, self._key, policy_context)
        self._notices = NoticeDesk(
            identity.id, done=lambda notice: self._courier.notice_done(notice)
        )
        self._claim = MailClaim(send_only=send_only)
        self._courier = Courier(
            self._author,
            self.transport,
            self._verifier,
            on_arrived=self._on_arrived,
            on_notice=self._notices.arrive,
            on_cancelled=lambda told: self._dispatcher.cancel(told.sender, told.message_id),
            claim=self._claim,
            outbox=None if outbox is None else Path(outbox),
            mail_bytes=_limit(max_mail_bytes),
        )
        self._pool = HandlerPool(running=max_handlers)
        self._dispatcher = HandlerDispatcher(
            identity.id,
            self._pool,
            self._courier,
            shell=self._shell,
            send_response=self._respond,
            clock=lambda: self.transport.clock(),
            retry_seconds=retry_seconds,
        )
        self._closing: set[asyncio.Task[None]] = set()
        self._closing_lock = asyncio.Lock()
        self._opener = Opener(self._courier, agent=identity.id, on_open=self._dispatcher.open)

    @classmethod
    def from_identity_file(
        cls, path: str | Path, *, trust_level: TrustLevel | str | None = None, **options: Any
    ) -> Self:
        """Return a client for the identity file of `atp enroll`, over a WebSocket to its hub.

        `options` are those of the constructor. Raises `MalformedDocument` or `KeyMissing` if a file
        can't be read, and `KeyUnknown` if the key is not the enrolled one.
        """
        file = read_identity_file(path)
        options.setdefault(
            "transport",
            WebSocketTransport(file.ws_url, hub_id=file.hub_id, hub_key=file.hub_key),
        )
        identity = IAgentIdentity(id=file.agent, public_key=file.key.kid)
        return cls(identity, trust_level, file.key, **options)

    async def connect(self, *, wait: float = 0.0) -> None:
        """Connect and log in. After that, the client replaces lost connections by itself.

        While the hub is away, try again for `wait` seconds in all; 0 tries once. Raises
        `SessionTransport` if the hub can't be reached, the error of the hub's refusal,
        `SessionLoop` in another event loop than the one that used the client first, or
        `SessionForked` in a child process of the one that made the client.
        """
        await self._opener.open(wait_seconds=wait)

    async def serve(self, *, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Handle messages until `disconnect`, SIGTERM or SIGINT; connect first if needed.

        The first signal disconnects with `drain_seconds` as its timeout, and `serve` returns. A
        signal that the application or its framework handles is left to it. Raises the error that
        ended the connection for good, such as `SessionRevoked`. While the agent is suspended, it
        goes on waiting.
        """
        await self._opener.open_unless_closed()
        over = asyncio.ensure_future(self._courier.over())
        drained: list[asyncio.Task[None]] = []

        def drain(number: signal.Signals) -> None:
            logger.info("%s: %s: no more mail is taken", self.identity.id, number.name)
            disconnecting = self.disconnect(timeout_seconds=drain_seconds)
            drained.append(asyncio.ensure_future(disconnecting))

        try:
            with ending_signals(drain):
                await over
            await asyncio.gather(*drained)
        finally:
            over.cancel()

    async def disconnect(self, *, timeout_seconds: float = DISCONNECT_SECONDS) -> None:
        """Take no more mail, wait for handlers, receipts and acks, and close.

        After `timeout_seconds`, handlers that still run are cancelled, and half a second more is
        given to receipts and acks. Mail that is not handled goes back to the hub, which delivers it
        again. A warning in the log names the mail whose handlers were cancelled. Only `connect`
        opens the client again.

        In a handler, it returns at once: the client disconnects when the handler has ended, so its
        message is done, unless that takes longer than `timeout_seconds`.
        """
        self._opener.close()
        self._dispatcher.pause()
        closing = self._close(timeout_seconds)
        if not self._pool.runs_caller():
            await closing
            return
        task = asyncio.create_task(closing, name="atp-disconnect")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, timeout_seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        await self._pool.drain(timeout_seconds)
        async with self._closing_lock:
            left = deadline - asyncio.get_running_loop().time()
            await self._courier.stop(max(LAST_ACKS_SECONDS, left))
            await self._notices.close()
            self._opener.close()  # also if `connect` was called meanwhile
            await self._dispatcher.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.disconnect()

    async def send_request(
        self, target_agent: str, payload: Any, options: Mapping[str, Any] | None = None
    ) -> IATPResponse:
        """Send a request to another agent and wait for its answer.

        `options` are those of `SendOptions`: `timeout` in milliseconds, `requires_trust`,
        `required_capabilities`, `sensitivity`, ... The answer's `trust_score` is the score of the
        agent that answered. Raises `FlowTimeout` if no answer came in time, `HandlerFailed` if the
        other side's handler failed, `IdentityNotActive` while this agent is suspended, the error of
        the hub's refusal, such as `PolicyDenied`, or the error that ended the connection.
        """
        checked, target = parse_options(options), check_agent_id(target_agent)
        checked = await self._opener.open_for_send(checked)
        async with handler_slot_freed():
            received = await self._courier.request(target, payload, checked)
        return self._response(received, checked)

    async def send_notification(
        self, target_agent: str, payload: Any, options: Mapping[str, Any] | None = None
    ) -> Receipt:
        """Send a notification to another agent; return the hub's receipt.

        With status "accepted", the hub has stored the message, and delivers it when the agent is
        connected and before the message expires. With status "quarantined" or "escalated", officers
        decide first. Raises the error of the hub's refusal, or `FlowTimeout` without a receipt.

        With an outbox, the error says if the message is kept there and will be sent. Raises an
        `OutboxError` if it can't be stored; then it was not sent.
        """
        checked, target = parse_options(options), check_agent_id(target_agent)
        kind, opener = MessageType.NOTIFICATION, self._opener
        return await self._courier.send(kind, target, payload, checked, opener=opener)

    async def broadcast(self, payload: Any, options: Mapping[str, Any] | None = None) -> Receipt:
        """Send a broadcast to all connected agents that may receive it; return the hub's receipt.

        Its `recipients` is the number of these agents. Raises as `send_notification`.
        """
        checked, opener = parse_options(options), self._opener
        kind = MessageType.BROADCAST
        return await self._courier.send(kind, BROADCAST_TARGET, payload, checked, opener=opener)

    def on_message(
        self,
        message_type: MessageType | str,
        handler: Handler,
        *,
        ordered: str | None = None,
        max_running: int | None = None,
    ) -> None:
        """Handle messages of a type with `handler`; it replaces an earlier one.

        A handler of requests gets (envelope, respond) or only (envelope). It answers with `await
        respond(data)`, or returns its answer; in a plain function `respond(data)` is enough. Any
        other handler gets (envelope). A plain function runs in a thread. A handler of "response"
        gets answers that arrived after their caller had stopped waiting, and those to requests of
        the agent's other processes.

        A handler may raise `Retry` or `Reject`. With `ordered="sender"`, the messages of one sender
        are handled one at a time, in order; without it, no order is promised. `max_running` limits
        how many handlers of this type there are at once. The first handler of another type than
        "response" claims the agent's mail: a process that takes it ends with `SessionSuperseded`.
        Raises `SessionSendOnly` if the client only sends, and `MalformedDocument` for an unknown
        type or option, or if `handler` can't be called or is a generator.
        """
        takes_mail = message_type != MessageType.RESPONSE
        if takes_mail:
            self._claim.check()
        self._dispatcher.register(message_type, handler, ordered=ordered, max_running=max_running)
        if takes_mail:
            self._courier.claim_mail()

    def on_notice(self, handler: NoticeHandler) -> None:
        """Call `handler(notice)` for each notice: a plain function that must not block, or async.

        A notice tells what became of a message that this agent sent with the option `notify`: it
        was refused, expired, withheld or redelivered (docs/protocol.md#notices). It is done when
        the handler has ended, also with an error, which is logged. Until then the hub keeps it, and
        repeats it at the next login. It can come twice, after a crash. What came in the ten seconds
        before, the latest 1,024, is handled now; after that, a notice without a handler is logged
        and done.
        """
        self._notices.register(handler)

    def get_trust_status(self) -> dict[str, Any]:
        """Return the state of this agent as a dict.

        Before the first login, `level` is the claimed one and `score` is `None`. `pending` is the
        number of deliveries that waited in the inbox at login. `suspended` is whether the hub
        refuses the agent for now. `ended` is the code of the error that ended the connection for
        good, or `None`.
        """
        courier = self._courier
        welcome = courier.link.welcome if courier.link is not None else None
        claimed = None if self.trust_level is None else str(self.trust_level)
        return {
            "agent": self.identity.id,
            "connected": courier.connected,
            "level": welcome.level if welcome is not None else claimed,
            "score": courier.score,
            "session": welcome.session if welcome is not None else None,
            "send_only": welcome is not None and welcome.send_only,
            "hub": self.transport.hub_id,
            "transport": str(self.transport.type),
            "pending": welcome.pending if welcome is not None else 0,
            "open_requests": courier.session.open_requests,
            "unreceipted": courier.session.unreceipted,
            "handlers": self._pool.alive,
            "suspended": courier.suspended is not None,
            "ended": courier.ended.code if courier.ended is not None else None,
        }

    def _on_arrived(self, arrived: Arrived) -> None:
        self._dispatcher.dispatch(arrived)

    async def _respond(
        self,
        request: Received,
        data: Any,
        *,
        options: Mapping[str, Any] | None,
        seconds_left: float,
    ) -> None:
        checked = parse_options(options)
        await self._courier.respond(request, data, checked, seconds_left=seconds_left)

    def _response(self, received: Received, options: SendOptions) -> IATPResponse:
        delivery = received.delivery
        demanded = options.requires_trust
        if demanded is not None and delivery.level and TrustLevel(delivery.level) < demanded:
            raise TrustLevelTooLow(f"the level of the agent that answered is below {demanded}")
        raise_failure(received.envelope)
        return IATPResponse(
            success=True,  # what is no success is raised
            trust_score=delivery.score or 0,
            data=received.envelope.data,
            envelope=self._shell(received),
        )

    def _shell(self, received: Received, attempt: int = 1) -> ATPEnvelope:
        return ATPEnvelope.from_received(
            received,
            attempt=attempt,
            agent=self.identity.id,
            key=self._key,
            sender_keys=tuple(self._verifier.find_keys(received.envelope.sender)),
            clock=self.transport.clock,
        )


def _level(given: TrustLevel | str | None) -> TrustLevel | None:
    try:
        return None if given is None else TrustLevel(given)
    except ValueError as exc:
        raise MalformedDocument(
            f"{excerpt(given)} is not a trust level; use one of: {', '.join(TrustLevel)}"
        ) from exc


def _limit(given: int) -> int:
    if type(given) is not int or given < 1:
        raise MalformedDocument("max_mail_bytes must be a whole number above 0")
    return given


def _usable_key(
    private_key: PrivateKey | str | bytes | None, transport: Transport
) -> PrivateKey | None:
    key = read_key(private_key)
    if transport.demo:
        return key
    if key is None:
        raise KeyMissing("on a network every message is signed; make a key with `atp keygen`")
    if isinstance(key, DemoKey):
        raise KeyUnacceptable(
            "a string key is for the in-memory transport only; make a key pair with `atp keygen`"
            " and enrol it with `atp enroll`"
        )
    return key


def _key_finder(
    trusted: Mapping[str, PublicKey | Sequence[PublicKey]], transport: Transport
) -> KeyFinder:
    find_trusted = trusted_keys(trusted)
    if not transport.demo:
        return find_trusted

    def find(agent: str) -> Sequence[PublicKey]:
        known = DIRECTORY.find(agent)
        return find_trusted(agent) or (() if known is None else (known,))

    return find
