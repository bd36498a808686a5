"""The hub's settings with short time limits, so that tests of outages take seconds."""

from __future__ import annotations

from atp_site.settings import *  # noqa: F403  # all of them, as Django reads a module

ATP_LEASE_SECONDS = 3.0
ATP_LEASE_RENEW_SECONDS = 0.5
ATP_OUTCOME_SECONDS = 1
ATP_BUSY_AFTER_SECONDS = 2
ATP_START_SECONDS = 2
