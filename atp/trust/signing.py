"""Compact JWS (RFC 7515), restricted: one key, one algorithm, a header of exactly three members.

PyJWT's algorithms sign and verify (see `atp.trust.keys`). This module adds the checks that PyJWT
leaves to its caller: the header has no other members, its `typ` is compared, base64url is
canonical, JSON is parsed strictly, and the key, never the token, decides the algorithm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from atp.errors import (
    MalformedError,
    MalformedToken,
    SignatureClaims,
    SignatureHeader,
    SignatureMissing,
    excerpt,
)
from atp.trust.keys import PrivateKey, PublicKey
from atp.wire.canonical import ENVELOPE_MAX_BYTES, b64url, b64url_decode, parse, serialize

__all__ = [
    "Header",
    "read_header",
    "sign",
    "split_token",
    "unverified_claims",
    "verify",
    "verify_compact",
]

HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})  # docs/protocol.md#tokens: exactly these
HEADER_MAX_CHARS = 512  # ours: three short strings; bounds the size of the cache
HEADERS_CACHED = 8192  # one for each key and token kind; a miss costs about 10 us


@dataclass(frozen=True, slots=True)
class Header:
    """The protected header of a token. It proves nothing before the token is verified."""

    alg: str
    kid: str
    typ: str


def read_header(token: str) -> Header:
    """Return the header of a token, which names its key.

    Raises `SignatureMissing`, `SignatureHeader` or `MalformedToken`.
    """
    return _closed_header(split_token(token)[0])


def sign(claims: Mapping[str, Any], key: PrivateKey, *, typ: str) -> str:
    """Return a compact JWS of type `typ` over the RFC 8785 form of `claims`."""
    signing_input = f"{_header_segment(key.alg, key.kid, typ)}.{b64url(serialize(dict(claims)))}"
    return f"{signing_input}.{b64url(key.sign(signing_input.encode('ascii')))}"


def verify(
    token: str, key: PublicKey, *, typ: str, max_bytes: int = ENVELOPE_MAX_BYTES
) -> dict[str, Any]:
    """Verify that `key` signed a token of type `typ`; return its claims, which are not checked.

    Raises `SignatureHeader` for another type or key, `KeyAlgorithm` for another algorithm,
    `SignatureInvalid` if the signature is wrong, and a `MalformedError` if the token can't be read.
    """
    header = read_header(token)
    if header.typ != typ:
        raise SignatureHeader(f"the token is a {excerpt(header.typ)}, not a {typ}")
    if header.kid != key.kid:
        raise SignatureHeader(f"the token names key {excerpt(header.kid)}, not {key.kid}")
    claims = parse(_verified_payload(token, key, header.alg), max_bytes=max_bytes)
    if not isinstance(claims, dict):
        raise SignatureClaims("the claims are not an object")
    return claims


def verify_compact(token: str, key: PublicKey) -> bytes:
    """Verify that `key` signed a compact JWS of another format; return its payload.

    `kid` and `typ` may be absent and are not compared. Use `verify` for tokens of this protocol.
    """
    return _verified_payload(token, key, _header_members(split_token(token)[0])["alg"])


def unverified_claims(token: str) -> dict[str, Any]:
    """Return the unverified claims of a token.

    Raises `SignatureMissing` if there is no token, and a `MalformedError` if it can't be read.
    """
    claims = parse(b64url_decode(split_token(token)[1]))
    if not isinstance(claims, dict):
        raise MalformedToken("the claims are not an object")
    return claims


def split_token(token: object) -> tuple[str, str, str]:
    """Header, payload and signature, in base64url; raises `SignatureMissing`, `MalformedToken`."""
    if not isinstance(token, str) or not token:
        raise SignatureMissing("there is no token")
    parts = token.split(".", 3)
    if len(parts) != 3 or not all(parts):
        raise MalformedToken("the token is not three parts joined by dots")
    return parts[0], parts[1], parts[2]


def _verified_payload(token: str, key: PublicKey, alg: str) -> bytes:
    header, payload, signature = split_token(token)
    content = b64url_decode(payload)
    # Both parts were decoded before, so they are ASCII.
    key.verify(f"{header}.{payload}".encode("ascii"), b64url_decode(signature), alg)
    return content


@lru_cache(maxsize=HEADERS_CACHED)
def _header_segment(alg: str, kid: str, typ: str) -> str:
    return b64url(serialize({"alg": alg, "kid": kid, "typ": typ}))


@lru_cache(maxsize=HEADERS_CACHED)
def _closed_header(segment: str) -> Header:
    members = _header_members(segment)
    if members.keys() != HEADER_MEMBERS:
        raise SignatureHeader("the header is not exactly alg, kid and typ")
    if not members["kid"].isprintable():  # PostgreSQL refuses a query with a NUL
        raise SignatureHeader("kid is not printable text")
    return Header(members["alg"], members["kid"], members["typ"])


def _header_members(segment: str) -> dict[str, str]:
    """Return `alg`, and `kid` and `typ` if present.

    Raises `SignatureHeader` for any other member, such as crit, jku, jwk or b64.
    """
    if len(segment) > HEADER_MAX_CHARS:
        raise SignatureHeader(f"the header has more than {HEADER_MAX_CHARS} characters")
    try:
        members = parse(b64url_decode(segment))
    except MalformedError as exc:
        raise SignatureHeader(f"the header can't be read ({exc.code})") from exc
    if not isinstance(members, dict) or "alg" not in members:
        raise SignatureHeader("the header names no alg")
    if not members.keys() <= HEADER_MEMBERS:
        raise SignatureHeader("the header has members besides alg, kid and typ")
    if not all(isinstance(value, str) for value in members.values()):
        raise SignatureHeader("a member of the header is not a string")
    return members
