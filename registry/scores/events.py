"""Task dispatches of scores, sent once the transaction has committed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from celery import current_app
from django.db import transaction

RECOMPUTE = "registry.recompute_scores"
REFRESH = "registry.refresh_scores"


def enqueue_recompute_on_commit(agents: Collection[str], because: str) -> None:
    """Dispatch a recompute of these agents' scores once this transaction commits.

    `because` names the event that changed them.
    """
    if agents:
        _on_commit(lambda: current_app.tasks[RECOMPUTE].delay(sorted(agents), because))


def enqueue_refresh_on_commit(because: str) -> None:
    """Dispatch a recompute of all active agents' scores once this transaction commits."""
    _on_commit(lambda: current_app.tasks[REFRESH].delay(because))


def _on_commit(send: Callable[[], object]) -> None:
    # Robust: if the broker is away, the change is still committed, and the periodic refresh
    # computes the score later. `send` must be a function or lambda: Django logs its name, and a
    # `functools.partial` has none, so its failure would reach the caller.
    transaction.on_commit(send, robust=True)
