"""The filler of the benchmarks: the stated mix, appended as the hub does."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from itertools import islice

import pytest

from benchmarks import fill_trail
from messaging.models import Envelope
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.trail.readers import fresh


def test_it_mixes_kinds_as_stated() -> None:
    assert sum(fill_trail.MIX.values()) == 1_000
    later = fill_trail.drafts(fill_trail.REGISTERED_FIRST)
    found = Counter(draft.kind.value for draft in islice(later, 20_000))
    for kind, share in fill_trail.MIX.items():
        assert Kind(kind)
        assert abs(found[kind] / 20 - share) < 30


def test_it_appends_that_many_and_says_how_far_it_is(
    database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_trail, "SAID_SECONDS", 0.0)
    monkeypatch.setattr(fill_trail, "REGISTERED_FIRST", Entry.objects.count() + 10_000)
    said: list[str] = []
    before = Entry.objects.filter(kind="agent.created", subject__startswith="filled-").count()
    fill_trail.fill(300, say=said.append)
    after = Entry.objects.filter(kind="agent.created", subject__startswith="filled-").count()
    assert after - before == 150
    assert said == ["300 of 300"]


def test_rejects_a_hub_with_messages(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    row = Envelope(
        sender_id="alice", target="bob", message_id=fresh("m"), digest=fresh("d"), size=2,
        message_type="notification", content=b"{}", kid="k", batch_id="b", sensitivity="public",
        status="accepted", score=80, judged_at=now, expires_at=now,
    )  # fmt: skip
    Envelope.objects.bulk_create([row])
    size = Entry.objects.size()
    monkeypatch.setattr(sys, "argv", ["fill_trail", "10"])
    with pytest.raises(SystemExit, match="has messages"):
        fill_trail.main()
    assert Entry.objects.size() == size
    Envelope.objects.filter(digest=row.digest).delete()
