"""A broadcast, judged for each of those who are there to hear it.

Whoever does not fit is left out. Rules are asked once for all hearers that look the same to them,
so that an audience of a thousand costs hardly more than one recipient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atp.errors import ATPError, FlowError
from atp.judging import policy as policies
from atp.judging.facts import Facts, RecipientFacts
from atp.judging.policy import Decision
from atp.judging.recipients import check_takes, demanded_level, recipient_context
from atp.trust.envelope import Envelope

__all__ = ["HearerRefusal", "Hearing", "hear"]

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class HearerRefusal:
    """Why a hearer was left out, and the decision with its context where rules said so."""

    status: str
    code: str
    detail: str
    decision: Decision | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Hearing:
    """Who hears a broadcast, by which decisions, and why others do not, by code."""

    hearers: list[str] = field(default_factory=list)
    sensitivity: str = ""
    decisions: list[Decision] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    refusals: dict[str, HearerRefusal] = field(default_factory=dict)

    def refuse(self, why: HearerRefusal) -> None:
        """Leave a hearer out; keep the first refusal with each code."""
        self.left_out[why.code] += 1
        self.refusals.setdefault(why.code, why)

    @property
    def main_refusal(self) -> HearerRefusal:
        """What is told where nobody hears it: what may pass later, else what most fail by."""
        passing = [code for code, why in self.refusals.items() if why.status != "denied"]
        codes = passing or list(self.refusals)
        return self.refusals[max(codes, key=self.left_out.__getitem__)]


@dataclass(slots=True)
class _Judged:
    """What the rules say for one kind of hearer."""

    decision: Decision
    context: Mapping[str, Any]
    sensitivity: str
    heard: bool = False


def hear(
    envelope: Envelope,
    facts: Facts,
    context: Mapping[str, Any],
    *,
    level: str,
    total: int,
) -> Hearing:
    """Judge a broadcast by a sender of that level and score for each of `facts.audience`.

    `context` has the field values without a recipient's.
    """
    hearing = Hearing()
    known: dict[_Key, _Judged] = {}
    for one in facts.audience:
        try:
            check_takes(one, level=level, total=total)
            hearers_level = demanded_level(envelope, one, now=facts.now)
        except ATPError as problem:
            hearing.refuse(_refused(problem))
            continue
        own = recipient_context(one, hearers_level, facts, facts.policy_set.uses)
        key = (one.agent.sensitivity_floor, *own.items())
        judged = known.get(key)
        if judged is None:
            judged = known[key] = _judge(envelope, facts, context, one, own)
        _note(hearing, judged, one.agent.id)
    return hearing


def _judge(
    envelope: Envelope,
    facts: Facts,
    context: Mapping[str, Any],
    one: RecipientFacts,
    own: Mapping[str, Any],
) -> _Judged:
    floor = one.agent.sensitivity_floor
    sensitivity = policies.effective_sensitivity(context["data.sensitivity"], floor)
    whole = {**context, **own, "data.sensitivity": sensitivity}
    decision = policies.evaluate(
        facts.policy_set, whole, payload=envelope.payload, throttled=facts.is_over
    )
    return _Judged(decision, whole, sensitivity)


def _note(hearing: Hearing, judged: _Judged, agent: str) -> None:
    decision = judged.decision
    if decision.action != "allow":
        status = "throttled" if decision.action == "throttle" else "denied"
        hearing.refuse(
            HearerRefusal(status, decision.code, decision.detail, decision, judged.context)
        )
        return
    hearing.hearers.append(agent)
    if not judged.heard:
        judged.heard = True
        hearing.decisions.append(decision)
        hearing.sensitivity = policies.effective_sensitivity(
            hearing.sensitivity or None, judged.sensitivity
        )


def _refused(problem: ATPError) -> HearerRefusal:
    status = "busy" if isinstance(problem, FlowError) else "denied"
    return HearerRefusal(status, problem.code, problem.detail)
