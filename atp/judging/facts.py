"""The facts of a judgement, as values: agents, keys, attestations, requests and causes."""

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
    """An agent's row in the registry.

    `organisation` is the name of its organisation, by which rules ask, and `organisation_uid` the
    id by which entries name it.
    """

    id: str
    status: str
    organisation: str
    organisation_uid: str = ""
    tags: tuple[str, ...] = ()
    sensitivity_floor: str = "public"
    minimum_level: str = ""
    minimum_score: int = 0


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A registered key, and the agent it belongs to."""

    agent: str
    status: str
    public: PublicKey


@dataclass(frozen=True, slots=True)
class AttestationFacts:
    """A registered attestation.

    `fault` is the error code of a fault other than its dates, or "". `jkt` is the thumbprint of the
    attested key. `issued_at` and `expires_at` are in seconds since 1970.
    """

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
    """The accepted request that a response names. `expires_at` is in seconds since 1970."""

    sender: str
    target: str
    request_id: str
    expires_at: float
    sensitivity: str
    requires_trust: str
    answered: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """An envelope and all its causes: lowest level and score, their number, highest sensitivity.

    A hearer's floor is not part of `highest_sensitivity`: it counts again when that hearer writes.
    """

    lowest_level: str
    lowest_score: int
    depth: int
    highest_sensitivity: str

    def to_wire(self) -> dict[str, Any]:
        """Return the member `chain` of a delivery frame."""
        return {
            "lowestLevel": self.lowest_level,
            "lowestScore": self.lowest_score,
            "depth": self.depth,
            "highestSensitivity": self.highest_sensitivity,
        }

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> Chain:
        """Read the member `chain` that `to_wire` wrote; older hubs write no sensitivity."""
        sensitivity = value.get("highestSensitivity", DataSensitivity.RESTRICTED.value)
        return cls(value["lowestLevel"], value["lowestScore"], value["depth"], sensitivity)


@dataclass(frozen=True, slots=True)
class CauseFacts:
    """The envelope that an agent names as the cause; `received` is whether it got that one."""

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
    """Everything that a judgement reads of the registry, of earlier traffic and of the clock.

    The entry of a decision has all of it, or names the entries that have it: a field that is new
    here needs a place in `atp/judging/recording.py` and `atp/judging/rebuilding.py`.

    `recipient` is the addressee of a message, `audience` the connected agents of a broadcast.

    `now` is the batch's one clock reading, in seconds since 1970. `counts` maps the key of a
    throttle rule to the number of the sender's envelopes that it counted in its current window; a
    rule that is absent counted none. `score` must be a pure function; it may cache its results.
    """

    now: float
    sender: AgentFacts | None
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
        """Return whether the sender has reached the `limit` of this throttle rule."""
        return self.counts.get(rule, 0) >= limit
