"""Writing and signing the messages of an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from atp.agent.options import SendOptions
from atp.agent.signed import SignedMessage, SignedMessages
from atp.agent.tracing import current_trace
from atp.transports.base import Transport
from atp.trust.envelope import Envelope, envelope_from_value, new_document, signed_envelope
from atp.trust.keys import PrivateKey
from atp.types import IAgentIdentity, IPolicyContext, MessageType, TrustLevel
from atp.wire.timestamps import format_timestamp

__all__ = ["Author", "Writer"]


@dataclass(slots=True)
class Author:
    """The author of messages. Without `trust_level`, they claim the level of the hub's welcome."""

    identity: IAgentIdentity
    trust_level: TrustLevel | None
    key: PrivateKey | None
    policy_context: IPolicyContext | None = None


class Writer:
    """Writes and signs the messages of `author` for the hub of `transport`.

    `signed` keeps those whose ids their callers chose.

    `current_cause` gives the digest of the envelope that an agent handles at this time, or `None`.
    """

    def __init__(
        self,
        author: Author,
        transport: Transport,
        signed: SignedMessages,
        *,
        current_cause: Callable[[str], str | None],
    ) -> None:
        self._author = author
        self._transport = transport
        self._signed = signed
        self._current_cause = current_cause

    def message(
        self,
        message_type: MessageType,
        target: str,
        data: Any,
        options: SendOptions,
        *,
        lifetime_seconds: int,
        welcomed_level: TrustLevel | None,
    ) -> SignedMessage:
        """Write and sign a message; with an id that the caller chose, it may be a kept one."""
        document = self.document(message_type, target, data, options, welcomed_level=welcomed_level)
        return self._signed.message(
            self.sign(document, lifetime_seconds, options),
            chosen_id=options.message_id is not None,
            now=self._transport.clock(),
        )

    def document(
        self,
        message_type: MessageType,
        target: str,
        data: Any,
        options: SendOptions,
        *,
        welcomed_level: TrustLevel | None,
        request_id: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the object inside `ATP`, unsigned; `payload` are more members of `payload`."""
        author = self._author
        return new_document(
            identity=author.identity,
            message_type=message_type,
            target=target,
            data=data,
            request_id=request_id,
            required_capabilities=options.required_capabilities,
            requires_trust=options.requires_trust,
            trust_level=author.trust_level or welcomed_level,
            policy_context=options.policy_context(author.policy_context),
            provenance=options.provenance,
            notify=options.notify,
            message_id=options.message_id,
            payload=payload,
        )

    def sign(
        self,
        document: dict[str, Any],
        lifetime_seconds: int,
        options: SendOptions,
        *,
        req: str | None = None,
    ) -> Envelope:
        """Return the signed envelope; without a key (in memory only), the unsigned one.

        Of `options` the signature has the trace and for whom the agent acts.
        """
        now, author = self._transport.clock(), self._author
        if author.key is None:
            stamped = {**document, "timestamp": format_timestamp(now)}
            return envelope_from_value({"ATP": stamped})
        return signed_envelope(
            document,
            author.key,
            hub_id=self._transport.hub_id,
            now=now,
            lifetime_seconds=lifetime_seconds,
            req=req,
            cause=self._current_cause(author.identity.id),
            trace=options.trace or current_trace(),
            on_behalf_of=options.on_behalf_of,
        )
