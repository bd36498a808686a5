"""The members of frames: the functions that read them, and the base class that writes them.

Each function that reads a member raises `MalformedFrame` if the member does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson

from atp.errors import MalformedFrame, excerpt
from atp.wire.json_values import find_typed, is_number
from atp.wire.words import ANSWERS, MAIL, Stream

__all__ = [
    "WireFrame",
    "find_member",
    "get_member",
    "seconds_member",
    "stream_member",
    "stream_named",
    "texts_member",
]

_T = TypeVar("_T")


class WireFrame:
    """The base of all frames. `to_wire` gives the members, `to_bytes` their JSON text."""

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """Return the frame's members as JSON values, in their order on the wire."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Return the frame's JSON text."""
        return orjson.dumps(self.to_wire())


def find_member(value: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    """Return the member `name`, or `None` if it is absent or null.

    Raises `MalformedFrame` if its type is not exactly `kind`.
    """
    return find_typed(value, name, kind, error=MalformedFrame)


def get_member(value: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """Return the member `name`; raises `MalformedFrame` if it is absent or null."""
    item = find_member(value, name, kind)
    if item is None:
        raise MalformedFrame(f"the frame has no {name}")
    return item


def texts_member(value: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the member `name`, a list of strings; empty if it is absent."""
    items = find_member(value, name, list) or []
    if not all(type(item) is str for item in items):
        raise MalformedFrame(f"{name} must be a list of strings")
    return tuple(items)


def seconds_member(value: Mapping[str, Any], name: str) -> float | None:
    """Return the member `name`, in seconds and at least 0, or `None` if it is absent."""
    item = value.get(name)
    if item is None:
        return None
    if not is_number(item) or item < 0:
        raise MalformedFrame(f"{name} must be a number of seconds from 0, not {excerpt(item)}")
    return float(item)


def stream_member(value: Mapping[str, Any]) -> Stream:
    """Return the member `stream`: `mail` or `answers`."""
    return stream_named(get_member(value, "stream", str))


def stream_named(name: str) -> Stream:
    """Return the stream of this name; raises `MalformedFrame` for any other name."""
    match name:
        case "mail":
            return MAIL
        case "answers":
            return ANSWERS
        case _:
            raise MalformedFrame(f"stream must be mail or answers, not {excerpt(name)}")
