"""How long a thread waits for PostgreSQL to answer a statement.

A connection can be there and dead: a firewall forgot it, or a proxy swallows what is sent. Nothing
tells of that, so the wait itself needs an end. `atp_site.postgresql` ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MOST_SECONDS = 60.0  # where nobody said how long

_seconds: ContextVar[float | None] = ContextVar("atp_database_patience", default=MOST_SECONDS)


def patience() -> float | None:
    """Seconds until a statement of this thread counts as unanswered; `None` is without end."""
    return _seconds.get()


@contextmanager
def waiting_at_most(seconds: float | None) -> Iterator[None]:
    """Wait so long for each statement of the block; `None` is without end, for migrations."""
    token = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(token)
