"""String keys, for the in-memory transport only (docs/sdk.md#demo-mode).

A string becomes an HS256 secret. The verifier needs the same secret, so a directory in the process
keeps it. Such keys never leave the process: a network transport refuses them.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from atp.errors import KeyAlgorithm, KeyUnacceptable, SignatureInvalid, excerpt
from atp.trust.keys import PrivateKey, PublicKey

__all__ = [
    "DEMO_ALGORITHM",
    "DEMO_HUB_ID",
    "DEMO_KID",
    "DIRECTORY",
    "DemoKey",
    "Directory",
    "read_key",
]

DEMO_ALGORITHM: Final = "HS256"
DEMO_HUB_ID: Final = "in-memory"  # what demo envelopes are addressed to
DEMO_KID: Final = "demo"  # a thumbprint of the secret would help to guess it
SECRET_LABEL: Final = b"atp in-memory demo secret, HS256\0"  # keeps it apart from any other use
PEM_MARK: Final = "-----BEGIN "


class DemoPublicKey(PublicKey):
    """The key that verifies a demo signature. It is the secret itself, so it has no JWK."""

    __slots__ = ()

    def verify(self, data: bytes, signature: bytes, alg: str) -> None:
        """Raise `SignatureInvalid` unless the same string signed `data`."""
        if alg != DEMO_ALGORITHM:
            raise KeyAlgorithm(f"the header says {excerpt(alg)}, the demo key is for HS256")
        if not hmac.compare_digest(_mac(self._raw, data), signature):
            raise SignatureInvalid("the signature does not fit the key and the content")


class DemoKey(PrivateKey):
    """A string as a key: the secret is the SHA-256 of a label and the string."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        self._native = None
        secret = hashlib.sha256(SECRET_LABEL + text.encode()).digest()
        self.public = DemoPublicKey(DEMO_ALGORITHM, DEMO_KID, {}, None, secret)

    def sign(self, data: bytes) -> bytes:
        """Return the HMAC-SHA-256 of `data`."""
        return _mac(self.public._raw, data)

    def to_pem(self) -> bytes:
        """Raise `KeyUnacceptable`, because a demo key is not a key pair."""
        raise KeyUnacceptable("a demo key has no PEM form; make a key pair with `atp keygen`")


class Directory:
    """The keys of the agents that signed or connected in this process, by agent id."""

    def __init__(self) -> None:
        self._keys: dict[str, PublicKey] = {}
        self._owners: dict[str, str] = {}

    def note(self, agent: str, key: PrivateKey) -> None:
        """Remember the key of `agent`; it replaces an earlier one."""
        self._keys[agent] = key.public
        if key.kid != DEMO_KID:
            self._owners[key.kid] = agent

    def find(self, agent: str) -> PublicKey | None:
        """Return the key of `agent`, or `None` if it never signed or connected with one here."""
        return self._keys.get(agent)

    def owner(self, kid: str) -> str | None:
        """Return the agent whose key has this thumbprint, or `None`; string keys have none."""
        agent = self._owners.get(kid)
        key = None if agent is None else self._keys.get(agent)
        return agent if key is not None and key.kid == kid else None

    def clear(self) -> None:
        """Forget all keys."""
        self._keys.clear()
        self._owners.clear()


DIRECTORY: Final = Directory()


def read_key(private_key: PrivateKey | str | bytes | None) -> PrivateKey | None:
    """Return the key that a caller gave: a `PrivateKey`, a PEM, a demo string, or `None`.

    Raises `KeyUnacceptable` for an empty string, and as `PrivateKey.from_pem`.
    """
    if private_key is None or isinstance(private_key, PrivateKey):
        return private_key
    if isinstance(private_key, bytes):
        return PrivateKey.from_pem(private_key)
    if private_key.lstrip().startswith(PEM_MARK):
        return PrivateKey.from_pem(private_key)
    if not private_key:
        raise KeyUnacceptable("an empty string is not a key")
    return DemoKey(private_key)


def _mac(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, data, "sha256")
