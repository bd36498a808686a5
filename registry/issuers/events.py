"""What attestations set in motion once a transaction has committed."""

from __future__ import annotations

from celery import current_app
from django.db import transaction

VERIFY = "registry.verify_attestations"


def enqueue_verification_on_commit(issuer_id: int) -> None:
    """Verify an issuer's attestations again, once its new limits are committed."""
    # Robust: where the broker is away the periodic run does it.
    transaction.on_commit(lambda: current_app.tasks[VERIFY].delay(issuer_id=issuer_id), robust=True)
