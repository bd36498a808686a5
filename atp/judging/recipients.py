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
from atp.judging.facts import Chain, Facts, RecipientFacts
from atp.trust.envelope import Envelope
from atp.types import TrustLevel

__all__ = [
    "chain_context",
    "check_takes",
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


def demanded_level(envelope: Envelope, recipient: RecipientFacts, *, now: float) -> str:
    """Check the sender's demands on the recipient; return the recipient's level for this envelope.

    The level is "" if the recipient has none.

    Raises `AttestationCapability` or `TrustLevelTooLow`.
    """
    if recipient.inputs is None:
        return ""
    required = envelope.required_capabilities
    level = recipient.inputs.level or ""
    if required:
        level = max(
            (
                a.level
                for a in recipient.attestations
                if not a.fault
                and a.issued_at <= now < a.expires_at
                and a.capabilities.issuperset(required)
            ),
            key=lambda name: TrustLevel(name).rank,
            default="",
        )
        if not level:
            raise AttestationCapability("no attestation of the recipient covers what is required")
    if envelope.requires_trust and is_below(level, envelope.requires_trust):
        raise TrustLevelTooLow(f"the recipient is not {envelope.requires_trust}")
    return level


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
