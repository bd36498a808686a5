"""Create the deliveries of accepted broadcasts, one chunk of recipients at a time."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from messaging import failpoints
from messaging.layer.news import News
from messaging.layer.routes import load_routes
from messaging.mail.deliveries import NewDelivery, insert_deliveries
from messaging.mail.delivery_frames import stored_delivery
from messaging.mail.entries import DeliveryEntries
from messaging.mail.mailboxes import MailboxesLocked
from messaging.models import Envelope
from registry.models import Agent, AgentKey
from registry.trail.actions import append
from registry.trail.querysets import entries_of_messages

logger = logging.getLogger(__name__)

CHUNK = 256  # deliveries a transaction


def fan_out_next(passed_over: set[str] | None = None) -> dict[str, News] | None:
    """Deliver the next broadcasts of one sender; return the news for each channel.

    Return `None` when no broadcast waits, or when other workers hold all that wait.

    One call takes as many broadcasts as make one chunk of deliveries. It begins with the oldest
    broadcast that waits for this sender. So a sender's broadcasts keep their order, however many
    workers run. The envelope row lists the recipients that are left. If a process dies in
    between, the next call continues from that list, and no recipient gets a broadcast twice.

    A sender with a recipient whose mailbox is locked now is added to `passed_over`, which the
    caller passes again: the broadcasts of others do not wait for it.
    """
    passed_over = set() if passed_over is None else passed_over
    sender = ""
    try:
        with transaction.atomic():
            first = _lock_next(passed_over)
            if first is None:
                return None
            sender = first.sender_id
            parts = _cut([first, *_lock_behind(first)])
            _give_out(parts)
            failpoints.hit("half_way_through_broadcast", first)
    except MailboxesLocked:
        logger.warning("mailboxes are locked by others; broadcasts of %s wait", sender)
        passed_over.add(sender)
        return {}
    return _news(parts)


@dataclass(slots=True)
class _Part:
    """A part of one broadcast: the recipients that get it now, and their sequence numbers."""

    envelope: Envelope
    chunk: list[str]
    rest: list[str]
    seqs: dict[str, int] = field(default_factory=dict)


def _lock_next(passed_over: Collection[str]) -> Envelope | None:
    waiting = Envelope.objects.filter(fan_out__isnull=False).defer("content")
    if passed_over:
        waiting = waiting.exclude(sender_id__in=passed_over)
    free = waiting.select_for_update(skip_locked=True, of=("self",))
    firsts = _first_of_each_sender(waiting)
    return free.filter(pk__in=firsts).order_by("id").first()


def _lock_behind(first: Envelope) -> list[Envelope]:
    """Lock the later broadcasts of the same sender; return them in order.

    The lock on the first broadcast keeps other workers away from the later ones.
    """
    if len(first.fan_out or []) >= CHUNK:
        return []
    waiting = Envelope.objects.filter(fan_out__isnull=False, sender_id=first.sender_id)
    waiting = waiting.defer("content")
    return _in_order(waiting.exclude(pk=first.pk).select_for_update(of=("self",)))


def _cut(envelopes: Iterable[Envelope]) -> list[_Part]:
    """Take broadcasts until the chunk is full; only the last may leave recipients for later."""
    parts: list[_Part] = []
    free = CHUNK
    for envelope in envelopes:
        audience: list[str] = envelope.fan_out or []
        parts.append(_Part(envelope, audience[:free], audience[free:]))
        free -= len(parts[-1].chunk)
        if free <= 0:
            break
    return parts


def _give_out(parts: Sequence[_Part]) -> None:
    pairs = [(part, agent) for part in parts for agent in part.chunk]
    seqs = insert_deliveries([_delivery(part.envelope, agent) for part, agent in pairs])
    for (part, agent), seq in zip(pairs, seqs, strict=True):
        part.seqs[agent] = seq
    complete = [part.envelope.pk for part in parts if not part.rest]
    Envelope.objects.filter(pk__in=complete).update(fan_out=None)
    for part in parts:
        if part.rest:
            Envelope.objects.filter(pk=part.envelope.pk).update(fan_out=part.rest)
    _enter([part for part in parts if part.chunk])


def _enter(parts: Sequence[_Part]) -> None:
    """Enter which agents got which places; the last write of the transaction."""
    agents = {agent for part in parts for agent in part.chunk}
    entries = DeliveryEntries.about((part.envelope for part in parts), agents)
    append([entries.placed(part.envelope, "mail", list(part.seqs.items())) for part in parts])


def _first_of_each_sender(waiting: QuerySet[Envelope]) -> list[int]:
    first: dict[str, int] = {}
    for envelope in _in_order(waiting.only("sender_id", "message_id")):
        first.setdefault(envelope.sender_id, envelope.pk)
    return list(first.values())


def _in_order(envelopes: Iterable[Envelope]) -> list[Envelope]:
    """Sort by the index of the trail entry, which follows the order of the frames.

    Row ids do not: within one batch they follow the message ids.
    """
    found = list(envelopes)
    entries = entries_of_messages({envelope.message_id for envelope in found})
    return sorted(found, key=lambda e: entries[e.sender_id, e.message_id])


def _delivery(envelope: Envelope, agent: str) -> NewDelivery:
    return NewDelivery(envelope.pk, agent, "mail", envelope.sender_id, envelope.expires_at)


def _news(parts: Sequence[_Part]) -> dict[str, News]:
    entries = entries_of_messages({part.envelope.message_id for part in parts})
    routes = load_routes({agent for part in parts for agent in part.chunk})
    carried = _carried(parts)
    contents = dict(Envelope.objects.filter(pk__in=carried).values_list("pk", "content"))
    all_news: dict[str, News] = {}
    for part in parts:
        envelope = part.envelope
        entry = entries.get((envelope.sender_id, envelope.message_id))
        for agent, seq in part.seqs.items():
            route = routes.get(agent)
            if route is None or not route.live:
                continue
            text = ""
            if envelope.pk in contents:
                envelope.content = contents[envelope.pk]
                frame = stored_delivery(envelope, stream="mail", seq=seq, entry=entry)
                text = frame.decode()
            news = all_news.setdefault(route.channel, News())
            news.deliveries.append((agent, "mail", seq, seq, text))
    return all_news


def _carried(parts: Sequence[_Part]) -> set[int]:
    """Return the row ids of the envelopes that the news may carry.

    An envelope is carried only if its sender and key are still good and it has not expired: a
    broadcast can be pushed long after its acceptance. Nodes read the other envelopes from the
    database, and check them there.
    """
    if sum(part.envelope.size * len(part.chunk) for part in parts) > settings.ATP_LUGGAGE_BYTES:
        return set()
    envelopes, now = [part.envelope for part in parts], datetime.now(UTC)
    active = Agent.objects.filter(pk=envelopes[0].sender_id, status=Agent.Status.ACTIVE).exists()
    kids = {envelope.kid for envelope in envelopes}
    revoked = set(
        AgentKey.objects.filter(pk__in=kids, status=AgentKey.Status.REVOKED).values_list(
            "pk", flat=True
        )
    )
    return {e.pk for e in envelopes if active and e.expires_at > now and e.kid not in revoked}
