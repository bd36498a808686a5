"""Celery tasks that keep stored scores current. A judgement computes its own and never waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from celery import shared_task

from registry.agents.models import Agent
from registry.scores.actions import PERIODIC, forget_old_traffic, recompute
from registry.scores.events import RECOMPUTE, REFRESH

CHUNK_AGENTS = 200  # in one transaction, so that the log lock is never held for long


@shared_task(name=RECOMPUTE, ignore_result=True)
def recompute_scores(agent_ids: Sequence[str], because: str) -> None:
    """Recompute the scores of these agents after the event `because`; skip unknown agents."""
    for chunk in _chunks(agent_ids):
        recompute(chunk, because)


@shared_task(name=REFRESH, ignore_result=True)
def refresh_scores(because: str = PERIODIC) -> None:
    """Recompute the scores of all active agents: they change with time, without any event."""
    today = datetime.now(UTC).date()
    active = Agent.objects.active().order_by("id").values_list("id", flat=True)
    for chunk in _chunks(list(active)):
        forget_old_traffic(chunk, today)
        recompute(chunk, because)


def _chunks(agent_ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(agent_ids), CHUNK_AGENTS):
        yield list(agent_ids[start : start + CHUNK_AGENTS])
