"""Ending the rows of live sessions that only send."""

from __future__ import annotations

from typing import Any

from messaging.models import SendOnlySession


def end_send_only(**which: Any) -> None:
    """Delete the rows that the filter `which` names; what their sessions still send is fenced.

    The rows are locked in one order, so two callers can't wait for each other. The caller has a
    transaction.
    """
    rows = SendOnlySession.objects.select_for_update().filter(**which).order_by("pk")
    SendOnlySession.objects.filter(pk__in=list(rows.values_list("pk", flat=True))).delete()
