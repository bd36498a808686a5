"""What the frames are made of: their members, read one by one, and their text.

Each function that reads a member raises `MalformedFrame`.
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
    """A frame; `to_wire` gives its members, and `to_bytes` the JSON text of them."""

    __slots__ = ()

    def to_wire(self) -> dict[str, Any]:
        """The frame's members as JSON values, in the order in which they are written."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """The frame's JSON text."""
        return orjson.dumps(self.to_wire())


def find_member(value: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    """The member `name`, which is of exactly the type `kind`; `None` if it is absent or null."""
    return find_typed(value, name, kind, error=MalformedFrame)


def get_member(value: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """The member `name`, which must be there."""
    item = find_member(value, name, kind)
    if item is None:
        raise MalformedFrame(f"the frame has no {name}")
    return item


def texts_member(value: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The member `name`, a list of strings; empty if it is absent."""
    items = find_member(value, name, list) or []
    if not all(type(item) is str for item in items):
        raise MalformedFrame(f"{name} must be a list of texts")
    return tuple(items)


def seconds_member(value: Mapping[str, Any], name: str) -> float | None:
    """The member `name`, a number of seconds from 0 up; `None` if it is absent."""
    item = value.get(name)
    if item is None:
        return None
    if not is_number(item) or item < 0:
        raise MalformedFrame(f"{name} must be a number of seconds, not {excerpt(item)}")
    return float(item)


def stream_member(value: Mapping[str, Any]) -> Stream:
    """The member `stream`, one of the two that there are."""
    return stream_named(get_member(value, "stream", str))


def stream_named(name: str) -> Stream:
    """The stream of this name; raises `MalformedFrame` if there is none."""
    match name:
        case "mail":
            return MAIL
        case "answers":
            return ANSWERS
        case _:
            raise MalformedFrame(f"there is no stream {excerpt(name)}")
