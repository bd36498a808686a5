"""Make agents with keys, attestations and conduct, as rows, for tests of scores."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from registry.agents.models import Agent, AgentKey, Organisation
from registry.attestations.models import Attestation
from registry.issuers.models import Issuer
from registry.scores.models import Violation

NOW = datetime(2030, 6, 15, 12, 0, tzinfo=UTC)
EVERYTHING = ["finance.read", "finance.write"]


def make_organisation() -> Organisation:
    return Organisation.objects.create(name=f"Org {secrets.token_hex(6)}")


def make_agent(
    *,
    organisation: Organisation | None = None,
    parent: Agent | None = None,
    status: str = "active",
    created_at: datetime = NOW - timedelta(days=200),
) -> Agent:
    agent = Agent.objects.create(
        id=f"score-{secrets.token_hex(6)}",
        organisation=organisation or make_organisation(),
        owner_name="Olive",
        status=status,
        declared_capabilities=EVERYTHING,
        parent=parent,
    )
    Agent.objects.filter(pk=agent.pk).update(created_at=created_at)
    return agent


def make_issuer() -> Issuer:
    name = f"issuer-{secrets.token_hex(6)}"
    return Issuer.objects.create(slug=name, name=name, capability_patterns=["finance.*"])


def attest(
    agent: Agent,
    level: str = "certified",
    *,
    issuer: Issuer | None = None,
    now: datetime = NOW,
) -> Attestation:
    """Attest a new EdDSA key of `agent`."""
    kid = secrets.token_urlsafe(32)
    AgentKey.objects.create(
        kid=kid, agent=agent, algorithm="EdDSA", jwk={}, status="active", approved_at=NOW
    )
    return Attestation.objects.create(
        jti=secrets.token_urlsafe(16),
        issuer=issuer or make_issuer(),
        agent=agent,
        kid="issuer-key",
        level=level,
        capabilities=EVERYTHING,
        jkt=kid,
        issued_at=now - timedelta(days=10),
        expires_at=now + timedelta(days=300),
        status_index=secrets.randbelow(2**40),
        token="not looked at",
        verified_at=NOW,
    )


def violate(agent: Agent, severity: str, *, at: datetime = NOW - timedelta(days=1)) -> Violation:
    return Violation.objects.create(
        agent=agent,
        organisation=agent.organisation,
        severity=severity,
        rule="no such thing",
        at=at,
    )
