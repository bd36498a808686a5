"""Names of capabilities, and the patterns by which issuers are allowed to attest them.

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
    """Whether `value` is the exact name of a capability."""
    return isinstance(value, str) and CAPABILITY.fullmatch(value) is not None


def is_pattern(value: object) -> bool:
    """Whether `value` is a capability's name or a pattern of such names."""
    return isinstance(value, str) and _PATTERN.fullmatch(value) is not None


def check_pattern(value: object) -> str:
    """`value`, if it is a pattern; raises `MalformedDocument`."""
    if isinstance(value, str) and is_pattern(value):
        return value
    raise MalformedDocument(
        f"{excerpt(value)} is no capability pattern: lower-case segments joined by dots, the last"
        " of which may be *"
    )


def covers(pattern: str, capability: str) -> bool:
    """Whether `pattern` covers the exact name; malformed ones on either side cover nothing."""
    return is_capability(capability) and _is_within(capability, pattern)


def uncovered(patterns: Iterable[str], capabilities: Iterable[str]) -> list[str]:
    """Those of the exact names that none of the patterns covers, in order."""
    patterns = tuple(patterns)
    return [name for name in capabilities if not any(covers(each, name) for each in patterns)]


def contained(child_patterns: Iterable[str], parent_patterns: Iterable[str]) -> bool:
    """Whether all that the child's patterns cover is covered by one of the parent's.

    No two patterns cover together what a third one covers, so looking at them one by one suffices.
    """
    parents = tuple(parent_patterns)
    return all(any(_is_within(child, parent) for parent in parents) for child in child_patterns)


def _is_within(child: str, parent: str) -> bool:
    if not is_pattern(child) or not is_pattern(parent):
        return False
    if child == parent or parent == "*":
        return True
    # "a.*" holds "a.b", "a.b.*" and so on: all that begin with its segments and go on
    return parent.endswith(".*") and child.startswith(parent[:-1])
