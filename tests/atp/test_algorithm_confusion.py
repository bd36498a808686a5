"""Attacks on the token itself: algorithms, headers, encodings, types; none gets through."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from atp.errors import ATPError, MalformedToken, SignatureMissing
from atp.trust import signing
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.tokens import TokenKind, issue, verify
from atp.wire.canonical import b64url
from tests.atp.forging import forge

NOW = 1_800_000_000
TYP = TokenKind.AUTH.typ
ALICE = PrivateKey.generate()
MALLORY = PrivateKey.generate()
RSA = PrivateKey.generate("RS256")
P256 = PrivateKey.generate("ES256")
CLAIMS = {"iss": "alice", "aud": "hub", "htu": "wss://hub/", "nonce": "n", "cnonce": "c"}
CLAIMS_NOW = {**CLAIMS, "iat": NOW, "exp": NOW + 60}


def _header(key: PrivateKey = ALICE, **changes: Any) -> dict[str, Any]:
    header = {"alg": key.alg, "kid": key.kid, "typ": TYP, **changes}
    return {name: value for name, value in header.items() if value is not None}


def _verify(token: Any, key: PublicKey = ALICE.public) -> dict[str, Any]:
    return verify(TokenKind.AUTH, token, key, now=NOW, audience="hub", issuer="alice")


def _refusal(token: Any, key: PublicKey = ALICE.public) -> str:
    with pytest.raises(ATPError) as caught:
        _verify(token, key)
    return caught.value.code


@pytest.mark.parametrize("key", [ALICE, RSA, P256], ids=lambda key: key.alg)
def test_it_takes_the_token_that_all_attacks_start_from(key: PrivateKey) -> None:
    assert _verify(forge(_header(key), CLAIMS_NOW, key), key.public) == CLAIMS_NOW
    assert _verify(issue(TokenKind.AUTH, CLAIMS, key, now=NOW), key.public) == CLAIMS_NOW


def _public_texts(key: PublicKey) -> Iterable[bytes]:
    """Everything that a server might hand to an HMAC by mistake."""
    yield json.dumps(key.jwk).encode("utf-8")
    yield key.kid.encode("ascii")
    for member in ("x", "n"):
        yield key.jwk.get(member, "").encode("ascii")
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        yield key._native.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("key", [ALICE, RSA, P256], ids=lambda key: key.alg)
@pytest.mark.parametrize("alg", ["HS256", "hs256", "HS512", None])
def test_rejects_a_public_key_used_as_an_hmac_secret(key: PrivateKey, alg: str | None) -> None:
    for secret in _public_texts(key.public):
        token = forge(_header(key, alg=alg or key.alg), CLAIMS_NOW, secret)
        assert _refusal(token, key.public) in ("key.algorithm", "signature.invalid")


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", " none", "none\0", "eddsa", "EDDSA"]
)
@pytest.mark.parametrize("signer", [None, b"", ALICE], ids=["unsigned", "hmac", "signed"])
def test_rejects_no_algorithm_and_case_tricks(alg: str, signer: Any) -> None:
    assert _refusal(forge(_header(alg=alg), CLAIMS_NOW, signer)) in (
        "key.algorithm",
        "malformed.token",
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"b64": False, "crit": ["b64"]},
        {"jku": "https://mallory.example/jwks"},
        {"jwk": MALLORY.public.jwk},
        {"x5u": "https://mallory.example/cert"},
        {"x5c": ["AAAA"]},
        {"cty": "JWT"},
        {"zip": "DEF"},
        {"ALG": "EdDSA"},
        {"nonce": "n"},
        {"typ": None},
        {"kid": None},
        {"alg": None},
        {"typ": 1},
        {"kid": ["x"]},
        {"alg": ["EdDSA"]},
        {"typ": TYP.upper()},
        {"typ": "application/" + TYP},
        {"typ": "JWT"},
        {"typ": TYP + " "},
        {"kid": MALLORY.kid},
        {"kid": ALICE.kid.lower()},
        {"kid": "../../etc/passwd"},
        {"kid": "' OR 1=1 --"},
        {"kid": "x" * 2000},
    ],
    ids=str,
)
def test_rejects_any_other_header(extra: dict[str, Any]) -> None:
    """Signed by the right key: only the header is wrong."""
    assert _refusal(forge(_header(**extra), CLAIMS_NOW, ALICE)) == "signature.header"


def test_rejects_a_key_that_the_token_brings_along() -> None:
    header = _header(MALLORY, jwk=MALLORY.public.jwk, kid=ALICE.kid)
    assert _refusal(forge(header, CLAIMS_NOW, MALLORY)) == "signature.header"
    assert _refusal(forge(_header(), CLAIMS_NOW, MALLORY)) == "signature.invalid"


@pytest.mark.parametrize(
    "header",
    [
        f'{{"alg":"EdDSA","alg":"EdDSA","kid":"{ALICE.kid}","typ":"{TYP}"}}',
        f'{{"alg":"none","alg":"EdDSA","kid":"{ALICE.kid}","typ":"{TYP}"}}',
        f'{{"alg":"EdDSA","kid":"{ALICE.kid}","typ":"JWT","typ":"{TYP}"}}',
        '["EdDSA"]',
        '"EdDSA"',
        "null",
        "{",
        "",
        "[" * 500,
    ],
)
def test_rejects_a_header_that_two_readers_could_read_differently(header: str) -> None:
    assert _refusal(forge(header, CLAIMS_NOW, ALICE)) in ("signature.header", "malformed.token")


def _claims_text(**changes: Any) -> str:
    return json.dumps({**CLAIMS_NOW, **changes})


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        (_claims_text()[:-1] + ',"iss":"alice"}', "malformed.duplicate_member"),
        (_claims_text()[:-1] + ',"exp":9999999999}', "malformed.duplicate_member"),
        (_claims_text(exp=str(NOW + 60)), "signature.claims"),
        (_claims_text(exp=True), "signature.claims"),
        (_claims_text(exp=None), "signature.claims"),
        (_claims_text(exp=1e300), "signature.claims"),
        (_claims_text(exp=NOW + 0.5), "signature.claims"),
        (_claims_text(exp=-1), "signature.claims"),
        (_claims_text(exp=10**30), "malformed.number"),
        (_claims_text().replace(str(NOW + 60), "NaN"), "malformed.number"),
        (_claims_text().replace(str(NOW + 60), "1e999"), "malformed.number"),
        (_claims_text(iat="0"), "signature.claims"),
        (_claims_text(iat=1e300), "signature.claims"),
        (_claims_text(aud=["hub"]), "signature.claims"),
        (_claims_text(aud=["hub", "other"]), "signature.claims"),
        (_claims_text(aud="other"), "signature.audience"),
        (_claims_text(aud="HUB"), "signature.audience"),
        (_claims_text(aud={"hub": 1}), "signature.claims"),
        (_claims_text(iss="mallory"), "signature.claims"),
        (_claims_text(iss=["alice"]), "signature.claims"),
        (_claims_text(nonce=""), "signature.claims"),
        (_claims_text(nbf=0), "signature.claims"),
        (_claims_text(admin=True), "signature.claims"),
        (_claims_text().replace('"nonce": "n", ', ""), "signature.claims"),
        (_claims_text(iat=NOW + 61, exp=NOW + 100), "clock.not_yet"),
        (_claims_text(iat=NOW, exp=NOW + 61), "clock.too_long"),
        (_claims_text(iat=NOW - 60, exp=NOW), "clock.expired"),
        (_claims_text(iat=NOW, exp=NOW), "clock.expired"),
        (_claims_text(iat=NOW + 5, exp=NOW + 4), "clock.expired"),
        ("[]", "signature.claims"),
        ('"alice"', "signature.claims"),
        ("{}", "signature.claims"),
        ("not json", "malformed.json"),
        ("[" * 5000, "malformed.too_deep"),
    ],
)
def test_rejects_claims_that_are_not_the_kinds_own(claims: str, code: str) -> None:
    """Signed by the right key: only the claims are wrong."""
    assert _refusal(forge(_header(), claims, ALICE)) == code


@pytest.mark.parametrize(
    "kind", [kind for kind in TokenKind if kind is not TokenKind.AUTH], ids=str
)
def test_rejects_a_token_relabelled_as_another_kind(kind: TokenKind) -> None:
    """A header says what was signed; neither this one nor the other way round passes."""
    token = forge(_header(typ=kind.typ), CLAIMS_NOW, ALICE)
    assert _refusal(token) == "signature.header"
    with pytest.raises(ATPError) as caught:
        verify(kind, issue(TokenKind.AUTH, CLAIMS, ALICE, now=NOW), ALICE.public, **_now())
    assert caught.value.code == "signature.header"
    with pytest.raises(ATPError) as caught:
        verify(kind, token, ALICE.public, **_now())
    assert caught.value.code == "signature.claims"


def _now() -> dict[str, Any]:
    return {"now": NOW, "audience": "hub", "issuer": "alice"}


def _respelled(token: str) -> Iterable[str]:
    """The same bytes, written in ways that lenient base64 decoders take."""
    header, payload, signature = token.split(".")
    for i, part in enumerate((header, payload, signature)):
        for spelled in (
            part + "=",
            part + "==",
            part + "\n",
            f" {part}",
            f"{part[:3]}\n{part[3:]}",
        ):
            parts = [header, payload, signature]
            parts[i] = spelled
            yield ".".join(parts)
    # 64 bytes leave two bits in the last character that decode to nothing
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(signature[-1]) ^ 1]
    yield f"{header}.{payload}.{signature[:-1]}{last}"
    yield f"{token}."
    yield f".{token}"
    yield f"{token}.{signature}"
    yield token + "\0"


def test_rejects_the_same_token_spelled_otherwise() -> None:
    for token in _respelled(issue(TokenKind.AUTH, CLAIMS, ALICE, now=NOW)):
        assert _refusal(token).split(".")[0] in ("malformed", "signature"), token


@pytest.mark.parametrize("token", ["", None, 5, b"a.b.c", ["a.b.c"], {"a": 1}])
def test_rejects_what_is_no_token(token: Any) -> None:
    with pytest.raises(SignatureMissing):
        signing.read_header(token)


@pytest.mark.parametrize("token", ["a", "a.b", "..", "a..c", ".b.c", "a.b.", "a.b.c.d"])
def test_rejects_what_is_not_three_parts(token: str) -> None:
    with pytest.raises(MalformedToken):
        signing.read_header(token)


def test_it_tells_no_secret_when_it_refuses() -> None:
    token = forge(_header(), _claims_text(nonce=5, cnonce="very-secret-nonce"), ALICE)
    with pytest.raises(ATPError) as caught:
        _verify(token)
    assert "very-secret" not in str(caught.value)
    assert token not in str(caught.value)


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_it_takes_both_names_of_ed25519(alg: str) -> None:
    assert _verify(forge(_header(alg=alg), CLAIMS_NOW, ALICE)) == CLAIMS_NOW


def test_rejects_an_rs256_key_for_ps256_and_back() -> None:
    for signer, other in (("RS256", "PS256"), ("PS256", "RS256")):
        key = RSA if signer == "RS256" else PrivateKey.generate("PS256")
        assert (
            _refusal(forge(_header(key, alg=other), CLAIMS_NOW, key), key.public) == "key.algorithm"
        )


def test_it_reads_a_header_only_from_a_canonical_segment() -> None:
    token = issue(TokenKind.AUTH, CLAIMS, ALICE, now=NOW)
    assert signing.read_header(token) == signing.Header("EdDSA", ALICE.kid, TYP)
    header, rest = token.split(".", 1)
    with pytest.raises(ATPError):
        signing.read_header(f"{b64url(b' ')}{header}.{rest}")
