"""Delete rows that the hub keeps for a limited time."""

from __future__ import annotations

from datetime import datetime, timedelta

from messaging.models import Batch, RuleCounter
from messaging.telemetry.processes import forget_processes

BATCHES_KEPT = timedelta(days=1)  # a node sends a batch again within seconds
COUNTERS_KEPT = timedelta(days=2)  # from a window's start; the longest window is a day


def forget_batches_and_counters(now: datetime) -> None:
    """Delete old batch ids, counters of past rate windows, and processes not seen for a day."""
    Batch.objects.filter(judged_at__lt=now - BATCHES_KEPT).delete()
    RuleCounter.objects.filter(window__lt=int((now - COUNTERS_KEPT).timestamp())).delete()
    forget_processes()
