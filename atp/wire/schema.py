"""Checks of JSON objects against closed tables: required and optional members, their values."""

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
    """Raise `error` unless `value` is an object with these members.

    Unknown members are an error too, unless `is_closed` is false. `where` is put before the
    members' names in the message.
    """
    if not isinstance(value, dict | Mapping):  # dict first: a check against Mapping is slow
        raise error(f"{where.rstrip('.') or 'the content'} is not an object")
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
    """Accept any JSON value."""
    return True


def is_string(value: object) -> bool:
    """Return whether `value` is a string."""
    return isinstance(value, str)


def is_text(value: object) -> bool:
    """Return whether `value` is a string of 1 to `TEXT_MAX_CHARS` characters."""
    return isinstance(value, str) and 0 < len(value) <= TEXT_MAX_CHARS


def is_label(value: object) -> bool:
    """Return whether `value` is printable text of 1 to `LABEL_MAX_CHARS` characters.

    Raises `MalformedText` for a NUL, because PostgreSQL can't store it.
    """
    if not isinstance(value, str) or not 0 < len(value) <= LABEL_MAX_CHARS:
        return False
    if "\0" in value:
        raise MalformedText("a NUL character in a text that is stored")
    return value.isprintable()


def is_object(value: object) -> bool:
    """Return whether `value` is a JSON object."""
    return isinstance(value, dict)


def is_flag(value: object) -> bool:
    """Return whether `value` is true or false."""
    return value is True or value is False


def is_seconds(value: object) -> bool:
    """Return whether `value` is a whole number from 0; true and false are not numbers here."""
    return is_whole(value, least=0)


def is_positive(value: object) -> bool:
    """Return whether `value` is a whole number from 1."""
    return is_whole(value, least=1)


def is_digest(value: object) -> bool:
    """Return whether `value` has the form of a digest or thumbprint: SHA-256 in base64url."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def is_agent(value: object) -> bool:
    """Return whether `value` follows the grammar of agent ids."""
    return is_agent_id(value)


def is_timestamp(value: object) -> bool:
    """Return `True` for a time on the wire; raises `MalformedTimestamp` for anything else."""
    if not isinstance(value, str):
        raise MalformedTimestamp(f"{excerpt(value)} is not like 2026-01-31T23:59:59Z")
    parse_timestamp(value)
    return True


def list_of(is_item: Check, *, at_most: int) -> Check:
    """Return a check for lists of up to `at_most` items that all pass `is_item`."""

    def is_list(value: object) -> bool:
        return isinstance(value, list) and len(value) <= at_most and all(map(is_item, value))

    return is_list


def one_of(kind: type[StrEnum]) -> Check:
    """Return a check for the strings that are values of `kind`."""
    texts = frozenset(member.value for member in kind)
    return lambda value: isinstance(value, str) and value in texts


def matches(pattern: str) -> Check:
    """Return a check for strings that `pattern` matches in full."""
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
    """Return a check that calls `check_members`: it raises `error` and never returns `False`."""

    def is_right(value: Any) -> bool:
        check_members(value, required, optional, error=error, where=where, is_closed=is_closed)
        return True

    return is_right
