"""What a new hub begins with, so that an officer can attest the first agent at once."""

from __future__ import annotations

from registry.agents.actions import create_organisation
from registry.hub.models import Hub, HubKey
from registry.issuers.actions import Limits, create_issuer
from registry.officers.actor import Actor
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

ORGANISATION = "Default organisation"
ANCHOR_SLUG = "local"
ANCHOR_NAME = "Local authority"
# "*" covers every capability. It suits an anchor whose only hands are this hub's officers; issuers
# below it get narrower patterns, and it can be narrowed or revoked like any other.
ANCHOR_LIMITS = Limits(highest_level="certified", capability_patterns=("*",))


def furnish(hub: Hub) -> None:
    """Begin the log, and make the first organisation and the first trust anchor."""
    actor = Actor.hub()
    keys = HubKey.objects.filter(retired_at=None).order_by("purpose")
    append(
        [
            EntryDraft(
                kind=Kind.LOG_STARTED,
                actor=actor.name,
                subject=hub.hub_id,
                body={"keys": {key.purpose: key.public_jwk for key in keys}},
            )
        ]
    )
    create_organisation(ORGANISATION, actor=actor)
    create_issuer(ANCHOR_SLUG, ANCHOR_NAME, ANCHOR_LIMITS, actor=actor)
