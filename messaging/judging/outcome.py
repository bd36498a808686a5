"""What a judged batch has to tell: receipts to its senders, deliveries to connected recipients."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from atp.wire import frames
from atp.wire.timestamps import format_milliseconds
from messaging.judging.accept import FINAL, Placed, Stored
from messaging.judging.facts import Place
from messaging.layer.news import News
from messaging.models import Envelope as EnvelopeRow
from registry.trail.querysets import entries_of_messages

if TYPE_CHECKING:
    from messaging.judging.pipeline import Item


def news(
    batch_id: str,
    channel: str,
    items: Sequence[Item],
    stored: Stored,
    places: Mapping[str, Place],
) -> dict[str, News]:
    """The news of a batch by channel; the node that sent it always gets some."""
    all_news = {channel: News(batch=batch_id, status="done")}
    ours = all_news[channel]
    _add_receipts(ours, items, stored)
    ours.close_sessions = sorted({i.session for i in items if i.fenced})
    if ours.close_sessions:
        ours.close_code = "session.fenced"
    accepted_at = format_milliseconds(datetime.fromtimestamp(stored.accepted_at, UTC))
    for place, group in _by_place(stored.placed).items():
        recipient = places.get(place[0])
        if recipient is not None and recipient.live:
            there = all_news.setdefault(recipient.channel, News())
            text = frames.join_frames(_delivery(p, accepted_at) for p in group).decode()
            there.deliveries.append((*place, group[0].seq, group[-1].seq, text))
    return all_news


def _add_receipts(ours: News, items: Sequence[Item], stored: Stored) -> None:
    """Receipts in the order of the envelopes; those of what left no row stand in it as well."""
    unstored: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
    for frame in stored.unstored:
        bare = {name: value for name, value in frame.items() if name != "session"}
        unstored[frame["session"]].append(bare)
    receipts: dict[str, list[bytes]] = defaultdict(list)
    entries = _entries_of_repeats(items)
    for item in items:
        receipt = None if item.fenced else _receipt(item, stored, entries)
        if receipt is None and unstored[item.session]:
            receipt = unstored[item.session].popleft()
        if receipt is not None:
            receipts[item.session].append(orjson.dumps(receipt))
    ours.receipts = [
        (session, frames.join_frames(texts).decode()) for session, texts in receipts.items()
    ]


def _receipt(
    item: Item, stored: Stored, entries: Mapping[tuple[str, str], int]
) -> dict[str, Any] | None:
    """The receipt of what was stored, now or before; `None` for what `unstored` tells."""
    if item.envelope is None:
        return None
    key = (item.agent, item.envelope.message_id)
    if item.repeat_of is not None:
        return _receipt_of_row(item.repeat_of, entries.get(key))
    source = item.echo_of or item
    if source.repeat_of is not None:
        return _receipt_of_row(source.repeat_of, entries.get(key))
    verdict = source.verdict
    if verdict is None or verdict.status not in FINAL or key not in stored.entries:
        return None
    return frames.receipt_members(
        item.envelope.message_id,
        verdict.status,
        code=verdict.code,
        detail=verdict.detail,
        trust_score=verdict.score,
        recipients=stored.recipients.get(key),
        entry=stored.entries.get(key),
    )


def stored_receipt(row: EnvelopeRow) -> dict[str, Any]:
    """The current state of an envelope that was judged before, as its sender is told it."""
    entries = entries_of_messages({row.message_id})
    return _receipt_of_row(row, entries.get((row.sender_id, row.message_id)))


def _receipt_of_row(row: EnvelopeRow, entry: int | None) -> dict[str, Any]:
    """The current state of an envelope that was judged before."""
    return frames.receipt_members(
        row.message_id,
        row.status,
        code=row.code,
        detail=row.detail,
        trust_score=row.score,
        recipients=row.recipients,
        entry=entry,
    )


def _entries_of_repeats(items: Iterable[Item]) -> dict[tuple[str, str], int]:
    ids = {i.repeat_of.message_id for i in items if i.repeat_of}
    return entries_of_messages(ids) if ids else {}


def _by_place(placed: Iterable[Placed]) -> dict[tuple[str, str], list[Placed]]:
    groups: dict[tuple[str, str], list[Placed]] = defaultdict(list)
    for one in placed:
        groups[one.recipient, one.stream].append(one)
    return groups


def _delivery(placed: Placed, accepted_at: str) -> bytes:
    envelope, verdict = placed.judged.envelope, placed.judged.verdict
    assert envelope is not None
    assert verdict.chain is not None
    return frames.splice_delivery(
        envelope.canonical,
        stream=placed.stream,
        seq=placed.seq,
        entry=placed.entry,
        accepted_at=accepted_at,
        score=verdict.score,
        level=verdict.level,
        chain=verdict.chain.to_wire(),
    )
