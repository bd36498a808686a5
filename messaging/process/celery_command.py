"""The base of the commands `worker` and `beat`: an obstacle prints one sentence, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from celery._state import get_current_app
from celery.bin.celery import celery
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
        if status := run_celery(arguments):
            sys.exit(status)


def run_celery(arguments: Sequence[str]) -> int:
    """Run a command of Celery to its end and return its exit code.

    `Celery.start` loses the code, so a worker that gave up would look as if it had been stopped,
    and no supervisor would start it again.
    """
    celery.params[0].default = get_current_app()  # not the proxy, which click would call
    try:
        return int(celery.main(args=["--quiet", *arguments], standalone_mode=False) or 0)
    finally:
        celery.params[0].default = None
