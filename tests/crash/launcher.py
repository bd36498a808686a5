"""`manage.py` with a fault built in: a mutant that the checker must find, or a task that dies.

    ATP_CRASH_MUTANT=receipt_before_commit python -m tests.crash.launcher worker --name w0

The product has none of this. Here `ATP_FAILPOINTS` can also name the commits of any task:
`before_commit_of_messaging.tasks.sweep:2` ends the process before the second transaction of that
task commits, `after_commit_of_...` after it has committed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any

import django
from django.core.management import execute_from_command_line

DIES_AT_BATCH = 12  # of a mutant that sends receipts before the commit
RECEIPTS_LEAVE_SECONDS = 1.0  # a node writes receipts from another thread


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    watch_commits()
    if mutant := os.environ.get("ATP_CRASH_MUTANT"):
        MUTANTS[mutant]()
    execute_from_command_line(sys.argv)


def watch_commits() -> None:
    """Add failpoints before and after every commit of a task."""
    from celery import current_task
    from django.db.backends.base.base import BaseDatabaseWrapper

    from messaging import failpoints

    commit = BaseDatabaseWrapper.commit

    def watched(self: BaseDatabaseWrapper) -> None:
        if task := current_task:
            failpoints.hit(f"before_commit_of_{task.name}")
        commit(self)
        if task := current_task:
            failpoints.hit(f"after_commit_of_{task.name}")

    BaseDatabaseWrapper.commit = watched  # type: ignore[method-assign]  # replaced on purpose


def receipt_before_commit() -> None:
    """Send receipts before the commit of the batch, and die in between."""
    from django.db import transaction

    from messaging.judging import pipeline

    check, batches = pipeline.check, count(1)

    def too_early(batch: Mapping[str, Any]) -> None:
        with transaction.atomic():
            check(batch)
            if next(batches) == DIES_AT_BATCH:
                time.sleep(RECEIPTS_LEAVE_SECONDS)
                os._exit(9)

    pipeline.check = too_early


def acknowledged_for_them() -> None:
    """Count mail as acknowledged as soon as it has its sequence number."""
    from django.db.models import F

    from messaging.mail import deliveries, mailboxes
    from messaging.models import Mailbox

    assign = mailboxes.assign_sequence_numbers

    def and_taken(
        expiries: Mapping[tuple[str, str], Sequence[datetime]],
    ) -> dict[tuple[str, str], int]:
        first = assign(expiries)
        agents = {agent for agent, _ in expiries}
        Mailbox.objects.filter(agent__in=agents).update(acked_seq=F("last_seq"))
        return first

    vars(deliveries)["assign_sequence_numbers"] = and_taken  # replaced on purpose


MUTANTS: dict[str, Callable[[], None]] = {
    "receipt_before_commit": receipt_before_commit,
    "acknowledged_for_them": acknowledged_for_them,
}

if __name__ == "__main__":
    main()
