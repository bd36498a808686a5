"""Numbers as JSON has them, and tokens taken apart before anything of them is proven."""

from __future__ import annotations

import pytest

from atp.errors import ATPError, MalformedError, SignatureMissing
from atp.trust.signing import split_token, unverified_claims
from atp.wire.canonical import b64url
from atp.wire.json_values import is_number, is_whole


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None])
def test_it_takes_nothing_else_for_a_whole_number(value: object) -> None:
    assert not is_whole(value)


def test_it_keeps_whole_numbers_within_their_bounds() -> None:
    assert [is_whole(n, least=1, most=3) for n in range(5)] == [False, True, True, True, False]


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), "1", None])
def test_it_takes_nothing_else_for_a_number(value: object) -> None:
    assert not is_number(value)


@pytest.mark.parametrize("value", [0, -1.5, 10**400])
def test_it_takes_any_finite_number(value: object) -> None:
    assert is_number(value)


def test_it_takes_a_token_apart() -> None:
    assert split_token("a.b.c") == ("a", "b", "c")
    assert unverified_claims(f"a.{b64url(b'{}')}.c") == {}


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ("", SignatureMissing),
        (None, SignatureMissing),
        ("a.b", MalformedError),
        ("a.b.c.d", MalformedError),
        ("a..c", MalformedError),
        (f"a.{b64url(b'[]')}.c", MalformedError),
    ],
)
def test_rejects_what_is_no_token(token: str, error: type[ATPError]) -> None:
    with pytest.raises(error):
        unverified_claims(token)
