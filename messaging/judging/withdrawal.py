"""Taking batches back from the workers before their senders hear `busy`.

`busy` says that nothing was recorded. A worker may have stored the batch all the same, and its
word was lost; or it may be about to. So the batch is claimed, as a worker claims it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from messaging.judging.outcome import stored_receipts
from messaging.models import Batch, Envelope
from registry.storage.bulk import insert_rows

CLAIM_MILLISECONDS = 2_000  # for a worker that stores one of the batches now


def withdraw(
    batches: Iterable[str], keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Have no worker store these batches any more; return receipts of what is stored already.

    `keys` are (sender, messageId), and so are those of the receipts. Raises what the database
    raises: then it is not known what became of the batches.
    """
    now = datetime.now(UTC)
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {CLAIM_MILLISECONDS}")
        rows = [(batch, "[]", now) for batch in sorted(batches)]
        insert_rows(Batch, ("id", "unstored", "judged_at"), rows, on_conflict_do_nothing=True)
    found = Envelope.objects.filter(message_id__in={message_id for _, message_id in keys})
    wanted = set(keys)
    ours = [row for row in found.defer("content") if (row.sender_id, row.message_id) in wanted]
    return stored_receipts(ours)
