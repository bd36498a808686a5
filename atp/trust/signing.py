"""Compact JWS (RFC 7515), narrowed: one key, one algorithm, a header of exactly three members.

PyJWT's algorithms do the work (see `atp.keys`). Around them stands what it leaves to its caller:
the header is closed and its `typ` compared, base64url is canonical, JSON is read strictly, and the
key, never the token, says which algorithm verifies.
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
HEADER_MAX_CHARS = 512  # ours: three short strings; bounds what the cache keeps
HEADERS_CACHED = 8192  # one per key and token kind; a miss costs some 10 us


@dataclass(frozen=True, slots=True)
class Header:
    """The protected header of a token: nothing in it is proven before the token is verified."""

    alg: str
    kid: str
    typ: str


def read_header(token: str) -> Header:
    """The header of a token, to find its key by; raises `SignatureHeader`, `MalformedToken`."""
    return _closed_header(split_token(token)[0])


def sign(claims: Mapping[str, Any], key: PrivateKey, *, typ: str) -> str:
    """A compact JWS of type `typ` over the RFC 8785 form of `claims`."""
    signing_input = f"{_header_segment(key.alg, key.kid, typ)}.{b64url(serialize(dict(claims)))}"
    return f"{signing_input}.{b64url(key.sign(signing_input.encode('ascii')))}"


def verify(
    token: str, key: PublicKey, *, typ: str, max_bytes: int = ENVELOPE_MAX_BYTES
) -> dict[str, Any]:
    """The claims of a token of type `typ` that `key` signed; neither claims nor times are judged.

    Raises `SignatureHeader` for another type or key, `KeyAlgorithm` for another algorithm,
    `SignatureInvalid` where the signature does not hold, `MalformedToken` and others of its family
    where the token can't be read.
    """
    header = read_header(token)
    if header.typ != typ:
        raise SignatureHeader(f"the token is a {excerpt(header.typ)}, not a {typ}")
    if header.kid != key.kid:
        raise SignatureHeader(f"the token names key {excerpt(header.kid)}, not {key.kid}")
    claims = parse(_verified_payload(token, key, header.alg), max_bytes=max_bytes)
    if not isinstance(claims, dict):
        raise SignatureClaims("the claims are no object")
    return claims


def verify_compact(token: str, key: PublicKey) -> bytes:
    """The payload of any compact JWS that `key` signed, for formats of others.

    `kid` and `typ` may be absent and are not compared: tokens of this protocol go through `verify`.
    """
    return _verified_payload(token, key, _header_members(split_token(token)[0])["alg"])


def unverified_claims(token: str) -> dict[str, Any]:
    """The claims of a token of which nothing is proven.

    Raises `SignatureMissing` where there is no token, and a `MalformedError` for one that can't be
    read.
    """
    claims = parse(b64url_decode(split_token(token)[1]))
    if not isinstance(claims, dict):
        raise MalformedToken("the claims are no object")
    return claims


def split_token(token: object) -> tuple[str, str, str]:
    """Header, payload and signature, in base64url; raises `SignatureMissing`, `MalformedToken`."""
    if not isinstance(token, str) or not token:
        raise SignatureMissing("there is no token")
    parts = token.split(".", 3)
    if len(parts) != 3 or not all(parts):
        raise MalformedToken("not three parts joined by dots")
    return parts[0], parts[1], parts[2]


def _verified_payload(token: str, key: PublicKey, alg: str) -> bytes:
    header, payload, signature = split_token(token)
    content = b64url_decode(payload)
    # Each part has been decoded, so only ASCII is left to encode.
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
    if not members["kid"].isprintable():  # PostgreSQL can't even be asked for a NUL
        raise SignatureHeader("kid is no name of a key")
    return Header(members["alg"], members["kid"], members["typ"])


def _header_members(segment: str) -> dict[str, str]:
    """`alg`, and `kid` and `typ` where present; anything else (crit, jku, jwk, b64...) raises."""
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
        raise SignatureHeader("a member of the header is no string")
    return members
