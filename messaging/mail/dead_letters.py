"""Redeliver dead letters: deliveries that their recipients have refused for good."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from django.conf import settings
from django.db.models import QuerySet

from atp.errors import FlowBusy
from atp.trust.tokens import MESSAGE_MAX_LIFE_SECONDS
from messaging.mail.answered import answered_among
from messaging.mail.deliveries import insert_deliveries
from messaging.mail.entries import DeliveryEntries
from messaging.mail.held import again
from messaging.mail.mailboxes import MailboxesLocked
from messaging.mail.withhold import note_due
from messaging.models import DeadLetter, Delivery, Mailbox
from registry.bulk.decisions import DecisionKind
from registry.change import ChangedMeanwhile, registry_change
from registry.models import Agent, AgentKey
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.trail.kinds import Kind

LONGEST_LIFE = timedelta(seconds=MESSAGE_MAX_LIFE_SECONDS)


class Obstacle(StrEnum):
    """Why a dead letter can't be redelivered, in words for officers."""

    DONE = "It was redelivered already."
    EXPIRED = "It has expired. Its sender has to send it again."
    SENDER = "Its sender is not active."
    KEY = "The key that signed it was revoked."
    RECIPIENT = "Its recipient is not active."
    ANSWERED = "It is a request that was answered already."
    FULL = "The inbox of its recipient is full."


class NotRedeliverable(ChangedMeanwhile):
    """The dead letter can't be redelivered; the message says why."""


def dead_letters() -> QuerySet[DeadLetter]:
    """Return all dead letters, those that were redelivered too, without their content."""
    rows = DeadLetter.objects.filter(refused_at__isnull=False)
    return rows.select_related("envelope").defer("envelope__content")


def open_at(rows: QuerySet[DeadLetter], now: datetime) -> QuerySet[DeadLetter]:
    """Return those that were not redelivered and have not expired."""
    # No envelope lives longer, so what was refused before has expired: the index leaves it out.
    recent = rows.filter(refused_at__gt=now - LONGEST_LIFE)
    return recent.filter(state=Delivery.State.REFUSED, expires_at__gt=now)


def count_open() -> int:
    """Return how many dead letters officers can still redeliver."""
    return open_at(DeadLetter.objects.filter(refused_at__isnull=False), datetime.now(UTC)).count()


def redeliver(delivery_id: int, *, actor: Actor, reason: str) -> None:
    """Place the envelope of a dead letter at the end of its recipient's stream, once.

    The hub does not judge it again. Raises `NotRedeliverable` with the words of its `Obstacle`,
    `FlowBusy` if others hold the recipient's mailbox, and `MalformedDocument` for a bad reason.
    """
    reason = check_reason(reason)
    with registry_change(actor, moves_epoch=False) as change:
        row = dead_letters().select_for_update(of=("self",)).filter(pk=delivery_id).first()
        if row is None:
            raise NotRedeliverable("There is no such dead letter.")
        if (obstacle := obstacles([row], datetime.now(UTC)).get(row.pk)) is not None:
            raise NotRedeliverable(obstacle)
        try:
            (seq,) = insert_deliveries([again(row, redelivered=True)])
        except MailboxesLocked:
            raise FlowBusy("others hold the mailbox of its recipient; try it again") from None
        row.state = Delivery.State.REDELIVERED
        row.save(update_fields=["state"])
        note_due([row])
        entry = DeliveryEntries.about_rows([row]).entry(
            Kind.DELIVERY_REDELIVERED,
            row,
            shared={"code": row.code, "reason": reason},
            place={"stream": row.stream, "seq": seq, "instead": row.seq},
            actor=actor.name,
        )
        change.enter(entry)


def obstacles(rows: Sequence[Delivery], now: datetime) -> dict[int, Obstacle]:
    """Return, by row id, why a dead letter can't be redelivered at `now`; `envelope` is loaded."""
    facts = _Facts.of(rows, now)
    found = ((row.pk, next(_obstacles(row, facts), None)) for row in rows)
    return {pk: obstacle for pk, obstacle in found if obstacle is not None}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What decides whether some dead letters can be redelivered.

    `statuses` are those of senders and recipients, `revoked` key ids, `answered` digests of
    requests, `full` the streams (agent, stream) that take no more mail.
    """

    now: datetime
    statuses: Mapping[str, str]
    revoked: Collection[str]
    answered: Collection[str]
    full: Collection[tuple[str, str]]

    @classmethod
    def of(cls, rows: Sequence[Delivery], now: datetime) -> _Facts:
        recipients = {row.recipient_id for row in rows}
        agents = Agent.objects.filter(pk__in={row.sender for row in rows} | recipients)
        keys = AgentKey.objects.filter(kid__in={row.envelope.kid for row in rows})
        boxes = Mailbox.objects.filter(agent_id__in=recipients)
        full = {(b.agent_id, b.stream) for b in boxes if b.waiting >= settings.ATP_INBOX_LIMIT}
        return cls(
            now,
            statuses=dict(agents.values_list("pk", "status")),
            revoked=set(keys.filter(status=AgentKey.Status.REVOKED).values_list("kid", flat=True)),
            answered=answered_among({row.envelope.digest for row in rows}),
            full=full,
        )


def _obstacles(row: Delivery, facts: _Facts) -> Iterator[Obstacle]:
    if row.state != Delivery.State.REFUSED:
        yield Obstacle.DONE
    if row.expires_at <= facts.now:
        yield Obstacle.EXPIRED
    if facts.statuses.get(row.sender) != Agent.Status.ACTIVE:
        yield Obstacle.SENDER
    if row.envelope.kid in facts.revoked:
        yield Obstacle.KEY
    if facts.statuses.get(row.recipient_id) != Agent.Status.ACTIVE:
        yield Obstacle.RECIPIENT
    if row.envelope.digest in facts.answered:
        yield Obstacle.ANSWERED
    if (row.recipient_id, row.stream) in facts.full:
        yield Obstacle.FULL


REDELIVER = DecisionKind(redeliver, DeadLetter, "Redeliver dead letters", moves_epoch=False)
