"""Dropping what was kept for a while only."""

from __future__ import annotations

from datetime import datetime, timedelta

from messaging.models import Batch, RuleCounter
from messaging.telemetry.processes import forget_processes

BATCHES_KEPT = timedelta(days=1)  # a repeat of a batch comes within seconds
COUNTERS_KEPT = timedelta(days=2)  # from a window's start; the longest window is a day


def forget_batches_and_counters(now: datetime) -> None:
    """Drop ids of batches that nobody sends again, counters of past windows, lost processes."""
    Batch.objects.filter(judged_at__lt=now - BATCHES_KEPT).delete()
    RuleCounter.objects.filter(window__lt=int((now - COUNTERS_KEPT).timestamp())).delete()
    forget_processes()
