"""Closed tables of members: which an object has, which it may have, and what each may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from atp.errors import ATPError, MalformedText, MalformedTimestamp, excerpt
from atp.types import is_agent_id
from atp.wire.json_values import is_whole
from atp.wire.timestamps import parse_timestamp

__all__ = [
    "Check",
    "check_members",
    "is_agent",
    "is_anything",
    "is_digest",
    "is_flag",
    "is_label",
    "is_object",
    "is_positive",
    "is_seconds",
    "is_string",
    "is_text",
    "is_timestamp",
    "list_of",
    "matches",
    "object_of",
    "one_of",
]

TEXT_MAX_CHARS = 2048  # ours: the longest URL or identifier that is carried
LABEL_MAX_CHARS = 256  # ours: what is stored in a column and shown in one line

Check = Callable[[object], bool]
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url without padding


def check_members(
    value: object,
    required: Mapping[str, Check],
    optional: Mapping[str, Check],
    *,
    error: type[ATPError],
    where: str = "",
    is_closed: bool = True,
) -> None:
    """Raise `error` unless `value` is an object of these members; others only if not `is_closed`.

    `where` is what the members' names are prefixed with in the message.
    """
    if not isinstance(value, dict | Mapping):  # dict first: asking the abstract class is slow
        raise error(f"{where.rstrip('.') or 'the content'} is no object")
    for name, is_right in required.items():
        if name not in value:
            raise error(f"{where}{name} is missing")
        if not is_right(value[name]):
            raise error(f"{where}{name} can't be {excerpt(value[name])}")
    if len(value) == len(required):
        return
    for name, item in value.items():
        if name in required:
            continue
        allowed = optional.get(name)
        if allowed is None:
            if is_closed:
                raise error(f"{where}{excerpt(name)} is unknown here")
        elif not allowed(item):
            raise error(f"{where}{name} can't be {excerpt(item)}")


def is_anything(_value: object) -> bool:
    """Any JSON value."""
    return True


def is_string(value: object) -> bool:
    """Any string."""
    return isinstance(value, str)


def is_text(value: object) -> bool:
    """A string that says something and is not too long to keep."""
    return isinstance(value, str) and 0 < len(value) <= TEXT_MAX_CHARS


def is_label(value: object) -> bool:
    """A text for one line; NUL, which PostgreSQL can't store, raises `MalformedText`."""
    if not isinstance(value, str) or not 0 < len(value) <= LABEL_MAX_CHARS:
        return False
    if "\0" in value:
        raise MalformedText("NUL in a text that is kept")
    return value.isprintable()


def is_object(value: object) -> bool:
    """A JSON object."""
    return isinstance(value, dict)


def is_flag(value: object) -> bool:
    """True or false."""
    return value is True or value is False


def is_seconds(value: object) -> bool:
    """A whole number from 0."""
    return is_whole(value, least=0)


def is_positive(value: object) -> bool:
    """A whole number from 1."""
    return is_whole(value, least=1)


def is_digest(value: object) -> bool:
    """A SHA-256 in base64url, as digests and thumbprints are written."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def is_agent(value: object) -> bool:
    """An agent id."""
    return is_agent_id(value)


def is_timestamp(value: object) -> bool:
    """A time on the wire; raises `MalformedTimestamp` for a string that is none."""
    if not isinstance(value, str):
        raise MalformedTimestamp(f"{excerpt(value)} is no time")
    parse_timestamp(value)
    return True


def list_of(is_item: Check, *, at_most: int) -> Check:
    """A check for lists of up to `at_most` items, each of which `is_item`."""

    def is_list(value: object) -> bool:
        return isinstance(value, list) and len(value) <= at_most and all(map(is_item, value))

    return is_list


def one_of(kind: type[StrEnum]) -> Check:
    """A check for the strings that the members of `kind` are."""
    texts = frozenset(member.value for member in kind)
    return lambda value: isinstance(value, str) and value in texts


def matches(pattern: str) -> Check:
    """A check for strings that `pattern` matches in full."""
    grammar = re.compile(pattern, re.ASCII)
    return lambda value: isinstance(value, str) and grammar.fullmatch(value) is not None


def object_of(
    required: Mapping[str, Check],
    optional: Mapping[str, Check],
    *,
    error: type[ATPError],
    where: str,
    is_closed: bool = True,
) -> Check:
    """A check for objects as `check_members` checks them; it raises rather than says no."""

    def is_right(value: Any) -> bool:
        check_members(value, required, optional, error=error, where=where, is_closed=is_closed)
        return True

    return is_right
