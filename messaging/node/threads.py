"""The database threads of a serving process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.db import connections

from registry.storage.threads import DatabaseThreads

P = ParamSpec("P")
T = TypeVar("T")


class NodeThreads(DatabaseThreads):
    """A pool of database threads that the event loop can await.

    A statement of theirs has `answer_seconds` to be answered, by default `ATP_ANSWER_SECONDS`.
    """

    def __init__(self, count: int, name: str, *, answer_seconds: float | None = None) -> None:
        seconds = settings.ATP_ANSWER_SECONDS if answer_seconds is None else answer_seconds
        super().__init__(count, name, answer_seconds=seconds)
        self._count = count

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in one of the threads. Raises what `function` raises."""
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Finish the work that is queued, then close the threads' connections and end them."""
        for _ in range(self._count):
            self.submit(connections.close_all)
        self.shutdown(wait=True, cancel_futures=False)
