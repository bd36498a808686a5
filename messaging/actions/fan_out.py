"""Giving a broadcast to its audience, after its acceptance and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from messaging import failpoints, frames
from messaging.actions.accept import DELIVERY_COLUMNS
from messaging.actions.mailboxes import give_places
from messaging.facts import load_places
from messaging.models import Delivery, Envelope
from messaging.news import News
from registry.bulk import insert_rows
from registry.models import Agent, AgentKey
from registry.trail.querysets import entries_of_messages

CHUNK = 256  # recipients a transaction


def fan_out_next() -> dict[str, News] | None:
    """Give a waiting broadcast to its next recipients; `None` when none waits for us.

    Each is the first that its sender has waiting, so that a sender's broadcasts keep their order
    however many workers are at it. The recipients left are part of the row, so that whoever dies
    half way is carried on by the next call, and nobody gets it twice.
    """
    with transaction.atomic():
        envelope = _lock_next()
        if envelope is None:
            return None
        audience: list[str] = envelope.fan_out or []
        chunk, rest = audience[:CHUNK], audience[CHUNK:]
        expiries = {(agent, "mail"): [envelope.expires_at] for agent in chunk}
        places = give_places(expiries) if chunk else {}
        insert_rows(Delivery, DELIVERY_COLUMNS, [_row(envelope, a, s) for a, s in places.items()])
        Envelope.objects.filter(pk=envelope.pk).update(fan_out=rest or None)
        failpoints.hit("half_way_through_broadcast", envelope)
    return _news(envelope, chunk, {agent: seq for (agent, _), seq in places.items()})


def _lock_next() -> Envelope | None:
    waiting = Envelope.objects.filter(fan_out__isnull=False)
    free = waiting.select_for_update(skip_locked=True, of=("self",))
    return free.filter(pk__in=_first_of_each_sender(waiting)).order_by("id").first()


def _first_of_each_sender(waiting: QuerySet[Envelope]) -> list[int]:
    """By entry: of one batch, ids follow the message ids, and entries the order of the frames."""
    rows = list(waiting.values_list("pk", "sender_id", "message_id"))
    entries = entries_of_messages({message_id for *_, message_id in rows})
    first: dict[str, int] = {}
    for pk, sender, _ in sorted(rows, key=lambda row: entries[row[1], row[2]]):
        first.setdefault(sender, pk)
    return list(first.values())


def _row(envelope: Envelope, place: tuple[str, str], seq: int) -> tuple[object, ...]:
    sender = envelope.sender_id
    return (envelope.pk, *place, seq, sender, envelope.expires_at, "waiting", "")


def _news(envelope: Envelope, chunk: Sequence[str], seqs: dict[str, int]) -> dict[str, News]:
    entry = entries_of_messages({envelope.message_id}).get(
        (envelope.sender_id, envelope.message_id)
    )
    light = envelope.size * len(chunk) <= settings.ATP_LUGGAGE_BYTES
    carried = light and _still_stands(envelope)  # or the nodes read the rows, and look themselves
    all_news: dict[str, News] = {}
    for agent, place in load_places(chunk).items():
        if not place.live:
            continue
        seq = seqs[agent]
        text = ""
        if carried:
            frame = frames.stored_delivery(envelope, stream="mail", seq=seq, entry=entry)
            text = frame.decode()
        all_news.setdefault(place.channel, News()).deliveries.append(
            (agent, "mail", seq, seq, text)
        )
    return all_news


def _still_stands(envelope: Envelope) -> bool:
    """Whether it may be pushed without another look, however long after its acceptance."""
    sender = Agent.objects.filter(pk=envelope.sender_id, status=Agent.Status.ACTIVE)
    revoked = AgentKey.objects.filter(pk=envelope.kid, status=AgentKey.Status.REVOKED)
    return envelope.expires_at > datetime.now(UTC) and sender.exists() and not revoked.exists()
