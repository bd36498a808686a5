"""The base of the commands `worker` and `beat`: an obstacle prints one sentence, no traceback."""

from __future__ import annotations

import sys
from typing import Any

from celery import current_app
from django.core.management.base import BaseCommand

from messaging.process.boot import StartRefused, prepare_celery


class CeleryCommand(BaseCommand):
    """A command that checks settings and services and then runs a part of Celery."""

    requires_system_checks = []  # `prepare_celery` runs them and prints one sentence

    def celery_arguments(self, options: dict[str, Any]) -> list[str]:
        """Return the command line for Celery. Raises `StartRefused` if an option is wrong."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        """Check options and services, then run Celery; exit with one sentence on refusal."""
        try:
            arguments = self.celery_arguments(options)
            prepare_celery()
        except StartRefused as exc:
            sys.exit(str(exc))
        current_app.start(["--quiet", *arguments])
