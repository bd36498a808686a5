"""`manage.py beat`: Celery beat, which sends the scheduled tasks to the workers."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from messaging.process.celery_command import CeleryCommand


class Command(CeleryCommand):
    """The command `manage.py beat`."""

    help = (
        "Send the scheduled tasks to the workers. One beat is enough. A second one does no harm: "
        "each task may run at any time and more than once."
    )

    def celery_arguments(self, options: dict[str, Any]) -> list[str]:
        """Return the command line; beat stores its times in the data folder."""
        return ["beat", f"--schedule={settings.ATP_DATA_DIR / 'beat-schedule'}"]
