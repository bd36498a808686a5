"""Waiting for services that are starting: a machine that boots starts all of them at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.conf import settings

from messaging.health.probes import ServiceAway

logger = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
SAY_EVERY_SECONDS = 10.0

Pause = Callable[[float], object]  # true where the wait is to end


def wait_for(reach: Callable[[], object], *, pause: Pause = time.sleep) -> None:
    """Call `reach` until it succeeds, for `ATP_START_SECONDS` at most, and say what is waited for.

    Raises the last `ServiceAway`, at once where waiting would not help.
    """
    until = time.monotonic() + settings.ATP_START_SECONDS
    say_at = 0.0
    while True:
        try:
            reach()
            return
        except ServiceAway as away:
            left = until - time.monotonic()
            if not away.may_pass or left <= 0:
                raise
            if time.monotonic() >= say_at:
                logger.warning("%s; trying again for %.0f s", away, left)
                say_at = time.monotonic() + SAY_EVERY_SECONDS
            if pause(RETRY_SECONDS):
                raise
