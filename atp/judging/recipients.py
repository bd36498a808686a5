"""Checks and field values of one recipient: the addressee, or one hearer of a broadcast."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from atp.errors import (
    AttestationCapability,
    FlowRecipientFull,
    TrustLevelTooLow,
    TrustScoreTooLow,
)
from atp.judging.facts import AttestationFacts, Chain, Facts, RecipientFacts
from atp.judging.message import MessageFacts
from atp.types import TrustLevel

__all__ = [
    "chain_context",
    "check_takes",
    "covering_attestation",
    "demanded_level",
    "is_below",
    "recipient_context",
]


def check_takes(recipient: RecipientFacts, *, level: str, total: int) -> None:
    """Check that the recipient takes mail from a sender of this level and score, and has room.

    Raises `FlowRecipientFull`, `TrustLevelTooLow` or `TrustScoreTooLow`.
    """
    agent = recipient.agent
    if recipient.full:
        raise FlowRecipientFull("the recipient's inbox has no room for more from this sender")
    if agent.minimum_level and is_below(level, agent.minimum_level):
        raise TrustLevelTooLow(f"the recipient takes mail from {agent.minimum_level} up")
    if total < agent.minimum_score:
        raise TrustScoreTooLow(f"the recipient takes mail from score {agent.minimum_score} up")


def demanded_level(message: MessageFacts, recipient: RecipientFacts, *, now: float) -> str:
    """Check the sender's demands on the recipient; return the recipient's level for this message.

    The level is "" if the recipient has none.

    Raises `AttestationCapability` or `TrustLevelTooLow`.
    """
    if recipient.inputs is None:
        return ""
    level = recipient.inputs.level or ""
    if message.required_capabilities:
        covering = covering_attestation(message, recipient, now=now)
        if covering is None:
            raise AttestationCapability("no attestation of the recipient covers what is required")
        level = covering.level
    if message.requires_trust and is_below(level, message.requires_trust):
        raise TrustLevelTooLow(f"the recipient is not {message.requires_trust}")
    return level


def covering_attestation(
    message: MessageFacts, recipient: RecipientFacts, *, now: float
) -> AttestationFacts | None:
    """Return the recipient's valid attestation with the highest level that covers what is required.

    `None` if nothing is required, or none covers it.
    """
    required = message.required_capabilities
    if not required:
        return None
    return max(
        (
            one
            for one in recipient.attestations
            if not one.fault
            and one.issued_at <= now < one.expires_at
            and one.capabilities.issuperset(required)
        ),
        key=lambda one: TrustLevel(one.level).rank,
        default=None,
    )


def recipient_context(
    recipient: RecipientFacts, level: str, facts: Facts, uses: Collection[str]
) -> dict[str, Any]:
    """Return the recipient's values of the fields in `uses`; compute its score only if used."""
    agent, inputs = recipient.agent, recipient.inputs
    context: dict[str, Any] = {
        "recipient.id": agent.id,
        "recipient.organisation": agent.organisation,
        "recipient.tags": agent.tags,
    }
    if inputs is not None:
        context["recipient.capabilities"] = inputs.attested_capabilities
        if "recipient.score" in uses:
            context["recipient.score"] = facts.score(inputs, facts.now, facts.profile).total
        if inputs.key_algorithm:
            context["recipient.key_algorithm"] = inputs.key_algorithm
    if level:
        context["recipient.level"] = level
    return {name: value for name, value in context.items() if name in uses}


def chain_context(chain: Chain) -> dict[str, Any]:
    """Return the field values of a chain of causes."""
    return {
        "chain.lowest_level": chain.lowest_level,
        "chain.lowest_score": chain.lowest_score,
        "chain.depth": chain.depth,
    }


def is_below(level: str, demanded: str) -> bool:
    """Return whether `level` ("" for none) is lower than `demanded`."""
    return not level or TrustLevel(level).rank < TrustLevel(demanded).rank
