"""Hypothesis strategies for JSON values that have an exact form."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

SAFE = 2**53 - 1


def _keeps_its_digits(number: float) -> bool:
    """Return whether strict readers accept a float: RFC 8785 writes 2^53 to 1e21 as integers."""
    return not SAFE < abs(number) < 1e21


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-SAFE, SAFE)
floats = st.floats(allow_nan=False, allow_infinity=False).filter(_keeps_its_digits)
numberlike_texts = st.sampled_from(
    ["1.5", ":1.5,", "[1e5]", '":.5', ",.", '"', "\\", "12:00:00.5Z", "e,e", "\0", "\x7f", " "]
)


def values(*, with_floats: bool = True) -> st.SearchStrategy[Any]:
    leaves: st.SearchStrategy[Any] = st.none() | st.booleans() | integers | texts | numberlike_texts
    if with_floats:
        leaves |= floats
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=15,
    )
