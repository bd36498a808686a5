"""Reads of agents, keys and enrolment tokens, named as adjectives."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from registry.agents.models import Agent, AgentKey, EnrolmentToken  # noqa: F401


class AgentQuerySet(models.QuerySet["Agent"]):
    def active(self) -> AgentQuerySet:
        return self.filter(status="active")


class AgentKeyQuerySet(models.QuerySet["AgentKey"]):
    def pending(self) -> AgentKeyQuerySet:
        return self.filter(status="pending")

    def usable(self) -> AgentKeyQuerySet:
        """Keys that may sign now."""
        return self.filter(status="active")


class EnrolmentTokenQuerySet(models.QuerySet["EnrolmentToken"]):
    def open_at(self, now: datetime) -> EnrolmentTokenQuerySet:
        return self.filter(used_at=None, expires_at__gt=now)
