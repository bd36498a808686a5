"""Seals the private keys that the hub holds: a copy of the database alone does not reveal them."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

FORMAT = b"\x01"  # first byte of a seal; another format will get another number
NONCE_BYTES = 12  # NIST SP 800-38D, section 8.2: random nonces of 96 bits
KEY_BYTES = 32  # AES-256


class SealBroken(Exception):
    """A sealed key does not open: the key-encryption key or the owner differs, or it is damaged."""


def seal(private: bytes, *, associated: bytes) -> bytes:
    """Encrypt `private` with AES-256-GCM, bound to `associated` (bytes that name owner and `kid`).

    The binding keeps a sealed key from being moved to another row. Raises `SealBroken` if
    `ATP_KEY_ENCRYPTION_KEY` does not have 32 bytes.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    return FORMAT + nonce + _cipher().encrypt(nonce, private, FORMAT + associated)


def unseal(sealed: bytes | memoryview, *, associated: bytes) -> bytes:
    """Decrypt what `seal` returned for the same `associated`.

    Both `ATP_KEY_ENCRYPTION_KEY` and `ATP_KEY_ENCRYPTION_KEY_OLD` are tried. Raises `SealBroken`
    if neither opens it.
    """
    return _open(bytes(sealed), associated)[0]  # PostgreSQL's driver gives a memoryview


def reseal(sealed: bytes | memoryview, *, associated: bytes) -> bytes | None:
    """Seal again with the current key-encryption key; return `None` if it is so already.

    Raises `SealBroken` if neither the current key nor the old one opens it.
    """
    private, is_current = _open(bytes(sealed), associated)
    return None if is_current else seal(private, associated=associated)


def _open(stored: bytes, associated: bytes) -> tuple[bytes, bool]:
    """Return the decrypted key, and whether the current key-encryption key opened it."""
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
        "a stored private key does not open. Set ATP_KEY_ENCRYPTION_KEY to the key that sealed it,"
        " or, if you replace that key, set ATP_KEY_ENCRYPTION_KEY_OLD to it."
    )


def _cipher() -> AESGCM:
    key: bytes = settings.ATP_KEY_ENCRYPTION_KEY
    if len(key) != KEY_BYTES:
        raise SealBroken(f"ATP_KEY_ENCRYPTION_KEY must be {KEY_BYTES} bytes")
    return AESGCM(key)
