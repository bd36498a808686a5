"""What runs by itself: every scheduled task exists, and no copies of it pile up."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from atp_site import celery_app
from messaging.periodic.beat import LastingScheduler

SCHEDULED = """
import django
django.setup()
from atp_site import celery_app
from django.conf import settings
scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
print("scheduled", len(scheduled), *sorted(scheduled - set(celery_app.tasks)))
"""


def test_it_knows_every_scheduled_task() -> None:
    """A task with an unknown name would be sent to a broker without a worker, silently.

    In a process of its own: here, tests have imported modules that a hub does not import.
    """
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "atp_site.settings"}
    command = [sys.executable, "-c", SCHEDULED]
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.split() == ["scheduled", str(len(settings.CELERY_BEAT_SCHEDULE))]


def test_it_lets_a_run_lapse_when_the_next_is_due() -> None:
    for entry in settings.CELERY_BEAT_SCHEDULE.values():
        assert entry["options"]["expires"] <= entry["schedule"]


def test_it_loses_no_task_with_its_worker() -> None:
    """Celery acknowledges before it runs a task unless told otherwise, and twice at that."""
    assert celery_app.conf.task_acks_late
    assert celery_app.conf.task_reject_on_worker_lost
    assert celery_app.conf.worker_prefetch_multiplier == 1


def test_it_keeps_the_file_of_beat_for_its_owner(tmp_path: Path) -> None:
    scheduler = LastingScheduler(
        celery_app, schedule_filename=str(tmp_path / "beat-schedule"), lazy=True
    )
    scheduler.setup_schedule()
    scheduler.close()
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
