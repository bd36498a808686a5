"""Repetitive refusals: counted by the minute, entered as a summary."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from django.db import transaction

from atp.wire.canonical import parse
from registry.trail.actions import count_refusals, summarise_refusals
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount
from registry.trail.tasks import summarise_refusals as task

pytestmark = pytest.mark.usefixtures("database")

NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


def count(agent: str, code: str, n: int, when: datetime) -> None:
    with transaction.atomic():
        count_refusals({(agent, code): n, ("", code): 1}, when)


@pytest.fixture
def mallory() -> str:
    return f"mallory-{secrets.token_hex(4)}"


def test_it_counts_by_agent_code_and_minute(mallory: str) -> None:
    count(mallory, "flow.throttled", 3, NOON + timedelta(seconds=2))
    count(mallory, "flow.throttled", 4, NOON + timedelta(seconds=58))
    count(mallory, "flow.throttled", 5, NOON + timedelta(seconds=61))
    count(mallory, "signature.invalid", 1, NOON)
    rows = RefusalCount.objects.filter(agent=mallory).order_by("code", "minute")
    assert list(rows.values_list("code", "minute", "count")) == [
        ("flow.throttled", NOON, 7),
        ("flow.throttled", NOON + timedelta(minutes=1), 5),
        ("signature.invalid", NOON, 1),
    ]


def test_it_enters_minutes_that_are_over_and_leaves_the_current_one(mallory: str) -> None:
    count(mallory, "flow.throttled", 3, NOON)
    count(mallory, "flow.throttled", 4, NOON + timedelta(minutes=1))
    count(mallory, "flow.throttled", 9, NOON + timedelta(minutes=2))
    while summarise_refusals(NOON + timedelta(minutes=2, seconds=30)):
        pass
    (entry,) = Entry.objects.filter(sender=mallory)
    body = parse(entry.body.content())
    assert (entry.kind, entry.actor, entry.subject) == (
        Kind.REFUSALS_COUNTED,
        "hub",
        "flow.throttled",
    )
    assert body["count"] == 7
    assert body["minutes"] == [
        ["2025-06-01T12:00:00.000000Z", 3],
        ["2025-06-01T12:01:00.000000Z", 4],
    ]
    assert list(RefusalCount.objects.filter(agent=mallory).values_list("count", flat=True)) == [9]


def test_it_enters_nothing_twice(mallory: str) -> None:
    count(mallory, "flow.throttled", 3, NOON)
    task()
    task()
    assert Entry.objects.filter(sender=mallory).count() == 1
    assert not RefusalCount.objects.filter(agent=mallory).exists()


def test_it_counts_nothing_for_nobody() -> None:
    before = RefusalCount.objects.count()
    with transaction.atomic():
        count_refusals({}, NOON)
    assert RefusalCount.objects.count() == before
