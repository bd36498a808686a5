"""`ATPClient`: an agent, over any transport.

Example::

    async with ATPClient.from_identity_file("analyst/identity.json") as client:
        response = await client.send_request("data-processor", {"task": "process-data"})
        print(response.data, response.trust_score)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from atp.agent.courier import Author, Courier
from atp.agent.dispatch import Handler, HandlerDispatcher, raise_handler_error
from atp.agent.handlers import HANDLERS_RUNNING, HandlerPool, handler_slot_freed
from atp.agent.identity_file import read_identity_file
from atp.agent.options import SendOptions, parse_options
from atp.agent.receiving import KeyFinder, Received, Verifier, trusted_keys
from atp.agent.session import Arrived
from atp.envelope_shell import ATPEnvelope
from atp.errors import KeyMissing, KeyUnacceptable, TrustLevelTooLow, from_code
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
from atp.wire.frames import Notice, Receipt

__all__ = ["ATPClient"]

logger = logging.getLogger(__name__)

DISCONNECT_SECONDS: Final = 5.0  # for handlers to finish, receipts to come and acks to go

NoticeHandler = Callable[[Notice], Any]


class ATPClient:
    """An agent that sends, answers and handles messages.

    `private_key` is a `PrivateKey`, a PEM, or, over the in-memory transport only, a plain string
    or nothing. `trust_level` is what the agent claims; `None` claims what the hub welcomes it as.
    Without `transport`, all clients of the process talk over `InMemoryTransport.get_instance()`.
    `trusted_keys` are public keys of other agents: what those send is verified here as well,
    while of all others the hub's check is relied on. At most `max_handlers` handlers run at once.

    A message that is sent while not connected connects first. A client belongs to the event loop
    that it connects in. Raises `IdentityInvalidId`,
    `KeyMissing`, `KeyUnacceptable` or `MalformedKey` for what can't work.
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
    ) -> None:
        check_agent_id(identity.id)
        self.identity = identity
        self.trust_level = None if trust_level is None else TrustLevel(trust_level)
        self.transport = transport or InMemoryTransport.get_instance()
        self._key = _usable_key(private_key, self.transport)
        self._verifier = Verifier(
            identity.id,
            self.transport.hub_id,
            _key_finder(trusted_keys or {}, self.transport),
            allow_unsigned=self.transport.demo,
        )
        self._author = Author(identity, self.trust_level, self._key, policy_context)
        self._notice_handler: NoticeHandler | None = None
        self._taking = False
        self._connecting = asyncio.Lock()
        self._courier = Courier(
            self._author,
            self.transport,
            self._verifier,
            on_arrived=self._on_arrived,
            on_notice=self._on_notice,
        )
        self._pool = HandlerPool(running=max_handlers)
        self._dispatcher = HandlerDispatcher(identity.id, self._pool, send_response=self._respond)

    @classmethod
    def from_identity_file(
        cls, path: str | Path, *, trust_level: TrustLevel | str | None = None, **options: Any
    ) -> Self:
        """The agent that `atp enroll` wrote a file for, over a WebSocket to its hub.

        `options` are those of the constructor. Raises `MalformedDocument`, `KeyMissing` or
        `KeyUnknown` for files that don't fit.
        """
        file = read_identity_file(path)
        options.setdefault(
            "transport",
            WebSocketTransport(file.ws_url, hub_id=file.hub_id, hub_key=file.hub_key),
        )
        identity = IAgentIdentity(id=file.agent, public_key=file.key.kid)
        return cls(identity, trust_level, file.key, **options)

    async def connect(self) -> None:
        """Connect and log in; from then on lost connections are renewed by themselves.

        Raises `SessionTransport` when the hub is silent, or what the hub refused the login with.
        """
        async with self._connecting:  # a second login at once would end the first one
            if self._courier.suspended is not None:
                raise from_code(self._courier.suspended.code, self._courier.suspended.detail)
            if self._courier.running:
                return
            self._set_taking(taking=True)
            await self._courier.start()

    async def serve(self) -> None:
        """Handle messages until `disconnect`, connecting first if needed.

        Raises what ended the connection for good, such as `SessionRevoked`; while officers have the
        agent suspended it goes on waiting.
        """
        await self._connect_if_needed()
        await self._courier.over()

    async def disconnect(self, *, timeout_seconds: float = DISCONNECT_SECONDS) -> None:
        """Let handlers finish, receipts come and acks go, all within the time given; then close.

        Sending or `connect` opens it again. Mail that no handler has begun by then is not handled
        by this client any more.
        """
        self._set_taking(taking=False)
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        await self._pool.drain(timeout_seconds)
        await self._courier.stop(max(0.0, deadline - asyncio.get_running_loop().time()))
        await self._pool.close()
        dropped = self._courier.session.abandon_mail()
        if dropped:
            logger.warning("%s: %d messages were not handled", self.identity.id, dropped)

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
        """Ask another agent and wait for its answer.

        `options` are those of `SendOptions`: `timeout` in milliseconds, `requires_trust`,
        `required_capabilities`, `sensitivity`, ... The answer's `trust_score` is its sender's.
        Raises the `ATPError` that tells what came instead: `PolicyDenied` and others when it was
        refused, `HandlerFailed`, `FlowTimeout`, `IdentityNotActive` while officers have this agent
        suspended, or the error that ended the connection.
        """
        checked, target = parse_options(options), check_agent_id(target_agent)
        await self._connect_if_needed()
        async with handler_slot_freed():
            received = await self._courier.request(target, payload, checked)
        return self._response(received, checked)

    async def send_notification(
        self, target_agent: str, payload: Any, options: Mapping[str, Any] | None = None
    ) -> Receipt:
        """Tell another agent something; returns the hub's receipt, or raises why it refused.

        The receipt says that the message will be delivered, now or when the agent connects, until
        it expires; or, with status "quarantined" or "escalated", that officers decide first.
        """
        checked, target = parse_options(options), check_agent_id(target_agent)
        await self._connect_if_needed()
        return await self._courier.send(MessageType.NOTIFICATION, target, payload, checked)

    async def broadcast(self, payload: Any, options: Mapping[str, Any] | None = None) -> Receipt:
        """Tell all connected agents that may hear it; the receipt has the number of them.

        Raises the `ATPError` that tells why the hub refused it, as `send_notification` does.
        """
        checked = parse_options(options)
        await self._connect_if_needed()
        return await self._courier.send(MessageType.BROADCAST, BROADCAST_TARGET, payload, checked)

    def on_message(self, message_type: MessageType | str, handler: Handler) -> None:
        """Handle messages of a type with `handler`, in place of the handler before.

        A handler of requests gets (envelope, respond) and answers by `await respond(data)`; any
        other gets (envelope). Both may be plain functions, which run in a thread. What a handler
        of "response" gets are answers that came after their request had been given up. Raises
        `MalformedDocument` for what is no message type or can't be called.
        """
        self._dispatcher.register(message_type, handler)

    def on_notice(self, handler: NoticeHandler) -> None:
        """Call `handler(notice)`, which must not block, for later news on messages.

        Those of one's own that were sent with the option `notify`, and recalls of received ones.
        The hub of this version sends none yet (docs/protocol.md, "Frames").
        """
        self._notice_handler = handler

    def get_trust_status(self) -> dict[str, Any]:
        """How this agent stands: what the hub said of it, and what is under way.

        `level` is claimed and `score` is `None` until the hub has welcomed it; `pending` is what
        waited in its inbox then; `suspended` is whether officers keep it out for now; `ended` is
        the code of what ended the connection for good.
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
            "hub": self.transport.hub_id,
            "transport": str(self.transport.type),
            "pending": welcome.pending if welcome is not None else 0,
            "open_requests": courier.session.open_requests,
            "unreceipted": courier.session.unreceipted,
            "handlers": self._pool.alive,
            "suspended": courier.suspended is not None,
            "ended": courier.ended.code if courier.ended is not None else None,
        }

    async def _connect_if_needed(self) -> None:
        """Connect for a message that is sent while not connected; not after a final end."""
        if not self._courier.running and self._courier.ended is None:
            await self.connect()

    def _set_taking(self, *, taking: bool) -> None:
        self._taking = taking
        self._courier.session.set_taking(taking=taking)

    def _on_arrived(self, arrived: Arrived) -> None:
        if not self._taking:
            return  # without an ack it stays with the hub

        def begin() -> None:
            courier = self._courier
            if arrived.held and courier.session.handler_begins() and courier.link is not None:
                courier.link.wake()

        shell = self._shell(arrived.received)
        self._dispatcher.dispatch(arrived.received, shell, begin=begin)

    def _on_notice(self, notice: Notice) -> None:
        if self._notice_handler is None:
            return
        try:
            self._notice_handler(notice)
        except Exception:  # it is the caller's code, and the next frame must still be read
            logger.exception("%s: the notice handler failed", self.identity.id)

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
        delivery, data = received.delivery, received.envelope.data
        demanded = options.requires_trust
        if demanded is not None and delivery.level and TrustLevel(delivery.level) < demanded:
            raise TrustLevelTooLow(f"the answer is by an agent that is not {demanded}")
        raise_handler_error(data)
        error = data.get("error") if isinstance(data, dict) else None
        return IATPResponse(
            success=error is None,
            trust_score=delivery.score or 0,
            data=data,
            error=None if error is None else str(error),
            envelope=self._shell(received),
        )

    def _shell(self, received: Received) -> ATPEnvelope:
        return ATPEnvelope.from_received(
            received,
            agent=self.identity.id,
            key=self._key,
            sender_keys=tuple(self._verifier.find_keys(received.envelope.sender)),
            clock=self.transport.clock,
        )


def _usable_key(
    private_key: PrivateKey | str | bytes | None, transport: Transport
) -> PrivateKey | None:
    key = read_key(private_key)
    if transport.demo:
        return key
    if key is None:
        raise KeyMissing("on a network everything is signed; make a key with `atp keygen`")
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
