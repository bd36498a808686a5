"""Template tags of the officers' pages: fingerprints, badges, and the list of open tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django import template
from django.urls import reverse
from django.utils.safestring import SafeString

from atp.trust import fingerprint as fingerprints
from registry import hooks
from registry.admin.attestations import pages as attestations
from registry.agents.models import Agent, AgentKey, EnrolmentToken
from registry.attestations.querysets import State
from registry.attestations.querysets import attestations as all_attestations
from registry.issuers.models import Issuer
from registry.officers.actor import Actor
from registry.policies.models import RuleNotice
from registry.scores.models import Violation
from registry.trail.kinds import Kind
from registry.trail.models import Entry

register = template.Library()

EXPIRING = timedelta(days=14)
ALARMING = timedelta(days=7)
RECENT = 8
NO_DECISIONS = {"admin", "trail", "export"}  # kinds of entries about signing in and reading


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the start page: how many things wait for an officer, and where they are."""

    count: int
    one: str
    several: str
    url: str

    @property
    def words(self) -> str:
        """Return the text for the count, in singular or plural."""
        return self.one if self.count == 1 else self.several


@dataclass(frozen=True, slots=True)
class WaitingWork:
    """Everything that waits for officers, and which first steps a new hub has taken."""

    registered: bool
    enrolled: bool
    first_steps: bool
    tasks: list[Task]


@register.filter
def fingerprint(kid: str) -> str:
    """Return a key's thumbprint as people read it to each other."""
    return fingerprints.fingerprint(kid)


@register.filter
def state_badge(state: State) -> SafeString:
    """Return the badge of an attestation's state, with its reason."""
    return attestations.state_badge(state)


@register.simple_tag
def work_in_hand() -> WaitingWork:
    """Return what waits for officers; about nine short queries."""
    active = Agent.objects.active().exists()
    return WaitingWork(
        registered=active or Agent.objects.exists(),
        enrolled=active or AgentKey.objects.exists(),
        first_steps=not active,
        tasks=[task for task in _tasks(datetime.now(UTC)) if task.count],
    )


@register.simple_tag
def recent_decisions(user: Any) -> list[Entry]:
    """Return the entries of this officer's last `RECENT` decisions, newest first."""
    decided = [kind for kind in Kind if kind.about not in NO_DECISIONS]
    entries = Entry.objects.filter(actor=Actor.of_user(user).name, kind__in=decided)
    entries = entries.order_by("-position")
    return list(entries.only("position", "time", "kind", "subject")[:RECENT])


def _tasks(now: datetime) -> list[Task]:
    agents = reverse("admin:registry_agent_changelist")
    expiring = all_attestations().in_date_at(now).filter(expires_at__lt=now + EXPIRING)
    tried_twice = EnrolmentToken.objects.filter(misused_at__gt=now - ALARMING)
    return [
        Task(
            tried_twice.count(),
            f"enrolment token was tried a second time in the last {ALARMING.days} days",
            f"enrolment tokens were tried a second time in the last {ALARMING.days} days",
            f"{reverse('admin:registry_enrolmenttoken_changelist')}?misused_at__isempty=0",
        ),
        Task(
            AgentKey.objects.pending().exclude(agent__status="revoked").count(),
            "key waits for its fingerprint to be compared",
            "keys wait for their fingerprint to be compared",
            f"{agents}?key=waiting",
        ),
        Task(
            Violation.objects.filter(closed_at=None, severity="critical").count(),
            "critical violation is open and holds scores down",
            "critical violations are open and hold scores down",
            f"{reverse('admin:registry_violation_changelist')}?severity__exact=critical",
        ),
        Task(
            RuleNotice.objects.filter(seen_at=None).count(),
            "notification of a rule has not been seen",
            "notifications of rules have not been seen",
            f"{reverse('admin:registry_rulenotice_changelist')}?state=unseen",
        ),
        Task(
            hooks.open_dead_letters(),
            "dead letter can be redelivered before it expires",
            "dead letters can be redelivered before they expire",
            f"{reverse('admin:messaging_deadletter_changelist')}?state=open",
        ),
        Task(
            expiring.count(),
            f"attestation expires within {EXPIRING.days} days",
            f"attestations expire within {EXPIRING.days} days",
            f"{reverse('admin:registry_attestation_changelist')}?validity=good&o=6",
        ),
        Task(
            Issuer.objects.filter(status=Issuer.Status.SUSPENDED).count(),
            "issuer is suspended, and with it all that it vouches for",
            "issuers are suspended, and with them all that they vouch for",
            f"{reverse('admin:registry_issuer_changelist')}?status__exact=suspended",
        ),
    ]
