"""What a JSON value is, where Python's own answer differs: true is no number, nor is NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar

from atp.errors import ATPError, excerpt

__all__ = ["find_typed", "is_number", "is_whole"]

_T = TypeVar("_T")


def is_whole(value: object, *, least: int | None = None, most: int | None = None) -> TypeGuard[int]:
    """Whether it is a whole number, from `least` to `most` where these are given."""
    return (
        type(value) is int  # and not isinstance: true is not the number 1
        and (least is None or value >= least)
        and (most is None or value <= most)
    )


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a whole number or a finite float."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def find_typed(
    value: Mapping[str, Any], name: str, kind: type[_T], *, error: type[ATPError]
) -> _T | None:
    """The member `name`, `None` if it is absent or null; raises `error` for another type."""
    item = value.get(name)
    if item is None or type(item) is kind:
        return item
    raise error(f"{name} must be of type {kind.__name__}, not {excerpt(item)}")
