"""Judge a broadcast for each connected agent that could hear it.

Agents that may not hear the broadcast are left out. The rules are evaluated once for all hearers
with the same field values, so an audience of a thousand costs little more than one recipient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atp.errors import ATPError, FlowError
from atp.judging import policy as policies
from atp.judging.facts import Facts, RecipientFacts
from atp.judging.message import MessageFacts
from atp.judging.policy import Decision
from atp.judging.recipients import check_takes, demanded_level, recipient_context

__all__ = ["HearerRefusal", "Hearing", "hear"]

_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class HearerRefusal:
    """Why a hearer was left out; with decision and context if a rule refused it."""

    status: str
    code: str
    detail: str
    decision: Decision | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Hearing:
    """The hearers of a broadcast, the decisions that let them hear it, and refusals by code."""

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
        """The refusal to report if no agent hears it.

        It is one that a later try may pass, if there is one; of several, the most frequent.
        """
        passing = [code for code, why in self.refusals.items() if why.status != "denied"]
        codes = passing or list(self.refusals)
        return self.refusals[max(codes, key=self.left_out.__getitem__)]


@dataclass(slots=True)
class _Judged:
    """The decision on all hearers with the same field values."""

    decision: Decision
    context: Mapping[str, Any]
    sensitivity: str
    heard: bool = False


def hear(
    message: MessageFacts,
    facts: Facts,
    context: Mapping[str, Any],
    *,
    level: str,
    total: int,
) -> Hearing:
    """Judge a broadcast for each agent of `facts.audience`.

    `level` and `total` are the sender's level and score. `context` has the field values except
    those of a recipient.
    """
    hearing = Hearing()
    known: dict[_Key, _Judged] = {}
    for one in facts.audience:
        try:
            check_takes(one, level=level, total=total)
            hearers_level = demanded_level(message, one, now=facts.now)
        except ATPError as problem:
            hearing.refuse(_refused(problem))
            continue
        own = recipient_context(one, hearers_level, facts, facts.policy_set.uses)
        key = (one.agent.sensitivity_floor, *own.items())
        judged = known.get(key)
        if judged is None:
            judged = known[key] = _judge(message, facts, context, one, own)
        _note(hearing, judged, one.agent.id)
    return hearing


def _judge(
    message: MessageFacts,
    facts: Facts,
    context: Mapping[str, Any],
    one: RecipientFacts,
    own: Mapping[str, Any],
) -> _Judged:
    floor = one.agent.sensitivity_floor
    sensitivity = policies.effective_sensitivity(context["data.sensitivity"], floor)
    whole = {**context, **own, "data.sensitivity": sensitivity}
    decision = policies.evaluate(
        facts.policy_set, whole, payload=message.payload, throttled=facts.is_over
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
