"""Celery tasks: thin, idempotent, short."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from celery import shared_task
from django.conf import settings
from django.db import InterfaceError, OperationalError

from messaging.judging import pipeline
from messaging.layer import events
from messaging.layer.news import News
from messaging.mail.fan_out import fan_out_next
from messaging.mail.held import settle_held
from messaging.mail.mailboxes import credit_good_traffic
from messaging.mail.retention import forget_batches_and_counters
from messaging.mail.withhold import expire
from messaging.periodic import recording
from messaging.sessions.sessions import close_sessions_of_dead_nodes
from messaging.telemetry import correlation, telemetry
from registry.storage.patience import waiting_at_most
from registry.trail.actions import EpochMoved

logger = logging.getLogger(__name__)

FAN_OUT_SECONDS = 0.05  # of a worker at a time


@shared_task(ignore_result=True)
def check_envelopes(batch: dict[str, Any]) -> None:
    """Judge and store a batch and tell its node; a batch that fails is told as failed."""
    with correlation.binding(batch=batch["batch"]):
        if batch["announce"]:
            events.publish({batch["channel"]: News(batch=batch["batch"], status="begun")})
        if status := _judge(batch):
            events.publish({batch["channel"]: News(batch=batch["batch"], status=status)})


def _judge(batch: dict[str, Any]) -> str:
    """Why the batch was not judged; empty where it was, and told."""
    try:
        with telemetry.working_on(batch), waiting_at_most(settings.ATP_ANSWER_SECONDS):
            pipeline.check(batch)
    except (OperationalError, InterfaceError):
        logger.exception("the database is away; batch %s was not judged", batch["batch"])
        return "unavailable"
    except EpochMoved:  # none of the batch's doing: nobody is to be poisoned for it
        logger.warning("the registry does not hold still; batch %s was not judged", batch["batch"])
        return "unavailable"
    except Exception as problem:  # whatever a batch does to us, its node must hear of it
        logger.exception("batch %s failed", batch["batch"])
        recording.note_failure(events.CHECK_ENVELOPES, problem)
        return "failed"
    return ""


@shared_task(ignore_result=True)
def fan_out() -> None:
    """Give waiting broadcasts to their audiences; what takes long lets batches in between."""
    until = time.monotonic() + FAN_OUT_SECONDS
    passed_over: set[str] = set()
    while (news := fan_out_next(passed_over)) is not None:
        events.publish(news)
        if time.monotonic() > until and not settings.CELERY_TASK_ALWAYS_EAGER:
            events.dispatch_fan_out()
            return


@shared_task(ignore_result=True)
def sweep() -> None:
    """Expire, decide about held mail, close dead nodes' sessions, carry on, forget what is old."""
    now = datetime.now(UTC)
    expire(now)
    settle_held(now)
    close_sessions_of_dead_nodes()
    fan_out()
    forget_batches_and_counters(now)


@shared_task(ignore_result=True)
def credit_traffic() -> None:
    """Count newly acknowledged mail for its senders' scores."""
    credit_good_traffic()
