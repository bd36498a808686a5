"""The hub's own row: its id, its keys, and the epoch that registry changes move."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache

from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from atp.trust.keys import PrivateKey
from registry.hub import keyring
from registry.hub.models import Hub, HubKey


class HubMissing(Exception):
    """The database has no hub row yet. `registry.bootstrap.ensure_hub` makes it."""


class OpenedKeys:
    """The private keys that this process has unsealed."""

    def __init__(self) -> None:
        self._by_kid: dict[str, PrivateKey] = {}
        self._lock = threading.Lock()

    def open(self, hub: str, row: HubKey) -> PrivateKey:
        """Return the private key of `row`; a process unseals it once.

        Raises `SealBroken` if the key does not open with the key-encryption key.
        """
        with self._lock:
            known = self._by_kid.get(row.kid)
            if known is None:
                pem = keyring.unseal(row.private_sealed, associated=owner(hub, row.kid))
                known = self._by_kid[row.kid] = PrivateKey.from_pem(pem, alg=row.algorithm)
        return known


open_key = OpenedKeys().open


def bump_epoch() -> None:
    """Raise the registry's epoch by one, which makes every cache of the registry stale.

    It is the first write of every registry change: it locks the hub's row until the commit, so
    registry changes run one after another and can't deadlock. Raises `HubMissing` if there is no
    hub row and `TransactionManagementError` outside a transaction.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("bump_epoch() needs a transaction")
    moved = {"epoch": F("epoch") + 1, "epoch_moved_at": Now()}
    if not Hub.objects.filter(pk=Hub.SINGLETON_ID).update(**moved):
        raise HubMissing("the database has no hub row; registry.bootstrap.ensure_hub() makes it")


@cache
def hub_id() -> str:
    """Return this hub's id. It never changes, so a process reads it once.

    Raises `HubMissing` if there is no hub row.
    """
    found = Hub.objects.values_list("hub_id", flat=True).filter(pk=Hub.SINGLETON_ID).first()
    if found is None:
        raise HubMissing("the database has no hub row; registry.bootstrap.ensure_hub() makes it")
    return found


def session_key() -> PrivateKey:
    """Return the private key with which the hub proves itself to connecting agents; one query."""
    return open_key(hub_id(), current_key(HubKey.Purpose.SESSION))


def session_proof() -> tuple[PrivateKey, tuple[str, ...]]:
    """Return the current session key, and the chain of `atp-successor+jwt` that leads to it.

    In each of these tokens, oldest first, a retired key names the key after it. A compromised key
    names none, so the chain begins after the newest compromised key. One query.
    """
    rows = list(HubKey.objects.filter(purpose=HubKey.Purpose.SESSION).order_by("created_at"))
    *retired, current = sorted(rows, key=lambda row: row.retired_at is None)
    named: list[str] = []
    for row in retired:
        named = [*named, row.succession] if row.succession else []
    return open_key(hub_id(), current), tuple(named)


def session_jwks() -> list[Mapping[str, str]]:
    """Return the public session keys of the hub as JWKs: the current one first, then retired."""
    rows = HubKey.objects.filter(purpose=HubKey.Purpose.SESSION).order_by("-created_at")
    return [row.public_jwk for row in sorted(rows, key=lambda row: row.retired_at is not None)]


def current_key(purpose: str) -> HubKey:
    """Return the row of the current key of `purpose`; one query."""
    return HubKey.objects.get(purpose=purpose, retired_at=None)


def add_key(hub: Hub, purpose: str) -> HubKey:
    """Make and store a key, which becomes the current one at once.

    Retire the old current key before: the database allows one for each purpose.
    """
    key = PrivateKey.generate()
    return HubKey.objects.create(
        kid=key.kid,
        purpose=purpose,
        algorithm=key.alg,
        public_jwk=key.public.jwk,
        private_sealed=keyring.seal(key.to_pem(), associated=owner(hub.hub_id, key.kid)),
    )


def owner(hub: str, kid: str) -> bytes:
    """Return the associated data of a hub key's seal (see `keyring.seal`)."""
    return f"hub\0{hub}\0{kid}".encode()
