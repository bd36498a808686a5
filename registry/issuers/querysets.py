"""Reads of issuers and of what they publish."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from registry.issuers.models import Issuer, IssuerKey


def issuer_url(slug: str) -> str:
    """What names an issuer in its trust marks (`iss`); its keys are published below it."""
    return f"{settings.ATP_PUBLIC_URL}/issuers/{slug}"


def agent_url(agent_id: str) -> str:
    """What names an agent in a trust mark (`sub`)."""
    return f"{settings.ATP_PUBLIC_URL}/agents/{agent_id}"


def status_list_url(slug: str) -> str:
    """Where an issuer that signs here says which of its trust marks still hold."""
    return f"{settings.ATP_PUBLIC_URL}/api/v1/issuers/{slug}/status-list"


def published_keys(issuer: Issuer) -> list[dict[str, Any]]:
    """The JWKS members of an issuer: also retired keys, since what they signed still verifies."""
    keys = issuer.keys.exclude(status=IssuerKey.Status.REVOKED).order_by("created_at")
    return [key.public_jwk for key in keys]


def signing_key_row(issuer: Issuer) -> IssuerKey | None:
    """The key by which the hub signs for this issuer; `None` where the issuer signs elsewhere."""
    rows = issuer.keys.filter(status=IssuerKey.Status.ACTIVE, private_sealed__isnull=False)
    return rows.order_by("-created_at").first()
