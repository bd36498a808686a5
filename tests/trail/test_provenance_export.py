"""Exports: real streams, the same filters, and cells that no spreadsheet runs."""

from __future__ import annotations

import csv
import gc
import io
from typing import Any

import httpx
import orjson
import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.http import QueryDict
from django.test import AsyncClient

from atp.wire.canonical import digest, serialize, sha256_b64url
from registry.api.trail.exports import (
    EXPORTS_AT_A_TIME,
    FORMATS,
    PAGE_ENTRIES,
    held,
    running,
    stream,
)
from registry.api.trail.filters import LISTED, parse_query
from registry.trail.triggers import make_triggers
from tests.trail.readers import PROVENANCE, add, fresh, note, problem
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


async def test_it_reads_each_page_when_the_one_before_was_sent(database: None) -> None:
    sender = fresh("alice")
    for _ in range(PAGE_ENTRIES // 250):
        first = await sync_to_async(add)(*[note(sender=sender)] * 250)
    query = parse_query(QueryDict(f"sender={sender}&fields=index,sender"), order="oldest")
    # A bound that the log has not reached yet shows when the later rows are read.
    chunks = stream(query, FORMATS["ndjson"], log_size=first + 10_000)
    assert await anext(chunks) == b""
    assert (await anext(chunks)).count(b"\n") == PAGE_ENTRIES
    late = await sync_to_async(add)(note(sender=sender))
    (line,) = [orjson.loads(chunk) async for chunk in chunks]
    assert line == {"index": late, "sender": sender}


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


async def test_it_runs_a_bounded_number_of_exports(auditor: httpx.Client) -> None:
    query = parse_query(QueryDict(f"sender={fresh('nobody')}"))
    streams = []
    for _ in range(EXPORTS_AT_A_TIME):
        place = running.take()
        assert place is not None
        streams.append(held(place, stream(query, FORMATS["csv"], log_size=0)))
    for chunks in streams:
        await anext(chunks)
    refused = await sync_to_async(auditor.get)(EXPORT, params={"format": "csv"})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    for chunks in streams:
        await chunks.aclose()
    await sync_to_async(exported)(auditor, format="csv", indexTo=0)


async def test_it_counts_exports_that_have_not_begun_to_stream(auditor: httpx.Client) -> None:
    """Many at once can't pass before the first is counted; those that are dropped count no more."""
    client, headers = AsyncClient(), {"Authorization": auditor.headers["Authorization"]}
    asked: dict[str, str | int] = {"format": "csv", "indexTo": 0}
    answers = [
        await client.get(EXPORT, asked, headers=headers) for _ in range(EXPORTS_AT_A_TIME + 2)
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200] * EXPORTS_AT_A_TIME + [429] * 2
    answers.clear()
    gc.collect()
    await sync_to_async(exported)(auditor, **asked)
