"""Checks of JSON values where Python's types differ: true and NaN are not numbers here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar

from atp.errors import ATPError, excerpt

__all__ = ["find_typed", "is_number", "is_whole"]

_T = TypeVar("_T")


def is_whole(value: object, *, least: int | None = None, most: int | None = None) -> TypeGuard[int]:
    """Return whether it is a whole number, from `least` to `most` if these are given."""
    return (
        type(value) is int  # and not isinstance: in Python, True is an int
        and (least is None or value >= least)
        and (most is None or value <= most)
    )


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether it is a whole number or a finite float."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def find_typed(
    value: Mapping[str, Any], name: str, kind: type[_T], *, error: type[ATPError]
) -> _T | None:
    """Return the member `name`, or `None` if it is absent or null.

    Raises `error` if its type is not exactly `kind`.
    """
    item = value.get(name)
    if item is None or type(item) is kind:
        return item
    raise error(f"{name} must be of type {kind.__name__}, not {excerpt(item)}")
