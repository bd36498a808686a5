"""`manage.py worker`: a Celery worker, which judges batches and runs scheduled tasks."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from messaging.process.boot import StartRefused
from messaging.process.celery_command import CeleryCommand


class Command(CeleryCommand):
    """The command `manage.py worker`."""

    help = (
        "Run a Celery worker of this hub. SIGTERM ends it after its current tasks. If it is "
        "killed, another worker repeats its tasks. Run at least two, each with its own name."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options of the command."""
        parser.add_argument("--name", default="worker", help="unique on this machine")
        parser.add_argument(
            "--concurrency", type=int, default=2, help="processes; one for each core"
        )

    def celery_arguments(self, options: dict[str, Any]) -> list[str]:
        """Return the command line. Raises `StartRefused` if `--concurrency` is below 1."""
        if options["concurrency"] < 1:
            raise StartRefused("--concurrency must be at least 1.")
        return [
            "worker",
            f"--concurrency={options['concurrency']}",
            f"--hostname={options['name']}@%h",
            "--without-gossip",  # workers need not know each other
            "--without-mingle",
        ]
