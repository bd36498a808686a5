"""What the commands that run a part of Celery share: an obstacle is one sentence, no traceback."""

from __future__ import annotations

import sys
from typing import Any

from celery import current_app
from django.core.management.base import BaseCommand

from messaging.process.boot import StartRefused, prepare_celery


class CeleryCommand(BaseCommand):
    """Looks whether all that is needed is there, and becomes that part of Celery."""

    requires_system_checks = []  # `prepare_celery` runs them, and says in a sentence what is wrong

    def celery_arguments(self, options: dict[str, Any]) -> list[str]:
        """The command line for Celery. May raise `StartRefused`."""
        raise NotImplementedError

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            arguments = self.celery_arguments(options)
            prepare_celery()
        except StartRefused as exc:
            sys.exit(str(exc))
        current_app.start(["--quiet", *arguments])
