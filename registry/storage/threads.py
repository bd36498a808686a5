"""Threads for database work that live as long as their process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import local
from typing import Any, ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseThreads(ThreadPoolExecutor):
    """A pool whose threads get over a database that was away.

    Django mends a broken connection between two requests; these threads serve none, and would
    keep theirs, broken, for as long as they live. A connection seldom breaks alone: what one
    thread finds broken, the others make anew before they trip over theirs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._breaks = 0  # connections that were found broken
        self._seen = local()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(self._mending, partial(fn, *args, **kwargs))

    def _mending(self, work: Callable[[], T]) -> T:
        if self._breaks != getattr(self._seen, "breaks", 0):
            connections.close_all()
        self._seen.breaks = self._breaks
        try:
            return work()
        finally:
            if mend_connections():
                self._breaks += 1
                self._seen.breaks = self._breaks


def mend_connections() -> bool:
    """Close this thread's connections that broke, so that the next query makes new ones.

    Returns whether there were any.
    """
    broken = False
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()
            broken = broken or connection.connection is None
    return broken
