"""Replacing keys of the hub: a key with which it signs, or the key that seals all others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from atp.trust import tokens
from atp.trust.keys import PrivateKey
from registry.change import registry_change
from registry.hub import keyring
from registry.hub import secrets as hub_secrets
from registry.hub.actions import add_key, current_key, open_key, owner
from registry.hub.models import Hub, HubKey
from registry.issuers.actions import sealed_keys
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind


@dataclass(frozen=True, slots=True)
class Resealed:
    """The result of `reseal_keys`: how many of the `held` keys were `changed`."""

    changed: int
    held: int


def rotate_hub_key(
    purpose: HubKey.Purpose, *, reason: str, compromised: bool, actor: Actor
) -> tuple[HubKey, HubKey]:
    """Make a new key current and retire the old one; return (old key, new key).

    The old key signs a token that names the new key, so agents that know only the old key still
    connect. Then its private key is deleted. Its signatures still verify. A `compromised` key
    names no successor, because a thief of the key could name any key.
    Raises `MalformedDocument` if the reason is empty or too long, `SealBroken` if the old key does
    not open.
    """
    reason = check_reason(reason)
    with registry_change(actor) as change:
        hub = Hub.objects.get()
        old = current_key(purpose)
        signer = open_key(hub.hub_id, old)
        old.retired_at, old.private_sealed = datetime.now(UTC), b""
        old.save(
            update_fields=["retired_at", "private_sealed"]
        )  # before `add_key`: only one key may be current
        new = add_key(hub, purpose)
        if not compromised:
            old.succession = _succession(hub.hub_id, signer, new)
            old.save(update_fields=["succession"])
        change.enter(_rotated(hub, old, new, reason, actor, compromised=compromised))
    return old, new


def reseal_keys(*, actor: Actor) -> Resealed:
    """Seal every private key with the current key-encryption key, all or none of them.

    A key that it already opens is skipped, so a second run changes nothing. Raises `SealBroken`,
    with nothing changed, if a key opens neither with the current nor with the old one.
    """
    with registry_change(actor, moves_epoch=False) as change:
        hub = Hub.objects.select_for_update().get()
        held = changed = 0
        for sealed, associated, store in _sealed(hub):
            held += 1
            if (again := keyring.reseal(sealed, associated=associated)) is not None:
                store(again)
                changed += 1
        if changed:
            change.enter(
                EntryDraft(
                    kind=Kind.HUB_KEYS_RESEALED,
                    actor=actor.name,
                    subject=hub.hub_id,
                    shared={"changed": changed, "held": held},
                )
            )
    return Resealed(changed, held)


Sealed = tuple[bytes | memoryview, bytes, Callable[[bytes], object]]


def _sealed(hub: Hub) -> Iterable[Sealed]:
    """Yield each sealed secret: its bytes, its associated data, and the function that stores it."""
    rows = Hub.objects.filter(pk=hub.pk)
    for secret in hub_secrets.ALL:
        if (sealed := secret.sealed(hub)) is not None:
            store = partial(_store_secret, rows, secret.column)
            yield sealed, secret.owner(hub), store
    for key in HubKey.objects.select_for_update().filter(retired_at=None).order_by("kid"):
        yield key.private_sealed, owner(hub.hub_id, key.kid), key.seal_anew
    for issuer_key, associated in sealed_keys():
        assert issuer_key.private_sealed is not None
        yield issuer_key.private_sealed, associated, issuer_key.seal_anew


def _store_secret(rows: Any, column: str, sealed: bytes) -> None:
    rows.update(**{column: sealed})


def _succession(hub_id: str, signer: PrivateKey, new: HubKey) -> str:
    claims = {"iss": hub_id, "jwk": new.public_jwk}
    return tokens.issue(tokens.TokenKind.SUCCESSION, claims, signer, now=int(time.time()))


def _rotated(
    hub: Hub, old: HubKey, new: HubKey, reason: str, actor: Actor, *, compromised: bool
) -> EntryDraft:
    return EntryDraft(
        kind=Kind.HUB_KEY_ROTATED,
        actor=actor.name,
        subject=hub.hub_id,
        shared={
            "purpose": old.purpose,
            "before": old.kid,
            "after": new.kid,
            "jwk": new.public_jwk,
            "compromised": compromised,
            "reason": reason,
        },
    )
