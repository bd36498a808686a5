"""`manage.py production`: two nodes, two workers and beat on this machine, for trying it out."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from messaging.process.boot import StartRefused
from messaging.process.supervisor import supervise


class Command(BaseCommand):
    """The command `manage.py production`."""

    requires_system_checks = []  # `supervise` runs them and prints one sentence
    help = (
        "Run nodes, Celery workers and beat together against PostgreSQL, Redis and a broker "
        "(ATP_DATABASE_URL, ATP_REDIS_URL, ATP_BROKER_URL). Whichever process dies is started "
        "again, so you can kill any of them to try it. Ctrl-C ends all of them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        parser.add_argument("--nodes", type=int, default=2, help="on ATP_PORT and the ports after")
        parser.add_argument("--workers", type=int, default=2)

    def handle(self, *args: Any, **options: Any) -> None:
        """Supervise all processes until a signal; exit with one sentence on refusal."""
        try:
            supervise(
                first_port=settings.ATP_PORT,
                nodes=options["nodes"],
                workers=options["workers"],
                say=self._say,
            )
        except StartRefused as exc:
            sys.exit(str(exc))

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()
