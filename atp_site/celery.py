"""The Celery application: workers in production, eager in the process of the embedded hub."""

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

TASK_PACKAGES = ["messaging", "registry.attestations", "registry.scores", "registry.trail"]

app = Celery("atp")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(TASK_PACKAGES)


@setup_logging.connect
def keep_logging(**_: Any) -> None:
    """Leave logs as the settings have them: Celery would put a level of its own over theirs."""


@worker_process_init.connect
def keep_connections(**_: Any) -> None:
    """Keep a worker process's database connection from task to task; see engines.py for nodes."""
    from django.db import connections  # settings are loaded by now, not when this module is

    for connection in connections.all():
        connection.settings_dict["CONN_MAX_AGE"] = None


@worker_process_init.connect
def begin_traces(**_: Any) -> None:
    """In each child: what sends them is a thread, which a fork does not copy."""
    from atp_site import tracing

    tracing.traces.begin()


@worker_process_init.connect
def settle_heap(**_: Any) -> None:
    from messaging.process import gc_settings

    gc_settings.settle()


@worker_process_shutdown.connect
def end_traces(**_: Any) -> None:
    from atp_site import tracing

    tracing.traces.end()


@task_postrun.connect
def mend_connections(retval: Any = None, **_: Any) -> None:
    """Get over a database that was away, also in the thread of an embedded beat."""
    from registry.storage.threads import mend_connections as mend  # its settings are loaded by now

    mend(retval)  # the exception, where the task failed
