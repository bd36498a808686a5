"""`manage.py worker`: a Celery worker, which judges batches and runs what is due."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from messaging.process.boot import StartRefused
from messaging.process.celery_command import CeleryCommand


class Command(CeleryCommand):
    help = (
        "Run a Celery worker of this hub. SIGTERM ends it once its tasks are done; what it leaves "
        "behind when it is killed another one does. Run at least two, each with its own name."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", default="worker", help="of this one among all on the machine")
        parser.add_argument("--concurrency", type=int, default=2, help="processes; one for a core")

    def celery_arguments(self, options: dict[str, Any]) -> list[str]:
        if options["concurrency"] < 1:
            raise StartRefused("--concurrency must be at least 1.")
        return [
            "worker",
            f"--concurrency={options['concurrency']}",
            f"--hostname={options['name']}@%h",
            "--without-gossip",  # workers know nothing of each other
            "--without-mingle",
        ]
