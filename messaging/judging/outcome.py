"""The messages after a judged batch: receipts to senders, deliveries to connected recipients."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from atp.trust.envelope import Envelope
from atp.types import MessageType
from atp.wire import frames
from atp.wire.members import stream_named
from atp.wire.timestamps import format_milliseconds
from atp.wire.words import ANSWERS
from messaging.judging.accept import Stored, StoredDelivery
from messaging.judging.conflicts import first_states
from messaging.judging.item import Decided, Echo, Fenced, Refused, Repeat, Stage
from messaging.layer.news import News
from messaging.layer.routes import Route
from messaging.mail.copies import ELSEWHERE
from messaging.models import Envelope as EnvelopeRow
from registry.trail.querysets import entries_of_messages


def news(
    batch_id: str,
    channel: str,
    stages: Sequence[Stage],
    stored: Stored,
    routes: Mapping[str, Route],
    copies: Mapping[str, Sequence[Route]],
) -> dict[str, News]:
    """The news of a batch by channel; the node that sent the batch always gets some.

    `copies` are the recipients' sessions that only send; they hear the answers that are for them.
    """
    all_news = {channel: News(batch=batch_id, status="done")}
    ours = all_news[channel]
    _add_receipts(ours, stages, stored, routes)
    ours.close_sessions = sorted({s.frame.session for s in stages if isinstance(s, Fenced)})
    if ours.close_sessions:
        ours.close_code = "session.fenced"
    accepted_at = format_milliseconds(datetime.fromtimestamp(stored.accepted_at, UTC))
    for (agent, stream), group in _by_stream(stored.deliveries).items():
        route = routes.get(agent)
        if route is not None and route.live:
            text = frames.join_frames(_delivery(one, accepted_at) for one in group).decode()
            told = (agent, stream, group[0].seq, group[-1].seq, text)
            all_news.setdefault(route.channel, News()).deliveries.append(told)
        for copy in copies.get(agent, ()) if stream == ANSWERS else ():
            if told_copy := _copy(copy, group, accepted_at):
                all_news.setdefault(copy.channel, News()).copies.append(told_copy)
    return all_news


def _copy(
    route: Route, group: Sequence[StoredDelivery], accepted_at: str
) -> tuple[str, int, int, list[int], str] | None:
    """Return session, first and last place, own places and frames of what is for a session."""
    own = [one.seq for one in group if one.asked_by == route.taker]
    if not own:
        return None
    parts = [
        _delivery(one, accepted_at)
        if one.asked_by == route.taker
        else frames.Gone(stream_named(one.stream), one.seq, one.seq, ELSEWHERE).to_bytes()
        for one in group
        if own[0] <= one.seq <= own[-1]
    ]
    return route.session, own[0], own[-1], own, frames.join_frames(parts).decode()


def _add_receipts(
    ours: News, stages: Sequence[Stage], stored: Stored, routes: Mapping[str, Route]
) -> None:
    """Add the receipts in the order of the frames, with those of what left no row among them."""
    unstored: dict[str, deque[dict[str, Any]]] = defaultdict(deque)
    for frame in stored.unstored:
        bare = {name: value for name, value in frame.items() if name != "session"}
        unstored[frame["session"]].append(bare)
    receipts: dict[str, list[bytes]] = defaultdict(list)
    entries, firsts = _entries_of_repeats(stages), first_states(stages)
    for stage in stages:
        session = stage.frame.session
        receipt = _receipt(stage, stages, stored, entries, routes)
        if receipt is None and unstored[session]:
            receipt = unstored[session].popleft()
            if isinstance(stage, Refused) and (first := firsts.get(stage.key)):
                receipt["first"] = first
        if receipt is not None:
            receipts[session].append(orjson.dumps(receipt))
    ours.receipts = [
        (session, frames.join_frames(texts).decode()) for session, texts in receipts.items()
    ]


def _receipt(
    stage: Stage,
    stages: Sequence[Stage],
    stored: Stored,
    entries: Mapping[tuple[str, str], int],
    routes: Mapping[str, Route],
) -> dict[str, Any] | None:
    """Return the receipt of a stored envelope; `None` if its receipt is in `unstored`."""
    if isinstance(stage, Repeat):
        connected = _is_connected(stage.envelope, stage.row.status == "accepted", routes)
        return _receipt_of_row(stage.row, entries.get(stage.key), connected=connected)
    source = stages[stage.first] if isinstance(stage, Echo) else stage
    if not isinstance(source, Decided) or source.key not in stored.entries:
        return None
    verdict = source.verdict
    return frames.receipt_members(
        source.message_id,
        verdict.status,
        code=verdict.code,
        detail=verdict.detail,
        trust_score=verdict.score,
        recipients=stored.recipients.get(source.key),
        entry=stored.entries.get(source.key),
        connected=_is_connected(source.envelope, verdict.accepted, routes),
    )


def _is_connected(envelope: Envelope, accepted: bool, routes: Mapping[str, Route]) -> bool | None:
    """Return whether the recipient of an accepted request is connected; `None` of all else."""
    if envelope.message_type is not MessageType.REQUEST or not accepted:
        return None
    route = routes.get(envelope.target)
    return route is not None and route.live


def stored_receipt(row: EnvelopeRow) -> dict[str, Any]:
    """The current state of an envelope that was judged before, as its sender is told it."""
    return stored_receipts([row])[row.sender_id, row.message_id]


def stored_receipts(rows: Sequence[EnvelopeRow]) -> dict[tuple[str, str], dict[str, Any]]:
    """The current states of envelopes that were judged before, by (sender, messageId)."""
    entries = entries_of_messages({row.message_id for row in rows}) if rows else {}
    keys = [(row.sender_id, row.message_id) for row in rows]
    return {
        key: _receipt_of_row(row, entries.get(key)) for key, row in zip(keys, rows, strict=True)
    }


def _receipt_of_row(
    row: EnvelopeRow, entry: int | None, *, connected: bool | None = None
) -> dict[str, Any]:
    """The current state of an envelope that was judged before."""
    return frames.receipt_members(
        row.message_id,
        row.status,
        code=row.code,
        detail=row.detail,
        trust_score=row.score,
        recipients=row.recipients,
        entry=entry,
        connected=connected,
    )


def _entries_of_repeats(stages: Iterable[Stage]) -> dict[tuple[str, str], int]:
    ids = {stage.message_id for stage in stages if isinstance(stage, Repeat)}
    return entries_of_messages(ids) if ids else {}


def _by_stream(
    deliveries: Iterable[StoredDelivery],
) -> dict[tuple[str, str], list[StoredDelivery]]:
    """The deliveries by recipient and stream."""
    groups: dict[tuple[str, str], list[StoredDelivery]] = defaultdict(list)
    for one in deliveries:
        groups[one.decided.envelope.target, one.stream].append(one)
    return groups


def _delivery(one: StoredDelivery, accepted_at: str) -> bytes:
    verdict = one.decided.verdict
    assert verdict.chain is not None  # the core gives every accepted envelope one
    return frames.splice_delivery(
        one.decided.envelope.canonical,
        stream=one.stream,
        seq=one.seq,
        entry=one.entry,
        accepted_at=accepted_at,
        score=verdict.score,
        level=verdict.level,
        chain=verdict.chain.to_wire(),
    )
