"""Store a judged batch: one transaction, rows in one order everywhere, the trail last.

The order (envelopes sorted by messageId and sender, mailboxes sorted, deliveries, counters, trail)
is the only one in which lanes can't deadlock (docs/design/architecture.md#why-lanes, 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import connection, transaction

from atp.types import BROADCAST_TARGET, MessageType
from atp.wire import frames
from atp.wire.words import stream_of
from messaging import failpoints
from messaging.judging.facts import DENIED_KEPT_BYTES, BatchFacts
from messaging.judging.item import Decided, Judged
from messaging.judging.records import entry_of_verdict
from messaging.mail.deliveries import NewDelivery, insert_deliveries
from messaging.models import Batch
from messaging.models import Envelope as EnvelopeRow
from registry.scores.actions import SIGNATURES_MAX, note_signatures, record_violations
from registry.storage.bulk import insert_rows, is_few
from registry.storage.round_trips import one_trip
from registry.trail.actions import EntryDraft, append, count_refusals
from registry.trail.logs import index_of

RETRY_AFTER_SECONDS = 1.0  # for what a sender may try again: throttled, busy
BAD_SIGNATURES = {"signature.invalid", "signature.digest", "signature.provenance"}

ENVELOPE_COLUMNS = (
    "message_id", "sender_id", "digest", "kid", "message_type", "target", "request_id", "answers",
    "sensitivity", "requires_trust", "status", "code", "detail", "score", "level",
    "chain_lowest_level", "chain_lowest_score", "chain_depth", "chain_sensitivity", "recipients",
    "judged_at", "expires_at", "batch_id", "fan_out", "notify", "sent_by", "size",
    "content",
)  # fmt: skip
_COUNT_UP = """
INSERT INTO messaging_rulecounter (rule, sender, "window", count) VALUES {rows}
ON CONFLICT (rule, sender, "window") DO UPDATE
SET count = messaging_rulecounter.count + excluded.count
"""


class AlreadyJudged(Exception):
    """Another worker has stored this very batch."""


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """A delivery that has its sequence number in the recipient's stream."""

    decided: Decided
    stream: str
    seq: int
    entry: int
    asked_by: str  # the taker of the session that sent the request, of an answer


@dataclass(slots=True)
class Stored:
    """The result of a batch: entries by (agent, messageId), deliveries, receipts of the rest."""

    entries: dict[tuple[str, str], int] = field(default_factory=dict)
    recipients: dict[tuple[str, str], int] = field(default_factory=dict)
    deliveries: list[StoredDelivery] = field(default_factory=list)
    unstored: list[dict[str, Any]] = field(default_factory=list)
    accepted_at: float = 0.0
    broadcasts: bool = False


def store(batch_id: str, judged: Sequence[Judged], facts: BatchFacts) -> Stored:
    """Write everything that the verdicts say, or nothing.

    Raises `EpochMoved` when the registry changed since the facts were read, and `AlreadyJudged`.
    """
    final = [j for j in judged if isinstance(j, Decided) and j.final]
    stored = Stored(accepted_at=facts.now)
    stored.unstored = [_unstored_receipt(j) for j in judged if not _is_final(j)]
    now = datetime.fromtimestamp(facts.now, UTC)
    with transaction.atomic(), one_trip(when=is_few(len(final))):
        _claim(batch_id, stored.unstored, now)
        failpoints.hit("before_insert", judged)
        audiences = {id(j): _audience(j) for j in final}
        row_ids = _insert_envelopes(batch_id, final, audiences, now, facts)
        delivered = _insert_deliveries(final, row_ids, facts)
        _count(judged, facts, now)
        first = append(_entries(final, delivered, facts), expected_epoch=facts.view.epoch)
        failpoints.hit("before_commit", judged)
    index = index_of(first)
    for offset, one in enumerate(final):
        stored.entries[one.key] = index + offset
        stored.recipients[one.key] = len(audiences[id(one)])
    stored.deliveries = [
        StoredDelivery(one, stream, seq, stored.entries[one.key], _asked_by(one, facts))
        for one, stream, seq in delivered
    ]
    stored.broadcasts = any(one.envelope.target == BROADCAST_TARGET for one in final)
    return stored


def _is_final(judged: Judged) -> bool:
    return isinstance(judged, Decided) and judged.final


def _claim(batch_id: str, unstored: list[dict[str, Any]], now: datetime) -> None:
    """Wait for a worker that stores the same batch; raises `AlreadyJudged` where one has."""
    claimed = insert_rows(
        Batch,
        ("id", "unstored", "judged_at"),
        [(batch_id, orjson.dumps(unstored).decode(), now)],
        on_conflict_do_nothing=True,
        returning=("id",),
    )
    if not claimed:
        raise AlreadyJudged(batch_id)


def _audience(one: Decided) -> list[str]:
    """The agents that get the envelope; none unless it was accepted."""
    envelope = one.envelope
    if not one.verdict.accepted:
        return []
    if envelope.target != BROADCAST_TARGET:
        return [envelope.target]
    return list(one.verdict.hearers)


def _insert_envelopes(
    batch_id: str,
    final: Sequence[Decided],
    audiences: dict[int, list[str]],
    now: datetime,
    facts: BatchFacts,
) -> dict[tuple[str, str], int]:
    """Row ids by (sender, messageId).

    Each sender is in at most one batch at a time, so its earlier ids were already looked up.
    """
    ordered = sorted(final, key=lambda one: (one.message_id, one.frame.agent))
    rows = [_envelope_row(batch_id, j, audiences[id(j)], now, _sent_by(j, facts)) for j in ordered]
    inserted = insert_rows(
        EnvelopeRow, ENVELOPE_COLUMNS, rows, returning=("id", "sender_id", "message_id")
    )
    return {(sender, message_id): row_id for row_id, sender, message_id in inserted}


def _envelope_row(
    batch_id: str, one: Decided, audience: list[str], now: datetime, sent_by: str
) -> tuple[Any, ...]:
    envelope, verified, verdict = one.envelope, one.verified, one.verdict
    chain = verdict.chain
    broadcast = verdict.accepted and envelope.target == BROADCAST_TARGET
    return (
        envelope.message_id,
        one.frame.agent,
        envelope.digest,
        verified.kid,
        envelope.message_type,
        envelope.target,
        envelope.request_id or "",
        verified.req or "",
        verdict.sensitivity or envelope.sensitivity or "public",
        envelope.requires_trust or "",
        verdict.status,
        verdict.code,
        verdict.detail[:300],
        verdict.score,
        verdict.level,
        chain.lowest_level if chain else "",
        chain.lowest_score if chain else 0,
        chain.depth if chain else 1,
        chain.highest_sensitivity if chain else "",
        len(audience),
        now,
        datetime.fromtimestamp(verified.expires_at, UTC),
        batch_id,
        orjson.dumps(audience).decode() if broadcast else None,
        envelope.notify,
        sent_by,
        len(envelope.canonical),
        envelope.canonical if _is_kept(one) else b"",
    )


def _sent_by(one: Decided, facts: BatchFacts) -> str:
    """Return the taker of the sender's session, if the envelope can have an answer or a notice."""
    envelope = one.envelope
    if not (envelope.notify or envelope.message_type is MessageType.REQUEST):
        return ""
    return facts.processes.get((one.frame.agent, one.frame.session), "")


def _asked_by(one: Decided, facts: BatchFacts) -> str:
    return facts.askers.get(one.verified.req or "", "")


def _is_kept(one: Decided) -> bool:
    """Return whether the content is stored: large denied envelopes could fill the disk."""
    return one.verdict.accepted or len(one.envelope.canonical) <= DENIED_KEPT_BYTES


def _insert_deliveries(
    final: Sequence[Decided], row_ids: Mapping[tuple[str, str], int], facts: BatchFacts
) -> list[tuple[Decided, str, int]]:
    """Store the deliveries of accepted envelopes, except broadcasts; return stream and `seq`."""
    direct = [
        (one, stream_of(one.envelope.message_type))
        for one in final
        if one.verdict.accepted and one.envelope.target != BROADCAST_TARGET
    ]
    seqs = insert_deliveries(
        [
            NewDelivery(
                row_ids[one.key],
                one.envelope.target,
                stream,
                one.frame.agent,
                datetime.fromtimestamp(one.verified.expires_at, UTC),
                asked_by=_asked_by(one, facts),
            )
            for one, stream in direct
        ]
    )
    return [(one, stream, seq) for (one, stream), seq in zip(direct, seqs, strict=True)]


def _count(judged: Sequence[Judged], facts: BatchFacts, now: datetime) -> None:
    """Count throttled rules, refusals, violations and signatures, each in one bulk statement."""
    if facts.counted:
        _count_up(facts.counted)
    refused = Counter((j.frame.agent, j.verdict.code) for j in judged if not _is_final(j))
    if refused:
        count_refusals(refused, now)
    violations = [
        (j.frame.agent, j.verdict.violation, j.verdict.violated, j.message_id or "")
        for j in judged
        if j.verdict.violation
    ]
    if violations:
        record_violations(violations, now)
        facts.view.forget_inputs({agent for agent, *_ in violations})
    signatures = [
        (j.frame.agent, not _is_bad(j)) for j in judged if isinstance(j, Decided) or _is_bad(j)
    ]
    if moved := [(a, good) for a, good in signatures if not (good and _is_spotless(a, facts))]:
        note_signatures(moved)


def _is_bad(judged: Judged) -> bool:
    """Return whether the agent's own signature is bad, and not that of a provenance entry."""
    return judged.verdict.code in BAD_SIGNATURES and bool(judged.verdict.violation)


def _count_up(counted: Mapping[tuple[str, str, int], int]) -> None:
    """Add to the stored counters, which other lanes may have changed since the facts were read."""
    rows = ", ".join(["(%s, %s, %s, %s)"] * len(counted))
    parameters = [value for key, n in sorted(counted.items()) for value in (*key, n)]
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_UP.format(rows=rows), parameters)


def _is_spotless(agent: str, facts: BatchFacts) -> bool:
    """Return whether one more good signature would not change the agent's window."""
    inputs = facts.inputs.get(agent)
    return inputs is not None and (
        inputs.signatures_good == inputs.signatures_total == SIGNATURES_MAX
    )


def _entries(
    final: Sequence[Decided], delivered: Sequence[tuple[Decided, str, int]], facts: BatchFacts
) -> list[EntryDraft]:
    places = {id(one): (stream, seq) for one, stream, seq in delivered}
    return [entry_of_verdict(one, facts, places.get(id(one))) for one in final]


def _unstored_receipt(judged: Judged) -> dict[str, Any]:
    verdict = judged.verdict
    again = RETRY_AFTER_SECONDS if verdict.status in {"throttled", "busy"} else None
    return {
        "session": judged.frame.session,
        **frames.receipt_members(
            judged.message_id,
            verdict.status,
            code=verdict.code,
            detail=verdict.detail,
            retry_after=verdict.retry_after or again,
        ),
    }
