"""The first rows of a hub: its id and keys, the trail, one organisation and one trust anchor.

With them an officer can attest a first agent at once. This module uses the actions of several
concepts, so it stands above them.
"""

from __future__ import annotations

import logging
import secrets

from django.db import transaction

from registry.agents.actions import create_organisation
from registry.change import registry_change
from registry.hub.actions import add_key
from registry.hub.models import Hub, HubKey
from registry.hub.pseudonyms import keep_pseudonym_key
from registry.issuers.actions import Limits, create_issuer
from registry.officers.actor import Actor
from registry.officers.groups import ensure_groups
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

HUB_ID_BYTES = 8  # random, so that a proof for one hub is no proof for another
ORGANISATION = "Default organisation"
ANCHOR_SLUG = "local"
ANCHOR_NAME = "Local authority"
# "*" covers every capability. That suits an anchor for which only this hub's officers sign. Issuers
# below it get narrower patterns. Officers can narrow or revoke it like any other issuer.
ANCHOR_LIMITS = Limits(highest_level="certified", capability_patterns=("*",))


def ensure_hub() -> Hub:
    """Return the hub's row; if there is none, make it with its keys and first rows.

    A second call changes nothing.
    """
    with transaction.atomic():
        made = {"hub_id": f"hub-{secrets.token_hex(HUB_ID_BYTES)}"}
        # The lock on the row makes nodes that start together do this one after another.
        hub, created = Hub.objects.select_for_update().get_or_create(
            pk=Hub.SINGLETON_ID, defaults=made
        )
        keep_pseudonym_key(hub, new=created)
        for purpose in HubKey.Purpose.values:
            if not HubKey.objects.filter(purpose=purpose, retired_at=None).exists():
                add_key(hub, purpose)
        if created:
            _furnish(hub)
        with registry_change(Actor.hub(), moves_epoch=False):
            ensure_groups()
    if created:
        logger.info("this hub is %s", hub.hub_id)
    return hub


def _furnish(hub: Hub) -> None:
    """Begin the log, and make the first organisation and the first trust anchor."""
    actor = Actor.hub()
    keys = HubKey.objects.filter(retired_at=None).order_by("purpose")
    started = EntryDraft(
        kind=Kind.LOG_STARTED,
        actor=actor.name,
        subject=hub.hub_id,
        body={"keys": {key.purpose: key.public_jwk for key in keys}},
    )
    with registry_change(actor) as change:
        change.enter(started)
        create_organisation(ORGANISATION, actor=actor)
        create_issuer(ANCHOR_SLUG, ANCHOR_LIMITS, name=ANCHOR_NAME, actor=actor)
