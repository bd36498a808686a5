"""Secrets that the hub stores, sealed: of people's pseudonyms, and of blinded members of headers.

They stay the same when the key-encryption key is replaced.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from django.conf import settings

from atp.wire.canonical import b64url
from registry.hub import keyring
from registry.hub.models import Hub

SECRET_BYTES = 32
BLINDED_BYTES = 16  # of an HMAC-SHA-256: enough that no two texts meet


class HubSecret:
    """A secret in a column of the hub's row, as far as this process knows it."""

    def __init__(self, column: str, label: str) -> None:
        self.column = column
        self._label = label
        self._key: bytes | None = None

    def get(self) -> bytes:
        """Return the secret; a process reads it once. Raises `SealBroken` if it does not open."""
        if self._key is None:
            hub = Hub.objects.filter(pk=Hub.SINGLETON_ID).first()
            sealed = self.sealed(hub) if hub else None
            if hub is None or sealed is None:  # of an older version; see `keep_secrets`
                return _first_key()
            self._key = keyring.unseal(sealed, associated=self.owner(hub))
        return self._key

    def sealed(self, hub: Hub) -> bytes | None:
        """Return the sealed secret of this hub; `None` if it has none yet."""
        return getattr(hub, self.column) or None

    def keep(self, hub: Hub, key: bytes) -> None:
        """Seal and store the secret of a hub that has none; the caller has locked its row."""
        if self.sealed(hub) is None:
            setattr(hub, self.column, keyring.seal(key, associated=self.owner(hub)))
            hub.save(update_fields=[self.column])

    def owner(self, hub: Hub) -> bytes:
        """Return the associated data of the seal (see `keyring.seal`)."""
        return f"hub\0{hub.hub_id}\0{self._label}".encode()


PSEUDONYMS = HubSecret("pseudonyms_sealed", "pseudonyms")
BLINDING = HubSecret("blinding_sealed", "blinding")
ALL = (PSEUDONYMS, BLINDING)


def keep_secrets(hub: Hub, *, new: bool) -> None:
    """Store the secrets that the hub lacks: random ones for a `new` hub.

    A hub made by an older version made pseudonyms with the key-encryption key itself, so that one
    is kept and its pseudonyms stay the same. The caller has locked the hub's row.
    """
    PSEUDONYMS.keep(hub, secrets.token_bytes(SECRET_BYTES) if new else _first_key())
    BLINDING.keep(hub, secrets.token_bytes(SECRET_BYTES))


def blinded(member: str, text: str) -> str:
    """Return a text that an agent chose as the member of a header has it: an HMAC; "" for "".

    Headers are never erased, so they must not hold what an agent wrote. Who knows the text and the
    hub's secret finds the entries; nobody gets from the header to the text.
    """
    if not text:
        return ""
    said = f"{member}\0{text}".encode()
    return b64url(hmac.digest(BLINDING.get(), said, sha256)[:BLINDED_BYTES])


def _first_key() -> bytes:
    key: bytes = settings.ATP_KEY_ENCRYPTION_KEY_OLD or settings.ATP_KEY_ENCRYPTION_KEY
    return key
