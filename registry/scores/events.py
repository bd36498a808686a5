"""What scores set in motion once a transaction has committed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from celery import current_app
from django.db import transaction

RECOMPUTE = "registry.recompute_scores"
REFRESH = "registry.refresh_scores"


def enqueue_recompute_on_commit(agents: Collection[str], because: str) -> None:
    """Compute these agents' scores again, named `because`, once what changed is committed."""
    if agents:
        _on_commit(lambda: current_app.tasks[RECOMPUTE].delay(sorted(agents), because))


def enqueue_refresh_on_commit(because: str) -> None:
    """Compute everybody's score again once what changed is committed."""
    _on_commit(lambda: current_app.tasks[REFRESH].delay(because))


def _on_commit(send: Callable[[], object]) -> None:
    # Robust: a broker that is away costs a late score, which the periodic refresh makes good,
    # and not the change itself. A function or lambda: Django names it in the log, and a partial
    # has no name, so that its failure would go through to the caller after all.
    transaction.on_commit(send, robust=True)
