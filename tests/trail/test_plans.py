"""What PostgreSQL reads for each documented combination of filter and order, on a filled table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext

from registry.hub.secrets import blinded
from registry.officers.scope import EVERYTHING
from registry.trail.reading.columns import FIELDS
from registry.trail.reading.filters import LEADING, parse_query
from registry.trail.reading.search import Query, find, read, span_of

pytestmark = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite does not say what it read"
)

ENTRIES = 200_000
PAGE = 100
MOST_READ = 4 * PAGE  # rows of one step of a plan

# Beside the live tables, so that nothing else in this run sees it. Values that a planner misjudges:
# half of the envelopes are from one sender; all that is rare lies at the log's begin.
FILL = f"""
CREATE SCHEMA filled;
CREATE TABLE filled.registry_entry (LIKE public.registry_entry INCLUDING ALL);
CREATE TABLE filled.registry_entrybody (LIKE public.registry_entrybody INCLUDING ALL);
INSERT INTO filled.registry_entry
  (position, "time", hub, kind, actor, subject, sender, recipient, message_id, request_id,
   sensitivity, verdict, policy, rule, issuer, attestation, trace, on_behalf_of, score,
   session, sender_organisation, recipient_organisation, organisations, leaf, leaf_hash)
SELECT i, '2026-01-01Z'::timestamptz + i * interval '1 second', 'hub-1',
  CASE WHEN i = 0 THEN 'log.started' WHEN i < 5000 THEN 'agent.created'
       WHEN i % 2 = 0 THEN 'delivery.acknowledged' ELSE 'envelope.accepted' END,
  'agent:' || w, w, CASE WHEN i < 5000 THEN '' ELSE w END, CASE WHEN i < 5000 THEN '' ELSE w END,
  CASE WHEN i < 5000 THEN '' ELSE w || i / 10 END, CASE WHEN i < 5000 THEN '' ELSE w || i / 10 END,
  CASE WHEN i < 5000 THEN 'internal' ELSE 'public' END,
  CASE WHEN i < 5000 THEN 'denied' WHEN i % 2 = 0 THEN '' ELSE 'accepted' END,
  w, w, w, w, w, CASE w WHEN 'usual' THEN '@usual' WHEN 'rare' THEN '@rare' ELSE '' END, i % 100,
  '', '', '', '',
  decode(repeat('ab', 200), 'hex'), decode(repeat('cd', 32), 'hex')
FROM generate_series(0, {ENTRIES - 1}) AS i,
LATERAL (SELECT CASE WHEN i < 5000 THEN 'rare' WHEN i % 3 = 0 THEN 'a' || i % 50 ELSE 'usual' END
  AS w) AS words;
INSERT INTO filled.registry_entrybody (position, digests, shared, reason)
SELECT i, decode('7b7d', 'hex'), decode(repeat('ef', 300), 'hex'), ''
FROM generate_series(0, {ENTRIES - 1}) AS i;
"""  # noqa: S608  # the number of entries

# A value that most entries have, one that lies at the begin only, and one that no entry has.
VALUES = {
    "kind": ("envelope.accepted", "agent.created", "key.revoked"),
    "verdict": ("accepted", "denied", "released"),
    "sensitivity": ("public", "internal", "restricted"),
    "actor": ("agent:usual", "agent:rare", "none"),
    "messageId": ("usual1000", "a01000", "none"),
    "requestId": ("usual1000", "a01000", "none"),
}
USUAL = ("usual", "rare", "none")
LIMITS = ("", "&timeFrom=2026-01-02T00:00:00Z&timeTo=2026-01-03T00:00:00Z", "&indexFrom=150000")
COMBINATIONS = [
    f"{filter_}{limits}&order={order}"
    for order in ("newest", "oldest")
    for limits in LIMITS
    for filter_ in [
        *(f"{name}={value}" for name in LEADING for value in VALUES.get(name, USUAL)),
        "",
        "hub=hub-1",
        "hub=another",
        "kind=agent.*",
        "kind=envelope.*&kind=agent.*",
    ]
]


@pytest.fixture(scope="module")
def filled(database: None) -> Iterator[None]:
    fill = FILL
    with connection.cursor() as cursor:
        for word in ("usual", "rare"):
            fill = fill.replace(f"@{word}", blinded("onBehalfOf", word))
        cursor.execute(fill)
        for table in ("registry_entry", "registry_entrybody"):
            cursor.execute(f"VACUUM (ANALYZE) filled.{table}")
        cursor.execute("SET search_path = filled, public")
    yield
    with connection.cursor() as cursor:
        cursor.execute("RESET search_path")
        cursor.execute("DROP SCHEMA filled CASCADE")


@pytest.mark.parametrize("asked", COMBINATIONS)
def test_it_reads_a_page_of_each_documented_combination_by_an_index(
    filled: None, asked: str
) -> None:
    query = parse_query(QueryDict(asked), scope=EVERYTHING)
    for sql in queries_of(query, PAGE):
        steps = list(steps_of(plan_of(sql)))
        assert not [step for step in steps if step["Node Type"] == "Seq Scan"], sql
        assert max(rows_read(step) for step in steps) <= MOST_READ, (sql, steps)


def test_it_reads_neither_entries_nor_bodies_from_the_begin(filled: None) -> None:
    """The page of an export in the middle of the log, with all members, of all and of some."""
    for asked in ("", "&sender=usual", "&scoreFrom=50", "&reason=x", "&agent=a0&kind=envelope.*"):
        parameters = QueryDict(f"order=oldest&indexFrom={ENTRIES // 2}{asked}")
        query = parse_query(parameters, scope=EVERYTHING, fields=tuple(FIELDS))
        for sql in queries_of(query, PAGE, seconds=0):
            steps = list(steps_of(plan_of(sql)))
            assert not [step for step in steps if step["Node Type"] == "Seq Scan"], sql
            assert max(rows_read(step) for step in steps) <= MOST_READ, (sql, steps)


def queries_of(query: Query, limit: int, seconds: float = 60) -> list[str]:
    """Return the SQL of all queries for the first page."""
    with CaptureQueriesContext(connection) as captured:
        span = span_of(query.limits, log_size=ENTRIES)
        found = find(query, span, limit=limit, seconds=seconds)
        read(query.fields, found.positions, EVERYTHING)
    return [each["sql"] for each in captured.captured_queries]


def plan_of(sql: str) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
        ((found,),) = cursor.fetchall()
    found = orjson.loads(found) if isinstance(found, str) else found
    plan: dict[str, Any] = found[0]["Plan"]
    return plan


def steps_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from steps_of(below)


def rows_read(step: dict[str, Any]) -> int:
    removed = step.get("Rows Removed by Filter", 0) + step.get("Rows Removed by Index Recheck", 0)
    rows: int = (step["Actual Rows"] + removed) * step["Actual Loops"]
    return rows
