"""Secrets that the hub stores, sealed: that of the blinded members of headers.

They stay the same when the key-encryption key is replaced.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from atp.wire.canonical import b64url
from registry.hub import keyring
from registry.hub.models import Hub

SECRET_BYTES = 32
BLINDED_BYTES = 16  # of an HMAC-SHA-256: enough that no two texts meet


class SecretMissing(Exception):
    """The hub has not made its secrets yet."""


class HubSecret:
    """A secret in a column of the hub's row, as far as this process knows it."""

    def __init__(self, column: str, label: str) -> None:
        self.column = column
        self._label = label
        self._key: bytes | None = None

    def get(self) -> bytes:
        """Return the secret; a process reads it once.

        Raises `SecretMissing` if the hub has none and `SealBroken` if it does not open.
        """
        if self._key is None:
            hub = Hub.objects.filter(pk=Hub.SINGLETON_ID).first()
            sealed = self.sealed(hub) if hub else None
            if hub is None or sealed is None:
                raise SecretMissing("the hub has no secret yet; registry.bootstrap.ensure_hub()")
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


BLINDING = HubSecret("blinding_sealed", "blinding")
ALL = (BLINDING,)


def keep_secrets(hub: Hub) -> None:
    """Store random secrets for those that the hub lacks; the caller has locked its row."""
    for secret in ALL:
        secret.keep(hub, secrets.token_bytes(SECRET_BYTES))


def blinded(member: str, text: str) -> str:
    """Return a text that an agent chose as the member of a header has it: an HMAC; "" for "".

    Headers are never erased, so they must not hold what an agent wrote. Who knows the text and the
    hub's secret finds the entries; nobody gets from the header to the text.
    """
    if not text:
        return ""
    said = f"{member}\0{text}".encode()
    return b64url(hmac.digest(BLINDING.get(), said, sha256)[:BLINDED_BYTES])
