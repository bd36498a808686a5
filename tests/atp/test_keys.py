"""Which keys are accepted, how they are named, and that private ones stay private."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey

from atp.errors import (
    ATPError,
    KeyAlgorithm,
    KeyUnacceptable,
    MalformedKey,
    SignatureInvalid,
)
from atp.trust.keys import ALGORITHMS, PrivateKey, PublicKey
from atp.wire.canonical import b64url

KEYS = {alg: PrivateKey.generate(alg) for alg in sorted(ALGORITHMS)}
ALICE = KEYS["EdDSA"]
RSA = KEYS["RS256"].public.jwk
P256 = KEYS["ES256"].public.jwk


def _ed25519(encoded: bytes) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64url(encoded)}


def _y(y: int, *, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def test_it_names_a_key_by_the_thumbprint_of_rfc_8037(vectors: Path) -> None:
    text = (vectors / "rfc-small" / "rfc7638_8037_thumbprint.json").read_text("utf-8")
    example = json.loads(text)["rfc8037_A3_thumbprint"]
    assert PublicKey.from_jwk(example["jwk"]).kid == example["sha256"]


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_it_signs_and_verifies(alg: str) -> None:
    key = KEYS[alg]
    signature = key.sign(b"content")
    key.public.verify(b"content", signature, alg)
    with pytest.raises(SignatureInvalid):
        key.public.verify(b"Content", signature, alg)
    with pytest.raises(SignatureInvalid):
        key.public.verify(b"content", signature[:-1], alg)
    with pytest.raises(SignatureInvalid):
        key.public.verify(b"content", b"", alg)


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
@pytest.mark.parametrize("other", ["none", "None", "", "HS256", "eddsa", "ES384", "RS512"])
def test_rejects_an_algorithm_that_is_not_the_keys(alg: str, other: str) -> None:
    key = KEYS[alg]
    for named in {other, *ALGORITHMS} - {alg}:
        with pytest.raises(KeyAlgorithm):
            key.public.verify(b"content", key.sign(b"content"), named)


def test_it_takes_both_names_of_ed25519() -> None:
    ALICE.public.verify(b"content", ALICE.sign(b"content"), "Ed25519")
    named = PublicKey.from_jwk({**ALICE.public.jwk, "alg": "Ed25519"})
    assert named == ALICE.public


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_it_comes_back_from_storage(alg: str) -> None:
    key = KEYS[alg]
    assert PublicKey.from_jwk(key.public.jwk) == key.public
    assert pickle.loads(pickle.dumps(key.public)) == key.public  # noqa: S301  # our own bytes
    again = PrivateKey.from_pem(key.to_pem(), alg=alg)
    assert PrivateKey.from_pem(key.to_pem().decode(), alg=alg).kid == again.kid
    assert again.public == key.public
    key.public.verify(b"content", again.sign(b"content"), alg)


def test_it_needs_to_be_told_what_an_rsa_key_is_for() -> None:
    unnamed = {name: RSA[name] for name in ("kty", "n", "e")}
    assert PublicKey.from_jwk(unnamed, alg="PS256").alg == "PS256"
    with pytest.raises(MalformedKey, match="RS256 or PS256"):
        PublicKey.from_jwk(unnamed)
    with pytest.raises(MalformedKey):
        PrivateKey.from_pem(KEYS["PS256"].to_pem())


def test_it_ignores_a_jwks_label_and_unknown_members() -> None:
    labelled = {**ALICE.public.jwk, "kid": "mallory", "x5c": ["..."], "note": 1}
    assert PublicKey.from_jwk(labelled) == ALICE.public


P = 2**255 - 19
Y_OF_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
BAD_POINTS = {
    **{
        f"low order, y={name}, sign {sign}": _y(y, sign=sign)
        for name, y in {
            "0": 0,
            "1": 1,
            "-1": P - 1,
            "p": P,
            "p+1": P + 1,
            "order 8": Y_OF_ORDER_8,
            "-order 8": P - Y_OF_ORDER_8,
        }.items()
        for sign in (0, 1)
    },
    "not reduced": _y(P + 3),
    "not reduced, sign 1": _y(P + 18, sign=1),
    "not on the curve": _y(7),
}


@pytest.mark.parametrize("encoded", BAD_POINTS.values(), ids=BAD_POINTS)
def test_rejects_ed25519_points_that_are_no_keys(encoded: bytes) -> None:
    with pytest.raises(KeyUnacceptable):
        PublicKey.from_jwk(_ed25519(encoded))


def _jwk_of_modulus(modulus: int) -> dict[str, str]:
    n = modulus.to_bytes((modulus.bit_length() + 7) // 8)
    return {"kty": "RSA", "alg": "RS256", "n": b64url(n), "e": "AQAB"}


def _rsa_jwk(bits: int, exponent: int = 65537) -> dict[str, str]:
    numbers = rsa.generate_private_key(exponent, bits).public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    return {
        "kty": "RSA",
        "alg": "RS256",
        "n": b64url(numbers.n.to_bytes(size)),
        "e": b64url(numbers.e.to_bytes(3).lstrip(b"\0")),
    }


BAD_JWKS: dict[str, tuple[Any, type[ATPError]]] = {
    "a private key": ({**ALICE.public.jwk, "d": "AAAA"}, KeyUnacceptable),
    "a shared secret": ({"kty": "oct", "k": "AAAA"}, KeyUnacceptable),
    "no object": ("x", MalformedKey),
    "no type": ({}, KeyUnacceptable),
    "a type that is no string": ({"kty": ["OKP"]}, KeyUnacceptable),
    "another curve": ({**ALICE.public.jwk, "crv": "X25519"}, KeyUnacceptable),
    "another EC curve": ({**P256, "crv": "P-384"}, KeyUnacceptable),
    "for encryption": ({**ALICE.public.jwk, "use": "enc"}, KeyUnacceptable),
    "for other operations": ({**RSA, "key_ops": ["encrypt"]}, KeyUnacceptable),
    "for no operations": ({**RSA, "key_ops": []}, KeyUnacceptable),
    "for more operations": ({**RSA, "key_ops": ["verify", "encrypt"]}, KeyUnacceptable),
    "operations as a text": ({**RSA, "key_ops": "verify"}, KeyUnacceptable),
    "another algorithm": ({**ALICE.public.jwk, "alg": "ES256"}, KeyUnacceptable),
    "a symmetric algorithm": ({**RSA, "alg": "HS256"}, KeyUnacceptable),
    "an algorithm that is a list": ({**RSA, "alg": ["RS256"]}, KeyUnacceptable),
    "a missing coordinate": ({"kty": "EC", "crv": "P-256", "x": P256["x"]}, MalformedKey),
    "a point off the curve": ({**P256, "y": P256["x"]}, KeyUnacceptable),
    "a short coordinate": ({**P256, "x": b64url(b"\1" * 31)}, MalformedKey),
    "a long point": ({**ALICE.public.jwk, "x": b64url(b"\1" * 33)}, MalformedKey),
    "a padded member": ({**ALICE.public.jwk, "x": ALICE.public.jwk["x"] + "="}, MalformedKey),
    "a number for a member": ({**RSA, "n": 5}, MalformedKey),
    "a leading zero": ({**RSA, "e": b64url(b"\0\1\0\1")}, MalformedKey),
    "an exponent of 3": (_rsa_jwk(3072, 3), KeyUnacceptable),
    "2048 bits": (_rsa_jwk(2048), KeyUnacceptable),
    "a power of three": (_jwk_of_modulus(3**1940), KeyUnacceptable),
    "a power of a prime": (_jwk_of_modulus(1_000_003**200), KeyUnacceptable),
    "a square": (_jwk_of_modulus((2**1536 + 75) ** 2), KeyUnacceptable),
    "a small factor": (_jwk_of_modulus(997 * (2**3071 + 1)), KeyUnacceptable),
    "an even modulus": ({**RSA, "n": b64url(b"\xf0" * 384)}, KeyUnacceptable),
    "16384 bits": ({**RSA, "n": b64url(b"\xff" * 2048)}, KeyUnacceptable),
}


@pytest.mark.parametrize(("jwk", "error"), BAD_JWKS.values(), ids=BAD_JWKS)
def test_rejects_a_jwk_that_is_no_verification_key(jwk: Any, error: type[ATPError]) -> None:
    with pytest.raises(error):
        PublicKey.from_jwk(jwk)


def _pem(native: Any, password: bytes | None = None) -> bytes:
    encryption: Any = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    pem: bytes = native.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return pem


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        _pem(ec.generate_private_key(ec.SECP256R1()), b"locked"),
        _pem(ec.generate_private_key(ec.SECP384R1())),
        _pem(Ed448PrivateKey.generate()),
        _pem(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "garbage", "locked", "P-384", "Ed448", "RSA 2048"],
)
def test_rejects_a_private_key_that_it_can_not_use(pem: bytes) -> None:
    with pytest.raises(ATPError) as caught:
        PrivateKey.from_pem(pem, alg="RS256" if b"MII" in pem[:40] else None)
    assert caught.value.code in ("malformed.key", "key.unacceptable")


@pytest.mark.parametrize(
    "jwk",
    [
        "x",
        {},
        ALICE.public.jwk,
        {**ALICE.public.jwk, "d": 5},
        {**ALICE.public.jwk, "d": "AAAA"},
        {**RSA, "d": "AQAB", "p": "Aw"},
        {"kty": "oct", "k": "AAAA"},
    ],
    ids=str,
)
def test_rejects_a_private_jwk_that_is_none(jwk: Any) -> None:
    with pytest.raises(ATPError):
        PrivateKey.from_jwk(jwk)


def test_rejects_a_private_jwk_whose_public_part_is_anothers() -> None:
    seed = b64url(bytes(range(32)))
    with pytest.raises(ATPError):
        PrivateKey.from_jwk({**ALICE.public.jwk, "d": seed})


def test_it_keeps_a_private_key_to_itself(caplog: pytest.LogCaptureFixture) -> None:
    secret = ALICE.to_pem().splitlines()[1].decode("ascii")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").info("the key is %r, %s", ALICE, ALICE)
    assert ALICE.kid in caplog.text
    assert secret not in caplog.text
    assert not hasattr(ALICE, "__dict__")


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_rejects_to_pickle_or_copy_a_private_key(duplicate: Any) -> None:
    with pytest.raises(TypeError, match="to_pem"):
        duplicate(ALICE)


def test_it_does_not_change() -> None:
    with pytest.raises(AttributeError):
        ALICE.public.alg = "ES256"  # type: ignore[misc]  # what the test is about
