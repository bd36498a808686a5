"""A worker that gives up ends with an exit code that a supervisor sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import free_port, hub_environment, manage
from tests.services import PrivateRedis
from tests.sources import ROOT

PATIENCE_SECONDS = 90
GAVE_UP = 70  # EX_SOFTWARE

WORKER = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
import django
django.setup()
from celery.signals import worker_ready
from celery.worker import state
from django.core.management import call_command

@worker_ready.connect
def give_up(**_):
    state.should_stop = int(sys.argv[1])

call_command("worker", "--concurrency=1")
"""


def exit_code(folder: Path, env: dict[str, str], code: int) -> int:
    """How a worker ends that begins to stop once it is ready."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(code)],
        cwd=ROOT,
        env=hub_environment(folder, free_port(), env),
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    return done.returncode


def test_a_worker_says_how_it_ended(tmp_path: Path) -> None:
    with PrivateRedis() as redis:
        env = {
            "ATP_DATABASE_URL": f"sqlite:///{tmp_path}/hub.sqlite3",
            "ATP_REDIS_URL": redis.database(0),
            "ATP_BROKER_URL": redis.database(1),
        }
        assert manage(["migrate"], tmp_path / "data", env).returncode == 0
        assert exit_code(tmp_path / "data", env, GAVE_UP) == GAVE_UP
        assert exit_code(tmp_path / "data", env, 0) == 0
