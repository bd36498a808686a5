"""Celery tasks that keep stored scores true; judgements never wait for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from celery import shared_task

from registry.agents.models import Agent
from registry.scores.actions import PERIODIC, forget_old_traffic, recompute
from registry.scores.events import RECOMPUTE, REFRESH

CHUNK_AGENTS = 200  # of one transaction, so that the log's lock is never held for long


@shared_task(name=RECOMPUTE, ignore_result=True)
def recompute_scores(agent_ids: Sequence[str], because: str) -> None:
    """Scores of these agents, after the event `because`; agents that are gone are left out."""
    for chunk in _chunks(agent_ids):
        recompute(chunk, because)


@shared_task(name=REFRESH, ignore_result=True)
def refresh_scores(because: str = PERIODIC) -> None:
    """Scores of all active agents: freshness falls and violations fade without any event."""
    today = datetime.now(UTC).date()
    active = Agent.objects.active().order_by("id").values_list("id", flat=True)
    for chunk in _chunks(list(active)):
        forget_old_traffic(chunk, today)
        recompute(chunk, because)


def _chunks(agent_ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(agent_ids), CHUNK_AGENTS):
        yield list(agent_ids[start : start + CHUNK_AGENTS])
