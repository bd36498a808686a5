"""The composition root: settings, URLs, ASGI and Celery. Imports everything; nothing imports it."""

from __future__ import annotations

from atp_site.celery import app as celery_app

__all__ = ["celery_app"]
