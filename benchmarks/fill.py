"""Fill a hub's database with old envelopes: `python -m benchmarks.fill identities/ 1000000`.

Each stored envelope has an acknowledged delivery and an entry in the trail. They are copies of the
newest envelope that the hub judged, with their own ids, digests, sequence numbers and hashes, over
the last 30 days. Half are between the agents of `identities`, half between other agents.
"""

from __future__ import annotations

import argparse
import os
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

from benchmarks.load import load_identities

if TYPE_CHECKING:
    from registry.trail.actions import EntryDraft
    from registry.trail.models import EntryBody

CHUNK = 8_192  # envelopes in a transaction
PAUSE_SECONDS = 0.01  # between two transactions, so that the hub can write
OTHERS = 200  # agents besides those of the benchmark
PAST = timedelta(days=30)
LIFETIME = timedelta(minutes=10)
COPIED = (
    "session", "sensitivity", "verdict", "policy", "rule", "issuer", "attestation", "score",
    "sender_organisation", "recipient_organisation", "organisations",
)  # fmt: skip
TABLES = (
    "messaging_envelope", "messaging_delivery", "messaging_mailbox",
    "registry_entry", "registry_entrybody",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Original:
    """The envelope that is copied, with its entry."""

    columns: dict[str, Any]
    draft: EntryDraft


@dataclass(frozen=True, slots=True)
class _Letter:
    """One old envelope."""

    message_id: str
    sender: str
    recipient: str
    content: bytes
    digest: str


def fill(folder: Path, count: int) -> None:
    """Store `count` envelopes, deliveries and entries; then update the database's statistics."""
    _speed_up()
    original = _original()
    pairs = cycle(_pairs([identity.agent for identity in load_identities(folder)]))
    began = datetime.now(UTC) - PAST
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        letters = [_letter(original, *pair) for pair in islice(pairs, size)]
        _store(original, letters, began + PAST * (start / count))
        time.sleep(PAUSE_SECONDS)
    _update_statistics()


def _speed_up() -> None:
    """Make this connection fast; a power cut may lose the rows, which does no harm here."""
    from django.db import connection

    statements = {
        "postgresql": ["SET synchronous_commit = off"],
        "sqlite": ["PRAGMA synchronous = OFF", "PRAGMA cache_size = -1048576"],  # KiB
    }
    with connection.cursor() as cursor:
        for statement in statements[connection.vendor]:
            cursor.execute(statement)


def _original() -> _Original:
    from messaging.judging.accept import ENVELOPE_COLUMNS
    from messaging.models import Envelope
    from registry.trail.actions import EntryDraft
    from registry.trail.kinds import Kind
    from registry.trail.models import Entry

    row = Envelope.objects.filter(status="accepted", message_type="notification").latest("id")
    entry = Entry.objects.select_related("body").get(
        message_id=row.message_id, kind=Kind.ENVELOPE_ACCEPTED
    )
    return _Original(
        columns={name: getattr(row, name) for name in ENVELOPE_COLUMNS},
        draft=EntryDraft(
            kind=Kind.ENVELOPE_ACCEPTED,
            **{name: getattr(entry, name) for name in COPIED},
            shared=_section(entry.body, "shared"),
            for_sender=_section(entry.body, "sender"),
            for_recipient=_section(entry.body, "recipient"),
            personal=_section(entry.body, "personal"),
        ),
    )


def _section(body: EntryBody, name: str) -> dict[str, Any]:
    return {member: value for member, value in body.read(name).items() if member != "salt"}


def _pairs(agents: Sequence[str]) -> list[tuple[str, str]]:
    """Return senders and recipients: the pairs of the benchmark, and as many other pairs."""
    from benchmarks.crowd import copy_agents

    others = [f"past-{uuid.uuid4().hex[:12]}" for _ in range(OTHERS)]
    copy_agents(agents[0], others)
    half = len(agents) // 2
    own = zip(agents[:half], agents[half:], strict=False)
    strange = zip(others, others[1:] + others[:1], strict=True)
    return [pair for both in zip(cycle(own), strange) for pair in both]


def _letter(original: _Original, sender: str, recipient: str) -> _Letter:
    from atp.wire.canonical import sha256_b64url

    old = original.columns
    message_id = str(uuid.uuid4())
    content = bytes(old["content"]).replace(old["message_id"].encode(), message_id.encode())
    content = content.replace(old["sender_id"].encode(), sender.encode())
    content = content.replace(old["target"].encode(), recipient.encode())
    return _Letter(message_id, sender, recipient, content, sha256_b64url(content))


def _store(original: _Original, letters: Sequence[_Letter], judged_at: datetime) -> None:
    """Store rows in one transaction, in the order of messaging/judging/accept.py."""
    from django.db import transaction

    from messaging.judging.accept import ENVELOPE_COLUMNS
    from messaging.mail.deliveries import NewDelivery, insert_deliveries
    from messaging.models import Envelope
    from registry.storage.bulk import insert_rows
    from registry.trail.actions import MOST_ENTRIES, append

    expires_at = judged_at + LIFETIME
    changed = {"judged_at": judged_at, "expires_at": expires_at, "batch_id": str(uuid.uuid4())}
    rows = [_envelope({**original.columns, **changed}, letter) for letter in letters]
    with transaction.atomic():
        ids = insert_rows(Envelope, ENVELOPE_COLUMNS, rows, returning=("id",))
        insert_deliveries(
            [
                NewDelivery(row_id, letter.recipient, "mail", letter.sender, expires_at)
                for (row_id,), letter in zip(ids, letters, strict=True)
            ]
        )
        _acknowledge({letter.recipient for letter in letters})
        drafts = [_draft(original.draft, letter) for letter in letters]
        for start in range(0, len(drafts), MOST_ENTRIES):
            append(drafts[start : start + MOST_ENTRIES])


def _envelope(columns: dict[str, Any], letter: _Letter) -> tuple[Any, ...]:
    columns["message_id"], columns["digest"] = letter.message_id, letter.digest
    columns["sender_id"], columns["target"] = letter.sender, letter.recipient
    columns["content"] = letter.content
    return tuple(columns.values())


def _draft(original: EntryDraft, letter: _Letter) -> EntryDraft:
    return replace(
        original,
        actor=f"agent:{letter.sender}",
        sender=letter.sender,
        recipient=letter.recipient,
        message_id=letter.message_id,
        shared={**original.shared, "digest": letter.digest},
    )


def _acknowledge(agents: Collection[str]) -> None:
    """Acknowledge all deliveries of these agents, and mark them as counted for scores."""
    from django.db.models import F

    from messaging.models import Mailbox

    last = F("last_seq")
    Mailbox.objects.filter(agent_id__in=agents, stream="mail").update(
        acked_seq=last, credited_seq=last, swept_seq=last, ended=0, next_expiry=None
    )


def _update_statistics() -> None:
    """Run now what autovacuum and a checkpoint would do later, during the measurement."""
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in _statements(connection.vendor):
            cursor.execute(statement)
    os.sync()


def _statements(vendor: str) -> Iterator[str]:
    if vendor == "postgresql":
        yield f"VACUUM (ANALYZE) {', '.join(TABLES)}"
        yield "CHECKPOINT"
    else:
        yield "ANALYZE"
        yield "PRAGMA wal_checkpoint(PASSIVE)"


def main() -> None:
    """Fill the database of the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("identities", type=Path, help="the folder that benchmarks.provision wrote")
    parser.add_argument("count", type=int, help="of envelopes, deliveries and entries")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    started = time.perf_counter()
    fill(options.identities, options.count)
    print(f"stored {options.count} in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
