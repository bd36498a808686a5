"""An envelope that no worker can handle: an entry, and an alarm for the officers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from django.db import transaction

from messaging.models import Batch, Envelope
from registry.agents.querysets import organisations_of
from registry.storage.bulk import insert_rows
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)


def record_poison(agent: str, message_id: str | None, batches: Iterable[str]) -> Envelope | None:
    """Enter that the hub gave up on an envelope, which leaves no id behind.

    `batches` are all that it was sent in. A worker may still be at one: it finds it judged, and
    stores nothing, or had stored it, and then nothing is entered and its row comes back.
    """
    now = datetime.now(UTC)
    with transaction.atomic():
        rows = [(batch, "[]", now) for batch in sorted(batches)]
        insert_rows(Batch, ("id", "unstored", "judged_at"), rows, on_conflict_do_nothing=True)
        stored = find_stored(agent, message_id)
        if stored is None:
            logger.critical("an envelope of %s failed three times and was refused", agent)
            append([_entry(agent, message_id or "", organisations_of([agent]))])
    return stored


def find_stored(agent: str, message_id: str | None) -> Envelope | None:
    """The row of an envelope that was stored, whatever its sender was told."""
    return Envelope.objects.filter(sender_id=agent, message_id=message_id or "").first()


def _entry(agent: str, message_id: str, uids: Mapping[str, str]) -> EntryDraft:
    own = uids.get(agent, "")
    return EntryDraft(
        kind=Kind.ENVELOPE_POISONED,
        actor=f"agent:{agent}",
        sender=agent,
        sender_organisation=own,
        organisations=(own,) if own else (),
        message_id=message_id,
        verdict="invalid",
        shared={"reason": "every attempt to judge it failed"},
    )
