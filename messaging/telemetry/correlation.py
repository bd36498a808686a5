"""Bind the session or batch that a task or thread works on, so that its log lines name it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_bound: ContextVar[Mapping[str, str]] = ContextVar("atp_correlation")
_NOTHING: Mapping[str, str] = {}


def bound() -> Mapping[str, str]:
    """Return the ids bound to this task or thread: `session`, `batch`, both or none."""
    return _bound.get(_NOTHING)


def bind(**ids: str) -> None:
    """Bind ids for the rest of this asyncio task, and for the tasks that it starts."""
    _bound.set({**bound(), **ids})


@contextmanager
def binding(**ids: str) -> Iterator[None]:
    """Bind ids while the context lasts.

    For threads that are used again: they must not keep the ids of an old batch.
    """
    token = _bound.set({**bound(), **ids})
    try:
        yield
    finally:
        _bound.reset(token)
