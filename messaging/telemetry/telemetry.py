"""How long a batch takes, stage by stage, and what becomes of it.

A worker serves no HTTP. What it measures goes back to the batch's node as part of the outcome
(`News.tally`), and the node shows it (`messaging.instruments`). The embedded hub does the same.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

STAGES = (
    "queue",  # from the node's dispatch until a worker begins, by the clocks of both
    "parse",
    "fence",  # who is connected where, and whose session has ended
    "repeats",
    "verify",  # the registry's view and the signatures
    "facts",
    "judge",
    "store",  # the whole transaction, the trail in it
    "receipts",
    "return",  # from there until the node has the outcome, by the clocks of both
)


class Tracing(Protocol):
    """What makes spans of what is measured; `atp_site.tracing` is one."""

    def begin_batch(self, batch: str, envelopes: int) -> tuple[str, Callable[[str], None]]:
        """Begin the span of a batch on its node: its `traceparent`, and what ends it by outcome."""

    def record_work(self, work: Work, problem: str) -> None:
        """The spans of what a worker did for a batch, and of its stages; it is done already."""


@dataclass(slots=True)
class Work:
    """What a worker does for one batch, as far as it has come."""

    batch: str
    traceparent: str = ""
    began_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    laps: list[tuple[str, float]] = field(default_factory=list)  # stage, seconds since it began
    queued_seconds: float = 0.0

    def lap(self, stage: str) -> None:
        self.laps.append((stage, time.perf_counter() - self.began))

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage; what was done over is summed."""
        spent = {"queue": self.queued_seconds}
        before = 0.0
        for stage, until in self.laps:
            spent[stage] = spent.get(stage, 0.0) + until - before
            before = until
        return spent


class TracingSwitch:
    """Says by what spans are made in this process; by nothing until `use` names it."""

    def __init__(self) -> None:
        self.tracer: Tracing | None = None

    def use(self, tracer: Tracing | None) -> None:
        """Have spans made by `tracer` from now on; `None` ends it."""
        self.tracer = tracer


class LayerFailures:
    """Counts the messages that this process could not send over the channel layer."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def count(self) -> None:
        """One more message could not be sent."""
        with self._lock:
            self._count += 1

    def take(self) -> int:
        """How many there were since this was last asked."""
        with self._lock:
            taken, self._count = self._count, 0
        return taken


tracing = TracingSwitch()
layer_failures = LayerFailures()

_work: ContextVar[Work | None] = ContextVar("atp_work", default=None)


@contextmanager
def working_on(payload: Mapping[str, Any]) -> Iterator[None]:
    """Measure what this thread does for the batch of `payload`."""
    work = Work(payload["batch"], payload.get("traceparent", ""))
    work.queued_seconds = max(0.0, work.began_at - payload.get("dispatched", work.began_at))
    token = _work.set(work)
    problem = "abandoned"
    try:
        yield
        problem = ""
    except Exception as exc:
        problem = type(exc).__name__
        raise
    finally:
        _work.reset(token)
        if (tracer := tracing.tracer) is not None and work.traceparent:
            tracer.record_work(work, problem)


def lap(stage: str) -> None:
    """The stage of the batch at work that ends here; one of `STAGES`, once for all envelopes."""
    if (work := _work.get()) is not None:
        work.lap(stage)


def tally(verdicts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What the batch's node is told: seconds by stage, and how often each verdict and code came."""
    work = _work.get()
    counts = Counter(verdicts)
    return {
        "seconds": work.seconds if work is not None else {},
        "verdicts": [[verdict, code, n] for (verdict, code), n in counts.items()],
        "layerFailures": layer_failures.take(),
        "told": time.time(),
    }
