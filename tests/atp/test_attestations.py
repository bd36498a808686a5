"""Attestations: tokens that are valid, and every kind of token that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from atp.errors import ATPError
from atp.trust.attestations import (
    StatusReference,
    VerifiedAttestation,
    issue_attestation,
    trust_mark_type,
    verify_attestation,
)
from atp.trust.keys import PrivateKey
from atp.trust.tokens import TokenKind, issue
from atp.types import TrustLevel
from tests.atp.forging import forge

NOW = 1_800_000_000
ISSUER, MALLORY, ALICE = (PrivateKey.generate() for _ in range(3))
HUB = "https://hub.example"
ARGUMENTS: dict[str, Any] = {
    "issuer": f"{HUB}/issuers/authority",
    "subject": f"{HUB}/agents/alice",
    "mark_type": trust_mark_type(HUB, TrustLevel.CERTIFIED),
    "level": TrustLevel.CERTIFIED,
    "capabilities": ["data.analysis", "data.analysis", "audit"],
    "jkt": ALICE.kid,
    "jti": "a-random-one",
    "status": StatusReference(uri=f"{HUB}/issuers/authority/status/1", index=4711),
    "expires_at": NOW + 3600,
    "issuer_key": ISSUER,
    "now": NOW,
}
CLAIMS: dict[str, Any] = {
    "iss": ARGUMENTS["issuer"],
    "sub": ARGUMENTS["subject"],
    "trust_mark_type": ARGUMENTS["mark_type"],
    "jti": "a-random-one",
    "iat": NOW,
    "exp": NOW + 3600,
    "status": {"status_list": {"idx": 4711, "uri": f"{HUB}/issuers/authority/status/1"}},
    "atp": {
        "level": "certified",
        "capabilities": ["audit", "data.analysis"],
        "cnf": {"jkt": ALICE.kid},
        "evidence": {"case": "2027-15"},
    },
}


def _forged(claims: dict[str, Any], key: PrivateKey = ISSUER) -> str:
    return forge({"alg": "EdDSA", "kid": key.kid, "typ": TokenKind.TRUST_MARK.typ}, claims, key)


def _refusal(token: Any, now: float = NOW, **options: Any) -> str:
    with pytest.raises(ATPError) as caught:
        verify_attestation(token, ISSUER.public, now=now, **options)
    return caught.value.code


def test_it_reads_what_was_attested() -> None:
    expected = VerifiedAttestation(
        issuer=ARGUMENTS["issuer"],
        subject=ARGUMENTS["subject"],
        level=TrustLevel.CERTIFIED,
        capabilities=frozenset({"audit", "data.analysis"}),
        jkt=ALICE.kid,
        issued_at=NOW,
        expires_at=NOW + 3600,
        jti="a-random-one",
        status=ARGUMENTS["status"],
    )
    for token in (
        issue_attestation(**ARGUMENTS),
        issue_attestation(**ARGUMENTS, evidence={"case": "2027-15"}),
        _forged(CLAIMS),
    ):
        assert verify_attestation(token, ISSUER.public, now=NOW) == expected
        assert verify_attestation(token, ISSUER.public, now=NOW, issuer=expected.issuer) == expected


@pytest.mark.parametrize("now", [NOW + 3600, NOW + 10**9, NOW - 61])
def test_rejects_an_attestation_outside_its_dates(now: int) -> None:
    assert _refusal(issue_attestation(**ARGUMENTS), now=now) == "attestation.expired"


def test_rejects_another_issuers() -> None:
    token = issue_attestation(**ARGUMENTS)
    assert _refusal(token, issuer=f"{HUB}/issuers/other") == "attestation.issuer"
    assert _refusal(_forged(CLAIMS, MALLORY)) == "attestation.unreadable"


def _atp(**changes: Any) -> dict[str, Any]:
    content = {**CLAIMS["atp"], **changes}
    return {"atp": {name: value for name, value in content.items() if value is not ...}}


@pytest.mark.parametrize(
    "changes",
    [
        {"atp": "certified"},
        _atp(level="root"),
        _atp(level="verified"),
        _atp(level=...),
        _atp(capabilities=["data.*"]),
        _atp(capabilities=["*"]),
        _atp(capabilities=["Data"]),
        _atp(capabilities="audit"),
        _atp(capabilities=...),
        _atp(cnf={}),
        _atp(cnf={"jkt": "x"}),
        _atp(cnf={"jkt": ALICE.kid, "jwk": {}}),
        _atp(cnf=...),
        _atp(evidence="none"),
        _atp(more=1),
        {"status": {}},
        {"status": {"status_list": {"idx": -1, "uri": "x"}}},
        {"status": {"status_list": {"idx": True, "uri": "x"}}},
        {"status": {"status_list": {"idx": 1}}},
        {"trust_mark_type": f"{HUB}/trust-marks/verified"},
        {"exp": str(NOW + 3600)},
        {"exp": 1e300},
        {"iat": None},
        {"jti": 5},
        {"aud": "bob"},
        {"more": 1},
    ],
    ids=str,
)
def test_rejects_a_trust_mark_that_breaks_the_profile(changes: dict[str, Any]) -> None:
    """Signed by the issuer: unreadable is another answer than absent or expired."""
    assert _refusal(_forged({**CLAIMS, **changes})) == "attestation.unreadable"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", None, 5])
def test_rejects_what_is_no_token(token: Any) -> None:
    assert _refusal(token) == "attestation.unreadable"


def test_rejects_a_token_of_another_kind() -> None:
    auth = {"iss": "alice", "aud": "hub", "htu": "u", "nonce": "n", "cnonce": "c"}
    assert _refusal(issue(TokenKind.AUTH, auth, ISSUER, now=NOW)) == "attestation.unreadable"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"capabilities": ["data.*"]}, "signature.claims"),
        ({"capabilities": ["Data"]}, "signature.claims"),
        ({"jkt": "x"}, "signature.claims"),
        ({"mark_type": trust_mark_type(HUB, TrustLevel.VERIFIED)}, "signature.claims"),
        ({"expires_at": NOW}, "attestation.expired"),
        ({"jti": ""}, "signature.claims"),
        ({"status": StatusReference(uri="", index=1)}, "signature.claims"),
    ],
    ids=str,
)
def test_rejects_to_issue_what_it_would_not_read(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ATPError) as caught:
        issue_attestation(**{**ARGUMENTS, **changes})
    assert caught.value.code == code
