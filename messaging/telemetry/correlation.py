"""What this task or thread is at work on, a session or a batch, for its log lines to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_bound: ContextVar[Mapping[str, str]] = ContextVar("atp_correlation")
_NOTHING: Mapping[str, str] = {}


def bound() -> Mapping[str, str]:
    """What was bound around here: `session`, `batch`, both or nothing."""
    return _bound.get(_NOTHING)


def bind(**ids: str) -> None:
    """Bind for the rest of this asyncio task, and for those that it starts."""
    _bound.set({**bound(), **ids})


@contextmanager
def binding(**ids: str) -> Iterator[None]:
    """Bind while the context lasts. A thread that lives on must not keep the ids of a batch."""
    token = _bound.set({**bound(), **ids})
    try:
        yield
    finally:
        _bound.reset(token)
