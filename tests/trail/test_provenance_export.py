"""Exports: real streams, the same filters, and cells that no spreadsheet runs."""

from __future__ import annotations

import csv
import gc
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import QueryDict
from django.test import AsyncClient

from atp.wire.canonical import digest, serialize, sha256_b64url
from messaging.wire import sockets
from registry.api.trail.places import MOST_EXPORTS, MOST_OF_AN_ACCOUNT, ExportPlace, places
from registry.officers.actor import Actor
from registry.officers.groups import AUDITORS
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from registry.trail.reading.columns import LISTED
from registry.trail.reading.exporting import PAGE_ENTRIES, Progress, chunks_of
from registry.trail.reading.filters import parse_query
from registry.trail.reading.formats import FORMATS
from registry.trail.triggers import make_triggers
from tests.trail.readers import (
    PROVENANCE,
    add,
    eventually,
    fresh,
    note,
    person,
    problem,
    reader,
    token_of,
)
from tests.trail.unprotected import drop_triggers

EXPORT = f"{PROVENANCE}export"


def exported(client: httpx.Client, **asked: Any) -> httpx.Response:
    answer = client.get(EXPORT, params=asked)
    assert answer.status_code == 200, answer.text
    return answer


def leaf_of(row: dict[str, Any]) -> str:
    """The leaf hash as a reader computes it from a line of an export."""
    assert row["sections"] == {name: digest(said) for name, said in row["body"].items()}
    left_out = {"reason", "leafHash", "sections", "body"}
    shown = {name: value for name, value in row.items() if name not in left_out}
    header = {name: value for name, value in shown.items() if value not in ("", None, [])}
    leaf = serialize({**header, "body": digest(row["sections"])})
    return sha256_b64url(b"\0" + leaf)


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in answer.text.splitlines()]


def table(answer: httpx.Response) -> list[list[str]]:
    return list(csv.reader(io.StringIO(answer.text, newline="")))


def test_it_exports_one_object_a_line_that_can_be_checked(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    first = add(
        note(sender=sender, score=70, shared={"detail": "line\nbreak", "ratio": 1e-7}),
        note(sender=sender, subject="é €"),
    )
    answer = exported(auditor, format="ndjson", sender=sender)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert 'attachment; filename="trail-' in answer.headers["Content-Disposition"]
    rows = lines(answer)
    assert [row["index"] for row in rows] == [first, first + 1]
    for row in rows:
        assert leaf_of(row) == row["leafHash"]


def test_it_exports_a_table_with_a_head(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    index = add(note(sender=sender, rule='says "no",\nthen more', score=None))
    answer = exported(auditor, format="csv", sender=sender)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    head, row = table(answer)
    assert head == list(LISTED)
    shown = dict(zip(head, row, strict=True))
    assert (shown["index"], shown["sender"]) == (str(index), sender)
    assert (shown["rule"], shown["score"]) == ('says "no",\nthen more', "")
    assert shown["time"].endswith("Z")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_it_keeps_formulas_from_spreadsheets(auditor: httpx.Client, start: str) -> None:
    sender = fresh("mallory")
    formula = f"{start}cmd|' /C calc'!A0"
    add(note(sender=sender, subject=formula, rule=f"1{formula}", shared={"reason": formula}))
    head, row = table(exported(auditor, format="csv", sender=sender))
    shown = dict(zip(head, row, strict=True))
    assert (shown["subject"], shown["reason"]) == (f"'{formula}", f"'{formula}")
    assert shown["rule"] == f"1{formula}"


def test_it_exports_what_is_asked_for(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    first = add(note(sender=sender), note(sender=fresh("bob")), note(sender=sender))
    asked = {"sender": sender, "fields": "leaf,index", "order": "newest"}
    rows = lines(exported(auditor, format="ndjson", **asked))
    assert [row["index"] for row in rows] == [first + 2, first]
    assert list(rows[0]) == ["index", "leaf"]
    assert table(exported(auditor, format="csv", **asked))[0] == ["index", "leaf"]


def test_it_exports_nothing_as_an_empty_file(auditor: httpx.Client) -> None:
    nobody = fresh("nobody")
    assert exported(auditor, format="ndjson", sender=nobody).content == b""
    assert table(exported(auditor, format="csv", sender=nobody)) == [list(LISTED)]


@pytest.mark.parametrize("asked", [{}, {"format": "xml"}, {"format": ["csv", "ndjson"]}])
def test_rejects_formats_it_does_not_have(auditor: httpx.Client, asked: dict[str, Any]) -> None:
    assert list(problem(auditor, EXPORT, **asked)) == ["format"]


def test_rejects_filters_it_does_not_have(auditor: httpx.Client) -> None:
    assert set(problem(auditor, EXPORT, format="csv", sendr="a", limit="5")) == {"sendr", "limit"}


def test_it_exports_more_than_a_page_without_gap_or_repeat(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    for _ in range(5):
        add(*[note(sender=sender)] * 250)
    rows = lines(exported(auditor, format="ndjson", sender=sender, fields="index"))
    assert len(rows) == len({row["index"] for row in rows}) == 1250
    assert len(table(exported(auditor, format="csv", sender=sender))) == 1251


def test_it_reads_each_page_when_the_one_before_was_taken(database: None) -> None:
    sender = fresh("alice")
    for _ in range(PAGE_ENTRIES // 250 + 1):
        first = add(*[note(sender=sender)] * 250)
    query = parse_query(QueryDict(f"sender={sender}&fields=index,sender"), order="oldest")
    # A bound that the log has not reached yet shows when the later rows are read.
    progress = Progress()
    chunks = chunks_of(query, FORMATS["ndjson"], progress, log_size=first + 10_000)
    assert next(chunks) == b""
    assert next(chunks).count(b"\n") == PAGE_ENTRIES
    late = add(note(sender=sender))
    rest = b"".join(chunks).splitlines()
    assert len(rest) == 251
    assert progress.rows == PAGE_ENTRIES + 251
    assert orjson.loads(rest[-1]) == {"index": late, "sender": sender}


def test_it_shows_an_erased_body_as_null(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    index = add(note(sender=sender, shared={"reason": "to be erased"}))
    drop_triggers()  # what an erasure by two people's order will do
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "UPDATE registry_entrybody SET shared = NULL, reason = NULL WHERE position = %s",
                [index],
            )
    finally:
        make_triggers()
    (row,) = lines(exported(auditor, format="ndjson", sender=sender))
    assert (row["body"], row["reason"]) == ({"shared": None}, None)
    assert auditor.get(f"{PROVENANCE}{index}/").json()["body"] == {"shared": None}
    answer = exported(auditor, format="csv", sender=sender, fields="index,body,reason")
    assert table(answer)[1] == [str(index), "", '{"shared":null}']


def held(count: int, account: str = "") -> list[ExportPlace]:
    """Take places, each of another account unless one is named."""
    taken = [places.take(account or fresh("officer")) for _ in range(count)]
    assert all(taken)
    return [place for place in taken if place is not None]


def test_it_runs_a_bounded_number_of_exports(auditor: httpx.Client) -> None:
    taken = held(MOST_EXPORTS)
    refused = auditor.get(EXPORT, params={"format": "csv"})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    for place in taken:
        place.leave()
    exported(auditor, format="csv", indexTo=0)


def test_it_runs_a_bounded_number_of_exports_of_one_account(
    hub: Any, auditor: httpx.Client
) -> None:
    user = person(AUDITORS)
    taken = held(MOST_OF_AN_ACCOUNT, Actor.of_user(user).name)
    with reader(hub.http_url, user=user) as busy:
        assert busy.get(EXPORT, params={"format": "csv"}).status_code == 429
        exported(auditor, format="csv", indexTo=0)
        del taken
        gc.collect()
        exported(busy, format="csv", indexTo=0)


async def test_it_counts_exports_that_have_not_begun_to_stream(auditor: httpx.Client) -> None:
    """Many at once can't pass before the first is counted; those that are dropped count no more."""
    client, headers = AsyncClient(), {"Authorization": auditor.headers["Authorization"]}
    asked: dict[str, str | int] = {"format": "csv", "indexTo": 0}
    answers = [
        await client.get(EXPORT, asked, headers=headers) for _ in range(MOST_OF_AN_ACCOUNT + 2)
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200] * MOST_OF_AN_ACCOUNT + [429] * 2
    answers.clear()
    gc.collect()
    await sync_to_async(exported)(auditor, **asked)


def test_it_serves_or_refuses_each_of_sixty_at_once(hub: Any) -> None:
    """None fails, and only what is served is entered as a reading."""
    user = person(AUDITORS)
    add(note(shared={"text": "x" * 100_000}))
    token = token_of(user)

    def ask(_: int) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(
            f"{hub.http_url}{EXPORT}?format=csv", headers=headers, timeout=60
        ).status_code

    with ThreadPoolExecutor(60) as pool:
        statuses = Counter(pool.map(ask, range(60)))
    assert statuses.keys() <= {200, 429}
    created = Entry.objects.filter(actor=Actor.of_user(user).name, kind=Kind.EXPORT_CREATED)
    assert created.count() == statuses[200] > 0


def ended(created: httpx.Response) -> dict[str, Any]:
    """Wait for the entry about the end of an export, and return its body."""
    name = created.headers["Content-Disposition"].partition("trail-")[2].partition(".")[0]
    ends = Entry.objects.filter(kind=Kind.EXPORT_ENDED, subject=f"entry {name}")
    entry = eventually(ends.first, "the entry about the end of the export")
    body: dict[str, Any] = orjson.loads(entry.body.content())
    return {name: body[name] for name in ("rows", "outcome")}


def test_it_enters_the_end_of_an_export_with_its_rows(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    add(*[note(sender=sender)] * 3)
    answer = exported(auditor, format="ndjson", sender=sender)
    assert ended(answer) == {"rows": 3, "outcome": "complete"}


def test_it_enters_the_end_of_an_export_whose_reader_hung_up(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    for _ in range(30):
        add(*[note(sender=sender, shared={"text": "x" * 4_000})] * 250)
    asked = {"format": "ndjson", "sender": sender}
    with auditor.stream("GET", EXPORT, params=asked, headers={"Accept-Encoding": ""}) as answer:
        next(answer.iter_raw())
    body = ended(answer)
    assert body["outcome"] == "broken off"
    assert body["rows"] < 7_500


def test_it_gives_the_place_of_a_reader_that_does_not_read_to_others(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ANSWER_SECONDS", 0.5)
    sender, user = fresh("alice"), person(AUDITORS)
    for _ in range(30):
        add(*[note(sender=sender, shared={"text": "x" * 4_000})] * 250)
    with reader(hub.http_url, user=user) as client:
        asked = {"format": "ndjson", "sender": sender}
        with client.stream("GET", EXPORT, params=asked, headers={"Accept-Encoding": ""}) as answer:
            assert ended(answer)["outcome"] == "broken off"


def test_it_compresses_for_those_who_ask(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    add(*[note(sender=sender)] * 200)
    answers = [
        auditor.get(
            EXPORT, params={"format": "csv", "sender": sender}, headers={"Accept-Encoding": asked}
        )
        for asked in ("gzip, br", "identity", "gzip;q=0")
    ]
    assert [answer.headers.get("Content-Encoding") for answer in answers] == ["gzip", None, None]
    assert answers[0].text == answers[1].text == answers[2].text
    assert answers[0].num_bytes_downloaded < answers[1].num_bytes_downloaded / 3
    assert {answer.headers["Vary"] for answer in answers} == {"Accept-Encoding"}


def test_it_tells_null_from_empty_in_a_table(auditor: httpx.Client) -> None:
    sender = fresh("alice")
    index = add(note(sender=sender, score=None))
    answer = exported(auditor, format="csv", sender=sender, fields="index,sender,policy,score")
    assert answer.content.splitlines()[1] == f'{index},{sender},"",'.encode()
