"""The table of token kinds, and what issuing adds and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from atp.errors import ATPError, SignatureClaims
from atp.trust import tokens
from atp.trust.keys import PrivateKey
from atp.trust.tokens import TokenKind

NOW = 1_800_000_000
ALICE = PrivateKey.generate()
DIGEST = "A" * 43
SAMPLES: dict[str, Any] = {
    **dict.fromkeys(("bh", "cause", "digest", "jkt", "old", "prev", "req", "root", "tth"), DIGEST),
    **dict.fromkeys(("n", "seq", "size", "ttl"), 3),
    "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
    **{
        name: {}
        for name in (
            "atp",
            "atp_constraints",
            "entry",
            "jwk",
            "jwks",
            "metadata",
            "prov",
            "status",
            "status_list",
            "trust_mark_issuers",
        )
    },
    "authority_hints": ["https://anchor/"],
    "crit": ["atp_constraints"],
}
TYPES = {
    "atp-msg+jwt",
    "atp-auth+jwt",
    "atp-enrol+jwt",
    "atp-rotate+jwt",
    "atp-prov+jwt",
    "atp-ack+jwt",
    "atp-http+jwt",
    "atp-receipt+jwt",
    "atp-successor+jwt",
    "atp-welcome+jwt",
    "trust-mark+jwt",
    "entity-statement+jwt",
    "statuslist+jwt",
}


def _claims(kind: TokenKind, *, optional: bool = False) -> dict[str, Any]:
    names = {**kind.required, **(kind.optional if optional else {})}
    claims = {name: SAMPLES.get(name, "text") for name in names if name not in ("iat", "exp")}
    if kind is TokenKind.MESSAGE:
        claims["aud"] = ["hub", "bob"]
    if "exp" in kind.required and kind.max_life_seconds is None:
        claims["exp"] = NOW + 1000
    return claims


def _issue(kind: TokenKind, **changes: Any) -> str:
    return tokens.issue(kind, {**_claims(kind), **changes}, ALICE, now=NOW)


def _verify(kind: TokenKind, token: str, **options: Any) -> dict[str, Any]:
    claims = _claims(kind)
    arguments = {"now": NOW, "audience": claims.get("aud"), "issuer": claims.get("iss"), **options}
    return tokens.verify(kind, token, ALICE.public, **arguments)


def test_it_has_a_type_of_its_own_for_each_kind() -> None:
    assert {kind.typ for kind in TokenKind} == TYPES
    assert len(TokenKind) == len(TYPES)
    assert {kind.purpose for kind in TokenKind} == {"agent", "hub", "issuer"}


@pytest.mark.parametrize("kind", TokenKind, ids=str)
def test_it_issues_what_it_verifies(kind: TokenKind) -> None:
    for optional in (False, True):
        token = tokens.issue(kind, _claims(kind, optional=optional), ALICE, now=NOW)
        claims = _verify(kind, token)
        assert claims.keys() >= kind.required.keys()
        assert claims["iat"] == NOW
        if kind.max_life_seconds is not None:
            assert claims["exp"] == NOW + kind.max_life_seconds


@pytest.mark.parametrize("kind", TokenKind, ids=str)
def test_rejects_to_issue_claims_outside_the_table(kind: TokenKind) -> None:
    with pytest.raises(SignatureClaims, match="is unknown"):
        _issue(kind, admin=True)
    for name in kind.required.keys() - {"iat", "exp"}:
        claims = _claims(kind)
        del claims[name]
        with pytest.raises(SignatureClaims, match=f"{name} is missing"):
            tokens.issue(kind, claims, ALICE, now=NOW)
        with pytest.raises(SignatureClaims, match=name):
            _issue(kind, **{name: [None]})


@pytest.mark.parametrize("kind", [kind for kind in TokenKind if kind.max_life_seconds], ids=str)
def test_it_bounds_the_life_of_a_token(kind: TokenKind) -> None:
    assert kind.max_life_seconds is not None
    token = _issue(kind)
    end = NOW + kind.max_life_seconds
    assert _verify(kind, token, now=end - 1)
    for now, code in ((end, "clock.expired"), (NOW - 61, "clock.not_yet")):
        with pytest.raises(ATPError) as caught:
            _verify(kind, token, now=now)
        assert caught.value.code == code
    assert _verify(kind, token, now=NOW - 60)
    with pytest.raises(ATPError) as caught:
        _verify(kind, _issue(kind, exp=end + 1))
    assert caught.value.code == "clock.too_long"


@pytest.mark.parametrize("kind", TokenKind, ids=str)
def test_rejects_another_audience_and_another_issuer(kind: TokenKind) -> None:
    token = _issue(kind)
    for audience in ("other", ["hub"], None if "aud" in kind.required else "hub"):
        with pytest.raises(ATPError) as caught:
            _verify(kind, token, audience=audience)
        assert caught.value.code == "signature.audience"
    with pytest.raises(ATPError) as caught:
        _verify(kind, token, issuer="mallory")
    assert caught.value.code == "signature.claims"
    assert "but the key that signed belongs to 'mallory'" in str(caught.value)


def test_it_keeps_records_readable_for_years() -> None:
    """What is kept as evidence has no end; only its signature and its claims are judged."""
    for kind in (TokenKind.PROVENANCE, TokenKind.ACK, TokenKind.RECEIPT):
        assert _verify(kind, _issue(kind), now=NOW + 50 * 365 * 86_400)
