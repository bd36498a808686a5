"""Appending to the trail, as the last write of a transaction.

The steps are: (1) make the bodies and their digests, before the lock; (2) take the log lock;
(3) read the end of the log and the epoch, under the lock; (4) make leaves and hashes; (5) insert
the rows. The lock is held from (2) to the commit, so no statement may follow (5): see
docs/design/decisions/0005-log-lock-last.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from atp.log import leaves
from atp.wire.timestamps import format_microseconds
from registry.officers.actor import Actor
from registry.storage.bulk import insert_rows, is_few
from registry.storage.round_trips import Asked, one_trip
from registry.trail.kinds import Kind
from registry.trail.models import Entry, EntryBody, RefusalCount

MOST_ENTRIES = 256  # in one call, to hold the log lock briefly (docs/design/provenance.md#entry)
LOG_LOCK = int.from_bytes(sha256(b"atp trail").digest()[:8], "big", signed=True)

_COLUMNS = (*leaves.HEADER, "leaf", "leaf_hash")
_BODY_COLUMNS = ("entry_id", "content", "reason")
_MEMBERS = tuple(leaves.HEADER.values())
_TEXTS = tuple(leaves.HEADER)[4:-1]  # between index, time, hub, kind and score
_LIMITS = tuple(getattr(Entry._meta.get_field(name), "max_length", 0) for name in _TEXTS)
_texts = attrgetter(*_TEXTS)

# One statement reads epoch and end of log: both are of the same moment.
_HEAD = """
SELECT hub.hub_id, hub.epoch, last."index", last."time" FROM registry_hub AS hub
LEFT JOIN (
    SELECT "index", "time" FROM registry_entry ORDER BY "index" DESC LIMIT 1
) AS last ON TRUE
"""
_PATIENCE = "SET LOCAL lock_timeout = {}"  # milliseconds
# Each session has it already (atp_site/postgresql/session.py). But a connection pooler that is
# changed under a running hub may give another session.
_DURABLE = "SET LOCAL synchronous_commit = on"
# A process that stops between lock and commit would hold the lock for as long as it is stopped.
# Servers before 17 do not know this; there a node ends its session (messaging/node/lock_watch.py).
_BOUND = "SET LOCAL transaction_timeout = {}"  # milliseconds from here on
_BOUND_SINCE = 170_000  # version of the server
_HOLD_SECONDS = 4  # besides the wait for the lock
_LOCK = f"SELECT pg_advisory_xact_lock({LOG_LOCK})"

_COUNT_UP = """
INSERT INTO registry_refusalcount (agent, code, minute, count) VALUES {rows}
ON CONFLICT (agent, code, minute) DO UPDATE SET count = registry_refusalcount.count + excluded.count
"""


class EpochMoved(Exception):
    """The registry changed after this transaction read its facts, so it must not commit."""


@dataclass(frozen=True, slots=True)
class EntryDraft:
    """An entry that has no index and no time yet. `actor` names people by pseudonym.

    Members that do not apply stay empty. `body` must not hold a member `salt`.
    """

    kind: Kind
    actor: str = ""
    subject: str = ""
    sender: str = ""
    recipient: str = ""
    message_id: str = ""
    request_id: str = ""
    sensitivity: str = ""
    verdict: str = ""
    policy: str = ""
    rule: str = ""
    issuer: str = ""
    score: int | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Head:
    hub: str
    epoch: int
    index: int
    time: datetime


def append(drafts: Sequence[EntryDraft], *, expected_epoch: int | None = None) -> int:
    """Append at most `MOST_ENTRIES` entries in order, and return the index of the first.

    It must be the last write of an `atomic` block: it takes the log lock, which the commit
    releases. Raises `EpochMoved`, with nothing written, if the registry's epoch is not
    `expected_epoch`; `OperationalError` if another transaction holds the lock for
    `ATP_TRAIL_LOCK_SECONDS`; `ValueError` if a text is too long or there are too many entries.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("append() needs a transaction")
    if len(drafts) > MOST_ENTRIES:
        raise ValueError(f"{len(drafts)} entries; at most {MOST_ENTRIES} are appended at once")
    bodies = _bodies(drafts)  # (1)
    head = _find_end(lock=bool(drafts))  # (2) (3)
    if expected_epoch is not None and head.epoch != expected_epoch:
        raise EpochMoved(f"the epoch is {head.epoch}, and the facts are of epoch {expected_epoch}")
    time = format_microseconds(head.time)
    rows = [
        _row(draft, index, head, time, leaves.body_digest(body))  # (4)
        for index, (draft, body) in enumerate(zip(drafts, bodies, strict=True), head.index)
    ]
    reasons = [_reason(draft.body) for draft in drafts]
    indexes = range(head.index, head.index + len(drafts))
    with one_trip(when=is_few(len(drafts))):  # (5)
        insert_rows(Entry, _COLUMNS, rows)
        insert_rows(EntryBody, _BODY_COLUMNS, list(zip(indexes, bodies, reasons, strict=True)))
    return head.index


def _bodies(drafts: Sequence[EntryDraft]) -> list[bytes]:
    salts = os.urandom(leaves.SALT_BYTES * len(drafts)).hex()
    width = 2 * leaves.SALT_BYTES
    bodies = []
    for place, draft in enumerate(drafts):
        _check(draft)
        salt = salts[place * width : (place + 1) * width]
        bodies.append(leaves.canonical({**draft.body, "salt": salt}))
    return bodies


def _check(draft: EntryDraft) -> None:
    """Refuse texts too long for their column on every database; SQLite would accept them."""
    for text, most in zip(_texts(draft), _LIMITS, strict=True):
        if len(text) > most:
            raise ValueError(f"{text[:40]!r}... in a {draft.kind} entry exceeds {most} characters")
    if "salt" in draft.body:
        raise ValueError(f"the body of a {draft.kind} entry must not hold a member 'salt'")


def _reason(body: Mapping[str, Any]) -> str:
    """Return the reason in words: an officer's reason, or a verdict's code and detail."""
    words = body.get("reason") or body.get("detail") or ""
    code = body.get("code") or ""
    reason = ": ".join(part for part in (code, words) if isinstance(part, str) and part)
    return reason[: EntryBody.REASON_MAX_CHARS]


def _find_end(*, lock: bool) -> _Head:
    """Return the end of the log, read under the log lock.

    SQLite needs no lock, because it has one writer at a time. Without entries to append
    (`lock=False`) only the epoch matters, so no lock is taken.
    """
    with one_trip():
        if lock and connection.vendor == "postgresql":
            patience = settings.ATP_TRAIL_LOCK_SECONDS
            Asked(_PATIENCE.format(int(patience * 1000)))
            Asked(_DURABLE)
            if connection.connection.info.server_version >= _BOUND_SINCE:
                Asked(_BOUND.format(int((patience + _HOLD_SECONDS) * 1000)))
            Asked(_LOCK)
        # A separate statement: in PostgreSQL a statement sees what was committed when it began.
        # Together with the lock it would see the log as it was before the wait.
        found = Asked(_HEAD).rows()
    if not found:
        raise RuntimeError("the database has no hub row; registry.bootstrap.ensure_hub() makes it")
    ((hub, epoch, last_index, last_time),) = found
    now = datetime.now(UTC)
    if last_index is None:
        return _Head(hub, epoch, 0, now)
    if last_time.tzinfo is None:  # SQLite stores UTC without a zone
        last_time = last_time.replace(tzinfo=UTC)
    return _Head(hub, epoch, last_index + 1, max(now, last_time))


def _row(
    draft: EntryDraft, index: int, head: _Head, time: str, body_digest: str
) -> tuple[Any, ...]:
    texts = _texts(draft)
    kind = str(draft.kind)
    header = (index, time, head.hub, kind, *texts, draft.score)
    leaf = leaves.make_leaf(zip(_MEMBERS, header, strict=True), body_digest=body_digest)
    return (index, head.time, head.hub, kind, *texts, draft.score, leaf, leaves.leaf_hash(leaf))


def record_reading(kind: Kind, actor: Actor, *, subject: str, asked: Mapping[str, Any]) -> int:
    """Enter that a person reads the trail; return the index of that entry.

    Call it before the read. A reader who reads only entries below that index sees the log as it
    was at that moment, however long the reading takes.
    """
    draft = EntryDraft(kind, actor=actor.name, subject=subject, body=asked)
    with transaction.atomic():
        return append([draft])


def record_export_end(actor: Actor, *, created: int, rows: int, outcome: str) -> None:
    """Enter that the export of entry `created` ended, after how many rows and how.

    `outcome` is `complete`, `failed`, or `broken off` if the reader hung up or did not read.
    """
    body = {"rows": rows, "outcome": outcome}
    draft = EntryDraft(Kind.EXPORT_ENDED, actor=actor.name, subject=f"entry {created}", body=body)
    with transaction.atomic():
        append([draft])


def count_refusals(counts: Mapping[tuple[str, str], int], now: datetime) -> None:
    """Add to this minute's counts, by (agent or "", error code), in the caller's transaction.

    Call it before `append`. Rows are locked in sorted order, and before the log lock, so two lanes
    can't wait for each other.
    """
    if not counts:
        return
    minute = connection.ops.adapt_datetimefield_value(now.replace(second=0, microsecond=0))
    rows = ", ".join(["(%s, %s, %s, %s)"] * len(counts))
    parameters = [
        v for (agent, code), n in sorted(counts.items()) for v in (agent, code, minute, n)
    ]
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_UP.format(rows=rows), parameters)


def summarise_refusals(now: datetime) -> int:
    """Enter the counts of past minutes in the trail, delete them, and return how many there were.

    Each agent and code gets one entry. One call takes at most `MOST_ENTRIES` counts: call it again
    until it returns 0.
    """
    over = now.replace(second=0, microsecond=0)
    with transaction.atomic():
        due = RefusalCount.objects.select_for_update(skip_locked=True).filter(minute__lt=over)
        rows = list(due.order_by("agent", "code", "minute")[:MOST_ENTRIES])
        RefusalCount.objects.filter(pk__in=[row.pk for row in rows]).delete()
        groups = groupby(rows, key=lambda row: (row.agent, row.code))
        drafts = [_summary(agent, code, list(counts)) for (agent, code), counts in groups]
        if drafts:
            append(drafts)
    return len(rows)


def _summary(agent: str, code: str, counts: Sequence[RefusalCount]) -> EntryDraft:
    total = sum(row.count for row in counts)
    return EntryDraft(
        kind=Kind.REFUSALS_COUNTED,
        actor="hub",
        subject=code,
        sender=agent,
        body={
            "code": code,
            "detail": f"refused {total} times" if total > 1 else "refused once",
            "count": total,
            "minutes": [[format_microseconds(row.minute), row.count] for row in counts],
        },
    )
