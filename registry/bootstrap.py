"""The first rows of a hub: its id and keys, the trail, one organisation and one trust anchor.

With them an officer can attest a first agent at once. This module uses the actions of several
concepts, so it stands above them.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

from django.db import transaction

from registry.agents.actions import create_organisation
from registry.change import registry_change
from registry.hub.actions import add_key
from registry.hub.models import Hub, HubKey
from registry.hub.secrets import keep_secrets
from registry.issuers.actions import Limits, create_issuer
from registry.officers.actor import Actor
from registry.officers.groups import ensure_groups
from registry.policies.querysets import versions
from registry.scores.querysets import current_profile
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind
from registry.trail.models import Entry, Log

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
        keep_secrets(hub, new=created)
        for purpose in HubKey.Purpose.values:
            if not HubKey.objects.filter(purpose=purpose, retired_at=None).exists():
                add_key(hub, purpose)
        ensure_groups()
        if created:
            _furnish(hub)
        else:
            _begin_log(hub)
    if created:
        logger.info("this hub is %s", hub.hub_id)
    return hub


def _furnish(hub: Hub) -> None:
    """Begin the log, and make the first organisation and the first trust anchor."""
    actor = Actor.hub()
    with registry_change(actor):
        _begin_log(hub)
        create_organisation(ORGANISATION, actor=actor)
        create_issuer(ANCHOR_SLUG, ANCHOR_LIMITS, name=ANCHOR_NAME, actor=actor)


def _begin_log(hub: Hub) -> None:
    """Make the log if there is none, and enter its beginning if it has no entry."""
    log = Log.objects.order_by("first_position").last()
    if log is not None and Entry.objects.filter(position__gte=log.first_position).exists():
        return
    with registry_change(Actor.hub()) as change:
        if log is None:
            origin = f"log_{secrets.token_hex(Log.ORIGIN_BYTES)}"
            log = Log.objects.create(origin=origin, first_position=0)
        change.enter(_started(hub, log), *_policies_stated(), _profile_stated())


def _started(hub: Hub, log: Log) -> EntryDraft:
    keys = HubKey.objects.filter(retired_at=None).order_by("purpose")
    said: dict[str, Any] = {"keys": {key.purpose: key.public_jwk for key in keys}}
    if log.previous is not None:
        said["previous"] = log.previous
    return EntryDraft(kind=Kind.LOG_STARTED, subject=hub.hub_id, shared=said)


def _policies_stated() -> list[EntryDraft]:
    """Return an entry with the text of each policy, so that a log explains its own decisions."""
    return [
        EntryDraft(
            kind=Kind.POLICY_STATED,
            subject=version.policy.name,
            policy=version.policy.name,
            shared={
                "version": version.number,
                "digest": version.digest,
                "document": version.document,
            },
        )
        for version in versions().newest().select_related("policy").order_by("policy_id")
    ]


def _profile_stated() -> EntryDraft:
    profile = current_profile()
    return EntryDraft(
        kind=Kind.PROFILE_STATED,
        subject=f"profile {profile.version}",
        shared={"version": profile.version, "document": profile.to_dict()},
    )
