"""The trace id of the current OpenTelemetry span, if this process uses OpenTelemetry."""

from __future__ import annotations

import sys

__all__ = ["current_trace"]


def current_trace() -> str | None:
    """Return the trace id of W3C Trace Context, or `None` without a span.

    OpenTelemetry is not imported here: a process that has a span has imported it.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
