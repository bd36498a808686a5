"""The place of an error in a document: the path of a member, such as `rules.0.action`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from atp.errors import MalformedDocument

__all__ = ["below"]


@contextmanager
def below(path: str) -> Iterator[None]:
    """Put `path` in front of the `field` of a `MalformedDocument` that is raised inside."""
    try:
        yield
    except MalformedDocument as problem:
        problem.field = f"{path}.{problem.field}" if problem.field else path
        raise
