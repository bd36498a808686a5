"""Capability patterns: the names that they cover, and sets of patterns within others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp.errors import MalformedDocument
from atp.trust.capabilities import check_pattern, contained, covers, is_capability, uncovered

segments = st.sampled_from(["a", "b", "ab", "a-b", "0"])
names = st.lists(segments, min_size=1, max_size=4).map(".".join)
patterns = names | names.map("{}.*".format) | st.just("*")


@pytest.mark.parametrize(
    ("pattern", "name", "answer"),
    [
        ("a", "a", True),
        ("a", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", True),
        ("a.*", "a", False),
        ("a.*", "ab.c", False),
        ("a.b.*", "a.b.c", True),
        ("a.b.*", "a.c.b", False),
        ("*", "a", True),
        ("*", "a.b.c", True),
        ("a.*", "a.*", False),
        ("a.*", "a.", False),
        ("a.*", "a.B", False),
        ("a*", "ab", False),
        ("*.b", "a.b", False),
        ("a.*.c", "a.b.c", False),
        ("", "a", False),
        ("*", "", False),
        (".*", ".a", False),
    ],
)
def test_it_covers_what_lies_below(pattern: str, name: str, answer: bool) -> None:
    assert covers(pattern, name) is answer


@pytest.mark.parametrize(
    ("child", "parent", "answer"),
    [
        ([], [], True),
        ([], ["a"], True),
        (["a"], [], False),
        (["a.*"], ["a.*"], True),
        (["a.b", "a.c.*"], ["a.*"], True),
        (["a"], ["a.*"], False),
        (["a.*"], ["a.b.*"], False),
        (["a.*"], ["a.b", "a"], False),
        (["*"], ["a.*", "b.*"], False),
        (["a", "c.d"], ["a", "c.*"], True),
        (["a", "Not a pattern"], ["*"], False),
    ],
)
def test_it_contains_segment_by_segment(child: list[str], parent: list[str], answer: bool) -> None:
    assert contained(child, parent) is answer


@given(st.lists(patterns, max_size=3), st.lists(patterns, max_size=3), names)
def test_it_never_lets_a_child_cover_more(child: list[str], parent: list[str], name: str) -> None:
    if contained(child, parent) and not uncovered(child, [name]):
        assert uncovered(parent, [name]) == []


@given(patterns, patterns)
def test_it_contains_exactly_what_it_covers(child: str, parent: str) -> None:
    """A pattern lies within another when the names just below and far below it do."""
    stem = child.removesuffix("*").removesuffix(".")
    below = [child] if is_capability(child) else [f"{stem}.{x}".lstrip(".") for x in ("q", "q.q")]
    assert contained([child], [parent]) is (uncovered([parent], below) == [])


def test_it_says_which_names_are_not_covered() -> None:
    assert uncovered(["a.*", "b"], ["a.x", "b", "c", "a"]) == ["c", "a"]
    assert uncovered([], ["a"]) == ["a"]


@pytest.mark.parametrize(
    "text", ["", "A", "a..b", ".a", "a.", "a b", "a.*.b", "**", "a" * 200, 5, None]
)
def test_rejects_what_is_no_pattern(text: object) -> None:
    with pytest.raises(MalformedDocument):
        check_pattern(text)
    assert not is_capability(text)
