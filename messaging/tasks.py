"""Celery tasks. Each one is short and may run more than once."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from celery import shared_task
from django.conf import settings

from messaging.judging import pipeline
from messaging.layer import events
from messaging.layer.news import News
from messaging.mail.absences import end_overdue
from messaging.mail.fan_out import fan_out_next
from messaging.mail.held import settle_held
from messaging.mail.mailboxes import credit_good_traffic
from messaging.mail.notices import place_notices
from messaging.mail.retention import forget_batches_and_counters
from messaging.mail.withhold import expire
from messaging.periodic import recording
from messaging.sessions.sessions import close_sessions_of_dead_nodes
from messaging.telemetry import correlation, telemetry
from registry.storage.engine_trouble import is_engine_trouble
from registry.storage.threads import mend_connections
from registry.trail.actions import EpochMoved

logger = logging.getLogger(__name__)

FAN_OUT_SECONDS = 0.05  # of one run; a new task continues, so that batches come in between


@shared_task(ignore_result=True)
def check_envelopes(batch: dict[str, Any]) -> None:
    """Judge and store a batch, and send its node the outcome, also if the batch fails."""
    with correlation.binding(batch=batch["batch"]):
        if batch["announce"]:
            events.publish({batch["channel"]: News(batch=batch["batch"], status="begun")})
        if status := _judge(batch):
            events.publish({batch["channel"]: News(batch=batch["batch"], status=status)})


def _judge(batch: dict[str, Any]) -> str:
    """Judge a batch; return why it was not judged, or "" if it was and its node was told."""
    try:
        with telemetry.working_on(batch):
            pipeline.check(batch)
    except EpochMoved:  # not the fault of an envelope, so none may count as poison
        logger.warning(
            "the registry changed again and again; batch %s was not judged", batch["batch"]
        )
        return "unavailable"
    except Exception as problem:  # the node must learn of any failure
        if is_engine_trouble(problem):  # no envelope is blamed for it
            logger.exception("the database can't be used; batch %s was not judged", batch["batch"])
            mend_connections(problem)
            return "unavailable"
        logger.exception("batch %s failed", batch["batch"])
        recording.note_failure(events.CHECK_ENVELOPES, problem)
        return "failed"
    return ""


@shared_task(ignore_result=True)
def fan_out() -> None:
    """Deliver waiting broadcasts to their audiences, for about `FAN_OUT_SECONDS` in one task."""
    until = time.monotonic() + FAN_OUT_SECONDS
    passed_over: set[str] = set()
    while (news := fan_out_next(passed_over)) is not None:
        events.publish(news)
        if time.monotonic() > until and not settings.CELERY_TASK_ALWAYS_EAGER:
            events.dispatch_fan_out()
            return


@shared_task(ignore_result=True)
def sweep() -> None:
    """Expire and settle mail, place notices, close what has ended, fan out, clean up."""
    now = datetime.now(UTC)
    expire(now)
    settle_held(now)
    place_notices()
    close_sessions_of_dead_nodes()
    end_overdue()
    fan_out()
    forget_batches_and_counters(now)


@shared_task(ignore_result=True)
def credit_traffic() -> None:
    """Count newly acknowledged mail for its senders' scores."""
    credit_good_traffic()
