"""What the in-process hub believes: an agent's own word, where a hub asks its registry.

A claimed attestation counts while its dates allow, and vouches for what the agent declares
(docs/sdk.md#demo-mode). An agent without a real key may speak without an attestation that
counts: it is judged as sandboxed, with a score of 0. Scores are computed as a hub does.
"""

from __future__ import annotations

from typing import Final

from atp.errors import AttestationUnreadable, MalformedTimestamp
from atp.judging.facts import AgentFacts, AttestationFacts
from atp.judging.scoring import ScoreInputs, score
from atp.memory.keys import DEMO_ALGORITHM
from atp.types import IAgentIdentity, IAttestation, TrustLevel
from atp.wire.timestamps import parse_timestamp
from atp.wire.words import DEMO_SCORED_AS

__all__ = [
    "believed_agent",
    "believed_attestations",
    "believed_inputs",
    "believed_level",
    "believed_score",
    "covers_now",
    "unattested",
]

ORGANISATION: Final = "in-process"  # of all agents of the process
NOT_ATTESTED: Final = "not attested"  # any status but "active" makes the score 0
ALWAYS: Final = (0, 253_402_300_800)  # seconds since 1970, up to the year 10000


def covers_now(attestation: IAttestation, *, now: float) -> bool:
    """Whether the attestation's dates allow it at `now`; dates that can't be read do not."""
    try:
        begins, ends = _dates(attestation)
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
    return _level(attestation, claimed)


def believed_agent(identity: IAgentIdentity) -> AgentFacts:
    """The agent as a registry would have it: active, and in the one organisation of the process."""
    return AgentFacts(
        id=identity.id,
        status="active",
        organisation=ORGANISATION,
        declared_capabilities=tuple(identity.capabilities),
    )


def believed_attestations(
    identity: IAgentIdentity, claimed: TrustLevel | None, *, kid: str
) -> tuple[AttestationFacts, ...]:
    """The claimed attestation, as if an issuer had given it for the key `kid`."""
    attestation = identity.attestation
    if attestation is None:
        return ()
    try:
        begins, ends = _dates(attestation)
        fault = ""
    except MalformedTimestamp:
        (begins, ends), fault = ALWAYS, AttestationUnreadable.code
    return (
        AttestationFacts(
            jti="",
            issuer=attestation.issuer,
            level=str(_level(attestation, claimed)),
            capabilities=frozenset(identity.capabilities),
            jkt=kid,
            issued_at=begins,
            expires_at=ends,
            fault=fault,
        ),
    )


def unattested(*, kid: str) -> tuple[AttestationFacts, ...]:
    """What lets an agent without a real key speak when no attestation of its own counts."""
    begins, ends = ALWAYS
    level = str(TrustLevel.SANDBOXED)
    return (AttestationFacts("", ORGANISATION, level, frozenset(), kid, begins, ends),)


def believed_inputs(
    identity: IAgentIdentity,
    claimed: TrustLevel | None,
    *,
    now: float,
    key_algorithm: str | None,
    signatures: tuple[int, int] = (0, 0),
    good_envelopes: int = 0,
) -> ScoreInputs:
    """What the score is made of; `signatures` are (those that verified, all of them)."""
    level = believed_level(identity, claimed, now=now)
    attestation = identity.attestation if level is not None else None
    begins, ends = _dates(attestation) if attestation is not None else (None, None)
    is_dated = attestation is not None and attestation.issued_at and attestation.expires_at
    declared = tuple(sorted(identity.capabilities))
    return ScoreInputs(
        level=None if level is None else str(level),
        issued_at=begins if is_dated else None,  # without both dates, freshness earns nothing
        expires_at=ends,
        declared_capabilities=declared,
        attested_capabilities=declared if attestation else (),
        key_algorithm=DEMO_SCORED_AS if key_algorithm == DEMO_ALGORITHM else key_algorithm,
        signatures_good=signatures[0],
        signatures_total=signatures[1],
        good_envelopes=good_envelopes,
        status="active" if level is not None else NOT_ATTESTED,
    )


def believed_score(
    identity: IAgentIdentity,
    claimed: TrustLevel | None,
    *,
    now: float,
    key_algorithm: str | None,
    signatures: tuple[int, int] = (0, 0),
) -> int:
    """The score by the agent's own word; `signatures` are (those that verified, all of them)."""
    inputs = believed_inputs(
        identity, claimed, now=now, key_algorithm=key_algorithm, signatures=signatures
    )
    return score(inputs, now).total


def _level(attestation: IAttestation, claimed: TrustLevel | None) -> TrustLevel:
    return attestation.level if claimed is None else min(attestation.level, claimed)


def _dates(attestation: IAttestation) -> tuple[int, int]:
    """When it begins and ends, in whole seconds since 1970; a date that is left out is no limit."""
    begins, ends = ALWAYS
    if attestation.issued_at:
        begins = int(parse_timestamp(attestation.issued_at))
    if attestation.expires_at:
        ends = int(parse_timestamp(attestation.expires_at))
    return begins, ends
