"""The Django app of the composition root: it registers system checks and all tasks."""

from __future__ import annotations

from django.apps import AppConfig


class SiteConfig(AppConfig):
    """The Django app `atp_site`."""

    name = "atp_site"
    verbose_name = "Agent Trust Protocol"

    def ready(self) -> None:
        """Register checks and tasks when Django starts."""
        from atp_site import checks, tracing  # noqa: F401  # registers their checks
        from atp_site.celery import TASK_PACKAGES
        from atp_site.celery import app as celery_app

        # A worker imports the tasks by itself. In the hub's process they must be imported here, or
        # embedded beat would send a task that it does not know to the broker, where no worker is.
        celery_app.autodiscover_tasks(TASK_PACKAGES, force=True)
