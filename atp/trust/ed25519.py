"""Ed25519 (RFC 8032) with the same result for both libraries that can verify it.

Libraries differ on low-order points and on unreduced scalars. So this module refuses both before it
calls a library. PyNaCl (libsodium) verifies about twice as fast as `cryptography` (OpenSSL). It is
used if it is installed and refuses a probe signature that OpenSSL refuses.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from atp.errors import KeyUnacceptable

try:
    from nacl import bindings as _nacl
    from nacl.exceptions import BadSignatureError
except ImportError:  # optional: only speed depends on it
    _nacl = None  # type: ignore[assignment]  # a module, or None where PyNaCl is absent

__all__ = ["IMPLEMENTATIONS", "KEY_BYTES", "SIGNATURE_BYTES", "check_point", "verifies"]

KEY_BYTES = 32  # RFC 8032 section 5.1.5
SIGNATURE_BYTES = 64  # RFC 8032 section 5.1.6

_P: Final = 2**255 - 19  # the field, RFC 8032 section 5.1
_L: Final = 2**252 + 27742317777372353535851937790883648493  # the order of the base point
_D: Final = -121665 * pow(121666, -1, _P) % _P  # the curve's constant d
_SIGN_BIT: Final = 1 << 255  # the sign of x stands above the 255 bits of y
_Y_OF_ORDER_8: Final = int.from_bytes(  # the y of two of the eight points of low order
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)

# A signature over b"atp" whose R has a component of order 8. A verifier that clears the cofactor
# accepts it; OpenSSL refuses it. Newer builds of libsodium may clear the cofactor.
_PROBE_KEY: Final = bytes.fromhex(
    "fe5e1de21dad2f56a36f416fe111ded9a5733974f3973ab2376972fbf02ce687"
)
_PROBE_SIGNATURE: Final = bytes.fromhex(
    "0e164835bdc801c2d21854505d88152e9a9907e284e99e23fd23074238b74fcc"
    "000afa2a5135a4a6277647fb75d9e2577045c81c143aba2c354fbed18ea60209"
)


def _low_order_encodings() -> frozenset[bytes]:
    """Return all encodings of the eight points of low order, also those with an unreduced y."""
    ys = {0, 1, _P - 1, _P, _P + 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8}
    return frozenset((y | sign).to_bytes(32, "little") for y in ys for sign in (0, _SIGN_BIT))


_LOW_ORDER: Final = _low_order_encodings()


class _Verifier(Protocol):
    def __call__(self, key: Any, raw_key: bytes, data: bytes, signature: bytes, /) -> bool: ...


def check_point(encoded: bytes) -> None:
    """Raise `KeyUnacceptable` unless `encoded` is a canonical point on the curve, not of low order.

    See RFC 8032 section 5.1.3.
    """
    y = int.from_bytes(encoded, "little") & (_SIGN_BIT - 1)
    if encoded in _LOW_ORDER:
        raise KeyUnacceptable("the Ed25519 key has low order, so one signature fits all content")
    if y >= _P:
        raise KeyUnacceptable("the Ed25519 key is not in canonical form")
    # RFC 8032 section 5.1.3: x^2 = (y^2 - 1) / (d y^2 + 1) must have a root
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(x_squared, (_P - 1) // 2, _P) != 1:
        raise KeyUnacceptable("the Ed25519 key is not a point on the curve")


def verifies(key: Ed25519PublicKey, raw_key: bytes, data: bytes, signature: bytes) -> bool:
    """Return whether the key, which passed `check_point`, signed `data` with `signature`."""
    if len(signature) != SIGNATURE_BYTES or signature[:32] in _LOW_ORDER:
        return False
    if int.from_bytes(signature[32:], "little") >= _L:
        return False
    return _chosen(key, raw_key, data, signature)


def _verifies_openssl(key: Any, _raw: bytes, data: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _verifies_sodium(_key: Any, raw_key: bytes, data: bytes, signature: bytes) -> bool:
    try:
        _nacl.crypto_sign_open(signature + data, raw_key)
    except BadSignatureError:
        return False
    return True


def _sodium_agrees() -> bool:
    return _nacl is not None and not _verifies_sodium(None, _PROBE_KEY, b"atp", _PROBE_SIGNATURE)


IMPLEMENTATIONS: Final[dict[str, _Verifier]] = {"openssl": _verifies_openssl}
if _sodium_agrees():
    IMPLEMENTATIONS["sodium"] = _verifies_sodium
_chosen: Final = IMPLEMENTATIONS.get("sodium", _verifies_openssl)
