"""What a judgement may look at, as values: agents, keys, attestations, requests and causes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atp.judging import policy as policies
from atp.judging import scoring
from atp.trust.keys import PublicKey
from atp.types import DataSensitivity

__all__ = [
    "AgentFacts",
    "AttestationFacts",
    "CauseFacts",
    "Chain",
    "Facts",
    "KeyFacts",
    "RecipientFacts",
    "RequestFacts",
]


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What the registry knows of an agent."""

    id: str
    status: str
    organisation: str
    tags: tuple[str, ...] = ()
    declared_capabilities: tuple[str, ...] = ()
    sensitivity_floor: str = "public"
    minimum_level: str = ""
    minimum_score: int = 0


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key on record, and whose it is."""

    agent: str
    status: str
    public: PublicKey


@dataclass(frozen=True, slots=True)
class AttestationFacts:
    """An attestation on record. `fault` is the code of what is wrong with it, dates aside."""

    jti: str
    issuer: str
    level: str
    capabilities: frozenset[str]
    jkt: str
    issued_at: int
    expires_at: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The accepted request that a response says it answers."""

    sender: str
    target: str
    request_id: str
    expires_at: float
    sensitivity: str
    requires_trust: str
    answered: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """What led to an envelope, itself included: its weakest link, its length, its sensitivity.

    `highest_sensitivity` is that of everything in it. A hearer's floor is not among it, as it
    counts again whenever that hearer writes.
    """

    lowest_level: str
    lowest_score: int
    depth: int
    highest_sensitivity: str

    def to_wire(self) -> dict[str, Any]:
        """The `chain` member of a delivery frame."""
        return {
            "lowestLevel": self.lowest_level,
            "lowestScore": self.lowest_score,
            "depth": self.depth,
            "highestSensitivity": self.highest_sensitivity,
        }

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> Chain:
        """Read what `to_wire` wrote; an older hub does not tell the sensitivity."""
        sensitivity = value.get("highestSensitivity", DataSensitivity.RESTRICTED.value)
        return cls(value["lowestLevel"], value["lowestScore"], value["depth"], sensitivity)


@dataclass(frozen=True, slots=True)
class CauseFacts:
    """The envelope that an agent says it was handling; `received` is whether it got it at all."""

    received: bool
    chain: Chain


@dataclass(frozen=True, slots=True)
class RecipientFacts:
    """An agent that an envelope would reach; `full` is whether its inbox has no room for it."""

    agent: AgentFacts
    attestations: Sequence[AttestationFacts] = ()
    inputs: scoring.ScoreInputs | None = None
    full: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a judgement may look at.

    `recipient` is who a message is addressed to, `audience` who is there to hear a broadcast.

    `now` is the batch's one clock reading, in seconds. `counts` tells how many envelopes of the
    sender each throttle rule has counted in its current window, by rule key; a rule that is not
    in it has counted none. `score` must be a pure function; a caller may pass one that remembers.
    """

    now: float
    sender: AgentFacts | None
    key: KeyFacts | None
    attestations: Sequence[AttestationFacts]
    inputs: scoring.ScoreInputs
    policy_set: policies.PolicySet
    recipient: AgentFacts | None = None
    recipient_attestations: Sequence[AttestationFacts] = ()
    recipient_inputs: scoring.ScoreInputs | None = None
    recipient_full: bool = False
    audience: Sequence[RecipientFacts] = ()
    request: RequestFacts | None = None
    cause: CauseFacts | None = None
    rates: Mapping[str, int] = field(default_factory=dict)
    profile: scoring.Profile = scoring.DEFAULT_PROFILE
    counts: Mapping[str, int] = field(default_factory=dict)
    score: Callable[..., scoring.TrustScore] = scoring.score

    @property
    def addressee(self) -> RecipientFacts | None:
        """The recipient with all that is known of it; `None` where there is none."""
        if self.recipient is None:
            return None
        return RecipientFacts(
            self.recipient, self.recipient_attestations, self.recipient_inputs, self.recipient_full
        )

    def is_over(self, rule: str, limit: int, seconds: int) -> bool:
        """Whether the sender has used up the `limit` of this throttle rule."""
        return self.counts.get(rule, 0) >= limit
