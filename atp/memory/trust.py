"""The facts of the in-process hub: it believes the agent's claims; a hub asks its registry.

A claimed attestation counts within its dates, and covers the capabilities that the agent declares
(docs/sdk.md#demo-mode). An agent without a real key may send without a valid attestation: it is
judged as sandboxed, with a score of 0. Scores are computed as in a hub.
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
    """Return whether `now` is within the attestation's dates; `False` if they can't be read."""
    try:
        begins, ends = _dates(attestation)
    except MalformedTimestamp:
        return False
    return begins <= now < ends


def believed_level(
    identity: IAgentIdentity, claimed: TrustLevel | None, *, now: float
) -> TrustLevel | None:
    """Return the lower of attested and claimed level, or `None` without a valid attestation."""
    attestation = identity.attestation
    if attestation is None or not covers_now(attestation, now=now):
        return None
    return _level(attestation, claimed)


def believed_agent(identity: IAgentIdentity) -> AgentFacts:
    """Return the facts of an active agent in the only organisation of the process."""
    return AgentFacts(
        id=identity.id,
        status="active",
        organisation=ORGANISATION,
    )


def believed_attestations(
    identity: IAgentIdentity, claimed: TrustLevel | None, *, kid: str
) -> tuple[AttestationFacts, ...]:
    """Return the claimed attestation as if an issuer had made it for the key `kid`."""
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
    """Return the attestation that lets an agent without a real one send, as sandboxed."""
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
    """Return the inputs of the score; `signatures` are (the number of good ones, of all)."""
    level = believed_level(identity, claimed, now=now)
    attestation = identity.attestation if level is not None else None
    begins, ends = _dates(attestation) if attestation is not None else (None, None)
    is_dated = attestation is not None and attestation.issued_at and attestation.expires_at
    declared = tuple(sorted(identity.capabilities))
    return ScoreInputs(
        level=None if level is None else str(level),
        issued_at=begins if is_dated else None,  # without both dates, no points for freshness
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
    """Return the score from an agent's claims; `signatures` are (number of good ones, of all)."""
    inputs = believed_inputs(
        identity, claimed, now=now, key_algorithm=key_algorithm, signatures=signatures
    )
    return score(inputs, now).total


def _level(attestation: IAttestation, claimed: TrustLevel | None) -> TrustLevel:
    return attestation.level if claimed is None else min(attestation.level, claimed)


def _dates(attestation: IAttestation) -> tuple[int, int]:
    """Return begin and end in whole seconds since 1970; a missing date means no limit."""
    begins, ends = ALWAYS
    if attestation.issued_at:
        begins = int(parse_timestamp(attestation.issued_at))
    if attestation.expires_at:
        ends = int(parse_timestamp(attestation.expires_at))
    return begins, ends
