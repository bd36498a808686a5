"""Read the facts of a batch: one query per batch and table.

See docs/design/architecture.md#why-lanes, 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_

from django.conf import settings
from django.db.models import Count, F, OuterRef, Subquery
from django.db.models.functions import Now

from atp.judging.facts import CauseFacts, Chain, RequestFacts
from atp.judging.scoring import ScoreInputs
from atp.trust.envelope import VerifiedEnvelope
from atp.types import BROADCAST_TARGET, MessageType
from messaging.judging.facts import SENDERS_SHARE, BatchFacts
from messaging.judging.rates import load_rates, load_rule_counts
from messaging.judging.registry_view import RegistryView
from messaging.layer.routes import Route
from messaging.mail.waiting import places_not_settled
from messaging.models import Delivery, Envelope, Mailbox, Presence
from registry.storage.compiled import Compiled
from registry.storage.round_trips import Asked, one_trip
from registry.trail.kinds import Kind
from registry.trail.logs import cause_at
from registry.trail.models import Entry

CROWDED_CHUNK = 200  # mailboxes of one query; SQLite takes an expression of depth 1,000
_COUNTERS = (
    "agent_id", "stream", "last_seq", "acked_seq", "done_ahead", "done_ahead_count", "swept_seq",
    "ended",
)  # fmt: skip
_MAILBOXES = Compiled(
    lambda agents: Mailbox.objects.filter(agent__id__any_of=agents).values_list(*_COUNTERS)
)


@dataclass(frozen=True, slots=True)
class _Named:
    """An envelope that others name by its digest, as their request or as their cause."""

    id: int
    digest: str
    status: str
    message_type: str
    sender: str
    target: str
    request_id: str
    expires_at: datetime
    sensitivity: str
    requires_trust: str
    lowest_level: str
    lowest_score: int
    depth: int
    chain_sensitivity: str  # empty for an envelope that an older hub has judged
    sent_by: str
    entry: int | None  # the position of the entry about its verdict
    answer: int | None  # the envelope that answers it, where one was accepted

    @property
    def is_accepted_request(self) -> bool:
        return (self.status, self.message_type) == (Envelope.Status.ACCEPTED, MessageType.REQUEST)

    def as_chain(self) -> Chain:
        sensitivity = self.chain_sensitivity or self.sensitivity
        return Chain(self.lowest_level, self.lowest_score, self.depth, sensitivity)

    def as_request(self) -> RequestFacts:
        return RequestFacts(
            self.sender,
            self.target,
            self.request_id,
            self.expires_at.timestamp(),
            self.sensitivity,
            self.requires_trust,
            self.answer is not None,
        )


# An answer without a request has "" here. The index leaves it out, so the query does, too.
_ANSWERS = Envelope.objects.filter(
    status=Envelope.Status.ACCEPTED, answers=OuterRef("digest")
).exclude(answers="")
_VERDICTS = Entry.objects.filter(
    message_id=OuterRef("message_id"),
    sender=OuterRef("sender_id"),
    kind__in=(Kind.ENVELOPE_ACCEPTED, Kind.ENVELOPE_DENIED),
).order_by()
NAMED = Compiled(
    lambda digests: (
        Envelope.objects.filter(digest__any_of=digests)
        .order_by()
        # By itself for each: with EXISTS PostgreSQL would rather read all answers there are.
        .annotate(
            answer=Subquery(_ANSWERS.values("id")[:1]),
            entry=Subquery(_VERDICTS.values("position")[:1]),
        )
        .values_list(
            "id", "digest", "status", "message_type", "sender_id", "target", "request_id",
            "expires_at", "sensitivity", "requires_trust", "chain_lowest_level",
            "chain_lowest_score", "chain_depth", "chain_sensitivity", "sent_by", "entry", "answer",
        )
    )
)  # fmt: skip


def load_facts(
    verified: list[VerifiedEnvelope], view: RegistryView, routes: dict[str, Route], now: float
) -> BatchFacts:
    """Read the facts that the judgements of these envelopes need."""
    senders = {v.envelope.sender for v in verified}
    targets = {v.envelope.target for v in verified}
    view.load(senders | targets, {v.kid for v in verified})
    known = {agent for agent in senders | targets if view.agent(agent) is not None}
    facts = BatchFacts(now=now, view=view, routes=routes, senders=frozenset(senders))
    _load_members(facts, verified)
    hearing = {agent for members in facts.members.values() for agent in members}
    view.load(hearing, ())
    facts.inputs = view.score_inputs(known, now)
    facts.audience_inputs = view.audience_inputs(hearing, now)
    view.load_entered(_scored(facts))
    digests = {digest for v in verified for digest in (v.req, v.cause) if digest}
    with one_trip():
        named = NAMED.ask(digests) if digests else None
        boxes = _MAILBOXES.ask((targets & known) | hearing)
    if named is not None:
        _load_named(facts, verified, named)
    _load_waiting(facts, boxes, senders, coming=len(verified))
    facts.rates = load_rates(view.policy_set, senders, now)
    facts.rule_counts = load_rule_counts(view.policy_set, senders, now)
    return facts


def _scored(facts: BatchFacts) -> dict[str, ScoreInputs]:
    """Return the inputs of the agents whose scores a judgement of this batch may compute."""
    if "recipient.score" in facts.view.policy_set.uses:
        return {**facts.audience_inputs, **facts.inputs}
    return {agent: inputs for agent, inputs in facts.inputs.items() if agent in facts.senders}


def _load_named(facts: BatchFacts, verified: Iterable[VerifiedEnvelope], asked: Asked) -> None:
    """Note the requests that this batch answers, and the chains of the causes."""
    requests = {v.req for v in verified if v.req}
    causes = {(v.cause, v.envelope.sender) for v in verified if v.cause}
    named = [_Named(*row) for row in asked.rows()]
    for one in named:
        if one.entry is not None and (cause := cause_at(one.entry)) is not None:
            facts.entries[one.digest] = cause
        if one.digest in requests and one.is_accepted_request:
            facts.requests[one.digest] = one.as_request()
            facts.askers[one.digest] = one.sent_by
    _load_causes(facts, causes, {one.id: one for one in named})


def _load_causes(
    facts: BatchFacts, wanted: set[tuple[str, str]], named: Mapping[int, _Named]
) -> None:
    """Note the chain of each cause for the agents that received the cause.

    The later state of the cause does not matter. It may have expired, or its sender may have been
    revoked, while the agent was still working on it. An accepted envelope for one agent has a
    delivery to it, so only those of broadcasts are read: without statistics, PostgreSQL and SQLite
    would read all deliveries that the agent ever got.
    """
    causes: dict[int, _Named] = {}  # broadcasts
    for one in named.values():
        if (one.digest, one.target) in wanted and one.status == Envelope.Status.ACCEPTED:
            facts.causes[one.digest, one.target] = CauseFacts(True, one.as_chain())
        elif one.target == BROADCAST_TARGET:
            causes[one.id] = one
    if not causes:
        return
    digests = {one.digest for one in causes.values()}
    received = Delivery.objects.filter(
        envelope_id__in=causes.keys(),
        recipient_id__in={agent for digest, agent in wanted if digest in digests},
    ).exclude(state=Delivery.State.NOTICE)  # its own sender has a notice of it
    received = received.order_by()
    for row, agent in received.values_list("envelope_id", "recipient_id"):
        facts.causes[causes[row].digest, agent] = CauseFacts(True, causes[row].as_chain())


def _load_waiting(facts: BatchFacts, boxes: Asked, senders: set[str], *, coming: int) -> None:
    """Count waiting deliveries by stream, and by sender in streams that this batch could fill."""
    now = datetime.fromtimestamp(facts.now, UTC)
    crowded = []
    for row in boxes.rows():
        box = Mailbox(**dict(zip(_COUNTERS, row, strict=True)))
        key = (box.agent_id, box.stream)
        facts.waiting[key] += box.waiting
        limit = settings.ATP_INBOX_LIMIT  # a full inbox takes no further envelope
        if limit > facts.waiting[key] > limit // SENDERS_SHARE - coming:
            crowded.append(places_not_settled(box))
    for start in range(0, len(crowded), CROWDED_CHUNK):
        condition = reduce(or_, crowded[start : start + CROWDED_CHUNK])
        rows = Delivery.objects.filter(
            condition, sender__in=senders, state=Delivery.State.WAITING, expires_at__gt=now
        )
        waiting = rows.order_by().values_list("recipient_id", "stream", "sender")
        for recipient, stream, sender, count in waiting.annotate(n=Count("id")):
            facts.waiting_from[recipient, stream, sender] += count


def _load_members(facts: BatchFacts, verified: list[VerifiedEnvelope]) -> None:
    """Read the possible hearers of each broadcast: the connected agents of the organisation.

    A broadcast that is not fanned out yet counts as waiting for all of them.
    """
    senders = {
        v.envelope.sender for v in verified if v.envelope.message_type == MessageType.BROADCAST
    }
    if not senders:
        return
    facts.broadcasts.load(senders, facts.now)
    heard = {sender for sender in senders if facts.broadcasts.excess(sender) is None}
    organisations = {agent.organisation for sender in heard if (agent := facts.view.agent(sender))}
    if not organisations:  # every broadcast of this batch is refused
        return
    rows = Presence.objects.filter(
        agent__organisation__name__in=organisations,
        agent__status="active",
        node__lease_until__gt=Now(),
    ).order_by("agent_id")
    for agent_id, organisation in rows.values_list("agent_id", F("agent__organisation__name")):
        facts.members.setdefault(organisation, []).append(agent_id)
    for sender in heard:
        for agent_id in facts.members_besides(sender):
            facts.waiting[agent_id, "mail"] += facts.broadcasts.waiting[sender]
            facts.waiting_from[agent_id, "mail", sender] += facts.broadcasts.waiting[sender]
