"""The queries of a batch read as many rows with many stored envelopes as with few."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection

from messaging.judging import loading
from messaging.judging.facts import BatchFacts
from messaging.judging.loading import NAMED
from messaging.judging.registry_view import RegistryView
from messaging.models import Envelope

STORED = 3_000
MOST_PAGES = 40  # of 8 KiB; reading all answers once takes some thousands

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def answered(number: int) -> list[Envelope]:
    """A request and its answer."""
    now = datetime.now(UTC)
    shared = {
        "sensitivity": "public", "status": "accepted", "score": 80, "judged_at": now,
        "expires_at": now, "size": 2, "content": b"{}", "kid": "k", "batch_id": "b",
    }  # fmt: skip
    request = Envelope(
        sender_id="alice", target="bob", message_id=f"r{number}", digest=f"request-{number}",
        message_type="request", **shared,
    )  # fmt: skip
    response = Envelope(
        sender_id="bob", target="alice", message_id=f"a{number}", digest=f"answer-{number}",
        message_type="response", answers=request.digest, **shared,
    )  # fmt: skip
    return [request, response]


@pytest.fixture
def stored():
    rows = [row for n in range(STORED // 2) for row in answered(n)]
    Envelope.objects.bulk_create(rows, batch_size=500)


def test_it_finds_a_request_and_whether_it_is_answered(stored):
    Envelope.objects.filter(digest="answer-8").delete()
    found = {digest: answer for _, digest, *_, answer in NAMED.rows(["request-7", "request-8"])}
    assert found["request-7"] is not None
    assert found["request-8"] is None


def test_the_cause_of_one_agent_is_found_without_its_deliveries(stored, django_assert_num_queries):
    """Without statistics, a database would read all that the agent ever got."""
    named = {row[0]: loading._Named(*row) for row in NAMED.rows(["request-7", "answer-8"])}
    view = RegistryView("hub", 0, 0.0)
    facts = BatchFacts(now=0.0, view=view, routes={}, senders=frozenset())
    wanted = {("request-7", "bob"), ("request-7", "mallory"), ("answer-8", "bob")}
    with django_assert_num_queries(0):
        loading._load_causes(facts, wanted, named)
    assert facts.causes.keys() == {("request-7", "bob")}


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite does not count its pages")
def test_it_reads_no_more_than_what_is_named(stored):
    """Prepared, and without statistics: what PostgreSQL has of a table that has just grown."""
    statement, _, _ = NAMED._sql
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        prepared = f"PREPARE named (text[]) AS {statement.replace('%s', '$1')}"
        cursor.execute(prepared)
        cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE named (ARRAY['request-7'])")
        ((plan,),) = cursor.fetchall()
        cursor.execute("DEALLOCATE named")
    read = plan[0]["Plan"]
    assert read["Actual Rows"] == 1
    assert read["Shared Hit Blocks"] + read["Shared Read Blocks"] < MOST_PAGES, plan
