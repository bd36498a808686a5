"""Seals the private keys that the hub holds, so that the database alone does not give them away."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

FORMAT = b"\x01"  # first byte of what is stored; another one will name another way of sealing
NONCE_BYTES = 12  # NIST SP 800-38D, section 8.2: random nonces of 96 bits
KEY_BYTES = 32  # AES-256


class SealBroken(Exception):
    """A sealed key does not open: another key-encryption key, another owner, or damage."""


def seal(private: bytes, *, associated: bytes) -> bytes:
    """Encrypt `private`, bound to `associated`: what it belongs to, such as owner and `kid`."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return FORMAT + nonce + _cipher().encrypt(nonce, private, FORMAT + associated)


def unseal(sealed: bytes | memoryview, *, associated: bytes) -> bytes:
    """What was sealed with the same `associated`; raises `SealBroken`."""
    return _open(bytes(sealed), associated)[0]  # PostgreSQL's driver gives a memoryview


def reseal(sealed: bytes | memoryview, *, associated: bytes) -> bytes | None:
    """The same, sealed with the current key-encryption key; `None` where it is already."""
    private, is_current = _open(bytes(sealed), associated)
    return None if is_current else seal(private, associated=associated)


def _open(stored: bytes, associated: bytes) -> tuple[bytes, bool]:
    """What is in a seal, and whether the current key opens it rather than the one before."""
    if stored[:1] != FORMAT:
        raise SealBroken("a stored private key is not in a known format")
    nonce, encrypted = stored[1 : 1 + NONCE_BYTES], stored[1 + NONCE_BYTES :]
    ciphers = [_cipher()]
    if settings.ATP_KEY_ENCRYPTION_KEY_OLD is not None:
        ciphers.append(AESGCM(settings.ATP_KEY_ENCRYPTION_KEY_OLD))
    for cipher in ciphers:
        try:
            return cipher.decrypt(nonce, encrypted, FORMAT + associated), cipher is ciphers[0]
        except (InvalidTag, ValueError):
            continue
    raise SealBroken(
        "a stored private key does not open; is ATP_KEY_ENCRYPTION_KEY the one of the day"
        " on which it was made? One that replaces it needs it as ATP_KEY_ENCRYPTION_KEY_OLD."
    )


def _cipher() -> AESGCM:
    key: bytes = settings.ATP_KEY_ENCRYPTION_KEY
    if len(key) != KEY_BYTES:
        raise SealBroken(f"ATP_KEY_ENCRYPTION_KEY must be {KEY_BYTES} bytes")
    return AESGCM(key)
