"""What demo mode believes: an agent's own word, where a hub would ask its registry.

A claimed attestation counts while its dates allow, and vouches for what the agent declares
(protocol.md, "Demo mode"). The score is the real one, computed from that.
"""

from __future__ import annotations

from atp.errors import MalformedTimestamp
from atp.judging.scoring import ScoreInputs, score
from atp.memory.keys import DEMO_ALGORITHM
from atp.types import IAgentIdentity, IAttestation, TrustLevel
from atp.wire.timestamps import parse_timestamp
from atp.wire.words import DEMO_SCORED_AS

__all__ = ["believed_level", "believed_score", "covers_now"]


def covers_now(attestation: IAttestation, *, now: float) -> bool:
    """Whether the attestation's dates allow it at `now`; dates that can't be read do not."""
    try:
        begins = parse_timestamp(attestation.issued_at) if attestation.issued_at else now
        ends = parse_timestamp(attestation.expires_at) if attestation.expires_at else now + 1
    except MalformedTimestamp:
        return False
    return begins <= now < ends


def believed_level(
    identity: IAgentIdentity, claimed: TrustLevel | None, *, now: float
) -> TrustLevel | None:
    """The attested level, or the claimed one where that is lower; `None` without attestation."""
    attestation = identity.attestation
    if attestation is None or not covers_now(attestation, now=now):
        return None
    return attestation.level if claimed is None else min(attestation.level, claimed)


def believed_score(
    identity: IAgentIdentity,
    claimed: TrustLevel | None,
    *,
    now: float,
    key_algorithm: str | None,
    signatures: tuple[int, int] = (0, 0),
    good_envelopes: int = 0,
    required: tuple[str, ...] = (),
) -> int:
    """The score by the agent's own word; `signatures` are (those that verified, all of them)."""
    level = believed_level(identity, claimed, now=now)
    attestation = identity.attestation if level is not None else None
    declared = tuple(identity.capabilities)
    inputs = ScoreInputs(
        level=level,
        issued_at=_seconds(attestation.issued_at if attestation else None),
        expires_at=_seconds(attestation.expires_at if attestation else None),
        required_capabilities=required,
        declared_capabilities=declared,
        attested_capabilities=declared if attestation else (),
        key_algorithm=DEMO_SCORED_AS if key_algorithm == DEMO_ALGORITHM else key_algorithm,
        signatures_good=signatures[0],
        signatures_total=signatures[1],
        good_envelopes=good_envelopes,
    )
    return score(inputs, now).total


def _seconds(text: str | None) -> float | None:
    return None if text is None else parse_timestamp(text)
