"""The Celery task that verifies stored attestations."""

from __future__ import annotations

import time

from celery import shared_task

from registry.attestations.actions import enter_expired, verify_stored
from registry.issuers.events import VERIFY


@shared_task(name=VERIFY, ignore_result=True)
def verify_attestations(issuer_id: int | None = None) -> None:
    """Verify all stored attestations, or one issuer's, again; enter the expired ones."""
    after: str | None = ""
    while after is not None:
        after = verify_stored(time.time(), after=after, issuer_id=issuer_id)
    while enter_expired(time.time()):
        pass
