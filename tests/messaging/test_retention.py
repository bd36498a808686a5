"""Old rows are deleted, so many at a time that no statement takes long."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from messaging.mail.retention import BATCHES_KEPT, MOST_A_RUN, forget_batches_and_counters
from messaging.models import Batch

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def make_batches(count: int, judged_at: datetime) -> None:
    Batch.objects.bulk_create(
        Batch(id=str(uuid.uuid4()), unstored=[], judged_at=judged_at) for _ in range(count)
    )


@pytest.mark.django_db
def test_it_deletes_many_old_batches_in_several_runs_and_no_new_one() -> None:
    make_batches(MOST_A_RUN + 1, NOW - BATCHES_KEPT - timedelta(seconds=1))
    make_batches(1, NOW - BATCHES_KEPT + timedelta(seconds=1))
    forget_batches_and_counters(NOW)
    assert Batch.objects.count() == 2
    forget_batches_and_counters(NOW)
    assert Batch.objects.get().judged_at > NOW - BATCHES_KEPT
