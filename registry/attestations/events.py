"""What attestations set in motion once a transaction has committed."""

from __future__ import annotations

from django.db import transaction


def enqueue_verification_on_commit(issuer_id: int) -> None:
    """Verify an issuer's attestations again, once its new limits are committed."""
    from registry.attestations.tasks import verify_attestations  # tasks import the actions

    # Robust: where the broker is away the periodic run does it.
    transaction.on_commit(lambda: verify_attestations.delay(issuer_id=issuer_id), robust=True)
