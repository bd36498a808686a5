"""Reads of issuers, their keys and their public addresses."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from registry.issuers.models import Issuer, IssuerKey


def issuer_url(slug: str) -> str:
    """Return the URL that names the issuer in its trust marks (`iss`)."""
    return f"{settings.ATP_PUBLIC_URL}/issuers/{slug}"


def agent_url(agent_id: str) -> str:
    """Return the URL that names the agent in a trust mark (`sub`)."""
    return f"{settings.ATP_PUBLIC_URL}/agents/{agent_id}"


def status_list_url(slug: str) -> str:
    """Return the URL of the issuer's status list, which tells which trust marks are revoked."""
    return f"{settings.ATP_PUBLIC_URL}/api/v1/issuers/{slug}/status-list"


def published_keys(issuer: Issuer) -> list[dict[str, Any]]:
    """Return the issuer's public keys as JWKS members, without revoked keys.

    Retired keys are included, because signatures made with them still verify.
    """
    keys = issuer.keys.exclude(status=IssuerKey.Status.REVOKED).order_by("created_at")
    return [key.public_jwk for key in keys]


def signing_key_row(issuer: Issuer) -> IssuerKey | None:
    """Return the key with which the hub signs for this issuer; `None` if it signs elsewhere."""
    rows = issuer.keys.filter(status=IssuerKey.Status.ACTIVE, private_sealed__isnull=False)
    return rows.order_by("-created_at").first()
