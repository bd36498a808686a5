"""The database side of a judgement: one query per batch and table (architecture.md, point 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

from django.conf import settings
from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Now

from atp.errors import FlowThrottled
from atp.judging.judgement import CauseFacts, Chain, Facts, RequestFacts, Verdict
from atp.judging.policy import Decision
from atp.judging.policy.document import Rule
from atp.judging.scoring import Profile, ScoreInputs, TrustScore, score
from atp.log import leaves
from atp.trust.envelope import VerifiedEnvelope
from atp.types import BROADCAST_TARGET, MessageType
from messaging.judging.registry_view import RegistryView
from messaging.models import Delivery, Envelope, Mailbox, Presence, RuleCounter
from registry.storage.compiled import Compiled
from registry.storage.round_trips import Asked, one_trip

CROWDED_CHUNK = 200  # mailboxes of one query; SQLite takes an expression of depth 1,000
MOST_BROADCASTS = 16  # of one sender that wait to be given to their audiences; then throttled
BROADCAST_LIMITS = ((0.25, 250), (10.0, 10_000))  # seconds, and what a sender's may cost in them
BROADCAST_COST = 40  # of one, in deliveries, besides those that it makes
SENDERS_SHARE = 10  # one sender may fill at most a tenth of an inbox (protocol.md, "Frames")
RATE_FIELDS = {
    "context.messages_per_minute": (timedelta(minutes=1), ("accepted", "denied")),
    "context.denials_per_hour": (timedelta(hours=1), ("denied",)),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent is connected: the session that counts, and its node's channel."""

    session: str
    channel: str
    live: bool


@dataclass(slots=True)
class BatchFacts:
    """All that the judgements of one batch share, and what earlier ones in it changed."""

    now: float
    view: RegistryView
    places: dict[str, Place]
    inputs: dict[str, ScoreInputs] = field(default_factory=dict)
    requests: dict[str, RequestFacts] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    causes: dict[tuple[str, str], CauseFacts] = field(default_factory=dict)
    waiting: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting_from: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    rates: dict[str, dict[str, int]] = field(default_factory=dict)
    rule_counts: dict[str, dict[str, int]] = field(default_factory=dict)  # by sender, by rule key
    counted: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    members: dict[str, list[str]] = field(default_factory=dict)
    broadcasting: Counter[str] = field(default_factory=Counter)  # nobody has fanned out yet
    broadcast_costs: Counter[tuple[str, float]] = field(default_factory=Counter)
    audiences: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _scores: dict[ScoreInputs, TrustScore] = field(default_factory=dict)
    _records: dict[Hashable, Any] = field(default_factory=dict)

    def of(self, verified: VerifiedEnvelope) -> Facts:
        """The facts for one envelope of the batch."""
        envelope, view = verified.envelope, self.view
        sender, target = envelope.sender, envelope.target
        return Facts(
            now=self.now,
            sender=view.agent(sender),
            key=view.key(verified.kid),
            attestations=view.attestations(sender),
            inputs=self.inputs[sender],
            policy_set=view.policy_set,
            recipient=view.agent(target),
            recipient_attestations=view.attestations(target),
            recipient_inputs=self.inputs.get(target),
            recipient_full=self._has_no_room(verified),
            request=self._request(verified.req),
            cause=self.causes.get((verified.cause or "", sender)),
            rates=self.rates.get(sender, {}),
            profile=view.profile,
            counts=self.rule_counts.get(sender, {}),
            score=self._score,
        )

    def record_of_inputs(self, inputs: ScoreInputs) -> Any:
        """The inputs as the trail keeps them, written once a batch and sender."""
        if inputs not in self._records:
            self._records[inputs] = leaves.written(inputs.to_dict())
        return self._records[inputs]

    def record_of_decision(self, decision: Decision) -> Any:
        """The decision as the trail keeps it, written once for all that were decided alike."""
        key = decision.record_key
        if key is None:
            return decision.to_record()
        if key not in self._records:
            self._records[key] = leaves.written(decision.to_record())
        return self._records[key]

    def note_judged(self, sender: str, verdict: Verdict) -> None:
        """Count a verdict for the envelopes behind it in the batch, and for the database."""
        rates = self.rates.get(sender, {})
        for name, (_, statuses) in RATE_FIELDS.items():
            if name in rates and verdict.status in statuses:
                rates[name] += 1
        if verdict.decision is not None:
            for rule in verdict.decision.counted_by:
                self._count_for(rule, sender)

    def note_accepted(self, verified: VerifiedEnvelope) -> None:
        """What an acceptance changes for the envelopes behind it in the batch."""
        envelope = verified.envelope
        sender, stream = envelope.sender, stream_of(envelope.message_type)
        if verified.req is not None:
            self.answered.add(verified.req)
        recipients = [envelope.target]
        if envelope.target == BROADCAST_TARGET:
            hearing = self.members_besides(sender)
            recipients = [a for a in hearing if not self._is_full(sender, a, stream)]
            self.audiences[sender, envelope.message_id] = recipients
            self.broadcasting[sender] += 1
            for seconds, _ in BROADCAST_LIMITS:
                self.broadcast_costs[sender, seconds] += len(recipients) + BROADCAST_COST
        for recipient in recipients:
            self.waiting[recipient, stream] += 1
            self.waiting_from[recipient, stream, sender] += 1

    def _request(self, digest: str | None) -> RequestFacts | None:
        request = self.requests.get(digest or "")
        if request is None or digest not in self.answered:
            return request
        return replace(request, answered=True)

    def _has_no_room(self, verified: VerifiedEnvelope) -> bool:
        """Whether the recipient is full; of a broadcast, whether all who would hear it are."""
        envelope = verified.envelope
        sender, stream = envelope.sender, stream_of(envelope.message_type)
        if envelope.target != BROADCAST_TARGET:
            return self._is_full(sender, envelope.target, stream)
        hearing = self.members_besides(sender)
        return bool(hearing) and all(self._is_full(sender, a, stream) for a in hearing)

    def broadcast_excess(self, sender: str) -> FlowThrottled | None:
        """Why another broadcast is more than may come of this sender now, and until when."""
        if self.broadcasting[sender] >= MOST_BROADCASTS:
            detail = "wait until your earlier broadcasts have reached their audiences"
            return FlowThrottled(detail, retry_after=BROADCAST_LIMITS[0][0])
        for seconds, limit in BROADCAST_LIMITS:
            if self.broadcast_costs[sender, seconds] >= limit:
                detail = f"your broadcasts cost the hub too much in {seconds:g} s; wait a little"
                return FlowThrottled(detail, retry_after=seconds / 2)
        return None

    def members_besides(self, sender: str) -> list[str]:
        """The connected agents of this sender's organisation, without itself."""
        agent = self.view.agent(sender)
        organisation = agent.organisation if agent else ""
        return [a for a in self.members.get(organisation, []) if a != sender]

    def _is_full(self, sender: str, target: str, stream: str) -> bool:
        limit = settings.ATP_INBOX_LIMIT
        if self.waiting[target, stream] >= limit:
            return True
        return self.waiting_from[(target, stream, sender)] >= limit // SENDERS_SHARE

    def _score(self, inputs: ScoreInputs, now: float, profile: Profile) -> TrustScore:
        known = self._scores.get(inputs)
        if known is None:
            known = self._scores[inputs] = score(inputs, now, profile)
        return known

    def _count_for(self, rule: Rule, sender: str) -> None:
        counts = self.rule_counts.setdefault(sender, {})
        counts[rule.key] = counts.get(rule.key, 0) + 1
        self.counted[rule.key, sender, window_of(rule, self.now)] += 1


def window_of(rule: Rule, now: float) -> int:
    """The start of a throttle rule's current window, in epoch seconds."""
    assert rule.throttle is not None
    _, seconds = rule.throttle
    return int(now) // seconds * seconds


def stream_of(message_type: str) -> str:
    """Which of its two streams an agent gets a message in (protocol.md, "Frames")."""
    return "answers" if message_type == MessageType.RESPONSE else "mail"


_PLACES = Compiled(
    lambda agents: (
        Presence.objects.filter(agent__id__any_of=agents)
        .annotate(live=Q(node__lease_until__gt=Now()))
        .values_list("agent_id", "session_id", "node__channel", "live")
    )
)
_COUNTERS = ("agent_id", "stream", "last_seq", "acked_seq", "swept_seq", "ended")
_MAILBOXES = Compiled(
    lambda agents: Mailbox.objects.filter(agent__id__any_of=agents).values_list(*_COUNTERS)
)


@dataclass(frozen=True, slots=True)
class _Named:
    """An envelope that others name by its digest: as what they answer, or as their cause."""

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
    answer: int | None  # the envelope that answers it, where one was accepted

    @property
    def is_accepted_request(self) -> bool:
        return (self.status, self.message_type) == (Envelope.Status.ACCEPTED, MessageType.REQUEST)

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


# An answer to what nobody asked has "" there; left out as the index leaves it out, or it is a scan.
_ANSWERS = Envelope.objects.filter(
    status=Envelope.Status.ACCEPTED, answers=OuterRef("digest")
).exclude(answers="")
NAMED = Compiled(
    lambda digests: (
        Envelope.objects.filter(digest__any_of=digests)
        .order_by()
        # By itself for each: with EXISTS PostgreSQL would rather read all answers there are.
        .annotate(answer=Subquery(_ANSWERS.values("id")[:1]))
        .values_list(
            "id", "digest", "status", "message_type", "sender_id", "target", "request_id",
            "expires_at", "sensitivity", "requires_trust", "chain_lowest_level",
            "chain_lowest_score", "chain_depth", "answer",
        )
    )
)  # fmt: skip


def ask_places(agents: Iterable[str]) -> Asked:
    """Ask where these agents are connected, by the database's clock; `places_of` tells."""
    return _PLACES.ask(set(agents))


def places_of(asked: Asked) -> dict[str, Place]:
    return {
        agent: Place(str(session), channel, live) for agent, session, channel, live in asked.rows()
    }


def load_places(agents: Iterable[str]) -> dict[str, Place]:
    """Where these agents are connected."""
    return places_of(ask_places(agents))


def load_facts(
    verified: list[VerifiedEnvelope], view: RegistryView, places: dict[str, Place], now: float
) -> BatchFacts:
    """Read what the judgements of these envelopes need."""
    senders = {v.envelope.sender for v in verified}
    targets = {v.envelope.target for v in verified}
    view.load(senders | targets, {v.kid for v in verified})
    known = {agent for agent in senders | targets if view.agent(agent) is not None}
    facts = BatchFacts(now=now, view=view, places=places)
    facts.inputs = view.score_inputs(known, now)
    _load_members(facts, verified)
    hearing = {agent for members in facts.members.values() for agent in members}
    digests = {digest for v in verified for digest in (v.req, v.cause) if digest}
    with one_trip():
        named = NAMED.ask(digests) if digests else None
        boxes = _MAILBOXES.ask((targets & known) | hearing)
    if named is not None:
        _load_named(facts, verified, named)
    _load_waiting(facts, boxes, senders, coming=len(verified))
    _load_rates(facts, senders)
    _load_rule_counts(facts, senders)
    return facts


def _load_named(facts: BatchFacts, verified: Iterable[VerifiedEnvelope], asked: Asked) -> None:
    """The requests that are answered here, and the chains of what senders were handling."""
    requests = {v.req for v in verified if v.req}
    causes = {(v.cause, v.envelope.sender) for v in verified if v.cause}
    named = [_Named(*row) for row in asked.rows()]
    for one in named:
        if one.digest in requests and one.is_accepted_request:
            facts.requests[one.digest] = one.as_request()
    _load_causes(facts, causes, {one.id: one for one in named})


def _load_causes(
    facts: BatchFacts, wanted: set[tuple[str, str]], named: Mapping[int, _Named]
) -> None:
    """The chain of a cause counts for an agent that got it."""
    digests = {digest for digest, _ in wanted}
    causes = {row: one for row, one in named.items() if one.digest in digests}
    if not causes:
        return
    received = Delivery.objects.filter(
        envelope_id__in=causes.keys(),
        recipient_id__in={agent for _, agent in wanted},
        state__in=(Delivery.State.WAITING, Delivery.State.REFUSED),  # the others never came
    ).order_by()
    for row, agent in received.values_list("envelope_id", "recipient_id"):
        chain = Chain(causes[row].lowest_level, causes[row].lowest_score, causes[row].depth)
        facts.causes[causes[row].digest, agent] = CauseFacts(True, chain)


def _load_waiting(facts: BatchFacts, boxes: Asked, senders: set[str], *, coming: int) -> None:
    """What waits for whom, and from whom where this batch could bring a sender to its share."""
    now = datetime.fromtimestamp(facts.now, UTC)
    crowded = []
    for row in boxes.rows():
        box = Mailbox(**dict(zip(_COUNTERS, row, strict=True)))
        place = (box.agent_id, box.stream)
        facts.waiting[place] += box.waiting
        limit = settings.ATP_INBOX_LIMIT  # at which nobody's share matters any more
        if limit > facts.waiting[place] > limit // SENDERS_SHARE - coming:
            crowded.append(Q(recipient_id=box.agent_id, stream=box.stream, seq__gt=box.done_seq))
    for start in range(0, len(crowded), CROWDED_CHUNK):  # most often none: nobody can fill a tenth
        condition = reduce(or_, crowded[start : start + CROWDED_CHUNK])
        rows = Delivery.objects.filter(
            condition, sender__in=senders, state=Delivery.State.WAITING, expires_at__gt=now
        )
        places = rows.order_by().values_list("recipient_id", "stream", "sender")
        for recipient, stream, sender, count in places.annotate(n=Count("id")):
            facts.waiting_from[recipient, stream, sender] += count


def judged_since(
    since: datetime, senders: Collection[str], statuses: Collection[str]
) -> QuerySet[Envelope, tuple[str, int]]:
    """How many envelopes of each of these senders were judged so since then."""
    rows = Envelope.objects.filter(
        sender_id__in=senders, judged_at__gt=since, status__in=statuses
    ).order_by()
    return rows.values_list("sender_id").annotate(n=Count("id"))


def _load_rates(facts: BatchFacts, senders: set[str]) -> None:
    now = datetime.fromtimestamp(facts.now, UTC)
    for name in RATE_FIELDS.keys() & facts.view.policy_set.uses:
        period, statuses = RATE_FIELDS[name]
        counts = dict(judged_since(now - period, senders, statuses))
        for sender in senders:
            facts.rates.setdefault(sender, {})[name] = counts.get(sender, 0)


def _load_rule_counts(facts: BatchFacts, senders: set[str]) -> None:
    """How many envelopes of these senders each throttle rule has counted in its window."""
    windows = {rule.key: window_of(rule, facts.now) for rule in facts.view.policy_set.limits}
    if not windows:
        return
    rows = RuleCounter.objects.filter(
        rule__in=windows, window__in=set(windows.values()), sender__in=senders
    )
    for rule, sender, window, count in rows.values_list("rule", "sender", "window", "count"):
        if windows[rule] == window:
            facts.rule_counts.setdefault(sender, {})[rule] = count


def _load_members(facts: BatchFacts, verified: list[VerifiedEnvelope]) -> None:
    """Who may hear a broadcast: the connected agents of the sender's organisation.

    What a sender has broadcast and nobody has fanned out yet counts as waiting for all of them.
    """
    senders = {
        v.envelope.sender for v in verified if v.envelope.message_type == MessageType.BROADCAST
    }
    if not senders:
        return
    pending = Envelope.objects.filter(sender_id__in=senders, fan_out__isnull=False)
    facts.broadcasting.update(dict(pending.values_list("sender_id").annotate(n=Count("id"))))
    _load_broadcast_costs(facts, senders)
    heard = {sender for sender in senders if facts.broadcast_excess(sender) is None}
    organisations = {agent.organisation for sender in heard if (agent := facts.view.agent(sender))}
    if not organisations:  # those of the others are refused, whoever would hear them
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
            facts.waiting[agent_id, "mail"] += facts.broadcasting[sender]
            facts.waiting_from[agent_id, "mail", sender] += facts.broadcasting[sender]


def _load_broadcast_costs(facts: BatchFacts, senders: set[str]) -> None:
    """What the broadcasts of these senders have cost lately; few rows, as the limits see to it."""
    now = datetime.fromtimestamp(facts.now, UTC)
    longest = max(seconds for seconds, _ in BROADCAST_LIMITS)
    rows = Envelope.objects.filter(
        sender_id__in=senders,
        status=Envelope.Status.ACCEPTED,
        judged_at__range=(now - timedelta(seconds=longest), now),
        target=BROADCAST_TARGET,
    ).order_by()
    for sender, judged_at, recipients in rows.values_list("sender_id", "judged_at", "recipients"):
        for seconds, _ in BROADCAST_LIMITS:
            if judged_at > now - timedelta(seconds=seconds):
                facts.broadcast_costs[sender, seconds] += recipients + BROADCAST_COST
