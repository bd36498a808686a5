"""`manage.py beat`: what sends the scheduled tasks to the workers."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from messaging.process.celery_command import CeleryCommand


class Command(CeleryCommand):
    help = (
        "Send the scheduled tasks to the workers. One is enough; a second does no harm, since "
        "each task can run at any time and more than once."
    )

    def celery_arguments(self, options: dict[str, Any]) -> list[str]:
        return ["beat", f"--schedule={settings.ATP_DATA_DIR / 'beat-schedule'}"]
