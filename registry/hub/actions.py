"""The hub's own row: made once with its keys, and the epoch that every registry change moves."""

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
    """The database has no hub row: `registry.bootstrap.ensure_hub` makes it."""


class OpenedKeys:
    """The private keys that this process has unsealed."""

    def __init__(self) -> None:
        self._by_kid: dict[str, PrivateKey] = {}
        self._lock = threading.Lock()

    def open(self, hub: str, row: HubKey) -> PrivateKey:
        """The private half of a key, unsealed once per process."""
        with self._lock:
            known = self._by_kid.get(row.kid)
            if known is None:
                pem = keyring.unseal(row.private_sealed, associated=owner(hub, row.kid))
                known = self._by_kid[row.kid] = PrivateKey.from_pem(pem, alg=row.algorithm)
        return known


open_key = OpenedKeys().open


def bump_epoch() -> None:
    """Tell all caches that the registry changes; the first write of every change.

    Locks the hub's row until commit, so that registry changes happen one after another and never
    wait for each other in a circle. Needs a transaction.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("bump_epoch() needs a transaction")
    moved = {"epoch": F("epoch") + 1, "epoch_moved_at": Now()}
    if not Hub.objects.filter(pk=Hub.SINGLETON_ID).update(**moved):
        raise HubMissing("there is no hub row")


@cache
def hub_id() -> str:
    """This hub's id, which never changes; read once per process. Raises `HubMissing`."""
    found = Hub.objects.values_list("hub_id", flat=True).filter(pk=Hub.SINGLETON_ID).first()
    if found is None:
        raise HubMissing("there is no hub row")
    return found


def session_key() -> PrivateKey:
    """The key by which the hub proves itself to agents that connect; one query."""
    return open_key(hub_id(), current_key(HubKey.Purpose.SESSION))


def session_proof() -> tuple[PrivateKey, tuple[str, ...]]:
    """That key, and the tokens by which each key before it named the next; one query.

    They begin after the last key that named none, since nothing leads from there to here.
    """
    rows = list(HubKey.objects.filter(purpose=HubKey.Purpose.SESSION).order_by("created_at"))
    *retired, current = sorted(rows, key=lambda row: row.retired_at is None)
    named: list[str] = []
    for row in retired:
        named = [*named, row.succession] if row.succession else []
    return open_key(hub_id(), current), tuple(named)


def session_jwks() -> list[Mapping[str, str]]:
    """The public keys by which the hub proves or proved itself, the current one first."""
    rows = HubKey.objects.filter(purpose=HubKey.Purpose.SESSION).order_by("-created_at")
    return [row.public_jwk for row in sorted(rows, key=lambda row: row.retired_at is not None)]


def current_key(purpose: str) -> HubKey:
    """The row of the key that signs now; one query."""
    return HubKey.objects.get(purpose=purpose, retired_at=None)


def add_key(hub: Hub, purpose: str) -> HubKey:
    """A new key, which is the current one at once."""
    key = PrivateKey.generate()
    return HubKey.objects.create(
        kid=key.kid,
        purpose=purpose,
        algorithm=key.alg,
        public_jwk=key.public.jwk,
        private_sealed=keyring.seal(key.to_pem(), associated=owner(hub.hub_id, key.kid)),
    )


def owner(hub: str, kid: str) -> bytes:
    """What the seal of a key is bound to."""
    return f"hub\0{hub}\0{kid}".encode()
