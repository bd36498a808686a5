"""Task dispatches of issuers, sent once the transaction has committed."""

from __future__ import annotations

from celery import current_app
from django.db import transaction

VERIFY = "registry.verify_attestations"


def enqueue_verification_on_commit(issuer_id: int) -> None:
    """Dispatch a task that verifies the issuer's attestations, once this transaction commits."""
    # Robust: if the broker is away, the commit still succeeds and the periodic run verifies them.
    transaction.on_commit(lambda: current_app.tasks[VERIFY].delay(issuer_id=issuer_id), robust=True)
