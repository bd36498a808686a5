"""The composition root as a Django app: system checks, and every task known by name."""

from __future__ import annotations

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "atp_site"
    verbose_name = "Agent Trust Protocol"

    def ready(self) -> None:
        from atp_site import checks, tracing  # noqa: F401  # registers their checks
        from atp_site.celery import TASK_PACKAGES
        from atp_site.celery import app as celery_app

        # A worker does this by itself. In the hub's own process beat would send a task that it
        # does not know to the broker, where no worker takes it.
        celery_app.autodiscover_tasks(TASK_PACKAGES, force=True)
