"""What the entry of a decision says: enough to make the same decision again.

`rebuilding.py` reads it (docs/protocol.md#the-entry-of-a-verdict). What stands elsewhere is named
and not repeated: score inputs by the entry that has them, attestations by `jti`, policies by the
hash of the set. What has its usual value is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from atp.errors import ATPError, AttestationMissing
from atp.judging.facts import (
    AgentFacts,
    AttestationFacts,
    CauseFacts,
    Facts,
    RecipientFacts,
    RequestFacts,
)
from atp.judging.judgement import Verdict, best_attestation
from atp.judging.message import MessageFacts
from atp.judging.policy import (
    EVALUATOR_VERSION,
    RE2_VERSION,
    TIME_ZONE_DATA_VERSION,
    Match,
    PolicySet,
)
from atp.judging.recipients import covering_attestation
from atp.judging.scoring import ALGORITHM_VERSION, ScoreInputs
from atp.wire.canonical import serialize, sha256_b64url

__all__ = ["DecisionRecord", "Recorder", "cut_list"]

MILLISECONDS = 1_000
USUAL_STATUS = "active"
USUAL_FLOOR = "public"

Base = Callable[[str], tuple[int, ScoreInputs] | None]


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """The members of an entry's sections that say what a decision was and what it was made of."""

    shared: dict[str, Any]
    for_sender: dict[str, Any] = field(default_factory=dict)
    for_recipient: dict[str, Any] = field(default_factory=dict)


class Recorder:
    """Makes the records of the decisions of one batch; what several of them share is made once.

    `base` returns the newest entry with an agent's score inputs, and these; `None` without one.
    `write` may serialise a value that many records share. Of a denied envelope no list longer than
    `most_bytes` is recorded, because an agent chooses what it sends.
    """

    def __init__(
        self, base: Base, *, write: Callable[[Any], Any] = lambda value: value, most_bytes: int
    ) -> None:
        self._base = base
        self._write = write
        self._most_bytes = most_bytes
        self._made: dict[Hashable, tuple[object, Any]] = {}
        self._hearers: dict[Hashable, dict[str, Any]] = {}

    def record(self, message: MessageFacts, facts: Facts, verdict: Verdict) -> DecisionRecord:
        """Return the record of `verdict`, which is the judgement of `message` by `facts`."""
        return DecisionRecord(
            self._shared(message, facts, verdict),
            self._of_sender(message, facts, verdict),
            self._of_audience(message, facts, verdict)
            if facts.audience
            else self._of_recipient(message, facts),
        )

    def _shared(self, message: MessageFacts, facts: Facts, verdict: Verdict) -> dict[str, Any]:
        kept, not_kept = self._message(message, facts.policy_set, accepted=verdict.accepted)
        shared: dict[str, Any] = {
            "nowMilliseconds": round(facts.now * MILLISECONDS),
            "message": kept,
            "judgedBy": self._judged_by(facts),
        }
        if not_kept:
            shared["notKept"] = not_kept
        if payload := facts.policy_set.columns.payload_record(message.payload):
            shared["payload"] = payload
        if facts.cause is not None:
            shared["cause"] = _cause(facts.cause)
        if facts.request is not None:
            shared["request"] = _request(facts.request, message)
        return {**shared, **self._conclusion(verdict)}

    def _conclusion(self, verdict: Verdict) -> dict[str, Any]:
        """Return what the verdict says besides the members of the header."""
        said = {
            "level": verdict.level,
            "code": verdict.code,
            "detail": verdict.detail,
            "matched": self._matches(verdict.matched),
            "monitored": self._matches(verdict.monitored),
            "leftOut": dict(verdict.left_out),
        }
        if verdict.violation:
            said["violation"] = {"severity": verdict.violation, "rule": verdict.violated}
        return {name: value for name, value in said.items() if value}

    def _matches(self, matches: Sequence[Match]) -> Any:
        return self._once("matches", matches, lambda: _matches(matches)) if matches else None

    def _judged_by(self, facts: Facts) -> Any:
        profile, policy_set = facts.profile, facts.policy_set
        return self._once(
            "judged by",
            policy_set,
            lambda: {
                "policySet": policy_set.hash,
                "profile": profile.version,
                "scoring": ALGORITHM_VERSION,
                "evaluator": EVALUATOR_VERSION,
                "re2": RE2_VERSION,
                "timeZoneData": TIME_ZONE_DATA_VERSION,
            },
            besides=profile.version,
        )

    def _message(
        self, message: MessageFacts, policy_set: PolicySet, *, accepted: bool
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a judgement reads of the message and its token does not say."""
        kept: dict[str, Any] = {"type": str(message.message_type), "size": message.size}
        if message.sensitivity is not None:
            kept["sensitivity"] = str(message.sensitivity)
        if message.requires_trust is not None:
            kept["requiresTrust"] = str(message.requires_trust)
        if message.max_lifespan_seconds is not None:
            kept["maxLifespanSeconds"] = message.max_lifespan_seconds
        not_kept: dict[str, Any] = {}
        for name, used_as, items in _lists(message, policy_set):
            cut = None if accepted else cut_list(items, self._most_bytes)
            if cut is None:
                kept[name] = list(items)
                continue
            if used_as in policy_set.uses:
                cut["holds"] = policy_set.columns.holds(used_as, items)
            not_kept[name] = cut
        return kept, not_kept

    def _of_sender(self, message: MessageFacts, facts: Facts, verdict: Verdict) -> dict[str, Any]:
        said: dict[str, Any] = {"inputs": self._inputs(message.sender, facts.inputs)}
        if facts.sender is not None:
            said["agent"] = self._agent(facts.sender, message.sender)
        if not verdict.attestation:
            doubtful = _doubtful(facts.attestations, message.kid, facts.now)
            if doubtful is not None:
                said["attestation"] = {"jti": doubtful.jti, "fault": doubtful.fault}
        if facts.rates:
            said["rates"] = dict(facts.rates)
        if counts := _counts(facts):
            said["counts"] = counts
        return said

    def _of_recipient(self, message: MessageFacts, facts: Facts) -> dict[str, Any]:
        one = facts.addressee
        if one is None:
            return {}
        said = {"agent": self._agent(one.agent, message.target), **self._standing(one, facts)}
        covering = covering_attestation(message, one, now=facts.now)
        return said if covering is None else {**said, "covering": covering.jti}

    def _standing(self, one: RecipientFacts, facts: Facts) -> dict[str, Any]:
        """Return what is read of a recipient besides its row: what rules do not use is left out."""
        inputs, uses = one.inputs, facts.policy_set.uses
        said: dict[str, Any] = {"full": True} if one.full else {}
        if inputs is None:
            return said
        if "recipient.score" in uses:
            return {**said, "inputs": self._inputs(one.agent.id, inputs)}
        said["level"] = inputs.level or ""
        if "recipient.capabilities" in uses:
            said["capabilities"] = list(inputs.attested_capabilities)
        if "recipient.key_algorithm" in uses and inputs.key_algorithm:
            said["keyAlgorithm"] = inputs.key_algorithm
        return said

    def _of_audience(self, message: MessageFacts, facts: Facts, verdict: Verdict) -> dict[str, Any]:
        """Return the connected agents in their order; neighbours that are alike stand together."""
        heard = frozenset(verdict.hearers)
        audience = [
            (one.agent.id, self._of_hearer(message, facts, one, heard=one.agent.id in heard))
            for one in facts.audience
        ]
        groups = groupby(audience, key=itemgetter(1))
        return {
            "audience": [{**said, "agents": [agent for agent, _ in some]} for said, some in groups]
        }

    def _of_hearer(
        self, message: MessageFacts, facts: Facts, one: RecipientFacts, *, heard: bool
    ) -> dict[str, Any]:
        key = (one.agent.id, one.full, heard, message.required_capabilities)
        said = self._hearers.get(key)
        if said is None:
            said = self._hearers[key] = self._make_hearer(message, facts, one, heard=heard)
        return said

    def _make_hearer(
        self, message: MessageFacts, facts: Facts, one: RecipientFacts, *, heard: bool
    ) -> dict[str, Any]:
        said = {"agent": _agent(one.agent, one.agent.id), **self._standing(one, facts)}
        covering = covering_attestation(message, one, now=facts.now)
        if covering is not None:  # of many hearers the level is enough
            said["covering"] = covering.level
        if facts.sender is None or one.agent.organisation_uid != facts.sender.organisation_uid:
            said["organisationUid"] = one.agent.organisation_uid
        return said if heard else {**said, "heard": False}

    def _inputs(self, agent: str, inputs: ScoreInputs) -> Any:
        return self._once(
            "inputs", inputs, lambda: _inputs(inputs, self._base(agent)), besides=agent
        )

    def _agent(self, agent: AgentFacts, usual_id: str) -> Any:
        return self._once("agent", agent, lambda: _agent(agent, usual_id), besides=usual_id)

    def _once(
        self, kind: str, about: object, make: Callable[[], Any], *, besides: Hashable = None
    ) -> Any:
        """Return what was made of this very object before; to hash its members would take longer.

        The object is kept with it, so that no other one gets its identity.
        """
        key = (kind, id(about), besides)
        if (known := self._made.get(key)) is None:
            known = self._made[key] = (about, self._write(make()))
        return known[1]


def cut_list(items: Sequence[Any], most_bytes: int) -> dict[str, Any] | None:
    """Return number, size in bytes and digest of the items; `None` if they are small enough."""
    written = serialize(list(items))
    if len(written) <= most_bytes:
        return None
    return {"count": len(items), "bytes": len(written), "digest": sha256_b64url(written)}


def _lists(message: MessageFacts, policy_set: PolicySet) -> list[tuple[str, str, Sequence[str]]]:
    """Return the message's lists that a judgement reads: name, field of rules, items."""
    lists: list[tuple[str, str, Sequence[str]]] = []
    if message.required_capabilities:
        used_as = "message.required_capabilities"
        lists.append(("requiredCapabilities", used_as, message.required_capabilities))
    if "message.allowed_tools" in policy_set.uses and message.allowed_tools:
        lists.append(("allowedTools", "message.allowed_tools", message.allowed_tools))
    return lists


def _matches(matches: Sequence[Match]) -> list[dict[str, str]]:
    return [
        {"policy": m.policy, "rule": m.rule, "action": m.action, "severity": m.severity}
        for m in matches
    ]


def _agent(agent: AgentFacts, usual_id: str) -> dict[str, Any]:
    """Return an agent's row without what is usual."""
    said: dict[str, Any] = {"organisation": agent.organisation}
    usual = {
        "id": (agent.id, usual_id),
        "status": (agent.status, USUAL_STATUS),
        "tags": (list(agent.tags), []),
        "sensitivityFloor": (agent.sensitivity_floor, USUAL_FLOOR),
        "minimumLevel": (agent.minimum_level, ""),
        "minimumScore": (agent.minimum_score, 0),
    }
    return said | {name: value for name, (value, default) in usual.items() if value != default}


def _inputs(inputs: ScoreInputs, base: tuple[int, ScoreInputs] | None) -> dict[str, Any]:
    """Return score inputs as the entry that has them, and what has changed since then."""
    entry, known = base or (None, ScoreInputs())
    before = known.to_dict()
    changed = {name: value for name, value in inputs.to_dict().items() if value != before[name]}
    said: dict[str, Any] = {} if entry is None else {"entry": entry}
    return {**said, "but": changed} if changed else said


def _counts(facts: Facts) -> dict[str, int]:
    """Return the counts of the throttle rules in force that are not 0."""
    if not facts.counts:
        return {}
    limits = {rule.key for rule in facts.policy_set.limits}
    return {key: n for key, n in facts.counts.items() if n and key in limits}


def _doubtful(
    attestations: Sequence[AttestationFacts], kid: str, now: float
) -> AttestationFacts | None:
    """Return the attestation for which `best_attestation` refuses; `None` without one."""
    try:
        return best_attestation(attestations, kid=kid, now=now)
    except AttestationMissing:
        return None
    except ATPError:
        ours = [one for one in attestations if one.jkt == kid]
        return next((one for one in ours if not one.fault), ours[0])


def _cause(cause: CauseFacts) -> Mapping[str, Any]:
    chain = cause.chain.to_wire()
    return chain if cause.received else {**chain, "received": False}


def _request(request: RequestFacts, message: MessageFacts) -> dict[str, Any]:
    """Return the request that is answered, without what a right answer to it says itself."""
    said: dict[str, Any] = {
        "expiresAt": int(request.expires_at),
        "sensitivity": request.sensitivity,
    }
    usual = {
        "sender": (request.sender, message.target),
        "target": (request.target, message.sender),
        "requestId": (request.request_id, message.request_id or ""),
        "requiresTrust": (request.requires_trust, ""),
        "answered": (request.answered, False),
    }
    return said | {name: value for name, (value, default) in usual.items() if value != default}
