"""The Celery application: workers in production, tasks in the hub's process when embedded."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import (
    setup_logging,
    task_postrun,
    worker_process_init,
    worker_process_shutdown,
)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")

TASK_PACKAGES = [
    "messaging",
    "registry.attestations",
    "registry.bulk",
    "registry.exports",
    "registry.scores",
    "registry.trail",
]

app = Celery("atp", task_cls="messaging.process.hub_task:HubTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(TASK_PACKAGES)


@setup_logging.connect
def keep_logging(**_: Any) -> None:
    """Keep the log settings of the hub: Celery leaves them alone if this signal has a receiver."""


@worker_process_init.connect
def keep_connections(**_: Any) -> None:
    """Keep the database connection of a worker from task to task (nodes: atp_site/engines.py)."""
    from django.db import connections  # not at the top: settings are not loaded there

    for connection in connections.all():
        connection.settings_dict["CONN_MAX_AGE"] = None


@worker_process_init.connect
def begin_traces(**_: Any) -> None:
    """Begin traces in each child process: a fork does not copy the thread that sends them."""
    from atp_site import tracing

    tracing.traces.begin()


@worker_process_init.connect
def set_up_gc(**_: Any) -> None:
    """Set up the garbage collector in each child process (messaging/process/gc_settings.py)."""
    from messaging.process import gc_settings

    gc_settings.settle()


@worker_process_shutdown.connect
def end_traces(**_: Any) -> None:
    """Send the remaining spans of a child process before it ends."""
    from atp_site import tracing

    tracing.traces.end()


@task_postrun.connect
def mend_connections(retval: Any = None, **_: Any) -> None:
    """Replace broken database connections after each task, also in the thread of embedded beat."""
    from registry.storage.threads import mend_connections as mend  # needs loaded settings

    mend(retval)  # the exception, where the task failed
