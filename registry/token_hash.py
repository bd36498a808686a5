"""The hash by which the database knows a secret token: of enrolment, or of the API."""

from __future__ import annotations

from atp.wire.canonical import sha256_b64url

__all__ = ["hash_token"]


def hash_token(token: str) -> str:
    """The SHA-256 of the token in base64url. Any text has one, so that a lookup never raises."""
    return sha256_b64url(token.encode("utf-8", "surrogatepass"))
