"""The facts of one batch, shared by its judgements and updated after each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.conf import settings

from atp.judging.facts import CauseFacts, Facts, RecipientFacts, RequestFacts
from atp.judging.judgement import Verdict
from atp.judging.policy.document import ParsedRule
from atp.judging.recording import Recorder
from atp.judging.scoring import Profile, ScoreInputs, TrustScore, score
from atp.log import leaves
from atp.trust.envelope import VerifiedEnvelope
from atp.types import BROADCAST_TARGET
from atp.wire.words import stream_of
from messaging.judging.broadcasts import BroadcastBudget
from messaging.judging.denials import DenialBudget
from messaging.judging.rates import RATE_FIELDS, window_of
from messaging.judging.registry_view import RegistryView
from messaging.layer.routes import Route

DENIED_KEPT_BYTES = 16_384  # the largest part of a denied envelope that its entry keeps
SENDERS_SHARE = 10  # one sender may fill at most a tenth of an inbox (docs/protocol.md#frames)


@dataclass(slots=True)
class BatchFacts:
    """The facts of one batch, shared by its judgements and updated after each of them."""

    now: float
    view: RegistryView
    routes: dict[str, Route]
    senders: frozenset[str]
    inputs: dict[str, ScoreInputs] = field(default_factory=dict)
    audience_inputs: dict[str, ScoreInputs] = field(default_factory=dict)
    requests: dict[str, RequestFacts] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    causes: dict[tuple[str, str], CauseFacts] = field(default_factory=dict)
    processes: Mapping[tuple[str, str], str] = field(default_factory=dict)  # of agent and session
    askers: dict[str, str] = field(default_factory=dict)  # takers that sent requests, by digest
    waiting: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting_from: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    rates: dict[str, dict[str, int]] = field(default_factory=dict)
    rule_counts: dict[str, dict[str, int]] = field(default_factory=dict)  # by sender, by rule key
    counted: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    members: dict[str, list[str]] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)  # of verdicts, by digest
    denials: DenialBudget = field(init=False)
    recorder: Recorder = field(init=False)
    broadcasts: BroadcastBudget = field(default_factory=BroadcastBudget)
    _scores: dict[ScoreInputs, TrustScore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.denials = DenialBudget(self.senders, self.now)
        self.recorder = Recorder(
            lambda agent: self.view.entered(agent),
            write=leaves.written,
            most_bytes=DENIED_KEPT_BYTES,
        )

    def of(self, verified: VerifiedEnvelope) -> Facts:
        """The facts for one envelope of the batch."""
        envelope, view = verified.envelope, self.view
        sender, target = envelope.sender, envelope.target
        return Facts(
            now=self.now,
            sender=view.agent(sender),
            attestations=view.attestations(sender),
            inputs=self.inputs[sender],
            policy_set=view.policy_set,
            recipient=view.agent(target),
            recipient_attestations=view.attestations(target),
            recipient_inputs=self.inputs.get(target),
            recipient_full=self._is_full(sender, target, stream_of(envelope.message_type)),
            audience=self._audience(sender) if target == BROADCAST_TARGET else (),
            request=self._request(verified.req),
            cause=self.causes.get((verified.cause or "", sender)),
            rates=self.rates.get(sender, {}),
            profile=view.profile,
            counts=self.rule_counts.get(sender, {}),
            score=self._score,
        )

    def cause_of(self, verified: VerifiedEnvelope) -> int | None:
        """Return the entry about the envelope that led to this one; `None` if none is known."""
        return self.entries.get(verified.cause or verified.req or "")

    def note_judged(self, sender: str, verdict: Verdict) -> None:
        """Count a verdict for the envelopes behind it in the batch, and for the database."""
        rates = self.rates.get(sender, {})
        for name, (_, statuses) in RATE_FIELDS.items():
            if name in rates and verdict.status in statuses:
                rates[name] += 1
        for rule in verdict.counted_by:
            self._count_for(rule, sender)

    def note_accepted(self, verified: VerifiedEnvelope, verdict: Verdict) -> None:
        """Count an acceptance for the envelopes behind it in the batch."""
        envelope = verified.envelope
        sender, stream = envelope.sender, stream_of(envelope.message_type)
        if verified.req is not None:
            self.answered.add(verified.req)
        recipients: Sequence[str] = (envelope.target,)
        if envelope.target == BROADCAST_TARGET:
            recipients = verdict.hearers
            self.broadcasts.note(sender, len(recipients))
        for recipient in recipients:
            self.waiting[recipient, stream] += 1
            self.waiting_from[recipient, stream, sender] += 1

    def _request(self, digest: str | None) -> RequestFacts | None:
        request = self.requests.get(digest or "")
        if request is None or digest not in self.answered:
            return request
        return replace(request, answered=True)

    def _audience(self, sender: str) -> list[RecipientFacts]:
        """Return the facts about each connected agent that may hear a broadcast of this sender."""
        view, inputs = self.view, self.audience_inputs
        return [
            RecipientFacts(
                agent,
                view.attestations(agent.id),
                inputs.get(agent.id),
                self._is_full(sender, agent.id, "mail"),
            )
            for name in sorted(self.members_besides(sender))  # as a reader of the entry sorts them
            if (agent := view.agent(name)) is not None
        ]

    def members_besides(self, sender: str) -> list[str]:
        """Return the connected agents of this sender's organisation, without the sender."""
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

    def _count_for(self, rule: ParsedRule, sender: str) -> None:
        counts = self.rule_counts.setdefault(sender, {})
        counts[rule.key] = counts.get(rule.key, 0) + 1
        self.counted[rule.key, sender, window_of(rule, self.now)] += 1
