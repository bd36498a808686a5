"""Key pairs, JWK and thumbprints (RFC 7517, 7638, 8037), with the checks that a key must pass.

A key has one algorithm and never changes it. Its name is its thumbprint (`kid`). A private key
stays inside `PrivateKey`: it is not in the repr, it can't be pickled, and only `to_pem` returns it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import PyJWTError

from atp.errors import (
    ATPError,
    KeyAlgorithm,
    KeyUnacceptable,
    MalformedKey,
    MalformedToken,
    SignatureInvalid,
    excerpt,
)
from atp.trust import ed25519
from atp.wire.canonical import b64url, b64url_decode
from atp.wire.words import KEY_ALGORITHMS

__all__ = ["ALGORITHMS", "PrivateKey", "PublicKey"]

RSA_MIN_BITS = 3072  # docs/protocol.md#names-and-numbers
RSA_MAX_BITS = 8192  # ours: the cost of verifying grows with the square, and strangers send keys
RSA_EXPONENT = 65537  # docs/protocol.md#names-and-numbers: no other
# Up to 1021, so that a power of a larger prime within RSA_MAX_BITS has an exponent among them.
SMALL_PRIMES = tuple(n for n in range(2, 1022) if all(n % d for d in range(2, math.isqrt(n) + 1)))
SMALL_PRIMES_PRODUCT = math.prod(SMALL_PRIMES)
P256_BYTES = 32  # FIPS 186-5: length of a coordinate and of each half of a signature

_JOSE: Final[Mapping[str, Algorithm]] = {
    "EdDSA": OKPAlgorithm(),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256, ec.SECP256R1),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
}
ALGORITHMS: Final = frozenset(KEY_ALGORITHMS)  # of registered keys
# RFC 9864 adds the name Ed25519; both names mean the same signature by the same key.
_HEADER_NAMES: Final[Mapping[str, frozenset[str]]] = {
    **{name: frozenset({name}) for name in _JOSE},
    "EdDSA": frozenset({"EdDSA", "Ed25519"}),
}
_THUMBPRINT_MEMBERS: Final = {  # RFC 7638 section 3.2, RFC 8037 section 2; in order
    "OKP": ("crv", "kty", "x"),
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
}
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that passed all checks, from `from_jwk` or `PrivateKey.public`.

    `alg` is its only algorithm, `kid` its RFC 7638 thumbprint.
    """

    alg: str
    kid: str
    _members: Mapping[str, str] = field(repr=False, compare=False)
    _native: Any = field(repr=False, compare=False)  # the key of the `cryptography` package
    _raw: bytes = field(repr=False, compare=False)  # an Ed25519 key's 32 bytes, else empty

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any], *, alg: str | None = None) -> PublicKey:
        """Read and check a public JWK. For RSA, give `alg` if the JWK does not name it.

        Raises `MalformedKey` if the key can't be read, and `KeyUnacceptable` if it may not be used:
        it has private members, an Ed25519 point of low order or not in canonical form, a small RSA
        modulus, another `use` or `key_ops` than verifying, or an algorithm that does not fit.
        """
        members = _read_members(jwk)
        _check_purpose(jwk)
        return cls(
            alg=_choose_algorithm(members, jwk.get("alg"), alg),
            kid=_thumbprint(members),
            _members=members,
            _native=_CHECKS[members["kty"]](members),
            _raw=b64url_decode(members["x"]) if members["kty"] == "OKP" else b"",
        )

    @property
    def jwk(self) -> dict[str, str]:
        """A new public JWK: the key's members with `alg`, `use` and `kid`."""
        return {**self._members, "alg": self.alg, "use": "sig", "kid": self.kid}

    def verify(self, data: bytes, signature: bytes, alg: str) -> None:
        """Raise `SignatureInvalid` unless this key signed `data`; `alg` is that of the header.

        Raises `KeyAlgorithm` if `alg` is not this key's. The key decides, never the token.
        """
        if alg not in _HEADER_NAMES[self.alg]:
            raise KeyAlgorithm(f"the header says {excerpt(alg)}, the key is for {self.alg}")
        if self._raw:
            good = ed25519.verifies(self._native, self._raw, data, signature)
        else:
            good = _JOSE[self.alg].verify(data, self._native, signature)
        if not good:
            raise SignatureInvalid("the signature does not fit the key and the content")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_public_key, (self.jwk,))


class PrivateKey:
    """A key pair. Its holder can sign; the private key is returned by `to_pem` only."""

    __slots__ = ("_native", "public")

    public: PublicKey

    def __init__(self, native: Any, *, alg: str | None = None) -> None:
        """Take a private key of the `cryptography` package; raises as `PublicKey.from_jwk`."""
        self._native = native
        self.public = PublicKey.from_jwk(_public_jwk(native), alg=alg)

    @classmethod
    def generate(cls, alg: str = "EdDSA") -> PrivateKey:
        """Return a new key pair; raises `KeyAlgorithm` for an unknown `alg`."""
        if alg == "EdDSA":
            return cls(Ed25519PrivateKey.generate(), alg=alg)
        if alg == "ES256":
            return cls(ec.generate_private_key(ec.SECP256R1()), alg=alg)
        if alg in ("RS256", "PS256"):
            return cls(rsa.generate_private_key(RSA_EXPONENT, RSA_MIN_BITS), alg=alg)
        raise KeyAlgorithm(f"{excerpt(alg)} is none of {', '.join(sorted(ALGORITHMS))}")

    @classmethod
    def from_pem(cls, pem: bytes | str, *, alg: str | None = None) -> PrivateKey:
        """Read an unencrypted PKCS #8 key. RSA needs `alg`, because the file does not name it.

        Raises `MalformedKey` if it can't be read, and `KeyUnacceptable` if it may not be used.
        """
        try:
            data = pem.encode() if isinstance(pem, str) else pem
            native = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise MalformedKey("the text is not an unencrypted private key in PEM form") from exc
        return cls(native, alg=alg)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any], *, alg: str | None = None) -> PrivateKey:
        """Read a private JWK; raises as `from_pem`.

        Raises `MalformedKey` also if its public part does not belong to the private one.
        """
        if not isinstance(jwk, Mapping):
            raise MalformedKey("a JWK is an object")
        public = {name: value for name, value in jwk.items() if name not in _PRIVATE_MEMBERS}
        public.pop("key_ops", None)  # a private key's say "sign"
        expected = PublicKey.from_jwk(public, alg=alg)
        try:
            native = _JOSE[expected.alg].from_jwk(dict(jwk))
            key = cls(native, alg=expected.alg)
        except ATPError:
            raise
        except (PyJWTError, ValueError, TypeError, KeyError, AttributeError) as exc:
            raise MalformedKey("the object is not a private JWK") from exc
        if key.public != expected:
            raise MalformedKey("the public part does not belong to the private part")
        return key

    @property
    def alg(self) -> str:
        """The algorithm that this key signs with."""
        return self.public.alg

    @property
    def kid(self) -> str:
        """The RFC 7638 thumbprint."""
        return self.public.kid

    def sign(self, data: bytes) -> bytes:
        """Return the raw JWS signature over `data`."""
        if isinstance(self._native, Ed25519PrivateKey):
            return self._native.sign(data)
        return _JOSE[self.alg].sign(data, self._native)

    def to_pem(self) -> bytes:
        """Return the key as unencrypted PKCS #8 in PEM form. The caller must protect it."""
        pem: bytes = self._native.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return pem

    def __repr__(self) -> str:
        return f"PrivateKey(alg={self.alg!r}, kid={self.kid!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled or copied; write it with to_pem()")


def _public_key(jwk: Mapping[str, Any]) -> PublicKey:
    return PublicKey.from_jwk(jwk)


def _read_members(jwk: Mapping[str, Any]) -> dict[str, str]:
    """Return the members of the thumbprint, in RFC 7638's order; raises if one is missing."""
    if not isinstance(jwk, Mapping):
        raise MalformedKey("a JWK is an object")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeyUnacceptable("a private or secret key was given where a public one belongs")
    kty = jwk.get("kty")
    names = _THUMBPRINT_MEMBERS.get(kty) if isinstance(kty, str) else None
    if names is None:
        raise KeyUnacceptable(f"key type {excerpt(kty)} is not OKP, EC or RSA")
    members = {name: jwk.get(name) for name in names}
    if not all(isinstance(value, str) for value in members.values()):
        raise MalformedKey(f"a key of type {kty} has the members {', '.join(names)}, all strings")
    return members  # type: ignore[return-value]  # each value was just seen to be a str


def _check_purpose(jwk: Mapping[str, Any]) -> None:
    if jwk.get("use", "sig") != "sig":
        raise KeyUnacceptable("the key's use must be sig")
    operations = jwk.get("key_ops", ["verify"])
    if operations != ["verify"]:
        raise KeyUnacceptable("the key's key_ops must be exactly verify")


def _choose_algorithm(members: Mapping[str, str], named: object, asked: str | None) -> str:
    possible = {"OKP": ("EdDSA",), "EC": ("ES256",), "RSA": ("RS256", "PS256")}[members["kty"]]
    named = "EdDSA" if named == "Ed25519" else named
    asked = "EdDSA" if asked == "Ed25519" else asked
    if named is not None and asked is not None and named != asked:
        raise KeyUnacceptable(f"the key is for {excerpt(named)}, not for {excerpt(asked)}")
    chosen = named if named is not None else asked
    if chosen is None and len(possible) == 1:
        return possible[0]
    if chosen is None:
        raise MalformedKey(f"the key names no algorithm; give {' or '.join(possible)}")
    if chosen not in possible:
        raise KeyUnacceptable(f"{excerpt(chosen)} is not for keys of type {members['kty']}")
    return str(chosen)


def _thumbprint(members: Mapping[str, str]) -> str:
    # The members are in RFC 7638's order. They passed their checks, so nothing needs escaping.
    text = json.dumps(members, separators=(",", ":"))
    return b64url(hashlib.sha256(text.encode("utf-8")).digest())


def _check_ed25519(members: Mapping[str, str]) -> Ed25519PublicKey:
    if members["crv"] != "Ed25519":
        raise KeyUnacceptable(f"curve {excerpt(members['crv'])} is not Ed25519")
    raw = _member_bytes(members, "x", length=ed25519.KEY_BYTES)
    ed25519.check_point(raw)
    return Ed25519PublicKey.from_public_bytes(raw)


def _check_p256(members: Mapping[str, str]) -> EllipticCurvePublicKey:
    if members["crv"] != "P-256":
        raise KeyUnacceptable(f"curve {excerpt(members['crv'])} is not P-256")
    x = int.from_bytes(_member_bytes(members, "x", length=P256_BYTES))
    y = int.from_bytes(_member_bytes(members, "y", length=P256_BYTES))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError as exc:
        raise KeyUnacceptable("the point is not on the curve P-256") from exc


def _check_rsa(members: Mapping[str, str]) -> RSAPublicKey:
    n, e = _member_bytes(members, "n"), _member_bytes(members, "e")
    if n[:1] == b"\0" or e[:1] == b"\0":
        raise MalformedKey("RSA numbers must have no leading zeros")
    modulus, exponent = int.from_bytes(n), int.from_bytes(e)
    if not RSA_MIN_BITS <= modulus.bit_length() <= RSA_MAX_BITS:
        raise KeyUnacceptable(f"an RSA key must have {RSA_MIN_BITS} to {RSA_MAX_BITS} bits")
    if math.gcd(modulus, SMALL_PRIMES_PRODUCT) != 1 or _is_power(modulus):
        raise KeyUnacceptable("an RSA modulus must be the product of two large primes")
    if exponent != RSA_EXPONENT:
        raise KeyUnacceptable(f"the RSA exponent must be {RSA_EXPONENT}")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as exc:
        raise KeyUnacceptable("the numbers are not an RSA key") from exc


def _is_power(number: int) -> bool:
    """Whether a number without small factors is a power of another one (NIST SP 800-89, 5.3.3).

    The base is above the largest small prime, so the exponent is below `bits / log2(base)`.
    """
    longest = number.bit_length() // (SMALL_PRIMES[-1].bit_length() - 1)
    return any(_root(number, k) ** k == number for k in SMALL_PRIMES if k <= longest)


def _root(number: int, degree: int) -> int:
    """The whole part of the root of a number: Newton's method from a little above."""
    exponent = math.log2(number) / degree
    shift = max(0, int(exponent) - 50)  # a float has 53 bits
    guess = (int(2 ** (exponent - shift)) + 2) << shift
    while True:
        better = ((degree - 1) * guess + number // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess
        guess = better


_CHECKS: Final = {"OKP": _check_ed25519, "EC": _check_p256, "RSA": _check_rsa}


def _member_bytes(members: Mapping[str, str], name: str, *, length: int | None = None) -> bytes:
    try:
        data = b64url_decode(members[name])
    except MalformedToken as exc:
        raise MalformedKey(f"member {name} is not canonical base64url") from exc
    if length is not None and len(data) != length:
        raise MalformedKey(f"member {name} has {len(data)} bytes, not {length}")
    return data


def _public_jwk(native: Any) -> dict[str, str]:
    if isinstance(native, Ed25519PrivateKey):
        raw = native.public_key().public_bytes_raw()
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}
    if isinstance(native, EllipticCurvePrivateKey) and isinstance(native.curve, ec.SECP256R1):
        point = native.public_key().public_numbers()
        x, y = (b64url(number.to_bytes(P256_BYTES)) for number in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    if isinstance(native, RSAPrivateKey):
        numbers = native.public_key().public_numbers()
        n, e = (b64url(_minimal_bytes(number)) for number in (numbers.n, numbers.e))
        return {"kty": "RSA", "n": n, "e": e}
    raise KeyUnacceptable("the key is not Ed25519, P-256 or RSA")


def _minimal_bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)
