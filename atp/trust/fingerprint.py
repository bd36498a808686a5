"""A fingerprint: a key's thumbprint in digits, for two people to compare over the telephone."""

from __future__ import annotations

from atp.wire.canonical import b64url_decode

__all__ = ["fingerprint"]

DIGITS = 60  # of the thumbprint's 77: a second key with the same ones takes 2^199 attempts
GROUP_DIGITS = 5


def fingerprint(kid: str) -> str:
    """Return the last 60 decimal digits of the RFC 7638 thumbprint `kid`, in groups.

    The thumbprint counts as one number, its first byte the highest. 60 digits are 199 bits. Raises
    `MalformedToken` if `kid` is not base64url.
    """
    number = int.from_bytes(b64url_decode(kid), "big") % 10**DIGITS
    digits = f"{number:0{DIGITS}d}"
    return " ".join(digits[i : i + GROUP_DIGITS] for i in range(0, DIGITS, GROUP_DIGITS))
