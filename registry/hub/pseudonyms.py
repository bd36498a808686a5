"""The secret that makes people's pseudonyms.

The hub stores it, sealed. So pseudonyms stay the same when the key-encryption key is replaced.
"""

from __future__ import annotations

import secrets

from django.conf import settings

from registry.hub import keyring
from registry.hub.models import Hub

SECRET_BYTES = 32


class PseudonymKey:
    """The key that turns account ids into pseudonyms, as far as this process knows it."""

    def __init__(self) -> None:
        self._key: bytes | None = None

    def get(self) -> bytes:
        """Return the HMAC key that turns account ids into pseudonyms; a process reads it once.

        Raises `SealBroken` if it does not open.
        """
        if self._key is None:
            hub = Hub.objects.filter(pk=Hub.SINGLETON_ID).first()
            if hub is None or not hub.pseudonyms_sealed:  # of an older version; see below
                return _first_key()
            self._key = keyring.unseal(hub.pseudonyms_sealed, associated=owner(hub))
        return self._key


pseudonym_key = PseudonymKey().get


def keep_pseudonym_key(hub: Hub, *, new: bool) -> None:
    """Store a pseudonym key if the hub has none: random for a `new` hub.

    A hub made by an older version used the key-encryption key itself, so that one is kept and its
    pseudonyms stay the same. The caller has locked the hub's row.
    """
    if hub.pseudonyms_sealed:
        return
    key = secrets.token_bytes(SECRET_BYTES) if new else _first_key()
    hub.pseudonyms_sealed = keyring.seal(key, associated=owner(hub))
    hub.save(update_fields=["pseudonyms_sealed"])


def owner(hub: Hub) -> bytes:
    """Return the associated data of the pseudonym key's seal (see `keyring.seal`)."""
    return f"hub\0{hub.hub_id}\0pseudonyms".encode()


def _first_key() -> bytes:
    key: bytes = settings.ATP_KEY_ENCRYPTION_KEY_OLD or settings.ATP_KEY_ENCRYPTION_KEY
    return key
