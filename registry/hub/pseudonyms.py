"""The secret behind people's pseudonyms, the hub's own so that it outlives the key around it."""

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
        """The key; one query per process."""
        if self._key is None:
            hub = Hub.objects.filter(pk=Hub.SINGLETON_ID).first()
            if hub is None or not hub.pseudonyms_sealed:  # of an older version; see below
                return _first_key()
            self._key = keyring.unseal(hub.pseudonyms_sealed, associated=owner(hub))
        return self._key


pseudonym_key = PseudonymKey().get


def keep_pseudonym_key(hub: Hub, *, new: bool) -> None:
    """Make the key of a `new` hub, or keep what an older version used: the key-encryption key.

    Changes nothing where there is one. The hub's row is locked.
    """
    if hub.pseudonyms_sealed:
        return
    key = secrets.token_bytes(SECRET_BYTES) if new else _first_key()
    hub.pseudonyms_sealed = keyring.seal(key, associated=owner(hub))
    hub.save(update_fields=["pseudonyms_sealed"])


def owner(hub: Hub) -> bytes:
    """What the sealed key is bound to."""
    return f"hub\0{hub.hub_id}\0pseudonyms".encode()


def _first_key() -> bytes:
    key: bytes = settings.ATP_KEY_ENCRYPTION_KEY_OLD or settings.ATP_KEY_ENCRYPTION_KEY
    return key
