"""Exports that a worker writes: with progress, in parts, cancelled, expired, of one account."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from django.db import connections

from registry.exports import actions, files
from registry.exports.models import TrailExport
from registry.exports.tasks import carry_on_exports
from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.trail.readers import PROVENANCE, add, fresh, note, person, problem, reader

EXPORTS = f"{PROVENANCE}exports/"


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.ATP_EXPORT_DIR = tmp_path / "exports"
    return tmp_path / "exports"


@pytest.fixture
def client(hub: Any) -> Iterator[httpx.Client]:
    with reader(hub.http_url) as made:
        yield made


def made(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = client.post(EXPORTS, params={"format": "ndjson", **asked})
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == shown["url"]
    return shown


def finished(client: httpx.Client, shown: dict[str, Any]) -> dict[str, Any]:
    while not actions.carry_on(shown["name"], seconds=60):
        pass
    done: dict[str, Any] = client.get(shown["url"]).json()
    return done


def some(count: int) -> tuple[str, int]:
    sender = fresh("alice")
    return sender, add(*[note(sender=sender, shared={"reason": "x"})] * count)


def ends_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    rows = Entry.objects.filter(kind=Kind.EXPORT_ENDED, subject=f"export {shown['name']}")
    return [orjson.loads(row.body.content()) for row in rows.select_related("body")]


def test_it_writes_the_file_that_a_stream_would_have(client: httpx.Client) -> None:
    sender, first = some(3)
    shown = made(client, sender=sender)
    assert (shown["state"], shown["file"], shown["expiresAt"]) == ("waiting", None, None)
    assert client.get(f"{shown['url']}file").status_code == 404
    add(note(sender=sender))  # after the export was made
    done = finished(client, shown)
    assert (done["state"], done["percent"], done["rows"]) == ("complete", 100, 3)
    file = client.get(done["file"])
    streamed = client.get(
        f"{PROVENANCE}export", params={"format": "ndjson", "sender": sender, "indexTo": first + 2}
    )
    assert file.content == streamed.content
    assert len(file.content) == done["bytes"]
    assert file.headers["Content-Type"] == "application/x-ndjson"
    ((end),) = ends_of(shown)
    assert (end["rows"], end["outcome"]) == (3, "complete")


def test_it_writes_a_table_of_nothing_with_its_head(client: httpx.Client) -> None:
    done = finished(client, made(client, format="csv", sender=fresh("nobody")))
    assert done["rows"] == 0
    assert client.get(done["file"]).text.startswith("v,log,index,time,")


def test_it_is_entered_when_it_is_made(hub: Any) -> None:
    user = person(AUDITORS)
    with reader(hub.http_url, user=user) as client:
        shown = made(client, sender="alice")
    entry = Entry.objects.get(kind=Kind.EXPORT_CREATED, subject=f"export {shown['name']}")
    assert entry.actor == Actor.of_user(user).name
    assert orjson.loads(entry.body.content())["asked"]["sender"] == ["alice"]


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_it_goes_on_where_a_worker_died(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(actions, "PAGE_ENTRIES", 10)
    monkeypatch.setattr(actions, "PAGES_IN_A_STEP", 2)
    sender, first = some(55)
    shown = made(client, sender=sender, fields="index", order=order)
    for _ in range(2):
        actions._step(TrailExport.objects.get(pk=shown["name"]))
    halfway = client.get(shown["url"]).json()
    assert (halfway["state"], halfway["rows"]) == ("running", 40)
    assert 0 <= halfway["percent"] < 100
    path = files.path_of(shown["name"])
    path.write_bytes(path.read_bytes() + b"what a worker wrote that died before it was stored")
    stale = TrailExport.objects.get(pk=shown["name"])
    done = finished(client, shown)
    actions._step(stale)  # another worker that had read the same progress
    lines = client.get(done["file"]).content.splitlines()
    expected = list(range(first, first + 55))
    found = [orjson.loads(line)["index"] for line in lines]
    assert found == (expected if order == "oldest" else expected[::-1])
    assert len(ends_of(shown)) == 1


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=5-99999999", 206, slice(5, None)),
        ("bytes=9-5", 200, slice(None)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("lines=0-1", 200, slice(None)),
        ("bytes=99999999-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
    ],
)
def test_it_gives_parts_of_the_file(
    client: httpx.Client, asked: str, status: int, part: slice
) -> None:
    sender, _ = some(3)
    done = finished(client, made(client, sender=sender))
    whole = client.get(done["file"]).content
    answer = client.get(done["file"], headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, whole[part])
    if status == 206:
        begin, end, _ = part.indices(len(whole))
        assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(whole)}"
    assert client.head(done["file"]).headers["Content-Length"] == str(len(whole))
    other = client.get(done["file"], headers={"Range": asked, "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, whole)


def test_it_cancels(client: httpx.Client, folder: Path) -> None:
    sender, _ = some(3)
    shown = made(client, sender=sender)
    assert client.delete(shown["url"]).status_code == 204
    assert client.get(shown["url"]).status_code == 404
    assert actions.carry_on(shown["name"], seconds=60)
    assert [end["outcome"] for end in ends_of(shown)] == ["cancelled"]
    done = finished(client, made(client, sender=sender))
    assert list(folder.iterdir())
    assert client.delete(done["url"]).status_code == 204
    assert not list(folder.iterdir())
    assert [end["outcome"] for end in ends_of(done)] == ["complete"]


def test_it_deletes_what_has_expired(client: httpx.Client, folder: Path) -> None:
    done = finished(client, made(client, sender=fresh("nobody"), format="csv"))
    actions.delete_expired()
    assert client.get(done["file"]).status_code == 200
    row = TrailExport.objects.get(pk=done["name"])
    assert row.ended_at is not None
    TrailExport.objects.filter(pk=row.pk).update(
        ended_at=row.ended_at - actions.KEPT - timedelta(seconds=1)
    )
    carry_on_exports()
    assert client.get(done["url"]).status_code == 404
    assert not files.path_of(done["name"]).exists()


def test_it_shows_an_export_to_its_account_only(hub: Any, client: httpx.Client) -> None:
    done = finished(client, made(client, sender=fresh("nobody")))
    assert [row["name"] for row in client.get(EXPORTS).json()] == [done["name"]]
    with reader(hub.http_url) as other:
        assert other.get(EXPORTS).json() == []
        for url in (done["url"], done["file"]):
            assert other.get(url).status_code == 404
        assert other.delete(done["url"]).status_code == 404
    assert client.get(done["file"]).status_code == 200


def test_rejects_more_exports_than_an_account_may_have(hub: Any) -> None:
    user = person(AUDITORS)
    actor = Actor.of_user(user)

    def ask(_: int) -> int:
        with reader(hub.http_url, user=user) as client:
            status = client.post(EXPORTS, params={"format": "csv"}).status_code
        connections.close_all()
        return status

    with ThreadPoolExecutor(6) as pool:
        statuses = sorted(pool.map(ask, range(6)))
    assert statuses == [202] * actions.MOST_UNFINISHED + [429] * 4
    for export in TrailExport.objects.filter(made_by_id=actor.user_id):
        actions.cancel(export)
    with reader(hub.http_url, user=user) as client:
        for _ in range(actions.MOST_KEPT):
            finished(client, made(client, sender="nobody"))
        assert client.post(EXPORTS, params={"format": "csv"}).status_code == 429


def test_it_stops_when_the_account_may_not_read_any_more(hub: Any) -> None:
    user = person(AUDITORS)
    with reader(hub.http_url, user=user) as client:
        shown = made(client)
    user.groups.clear()
    assert actions.carry_on(shown["name"], seconds=60)
    (end,) = ends_of(shown)
    assert (end["outcome"], end["rows"]) == ("failed", 0)
    assert "may not read" in end["reason"]


def test_it_fails_when_the_disk_is_almost_full(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "KEPT_FREE_BYTES", 1 << 62)
    done = finished(client, made(client))
    assert (done["state"], done["file"]) == ("failed", None)
    assert "almost full" in done["reason"]


def test_rejects_what_an_export_can_not_read(client: httpx.Client) -> None:
    for asked in ({"format": "xml"}, {"format": "csv", "sendr": "a"}):
        answer = client.post(EXPORTS, params=asked)
        assert answer.status_code == 400, answer.text
    assert client.post(EXPORTS).status_code == 400
    assert client.get(EXPORTS).json() == []
    assert problem(client, f"{PROVENANCE}export", format="xml")
