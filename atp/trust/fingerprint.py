"""A key's fingerprint, for two people to compare: its thumbprint in groups of four."""

from __future__ import annotations

__all__ = ["fingerprint"]

GROUP_CHARS = 4


def fingerprint(kid: str) -> str:
    """Return the RFC 7638 thumbprint `kid` in groups. Upper and lower case differ."""
    return " ".join(kid[i : i + GROUP_CHARS] for i in range(0, len(kid), GROUP_CHARS))
