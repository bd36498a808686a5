"""The hash that the database stores instead of a secret token (enrolment or API token)."""

from __future__ import annotations

from atp.wire.canonical import sha256_b64url

__all__ = ["hash_token"]


def hash_token(token: str) -> str:
    """Return the SHA-256 of the token in base64url.

    Every text has a hash, lone surrogates included, so a lookup with bad input never raises.
    """
    return sha256_b64url(token.encode("utf-8", "surrogatepass"))
