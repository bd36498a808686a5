"""Measure how long each stage of a batch takes, and count its verdicts.

A worker serves no HTTP. So it sends its measurements to the batch's node with the outcome
(`News.tally`), and the node shows them (messaging/telemetry/instruments.py). The embedded hub does
the same.
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
    "fence",  # find the current sessions, and the senders whose session has ended
    "repeats",
    "verify",  # the registry's view and the signatures
    "facts",
    "judge",
    "store",  # the whole transaction, the trail in it
    "receipts",
    "return",  # from there until the node has the outcome, by the clocks of both
)


class Tracing(Protocol):
    """The interface to a tracing system; `atp_site/tracing.py` implements it."""

    def begin_batch(self, batch: str, envelopes: int) -> tuple[str, Callable[[str], None]]:
        """Begin the span of a batch on its node.

        Return its W3C `traceparent`, and a function that ends the span with the outcome.
        """

    def record_work(self, work: BatchMeasurements, problem: str) -> None:
        """Record the spans of finished work and of its stages; `problem` is "" if it succeeded."""


@dataclass(slots=True)
class BatchMeasurements:
    """The measurements of one batch on a worker, up to now."""

    batch: str
    traceparent: str = ""
    began_at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.perf_counter)
    laps: list[tuple[str, float]] = field(default_factory=list)  # stage, seconds since it began
    queued_seconds: float = 0.0

    def lap(self, stage: str) -> None:
        """Note that `stage` ends now."""
        self.laps.append((stage, time.perf_counter() - self.began))

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage; the times of a repeated stage are added."""
        spent = {"queue": self.queued_seconds}
        before = 0.0
        for stage, until in self.laps:
            spent[stage] = spent.get(stage, 0.0) + until - before
            before = until
        return spent


class TracingSwitch:
    """The tracer of this process; without one, no spans are made."""

    def __init__(self) -> None:
        self.tracer: Tracing | None = None

    def use(self, tracer: Tracing | None) -> None:
        """Send spans to `tracer` from now on; `None` stops it."""
        self.tracer = tracer


class LayerFailures:
    """Counts the messages that this process could not send over the channel layer."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    def count(self) -> None:
        """Count a message that could not be sent over the channel layer."""
        with self._lock:
            self._count += 1

    def take(self) -> int:
        """Return the failures in this process since the last call."""
        with self._lock:
            taken, self._count = self._count, 0
        return taken


tracing = TracingSwitch()
layer_failures = LayerFailures()

_work: ContextVar[BatchMeasurements | None] = ContextVar("atp_work", default=None)


@contextmanager
def working_on(payload: Mapping[str, Any]) -> Iterator[None]:
    """Measure the work of this thread for the batch in `payload`, while the context lasts."""
    work = BatchMeasurements(payload["batch"], payload.get("traceparent", ""))
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
    """Note that a stage of the current batch ends, one of `STAGES`; do nothing without a batch."""
    if (work := _work.get()) is not None:
        work.lap(stage)


def tally(verdicts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the measurements for the batch's node, with `verdicts` counted by verdict and code."""
    work = _work.get()
    counts = Counter(verdicts)
    return {
        "seconds": work.seconds if work is not None else {},
        "verdicts": [[verdict, code, n] for (verdict, code), n in counts.items()],
        "layerFailures": layer_failures.take(),
        "told": time.time(),
    }
