"""The feed: each entry once, oldest first, without its own readings, and a rest at the end."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS
from registry.trail.models import Entry
from tests.trail.readers import PROVENANCE, add, fresh, note, person, problem, reader

FEED = f"{PROVENANCE}feed"


def fed(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = client.get(FEED, params=asked)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    assert answer.headers.get("Retry-After") == (
        str(page["retryAfter"]) if page["retryAfter"] else None
    )
    return page


def test_it_goes_on_behind_the_last_entry(auditor: httpx.Client) -> None:
    first = add(*[note()] * 5)
    page = fed(auditor, after=first - 1, limit=3)
    assert [row["index"] for row in page["results"]] == [first, first + 1, first + 2]
    assert (page["cursor"], page["retryAfter"]) == (first + 2, None)
    page = auditor.get(page["next"]).json()
    assert [row["index"] for row in page["results"]][:2] == [first + 3, first + 4]


def test_it_rests_at_the_end_and_does_not_feed_itself(hub: Any) -> None:
    sender, user = fresh("alice"), person(AUDITORS)
    with reader(hub.http_url, user=user) as client:
        last = add(note())
        cursors = []
        for _ in range(3):
            page = fed(client, after=last, subject="feed")
            assert page["results"] == []
            assert page["retryAfter"] == 5
            cursors.append(page["cursor"])
        assert cursors == sorted(cursors)
        index = add(note(sender=sender))
        assert [row["index"] for row in fed(client, after=last, sender=sender)["results"]] == [
            index
        ]


def test_it_enters_one_reading_an_hour_of_each_account(hub: Any) -> None:
    user = person(AUDITORS)
    readings = Entry.objects.filter(actor=Actor.of_user(user).name, kind="trail.queried")
    with reader(hub.http_url, user=user) as client:
        for _ in range(3):
            fed(client, after=0, limit=1)
    entry = readings.get()
    assert entry.subject == "feed"
    assert b'"after":["0"]' in entry.body.content()
    with reader(hub.http_url) as other:  # a list has the entry that the feed leaves out
        found = other.get(PROVENANCE, params={"actor": entry.actor, "subject": "feed"}).json()
    assert [row["index"] for row in found["results"]] == [entry.index]


def test_it_begins_with_the_log(auditor: httpx.Client) -> None:
    assert fed(auditor, limit=1)["results"][0]["index"] == 0


@pytest.mark.parametrize(
    ("parameter", "value"), [("order", "newest"), ("after", "-1"), ("limit", 0), ("cursor", "x")]
)
def test_rejects_what_a_feed_does_not_have(
    auditor: httpx.Client, parameter: str, value: Any
) -> None:
    assert list(problem(auditor, FEED, **{parameter: value})) == [parameter]


def test_it_asks_for_no_more_than_a_number_beyond_the_end(auditor: httpx.Client) -> None:
    """A cursor beyond the log stays where it is, so a restored hub repeats nothing by itself."""
    page = fed(auditor, after=2**62)
    assert (page["results"], page["cursor"]) == ([], 2**62)
