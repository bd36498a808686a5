"""A fingerprint is digits that two people can read to each other."""

from __future__ import annotations

import re

import pytest

from atp.errors import MalformedToken
from atp.trust.fingerprint import fingerprint
from atp.trust.keys import ALGORITHMS, PrivateKey
from atp.wire.canonical import b64url


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_it_is_twelve_groups_of_five_digits(alg: str) -> None:
    key = PrivateKey.generate(alg)
    assert re.fullmatch(r"[0-9]{5}( [0-9]{5}){11}", fingerprint(key.kid))


@pytest.mark.parametrize(
    ("thumbprint", "shown"),
    [
        (bytes(32), "00000 " * 11 + "00000"),
        ((10**60).to_bytes(32, "big"), "00000 " * 11 + "00000"),
        ((10**59 + 7).to_bytes(32, "big"), "10000 " + "00000 " * 10 + "00007"),
    ],
)
def test_it_is_the_last_digits_of_the_thumbprint(thumbprint: bytes, shown: str) -> None:
    assert fingerprint(b64url(thumbprint)) == shown


def test_it_is_the_one_of_the_readme() -> None:
    """RFC 7638 thumbprint of some key, and the digits that an independent program gives for it."""
    assert fingerprint("XPQ6qW4nHcjAP4PqrB159zeTYYPr68IkKX0dR6q1Kgs") == (
        "72223 46565 84605 25468 89677 25818 01563 53634 01852 87141 85740 88715"
    )


def test_rejects_what_is_no_thumbprint() -> None:
    with pytest.raises(MalformedToken):
        fingerprint("not a thumbprint")
