"""Pages: none repeats or misses an entry while the log grows; a cursor is for its own question."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from atp.wire.canonical import digest, serialize, sha256_b64url
from tests.trail.readers import PROVENANCE, add, fresh, listed, note, reader


def cursor_of(page: dict[str, Any]) -> str:
    address: str = page["next"]
    return parse_qs(urlsplit(address).query)["cursor"][0]


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_it_goes_through_all_pages_while_the_log_grows(auditor: httpx.Client, order: str) -> None:
    sender = fresh("alice")
    first = add(*[note(sender=sender)] * 7)
    page = auditor.get(PROVENANCE, params={"sender": sender, "order": order, "limit": 3}).json()
    seen = [row["index"] for row in page["results"]]
    sizes = [len(seen)]
    while page["next"]:
        add(note(sender=sender))
        page = auditor.get(page["next"]).json()
        seen += [row["index"] for row in page["results"]]
        sizes.append(len(page["results"]))
    expected = list(range(first, first + 7))
    assert seen == (expected if order == "oldest" else expected[::-1])
    assert sizes == [3, 3, 1]


def test_it_ends_with_a_full_page(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    add(*[note(sender=sender)] * 2)
    page = auditor.get(PROVENANCE, params={"sender": sender, "limit": 2}).json()
    assert len(page["results"]) == 2
    assert page["next"] is None


def test_it_keeps_filters_fields_and_limit_from_page_to_page(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    add(*[note(sender=sender), note(sender=fresh("bob"))] * 3)
    asked: dict[str, str | int] = {"sender": sender, "fields": "index,sender", "limit": 2}
    page = auditor.get(PROVENANCE, params=asked).json()
    rest = auditor.get(page["next"]).json()
    assert [row["sender"] for row in page["results"] + rest["results"]] == [sender] * 3
    assert all(list(row) == ["index", "sender"] for row in rest["results"])


def test_rejects_a_cursor_with_other_filters(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    add(*[note(sender=sender)] * 2)
    page = auditor.get(PROVENANCE, params={"sender": sender, "limit": 1}).json()
    others: list[dict[str, str]] = [{}, {"sender": "bob"}, {"sender": sender, "fields": "body"}]
    for other in others:
        answer = auditor.get(PROVENANCE, params={**other, "cursor": cursor_of(page)})
        assert answer.status_code == 400
        assert "other filters" in answer.json()["errors"]["cursor"][0]


def test_rejects_a_cursor_of_somebody_else(hub: Any, auditor: httpx.Client) -> None:
    sender = fresh("alice")
    add(*[note(sender=sender)] * 2)
    page = auditor.get(PROVENANCE, params={"sender": sender, "limit": 1}).json()
    with reader(hub.http_url) as other:
        assert other.get(page["next"]).status_code == 400


def test_it_shows_an_entry_with_what_it_takes_to_check_it(auditor: httpx.Client) -> None:
    index = add(note(sender="alice", score=81, shared={"detail": "fine", "ratio": 0.25}))
    row = auditor.get(f"{PROVENANCE}{index}/").json()
    header = {
        name: value
        for name, value in row.items()
        if name not in {"reason", "leafHash", "leaf", "sections", "body"}
        and value not in ("", None, [])
    }
    assert row["sections"] == {name: digest(said) for name, said in row["body"].items()}
    leaf = serialize({**header, "body": digest(row["sections"])})
    assert row["leaf"].encode() == leaf
    assert row["leafHash"] == sha256_b64url(b"\0" + leaf)
    assert row["reason"] == "fine"
    (same,) = listed(auditor, indexFrom=index, indexTo=index)
    assert same["leafHash"] == row["leafHash"]
