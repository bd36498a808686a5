"""Send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT, if it is set (docs/monitoring.md).

Each batch is one trace: a span of the node, below it a span of the worker, below that a span for
each stage. If the variable is not set, OpenTelemetry is not imported and need not be installed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.core import checks

from messaging.telemetry import telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP = "http/protobuf"
SERVICE = "atp-hub"  # if OTEL_SERVICE_NAME is not set
FLUSH_SECONDS = 2.0  # at the stop, for spans that were not sent yet


def wanted() -> bool:
    """Return whether the environment names an endpoint for traces."""
    return any(os.environ.get(name, "").strip() for name in ENDPOINTS)


class Traces:
    """The tracer provider of this process, from `begin` to `end`."""

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None

    def begin(self) -> None:
        """Make spans in this process from now on, if an endpoint is set.

        Call it after a fork: the thread that sends spans is not copied to child processes.
        """
        if not wanted() or self._provider is not None:
            return
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = provider()
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        telemetry.tracing.use(Spans(self._provider))

    def end(self) -> None:
        """Send the remaining spans, for at most `FLUSH_SECONDS`, so that a stop does not hang."""
        telemetry.tracing.use(None)
        if self._provider is not None:
            flushing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
            flushing.start()
            flushing.join(FLUSH_SECONDS)
            self._provider = None


traces = Traces()


def provider() -> TracerProvider:
    """Return a tracer provider for this service; OTEL_TRACES_SAMPLER sets the sampling."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    name = os.environ.get("OTEL_SERVICE_NAME", "").strip() or SERVICE
    return TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)


class Spans:
    """`telemetry.Tracing` by OpenTelemetry. Spans have ids and counts, no content of messages."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation import tracecontext

        self._trace = trace
        self._tracer: Tracer = provider.get_tracer("atp")
        self._propagator = tracecontext.TraceContextTextMapPropagator()

    def begin_batch(self, batch: str, envelopes: int) -> tuple[str, Callable[[str], None]]:
        """Begin the span of a batch; return its `traceparent` and a function that ends it."""
        span = self._tracer.start_span(
            "batch",
            kind=self._trace.SpanKind.PRODUCER,
            attributes={"atp.batch": batch, "atp.envelopes": envelopes},
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))

        def finish(outcome: str) -> None:
            span.set_attribute("atp.outcome", outcome)
            if outcome != "done":
                span.set_status(self._trace.StatusCode.ERROR, outcome)
            span.end()

        return carrier["traceparent"], finish

    def record_work(self, work: telemetry.BatchMeasurements, problem: str) -> None:
        """Record the spans of finished work; `problem` is "" if it succeeded."""
        parent = self._propagator.extract({"traceparent": work.traceparent})
        span = self._tracer.start_span(
            "check",
            context=parent,
            kind=self._trace.SpanKind.CONSUMER,
            attributes={"atp.batch": work.batch, "atp.queued_seconds": work.queued_seconds},
            start_time=_nanoseconds(work.began_at),
        )
        context, began = self._trace.set_span_in_context(span), work.began_at
        for stage, after in work.laps:
            until = work.began_at + after
            step = self._tracer.start_span(stage, context, start_time=_nanoseconds(began))
            step.end(_nanoseconds(until))
            began = until
        if problem:
            span.set_status(self._trace.StatusCode.ERROR, problem)
        span.end()


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


@checks.register(checks.Tags.compatibility)
def traces_can_be_sent(app_configs: Sequence[Any] | None, **_: Any) -> list[checks.CheckMessage]:
    """Return an error if traces are set up but can't be sent."""
    if not wanted():
        return []
    asked = next((text for name in PROTOCOLS if (text := os.environ.get(name, "").strip())), HTTP)
    if asked != HTTP:
        message = f"Traces are sent over {HTTP} only, not {asked!r}."
        return [checks.Error(message, hint=f"Set {PROTOCOLS[1]} to {HTTP}.", id="atp.E003")]
    if _is_installed("opentelemetry.sdk") and _is_installed(
        "opentelemetry.exporter.otlp.proto.http"
    ):
        return []
    return [
        checks.Error(
            f"{ENDPOINTS[0]} is set, but OpenTelemetry is not installed.",
            hint="Install the packages of requirements-otel.txt, or unset the variable.",
            id="atp.E002",
        )
    ]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
