"""Appending to the trail, as the last write of a transaction.

The steps are: (1) make the sections and their digests, before the lock; (2) take the log lock;
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
from operator import attrgetter, gt
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection, transaction

from atp.log import leaves
from atp.wire.timestamps import format_microseconds
from registry.agents.querysets import organisations_of
from registry.hub.secrets import blinded
from registry.officers.actor import Actor
from registry.storage.bulk import insert_rows, is_few
from registry.storage.round_trips import Asked, one_trip
from registry.trail.kinds import Kind
from registry.trail.models import Entry, EntryBody, RefusalCount

MOST_ENTRIES = 256  # in one call, to hold the log lock briefly (docs/design/provenance.md#entry)
LOG_LOCK = int.from_bytes(sha256(b"atp trail").digest()[:8], "big", signed=True)

MOST_ORGANISATIONS = 64  # in the header of an entry
MOST_REFERENCE_CHARS = 128  # of a request id, and of the name for whom an agent acts

# Texts of a draft that go into the header as they are; then those that are blinded.
_TEXTS = (
    "actor", "subject", "sender", "recipient", "message_id", "session", "sensitivity", "verdict",
    "policy", "rule", "issuer", "attestation", "trace", "sender_organisation",
    "recipient_organisation",
)  # fmt: skip
_BLINDED = ("request_id", "on_behalf_of")
_REST = ("cause", "score", "organisations")
_LIMITS = tuple(getattr(Entry._meta.get_field(name), "max_length", 0) for name in _TEXTS)
_texts = attrgetter(*_TEXTS)

_COLUMNS = (
    "position", "time", "hub", "kind", *_TEXTS, *_BLINDED, "cause", "score", "organisations",
    "leaf", "leaf_hash",
)  # fmt: skip
_BODY_COLUMNS = ("entry_id", "digests", *leaves.SECTIONS, "reason")
_MEMBERS = tuple(
    leaves.HEADER[name]
    for name in ("version", "log", "index", "time", "hub", "kind", *_TEXTS, *_BLINDED, *_REST)
)

# One statement reads epoch and end of log: both are of the same moment.
_HEAD = """
SELECT hub.hub_id, hub.epoch, log.origin, log.first_position, last.position, last."time"
FROM registry_hub AS hub
LEFT JOIN (
    SELECT origin, first_position FROM registry_log ORDER BY first_position DESC LIMIT 1
) AS log ON TRUE
LEFT JOIN (
    SELECT position, "time" FROM registry_entry ORDER BY position DESC LIMIT 1
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

    Members that do not apply stay empty. `cause` is the index of the entry that led to this one.
    `organisations` are the uids of all organisations that it concerns; none means all.
    `request_id` and `on_behalf_of` are plain text: the header gets them blinded, and the text
    goes into `shared`. The sections (`shared` and what follows) must not hold a member `salt`.
    """

    kind: Kind
    actor: str = ""
    subject: str = ""
    sender: str = ""
    recipient: str = ""
    message_id: str = ""
    session: str = ""
    sensitivity: str = ""
    verdict: str = ""
    policy: str = ""
    rule: str = ""
    issuer: str = ""
    attestation: str = ""
    score: int | None = None
    trace: str = ""
    request_id: str = ""
    on_behalf_of: str = ""
    sender_organisation: str = ""
    recipient_organisation: str = ""
    organisations: Sequence[str] = ()
    cause: int | None = None
    shared: Mapping[str, Any] = field(default_factory=dict)
    for_sender: Mapping[str, Any] = field(default_factory=dict)
    for_recipient: Mapping[str, Any] = field(default_factory=dict)
    personal: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Head:
    hub: str
    epoch: int
    log: str
    first: int  # position of the log's first entry
    position: int  # of the next entry
    time: datetime


class _Body(NamedTuple):
    """What a draft becomes before the lock: its body's columns, and members of its header."""

    columns: tuple[Any, ...]
    digest: str
    references: tuple[str, str]  # request id and the name for whom the agent acts, both blinded


def append(drafts: Sequence[EntryDraft], *, expected_epoch: int | None = None) -> int:
    """Append at most `MOST_ENTRIES` entries in order, and return the position of the first.

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
    _check_beginning(drafts, head)
    rows = _rows(drafts, bodies, head)  # (4)
    positions = range(head.position, head.position + len(drafts))
    with one_trip(when=is_few(len(drafts))):  # (5)
        insert_rows(Entry, _COLUMNS, rows)
        contents = [(p, *body.columns) for p, body in zip(positions, bodies, strict=True)]
        insert_rows(EntryBody, _BODY_COLUMNS, contents)
    return head.position


def _bodies(drafts: Sequence[EntryDraft]) -> list[_Body]:
    salts = _Salts(sum(map(_count_sections, drafts)))
    for draft in drafts:
        _check(draft)
    return [_body(draft, salts) for draft in drafts]


class _Salts:
    """Salts of sections, all from one call to the system."""

    def __init__(self, count: int) -> None:
        self._text = os.urandom(leaves.SALT_BYTES * count).hex()
        self._at = 0

    def next(self) -> str:
        """Return a salt that was not returned before."""
        begin, self._at = self._at, self._at + 2 * leaves.SALT_BYTES
        return self._text[begin : self._at]


def _count_sections(draft: EntryDraft) -> int:
    return 1 + bool(draft.for_sender) + bool(draft.for_recipient) + bool(draft.personal)


def _body(draft: EntryDraft, salts: _Salts) -> _Body:
    shared = draft.shared
    if draft.request_id:
        shared = {**shared, "requestId": draft.request_id}
    if draft.on_behalf_of:
        shared = {**shared, "onBehalfOf": draft.on_behalf_of}
    members = (shared, draft.for_sender, draft.for_recipient, draft.personal)
    contents = [
        leaves.section(each, salts.next()) if each or place == 0 else None
        for place, each in enumerate(members)
    ]
    digests = leaves.written_digests(
        {
            name: leaves.section_digest(content)
            for name, content in zip(leaves.SECTIONS, contents, strict=True)
            if content is not None
        }
    )
    references = blinded("requestId", draft.request_id), blinded("onBehalfOf", draft.on_behalf_of)
    columns = (digests, *contents, reason_in(shared))
    return _Body(columns, leaves.section_digest(digests), references)


def _check(draft: EntryDraft) -> None:
    """Refuse texts too long for their column on every database; SQLite would accept them."""
    texts = _texts(draft)
    if any(map(gt, map(len, texts), _LIMITS)):
        text, most = next((t, m) for t, m in zip(texts, _LIMITS, strict=True) if len(t) > m)
        raise ValueError(f"{text[:40]!r}... in a {draft.kind} entry exceeds {most} characters")
    if max(len(draft.request_id), len(draft.on_behalf_of)) > MOST_REFERENCE_CHARS:
        raise ValueError(f"a {draft.kind} entry has a reference over {MOST_REFERENCE_CHARS}")
    if len(draft.organisations) > MOST_ORGANISATIONS:
        raise ValueError(f"a {draft.kind} entry concerns over {MOST_ORGANISATIONS} organisations")
    for section in (draft.shared, draft.for_sender, draft.for_recipient, draft.personal):
        if "salt" in section:
            raise ValueError(f"a section of a {draft.kind} entry must not hold a member 'salt'")


def _check_beginning(drafts: Sequence[EntryDraft], head: _Head) -> None:
    """Raise `RuntimeError` if a log would begin with another entry than `log.started`."""
    if drafts and head.position == head.first and drafts[0].kind is not Kind.LOG_STARTED:
        raise RuntimeError("the log has not started; registry.bootstrap.ensure_hub() starts it")


def reason_in(shared: Mapping[str, Any]) -> str:
    """Return the reason in words: an officer's reason, or a verdict's code and detail."""
    words = shared.get("reason") or shared.get("detail") or ""
    code = shared.get("code") or ""
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
    if not found or found[0][2] is None:
        raise RuntimeError("the database has no hub or no log; registry.bootstrap.ensure_hub()")
    ((hub, epoch, log, first, last, last_time),) = found
    now = datetime.now(UTC)
    if last is None:
        return _Head(hub, epoch, log, first, first, now)
    if last_time.tzinfo is None:  # SQLite stores UTC without a zone
        last_time = last_time.replace(tzinfo=UTC)
    return _Head(hub, epoch, log, first, last + 1, max(now, last_time))


def _rows(
    drafts: Sequence[EntryDraft], bodies: Sequence[_Body], head: _Head
) -> list[tuple[Any, ...]]:
    time = format_microseconds(head.time)
    return [
        _row(draft, body, position, head, time)
        for position, (draft, body) in enumerate(zip(drafts, bodies, strict=True), head.position)
    ]


def _row(draft: EntryDraft, body: _Body, position: int, head: _Head, time: str) -> tuple[Any, ...]:
    kind, organisations = draft.kind.value, sorted({*draft.organisations})
    said = (*_texts(draft), *body.references, draft.cause, draft.score)
    about = (leaves.VERSION, head.log, position - head.first, time, head.hub, kind)
    leaf = leaves.make_leaf(
        zip(_MEMBERS, (*about, *said, organisations), strict=True), body_digest=body.digest
    )
    stored = (position, head.time, head.hub, kind, *said, " ".join(organisations))
    return (*stored, leaf, leaves.leaf_hash(leaf))


def record_reading(kind: Kind, actor: Actor, *, subject: str, asked: Mapping[str, Any]) -> int:
    """Enter that a person reads the trail; return the position of that entry.

    Call it before the read. A reader who reads only entries below that position sees the log as
    it was at that moment, however long the reading takes.
    """
    draft = EntryDraft(kind, actor=actor.name, subject=subject, shared=asked)
    with transaction.atomic():
        return append([draft])


def record_export_end(actor: Actor, *, created: int, rows: int, outcome: str) -> None:
    """Enter that the export of entry `created` ended, after how many rows and how.

    `outcome` is `complete`, `failed`, or `broken off` if the reader hung up or did not read.
    """
    body = {"rows": rows, "outcome": outcome}
    draft = EntryDraft(Kind.EXPORT_ENDED, actor=actor.name, subject=f"entry {created}", shared=body)
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
        organisations = organisations_of({row.agent for row in rows if row.agent})
        drafts = [
            _summary(agent, organisations.get(agent, ""), code, list(counts))
            for (agent, code), counts in groups
        ]
        if drafts:
            append(drafts)
    return len(rows)


def _summary(
    agent: str, organisation: str, code: str, counts: Sequence[RefusalCount]
) -> EntryDraft:
    total = sum(row.count for row in counts)
    return EntryDraft(
        kind=Kind.REFUSALS_COUNTED,
        actor="hub",
        subject=code,
        sender=agent,
        sender_organisation=organisation,
        organisations=(organisation,) if organisation else (),
        shared={
            "code": code,
            "detail": f"refused {total} times" if total > 1 else "refused once",
            "count": total,
            "minutes": [[format_microseconds(row.minute), row.count] for row in counts],
        },
    )
