"""Reads of agents, keys and enrolment tokens, named as adjectives."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import models

from registry.storage.compiled import Compiled, Texts

if TYPE_CHECKING:
    from registry.agents.models import Agent, AgentKey, EnrolmentToken  # noqa: F401


class AgentQuerySet(models.QuerySet["Agent"]):
    """Filters for agents."""

    def active(self) -> AgentQuerySet:
        """Return approved agents that are neither suspended nor revoked."""
        return self.filter(status="active")


class AgentKeyQuerySet(models.QuerySet["AgentKey"]):
    """Filters for the keys of agents."""

    def pending(self) -> AgentKeyQuerySet:
        """Return keys whose fingerprint an officer has not yet approved or refused."""
        return self.filter(status="pending")

    def usable(self) -> AgentKeyQuerySet:
        """Return keys that may sign now: approved, not retired, not revoked."""
        return self.filter(status="active")


class EnrolmentTokenQuerySet(models.QuerySet["EnrolmentToken"]):
    """Filters for enrolment tokens."""

    def open_at(self, now: datetime) -> EnrolmentTokenQuerySet:
        """Return tokens that can still enrol a key at `now`: not used and not expired."""
        return self.filter(used_at=None, expires_at__gt=now)


def _uids(agents: Texts) -> models.QuerySet[Any, Any]:
    rows = apps.get_model("registry", "Agent")._default_manager
    return rows.filter(id__any_of=agents).order_by().values_list("id", "organisation__uid")


_UIDS = Compiled(_uids)


def organisations_of(agent_ids: Collection[str]) -> dict[str, str]:
    """Return by agent the uid of its organisation, for entries about agents; one query."""
    return dict(_UIDS.rows(agent_ids)) if agent_ids else {}
