"""A clock that is set back: nothing that is remembered lasts longer for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from messaging.judging.registry_view import RegistryView, current_view
from registry.scores.actions import record_violations
from tests.cast import Player

SET_BACK_SECONDS = 60


def test_it_reads_scores_again(alice: Player) -> None:
    now = time.time()
    view = RegistryView(alice.hub, 0, now)
    before = view.score_inputs({alice.id}, now)
    record_violations([(alice.id, "high", "a.rule", "")], datetime.now(UTC))

    assert view.score_inputs({alice.id}, now) == before
    assert view.score_inputs({alice.id}, now - SET_BACK_SECONDS) != before


def test_it_looks_at_the_registry_s_dates_again(alice: Player) -> None:
    now = time.time()
    view = current_view(now)

    assert view.stands(view.hub_id, view.epoch, now - 0.1)
    assert not view.stands(view.hub_id, view.epoch, now - SET_BACK_SECONDS)
