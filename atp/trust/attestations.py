"""Attestations: a trust mark JWT by which an issuer vouches for an agent and its key.

The profile is that of docs/design/trust.md#attestations (OpenID Federation trust marks, Token
Status List). This module checks the token itself. The registry decides whether the issuer may
attest this, and whether the attestation was revoked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from atp.errors import (
    ATPError,
    AttestationExpired,
    AttestationIssuer,
    AttestationUnreadable,
    ClockExpired,
    ClockNotYet,
    SignatureClaims,
    excerpt,
)
from atp.trust.capabilities import contained, covers, is_capability, uncovered
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.tokens import TokenKind, issue, verify
from atp.types import TrustLevel
from atp.wire.schema import (
    Check,
    check_members,
    is_digest,
    is_object,
    is_seconds,
    is_text,
    list_of,
    object_of,
    one_of,
)

__all__ = [
    "StatusReference",
    "VerifiedAttestation",
    "contained",
    "covers",
    "issue_attestation",
    "trust_mark_type",
    "uncovered",
    "verify_attestation",
]

CAPABILITIES_MAX = 256  # ours: names in one attestation

_CONTENT: Final[Mapping[str, Check]] = {
    "level": one_of(TrustLevel),
    "capabilities": list_of(is_capability, at_most=CAPABILITIES_MAX),
    "cnf": object_of({"jkt": is_digest}, {}, error=SignatureClaims, where="atp.cnf."),
}
_EVIDENCE: Final[Mapping[str, Check]] = {"evidence": is_object}
_STATUS: Final[Mapping[str, Check]] = {  # Token Status List, section 6.2
    "status_list": object_of(
        {"idx": is_seconds, "uri": is_text}, {}, error=SignatureClaims, where="status.status_list."
    )
}


@dataclass(frozen=True, slots=True)
class StatusReference:
    """The attestation's place in the issuer's status list: the list's URI and an index."""

    uri: str
    index: int


@dataclass(frozen=True, slots=True)
class VerifiedAttestation:
    """The content of an attestation whose signature is verified. Times: whole seconds since 1970.

    `issuer` and `subject` are URLs, `capabilities` exact names, `jkt` the thumbprint of the agent's
    key. The issuer's right to attest this, and revocation, are not checked yet.
    """

    issuer: str
    subject: str
    level: TrustLevel
    capabilities: frozenset[str]
    jkt: str
    issued_at: int
    expires_at: int
    jti: str
    status: StatusReference


def issue_attestation(
    *,
    issuer: str,
    subject: str,
    mark_type: str,
    level: TrustLevel,
    capabilities: Sequence[str],
    jkt: str,
    jti: str,
    status: StatusReference,
    expires_at: int,
    issuer_key: PrivateKey,
    now: int,
    evidence: Mapping[str, Any] | None = None,
) -> str:
    """Return a signed trust mark, valid from `now` until `expires_at` (seconds since 1970).

    `mark_type` is `trust_mark_type(hub, level)`, `jti` a random id. Raises `SignatureClaims` for a
    wrong value, and `AttestationExpired` if `expires_at` is not after `now`.
    """
    content = {"level": str(level), "capabilities": sorted(set(capabilities)), "cnf": {"jkt": jkt}}
    claims = {
        "iss": issuer,
        "sub": subject,
        "trust_mark_type": mark_type,
        "jti": jti,
        "iat": now,
        "exp": expires_at,
        "status": {"status_list": {"idx": status.index, "uri": status.uri}},
        "atp": content if evidence is None else {**content, "evidence": dict(evidence)},
    }
    _check_content(claims)
    if expires_at <= now:
        raise AttestationExpired("an attestation must expire after its time of issue")
    return issue(TokenKind.TRUST_MARK, claims, issuer_key, now=now)


def verify_attestation(
    token: str, issuer_key: PublicKey, *, now: float, issuer: str | None = None
) -> VerifiedAttestation:
    """Verify that `issuer_key` signed `token` and that it is valid at `now` (seconds since 1970).

    `issuer` is the URL of the key's owner, or `None` if the caller compares it itself. Raises
    `AttestationExpired` outside its dates, `AttestationIssuer` if it names another issuer, and
    `AttestationUnreadable` if it is not a trust mark signed with this key.
    """
    try:
        claims = verify(
            TokenKind.TRUST_MARK, token, issuer_key, now=now, audience=None, issuer=None
        )
        _check_content(claims)
    except (ClockExpired, ClockNotYet) as exc:
        raise AttestationExpired(exc.detail) from exc
    except ATPError as exc:
        raise AttestationUnreadable(str(exc)) from exc
    if issuer is not None and claims["iss"] != issuer:
        raise AttestationIssuer(f"the token names {excerpt(claims['iss'])}, not the key's issuer")
    return _attestation(claims)


def trust_mark_type(hub: str, level: TrustLevel) -> str:
    """Return the type of the trust marks of a level at the hub with this URL."""
    return f"{hub.rstrip('/')}/trust-marks/{level}"


def _check_content(claims: Mapping[str, Any]) -> None:
    content = claims["atp"]
    check_members(content, _CONTENT, _EVIDENCE, error=SignatureClaims, where="atp.")
    check_members(claims["status"], _STATUS, {}, error=SignatureClaims, where="status.")
    if not claims["trust_mark_type"].endswith(f"/trust-marks/{content['level']}"):
        raise SignatureClaims("trust_mark_type and level differ")


def _attestation(claims: Mapping[str, Any]) -> VerifiedAttestation:
    content, place = claims["atp"], claims["status"]["status_list"]
    return VerifiedAttestation(
        issuer=claims["iss"],
        subject=claims["sub"],
        level=TrustLevel(content["level"]),
        capabilities=frozenset(content["capabilities"]),
        jkt=content["cnf"]["jkt"],
        issued_at=claims["iat"],
        expires_at=claims["exp"],
        jti=claims["jti"],
        status=StatusReference(uri=place["uri"], index=place["idx"]),
    )
