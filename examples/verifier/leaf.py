"""Leaves and tokens: what an entry is, byte for byte, and who signed an envelope."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import jwt
import rfc8785

Entry = dict[str, Any]

# docs/protocol.md#entries-of-the-trail: the members of a header.
HEADER = (
    "v", "log", "index", "time", "hub", "kind", "actor", "subject", "cause", "sender", "recipient",
    "messageId", "session", "sensitivity", "verdict", "policy", "rule", "issuer", "attestation",
    "score", "trace", "requestId", "onBehalfOf", "senderOrganisation", "recipientOrganisation",
    "organisations",
)  # fmt: skip
EMPTY: tuple[Any, ...] = ("", None, [])


def digest(value: Any) -> str:
    """Return the base64url SHA-256 of the canonical form (RFC 8785) of a value."""
    return b64url(hashlib.sha256(rfc8785.dumps(value)).digest())


def b64url(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def leaf_problems(entry: Entry) -> list[str]:
    """Return what is wrong with the sections and the leaf hash of an entry."""
    problems = [
        f"the section {name} is not what was logged"
        for name, section in entry["body"].items()
        if section is not None and digest(section) != entry["sections"].get(name)
    ]
    if entry["body"].keys() != entry["sections"].keys():
        problems.append("the sections are not those that were logged")
    leaf = {name: entry[name] for name in HEADER if entry.get(name) not in EMPTY}
    leaf["body"] = digest(entry["sections"])
    if b64url(hashlib.sha256(b"\0" + rfc8785.dumps(leaf)).digest()) != entry["leafHash"]:
        problems.append("the leaf hash does not fit")
    shared = entry["body"]["shared"]
    if shared is not None and (entry.get("reason") or "") != reason_in(shared):
        problems.append("the reason is not that of the body")
    return problems


def reason_in(shared: dict[str, Any]) -> str:
    """Return the reason in words, which stands beside an entry for lists and searches."""
    words = [shared.get("code"), shared.get("reason") or shared.get("detail")]
    return ": ".join(word for word in words if isinstance(word, str) and word)[:400]


def read_token(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token; nothing is verified."""
    head, claims, _ = token.split(".")
    return _read(head), _read(claims)


def token_problems(entry: Entry, jwk: dict[str, str] | None) -> list[str]:
    """Return what is wrong with the sender's token in an entry; `jwk` is the key that it names."""
    token = entry["body"]["shared"]["jws"]
    if jwk is None:
        return ["no entry has the key that signed the envelope"]
    _, claims = read_token(token)
    named = {
        "iss": entry["sender"],
        "jti": entry["messageId"],
        "aud": [entry["hub"], entry["recipient"]],
    }
    problems = [f"the token names another {n}" for n, value in named.items() if claims[n] != value]
    try:
        algorithm = {"OKP": "EdDSA", "RSA": jwk.get("alg", "RS256")}.get(jwk["kty"], "ES256")
        key = jwt.PyJWK(jwk, algorithm).key
        unchecked = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
        jwt.decode(token, key, [algorithm], options=unchecked)  # type: ignore[arg-type]
    except jwt.InvalidTokenError as problem:
        problems.append(f"the sender's signature is not valid: {problem}")
    return problems


def _read(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
