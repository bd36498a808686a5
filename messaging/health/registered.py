"""Read the hub's processes and tasks from the database."""

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
class RegisteredProcesses:
    """The hub's processes and tasks in the database; `now` is the database's clock.

    `nodes` are those with a lease. `processes` are the workers and beats that gave a sign of life
    within `MISSED_FOR` and did not stop on request. `tasks` maps names to rows.
    """

    now: datetime
    nodes: Sequence[Node]
    processes: Sequence[Process]
    tasks: Mapping[str, BackgroundTask]


def registered_now() -> RegisteredProcesses:
    """Read processes and tasks, in four short queries. Raises `DatabaseError` if it is away."""
    seen_lately = Q(stopped_at=None, seen_at__gt=Now() - MISSED_FOR)
    return RegisteredProcesses(
        now=Hub.objects.values_list(Now(), flat=True).get(pk=Hub.SINGLETON_ID),
        nodes=list(Node.objects.filter(lease_until__gt=Now())),
        processes=list(Process.objects.filter(seen_lately)),
        tasks={row.name: row for row in BackgroundTask.objects.all()},
    )
