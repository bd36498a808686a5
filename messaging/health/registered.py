"""What the database says of the hub's processes and tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Q
from django.db.models.functions import Now

from messaging.health.models import Process
from messaging.models import Node
from messaging.periodic.models import BackgroundTask
from registry.models import Hub

MISSED_FOR = timedelta(minutes=10)  # then a process that went silent was replaced, or given up


@dataclass(frozen=True, slots=True)
class Registered:
    """What the database says of the hub's processes and tasks; `now` is its clock.

    Nodes are those with a lease, processes those that have not said that they end.
    """

    now: datetime
    nodes: Sequence[Node]
    processes: Sequence[Process]
    tasks: Mapping[str, BackgroundTask]


def registered_now() -> Registered:
    """What the database says now; a handful of short queries."""
    seen_lately = Q(stopped_at=None, seen_at__gt=Now() - MISSED_FOR)
    return Registered(
        now=Hub.objects.values_list(Now(), flat=True).get(pk=Hub.SINGLETON_ID),
        nodes=list(Node.objects.filter(lease_until__gt=Now())),
        processes=list(Process.objects.filter(seen_lately)),
        tasks={row.name: row for row in BackgroundTask.objects.all()},
    )
