"""Names of capabilities, and the patterns that limit what an issuer may attest.

A name is segments joined by dots. `a.*` covers one or more segments below `a`, and not `a`; `*`
covers everything; an empty list of patterns covers nothing (docs/design/trust.md#issuers).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from atp.errors import MalformedDocument, excerpt

__all__ = [
    "CAPABILITY",
    "check_pattern",
    "contained",
    "covers",
    "is_capability",
    "is_pattern",
    "uncovered",
]

_SEGMENT = r"[a-z0-9][a-z0-9_-]*"
CAPABILITY = re.compile(rf"(?=.{{1,128}}\Z){_SEGMENT}(?:\.{_SEGMENT})*")
_PATTERN = re.compile(rf"(?=.{{1,130}}\Z)(?:\*|{_SEGMENT}(?:\.{_SEGMENT})*(?:\.\*)?)")


def is_capability(value: object) -> bool:
    """Return whether `value` is the exact name of a capability."""
    return isinstance(value, str) and CAPABILITY.fullmatch(value) is not None


def is_pattern(value: object) -> bool:
    """Return whether `value` is a capability's name or a pattern of such names."""
    return isinstance(value, str) and _PATTERN.fullmatch(value) is not None


def check_pattern(value: object) -> str:
    """Return `value` if it is a pattern, else raise `MalformedDocument`."""
    if isinstance(value, str) and is_pattern(value):
        return value
    raise MalformedDocument(
        f"{excerpt(value)} is not a capability pattern: lower-case segments joined by dots; the"
        " last one may be *"
    )


def covers(pattern: str, capability: str) -> bool:
    """Return whether `pattern` covers the exact name; `False` if either is malformed."""
    return is_capability(capability) and _is_within(capability, pattern)


def uncovered(patterns: Iterable[str], capabilities: Iterable[str]) -> list[str]:
    """Return the exact names that no pattern covers, in order."""
    patterns = tuple(patterns)
    return [name for name in capabilities if not any(covers(each, name) for each in patterns)]


def contained(child_patterns: Iterable[str], parent_patterns: Iterable[str]) -> bool:
    """Return whether each of the child's patterns is covered by one of the parent's.

    Two patterns together never cover a third one, so it is enough to check them one by one.
    """
    parents = tuple(parent_patterns)
    return all(any(_is_within(child, parent) for parent in parents) for child in child_patterns)


def _is_within(child: str, parent: str) -> bool:
    if not is_pattern(child) or not is_pattern(parent):
        return False
    if child == parent or parent == "*":
        return True
    # "a.*" covers "a.b", "a.b.*" and so on: its own segments, then at least one more
    return parent.endswith(".*") and child.startswith(parent[:-1])
