"""The metrics of a node, which Prometheus reads at `/metrics` (docs/monitoring.md).

Labels come from closed lists, so that an agent can't create a new time series.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from atp.errors import BY_CODE
from messaging.telemetry import correlation, telemetry

VERDICTS = {
    "accepted", "denied", "expired", "quarantined", "escalated", "throttled", "busy", "invalid",
    "repeat", "fenced",
}  # fmt: skip
OTHER = "other"  # for what only a newer worker knows
STAGE_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip  # seconds
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # up to ATP_BATCH_ENVELOPES

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the size of the page
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

ENVELOPES = Counter(
    "atp_envelopes",
    "Envelopes that this node took in, by what became of them and the code of the refusal.",
    ["verdict", "code"],
    registry=REGISTRY,
)
BATCH_ENVELOPES = Histogram(
    "atp_batch_envelopes",
    "Envelopes in a batch as this node hands it to the workers.",
    buckets=SIZE_BUCKETS,
    registry=REGISTRY,
)
BATCH_SECONDS = Histogram(
    "atp_batch_seconds",
    "From handing a batch to the workers until its outcome is known.",
    ["outcome"],
    buckets=STAGE_BUCKETS,
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "atp_stage_seconds",
    "Stages of a batch, measured by the worker that judged it.",
    ["stage"],
    buckets=STAGE_BUCKETS,
    registry=REGISTRY,
)
DELIVERIES = Counter(
    "atp_deliveries",
    "Deliveries written to the sockets of this node: pushed, or read from the rows.",
    ["way"],
    registry=REGISTRY,
)
ACKS = Counter(
    "atp_acks",
    "Acknowledgements written down; one may stand for many deliveries.",
    registry=REGISTRY,
)
SOCKETS_CLOSED = Counter(
    "atp_sockets_closed",
    "Agents' sockets that this node closed or refused, by code.",
    ["code"],
    registry=REGISTRY,
)
SEND_ONLY_SESSIONS = Counter(
    "atp_send_only_sessions",
    "Sessions that only send, opened beside the one that takes their agent's mail, by whether both"
    " came from the same address.",
    ["address"],
    registry=REGISTRY,
)
REVOCATION_SECONDS = Histogram(
    "atp_revocation_seconds",
    "From an officer's change until a socket that it ends was closed, for each socket.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0),
    registry=REGISTRY,
)
LAYER_FAILURES = Counter(
    "atp_layer_send_failures",
    "Messages that could not be sent over the channel layer, by this node or its workers.",
    registry=REGISTRY,
)

_PUSHED, _READ = DELIVERIES.labels("pushed"), DELIVERIES.labels("read")
_STAGES = {stage: STAGE_SECONDS.labels(stage) for stage in telemetry.STAGES}


@dataclass(slots=True)
class UnderWay:
    """A batch that was sent to the workers and has no outcome yet."""

    traceparent: str = ""
    outcome: str = "abandoned"  # if the node stops before the outcome is known


@contextmanager
def batch_under_way(batch: str, envelopes: int) -> Iterator[UnderWay]:
    """Measure a batch from its dispatch to its outcome.

    The caller sets `outcome` on the yielded value, and sends its `traceparent` to the worker.
    """
    one = UnderWay()
    end: Callable[[str], None] | None = None
    if (tracer := telemetry.tracing.tracer) is not None:
        one.traceparent, end = tracer.begin_batch(batch, envelopes)
    BATCH_ENVELOPES.observe(envelopes)
    began = time.perf_counter()
    try:
        with correlation.binding(batch=batch):
            yield one
    finally:
        BATCH_SECONDS.labels(one.outcome).observe(time.perf_counter() - began)
        if end is not None:
            end(one.outcome)


def take_tally(tally: Mapping[str, Any]) -> None:
    """Add a worker's measurements (`telemetry.tally`).

    A worker of another version may leave out fields or send unknown ones.
    """
    for stage, seconds in tally.get("seconds", {}).items():
        if stage in _STAGES:
            _STAGES[stage].observe(max(0.0, seconds))
    if told := tally.get("told"):
        _STAGES["return"].observe(max(0.0, time.time() - told))
    for verdict, code, count in tally.get("verdicts", []):
        count_envelopes(verdict, code, count)
    LAYER_FAILURES.inc(tally.get("layerFailures", 0))


def count_envelopes(verdict: str, code: str, count: int) -> None:
    """Count envelopes that got this verdict, and this code if they were refused."""
    known = verdict if verdict in VERDICTS else OTHER
    ENVELOPES.labels(known, known_code(code)).inc(count)


def count_pushed(deliveries: int) -> None:
    """Count deliveries that went to sockets straight from the news of a batch."""
    _PUSHED.inc(deliveries)


def count_read(deliveries: int) -> None:
    """Count deliveries that went to sockets after a read from the database."""
    _READ.inc(deliveries)


def count_send_only(*, elsewhere: bool) -> None:
    """Count a session that only sends; `elsewhere`: not from the agent's own address."""
    SEND_ONLY_SESSIONS.labels(OTHER if elsewhere else "same").inc()


def count_closed(code: str) -> None:
    """Count a socket that this node closed or refused with `code`."""
    SOCKETS_CLOSED.labels(known_code(code)).inc()


def known_code(code: str) -> str:
    """Return the code if the protocol has it (docs/errors.md) or if it is empty, else `OTHER`."""
    return code if code in BY_CODE or not code else OTHER
