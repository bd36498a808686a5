"""Many rows at once, alike on both databases."""

from __future__ import annotations

import secrets
import uuid
from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, transaction

from messaging.models import Batch, Node
from registry.storage.bulk import insert_rows
from registry.trail.models import RefusalCount

pytestmark = pytest.mark.usefixtures("database")

NOW = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
COUNT = ("agent", "code", "minute", "count")


@pytest.fixture
def name() -> str:
    return f"bulk-{secrets.token_hex(4)}"


@pytest.fixture(autouse=True)
def leave_nothing_to_summarise() -> object:
    yield
    RefusalCount.objects.filter(agent__startswith="bulk-").delete()


def test_it_gives_back_keys_in_the_order_of_the_rows(name: str) -> None:
    rows = [(name, f"code.{i}", NOW, i) for i in range(300)]
    with transaction.atomic():
        back = insert_rows(RefusalCount, COUNT, rows, returning=("id", "code"))
    assert [code for _, code in back] == [code for _, code, _, _ in rows]
    assert dict(back) == dict(RefusalCount.objects.filter(agent=name).values_list("id", "code"))
    assert RefusalCount.objects.create(agent=name, code="next", minute=NOW, count=1).pk > max(
        key for key, _ in back
    )


def test_it_leaves_out_what_is_there_and_says_what_went_in(name: str) -> None:
    with transaction.atomic():
        insert_rows(RefusalCount, COUNT, [(name, "a", NOW, 1)])
        back = insert_rows(
            RefusalCount,
            COUNT,
            [(name, "a", NOW, 2), (name, "b", NOW, 3)],
            on_conflict_do_nothing=True,
            returning=("code", "count"),
        )
    assert back == [("b", 3)]
    kept = RefusalCount.objects.filter(agent=name).order_by("code")
    assert [(row.code, row.count, row.minute) for row in kept] == [("a", 1, NOW), ("b", 3, NOW)]


def test_rejects_a_row_that_is_there(name: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        insert_rows(RefusalCount, COUNT, [(name, "a", NOW, 1), (name, "a", NOW, 1)])
    assert not RefusalCount.objects.filter(agent=name).exists()


def test_it_inserts_more_than_one_statement_may_hold(name: str) -> None:
    rows = [(name, f"code.{i}", NOW, i) for i in range(9_000)]
    with transaction.atomic():
        insert_rows(RefusalCount, COUNT, rows, on_conflict_do_nothing=True)
    assert RefusalCount.objects.filter(agent=name).count() == 9_000


def test_it_takes_json_and_uuids() -> None:
    key, node = secrets.token_hex(18), uuid.uuid4()
    with transaction.atomic():
        insert_rows(Batch, ("id", "unstored", "judged_at"), [(key, '[{"a": "é"}]', NOW)])
        insert_rows(
            Node,
            ("id", "name", "channel", "started_at", "lease_until", "stopped_at"),
            [(node, "n", "c", NOW, NOW, NOW)],
        )
    assert Batch.objects.get(id=key).unstored == [{"a": "é"}]
    assert Node.objects.get(id=node).stopped_at == NOW


def test_it_does_nothing_with_nothing() -> None:
    assert insert_rows(RefusalCount, COUNT, [], returning=("id",)) == []
