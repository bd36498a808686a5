"""What the commands that run a part of Celery share: an obstacle is one sentence, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from celery._state import get_current_app
from celery.bin.celery import celery
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
