"""Ed25519 has one verdict, whichever library gives it, and none hangs on a point of low order."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp.errors import SignatureInvalid
from atp.trust import ed25519
from atp.trust.keys import PrivateKey, PublicKey
from atp.wire.canonical import b64url
from tests.atp import edwards
from tests.sources import ROOT

ALICE = PrivateKey.generate()
L = 2**252 + 27742317777372353535851937790883648493
LOW_ORDER = [edwards.encode(edwards.times(i, edwards.ORDER_8)) for i in range(8)]


def _verdicts(key: PublicKey, data: bytes, signature: bytes) -> dict[str, bool]:
    """What each implementation says, asked as `PublicKey.verify` asks it."""
    return {
        name: verifies(key._native, key._raw, data, signature)
        for name, verifies in ed25519.IMPLEMENTATIONS.items()
    }


def test_it_has_a_second_implementation_to_compare_with() -> None:
    pytest.importorskip("nacl", reason="PyNaCl is an optional speed-up")
    assert set(ed25519.IMPLEMENTATIONS) == {"openssl", "sodium"}


@given(st.binary(max_size=100), st.data())
def test_it_comes_to_one_verdict_on_signatures_with_a_byte_changed(
    content: bytes, data: st.DataObject
) -> None:
    signature = bytearray(ALICE.sign(content))
    assert set(_verdicts(ALICE.public, content, bytes(signature)).values()) == {True}
    place = data.draw(st.integers(0, 63))
    signature[place] ^= data.draw(st.integers(1, 255))
    assert set(_verdicts(ALICE.public, content, bytes(signature)).values()) == {False}


@pytest.mark.parametrize("in_key", [0, 1, 2, 4])
@pytest.mark.parametrize("in_nonce", [0, 1, 2, 4])
def test_it_comes_to_one_verdict_on_points_with_a_low_order_part(
    in_key: int, in_nonce: int
) -> None:
    """Verifiers that clear the cofactor take all of these, others an eighth of some."""
    for attempt in range(3):
        key, signature, content = _mixed_order_signature(in_key, in_nonce, attempt)
        assert len(set(_verdicts(key, content, signature).values())) == 1
        if in_key == 0 and in_nonce != 0:
            with pytest.raises(SignatureInvalid):
                key.verify(content, signature, "EdDSA")


def _mixed_order_signature(
    in_key: int, in_nonce: int, attempt: int
) -> tuple[PublicKey, bytes, bytes]:
    secret, nonce = (_scalar(f"{name} {in_key} {in_nonce} {attempt}") for name in ("key", "nonce"))
    content = b"content"
    point = edwards.add(edwards.times(secret, edwards.BASE), edwards.times(in_key, edwards.ORDER_8))
    commitment = edwards.add(
        edwards.times(nonce, edwards.BASE), edwards.times(in_nonce, edwards.ORDER_8)
    )
    raw, r = edwards.encode(point), edwards.encode(commitment)
    s = (nonce + _scalar_of(r + raw + content) * secret) % L
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}
    return PublicKey.from_jwk(jwk), r + s.to_bytes(32, "little"), content


def test_rejects_a_nonce_point_of_low_order() -> None:
    """With such an R and S = h * a the equation holds: OpenSSL takes it, libsodium does not."""
    secret = _scalar("alice")
    raw = edwards.encode(edwards.times(secret, edwards.BASE))
    key = PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)})
    identity = LOW_ORDER[0]
    s = _scalar_of(identity + raw + b"content") * secret % L
    signature = identity + s.to_bytes(32, "little")
    assert ed25519.IMPLEMENTATIONS["openssl"](key._native, key._raw, b"content", signature)
    with pytest.raises(SignatureInvalid):
        key.verify(b"content", signature, "EdDSA")


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(8))
def test_rejects_any_low_order_point_in_a_signature(point: bytes) -> None:
    for encoded in (point, point[:31] + bytes([point[31] ^ 0x80])):
        with pytest.raises(SignatureInvalid):
            ALICE.public.verify(b"content", encoded + ALICE.sign(b"content")[32:], "EdDSA")


def test_rejects_a_scalar_that_is_not_reduced() -> None:
    signature = ALICE.sign(b"content")
    s = int.from_bytes(signature[32:], "little")
    malleable = signature[:32] + (s + L).to_bytes(32, "little")
    with pytest.raises(SignatureInvalid):
        ALICE.public.verify(b"content", malleable, "EdDSA")


def _scalar(text: str) -> int:
    return _scalar_of(text.encode("ascii"))


def _scalar_of(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little") % L


def test_it_verifies_without_pynacl() -> None:
    script = (
        "import sys\n"
        "sys.modules['nacl'] = None\n"
        "from atp import PrivateKey\n"
        "from atp.trust import ed25519\n"
        "key = PrivateKey.generate()\n"
        "key.public.verify(b'content', key.sign(b'content'), 'EdDSA')\n"
        "assert set(ed25519.IMPLEMENTATIONS) == {'openssl'}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
