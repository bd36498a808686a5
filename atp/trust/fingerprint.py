"""A key's fingerprint, as two people compare it: its thumbprint in groups of four."""

from __future__ import annotations

__all__ = ["fingerprint"]

GROUP_CHARS = 4


def fingerprint(kid: str) -> str:
    """The RFC 7638 thumbprint `kid` in groups; upper and lower case matter."""
    return " ".join(kid[i : i + GROUP_CHARS] for i in range(0, len(kid), GROUP_CHARS))
