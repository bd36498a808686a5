"""A thread pool for database work that replaces broken connections."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import local
from typing import Any, ParamSpec, TypeVar

from django.db import connections

from registry.storage.engine_trouble import is_engine_trouble
from registry.storage.patience import MOST_SECONDS, waiting_at_most

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseThreads(ThreadPoolExecutor):
    """A thread pool whose threads replace their connections after the database was away.

    Django replaces a broken connection between two requests. These threads serve no requests, so
    they would keep a broken connection for as long as they live. Connections seldom break one by
    one. So when one thread finds its connection broken, every other thread makes a new one before
    its next work.

    A statement of these threads that has no answer after `answer_seconds` breaks its connection.
    """

    def __init__(self, *args: Any, answer_seconds: float = MOST_SECONDS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer_seconds = answer_seconds
        self._breaks = 0  # connections that were found broken
        self._seen = local()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread; afterwards close the thread's connection if it broke."""
        return super().submit(self._mending, partial(fn, *args, **kwargs))

    def _mending(self, work: Callable[[], T]) -> T:
        if self._breaks != getattr(self._seen, "breaks", 0):
            connections.close_all()
        self._seen.breaks = self._breaks
        before = _sessions()
        try:
            with waiting_at_most(self._answer_seconds):
                return work()
        finally:
            mended = mend_connections(sys.exc_info()[1])
            after = _sessions()  # what the work itself mended has another session, or none
            if mended or any(one and after.get(alias) is not one for alias, one in before.items()):
                self._breaks += 1
                self._seen.breaks = self._breaks


def mend_connections(problem: object = None) -> bool:
    """Close this thread's connections that broke; return whether there were any.

    Where `problem` is an engine's trouble, a session that still answers is closed too: after a
    failover it may be read-only, or have lost what was prepared on it, and would stay so for as
    long as it lives. The next query makes a new connection.
    """
    distrusted = isinstance(problem, BaseException) and is_engine_trouble(problem)
    closed = False
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block or connection.connection is None:
            continue
        if distrusted:
            connection.close()
        elif connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()
        closed = closed or connection.connection is None
    return closed


def _sessions() -> dict[str, Any]:
    """The open session of each of this thread's connections."""
    return {one.alias: one.connection for one in connections.all(initialized_only=True)}
