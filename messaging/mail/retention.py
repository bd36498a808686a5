"""Delete rows that the hub keeps for a limited time."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from messaging.models import Batch, RuleCounter
from messaging.telemetry.processes import forget_processes

BATCHES_KEPT = timedelta(days=1)  # a node sends a batch again within seconds
MOST_A_RUN = 10_000  # rows of a table, every few seconds: no statement may take long
COUNTERS_KEPT = timedelta(days=2)  # from a window's start; the longest window is a day


def forget_batches_and_counters(now: datetime) -> None:
    """Delete old batch ids, counters of past rate windows, and processes not seen for a day.

    After a long pause there may be very many: the next runs delete the rest.
    """
    _delete_some(Batch.objects.filter(judged_at__lt=now - BATCHES_KEPT))
    windows = int((now - COUNTERS_KEPT).timestamp())
    _delete_some(RuleCounter.objects.filter(window__lt=windows))
    forget_processes()


def _delete_some(rows: QuerySet[Any]) -> None:
    rows.model._default_manager.filter(pk__in=rows.order_by().values("pk")[:MOST_A_RUN]).delete()
