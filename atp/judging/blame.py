"""Whose doing a denial by a rule is: a sender does not pay for what others caused.

A sender answers for what it wrote: its own declared sensitivity, its own level and score, the
recipient that it chose, how much it sends. It does not answer for what came with the message that
it handles or answers (sensitivity, chain), for the floor of a recipient, for a recipient that
another chose (the requester that is answered, the hearers of a broadcast), or for when and how much
it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atp.judging import policy as policies
from atp.judging.facts import Chain
from atp.judging.policy.document import ParsedRule
from atp.judging.recipients import chain_context
from atp.types import MessageType

__all__ = ["Blame", "blame"]

NOT_CHOSEN: Mapping[str, tuple[str, ...]] = {  # fields that the sender of these has no hand in
    MessageType.RESPONSE: ("recipient.", "context.", "time."),
    MessageType.BROADCAST: ("recipient.",),
}


@dataclass(frozen=True, slots=True)
class Blame:
    """The violation that a denial is: how heavy, and of which rule. Empty where it is none."""

    severity: str = ""
    rule: str = ""


def blame(
    decision: policies.Decision,
    context: Mapping[str, Any],
    payload: object,
    *,
    own_sensitivity: str,
    own_chain: Chain,
) -> Blame:
    """What of a denial is the sender's own doing.

    `context` is what `decision` was made of. The policies are asked once more with what the sender
    alone brought; a rule that denied and denies all the same is what it violated.
    """
    if decision.action != "deny":
        return Blame()
    own = {**context, "data.sensitivity": own_sensitivity, **chain_context(own_chain)}
    policy_set = decision.policy_set
    again = policies.evaluate(policy_set, own, payload=payload, throttled=_never)
    rules = {(rule.policy, rule.name): rule for rule in policy_set.rules}
    for match in again.matched:
        denied = match.action == "deny" and match in decision.matched
        if denied and _chosen(rules[match.policy, match.rule], context):
            return Blame(match.severity, match.rule)
    return Blame()


def _chosen(rule: ParsedRule, context: Mapping[str, Any]) -> bool:
    """Whether the sender has a hand in everything that the rule looks at."""
    others = NOT_CHOSEN.get(context["message.type"], ())
    return not any(c.field.text.startswith(others) for c in rule.conditions)


def _never(rule: str, limit: int, seconds: int) -> bool:
    return False
