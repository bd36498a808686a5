"""Where a value can't be written as JSON: the first fault, with its JSON Pointer (RFC 6901)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from atp.errors import MalformedError, MalformedJson, MalformedTooDeep, excerpt

__all__ = ["first_fault", "type_name"]

POINTER_MAX_CHARS: Final = 200  # enough to find a place; a message must not grow with the input

LeafCheck = Callable[[Any], object]  # raises the `MalformedError` of a value that holds no others


def first_fault(value: Any, check: LeafCheck, *, max_depth: int) -> MalformedError | None:
    """Return the first fault of `value`, or `None`; the error names its place (`pointer`).

    A fault is a value or a member name for which `check` raises, or an object or array at a depth
    beyond `max_depth`; the outermost one is at depth 1.
    """
    try:
        _search(value, check, max_depth, ())
    except _Found as found:
        return found.told()
    return None


def type_name(value: object) -> str:
    """Return the name of a value's type with its module, such as `numpy.bool_` or `set`."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


class _Found(Exception):
    def __init__(self, problem: MalformedError, place: tuple[str | int, ...]) -> None:
        super().__init__()
        self.problem = problem
        self.place = place

    def told(self) -> MalformedError:
        pointer = _pointer(self.place)
        shown = pointer if pointer.isascii() and pointer.isprintable() else ascii(pointer)
        detail = self.problem.detail
        told = type(self.problem)(f"{detail}, at {shown}" if shown else detail)
        told.pointer = pointer
        return told


def _search(value: Any, check: LeafCheck, depth_left: int, place: tuple[str | int, ...]) -> None:
    if not isinstance(value, dict | list | tuple):
        _apply(check, value, place)
        return
    if depth_left == 0:
        limit = len(place)  # the depth of the container around this one
        raise _Found(MalformedTooDeep(f"objects and arrays nest more than {limit} deep"), place)
    children: Iterable[tuple[Any, Any]] = enumerate(value)
    if isinstance(value, dict):
        for name in value:
            _apply(_check_name, name, place)
            _apply(check, name, (*place, name))
        children = value.items()
    for name, child in children:
        _search(child, check, depth_left - 1, (*place, name))


def _apply(check: LeafCheck, value: Any, place: tuple[str | int, ...]) -> None:
    try:
        check(value)
    except MalformedError as problem:
        raise _Found(problem, place) from None


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise MalformedJson(
            f"member name {excerpt(name)} is of the type {type_name(name)}, not a string"
        )


def _pointer(place: tuple[str | int, ...]) -> str:
    tokens = (str(token).replace("~", "~0").replace("/", "~1") for token in place)
    text = "".join(f"/{token}" for token in tokens)
    return text if len(text) <= POINTER_MAX_CHARS else f"{text[: POINTER_MAX_CHARS - 3]}..."
