"""Compiled policies, and their decisions, as values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from atp.judging.policy.columns import Columns, recordable
from atp.judging.policy.document import ParsedRule
from atp.judging.policy.readers import RE2_VERSION, TIME_ZONE_DATA_VERSION

__all__ = [  # noqa: RUF022  # as sorted() has it
    "Decision",
    "EVALUATOR_VERSION",
    "Match",
    "PolicyOutcome",
    "PolicySet",
]

EVALUATOR_VERSION = 1  # raise it when the same policies and facts could lead to another decision
OUTCOMES_MAX = 4_096  # cached for each set: one for each combination of rules that matched

_CODES: Final = {
    "deny": "policy.denied",
    "quarantine": "policy.held",
    "escalate": "policy.held",
    "throttle": "policy.throttled",
    "allow": "",
}

_VERBS: Final = {
    "deny": "denied by",
    "quarantine": "held for an officer by",
    "escalate": "held for officers by",
    "throttle": "over the limit of",
}


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that matched: all its conditions hold, or are unknown where that counts as a match."""

    policy: str
    rule: str
    action: str
    severity: str


@dataclass(frozen=True, slots=True)
class PolicyOutcome:
    """The result of one combination of matching rules, shared by all messages that match it."""

    action: str
    matched: tuple[Match, ...]
    monitored: tuple[Match, ...]
    policy: str = ""
    rule: str = ""
    severity: str = ""
    code: str = ""
    detail: str = ""
    officers: int = 0
    limits: tuple[ParsedRule, ...] = ()

    def decided_by(self, rule: ParsedRule, action: str) -> PolicyOutcome:
        """Return a copy of this outcome in which `rule` decided on `action`."""
        verb = _VERBS.get(action)
        return replace(
            self,
            action=action,
            policy=rule.policy,
            rule=rule.name,
            severity=rule.severity,
            code=_CODES[action],
            detail=f"{verb} the rule '{rule.name}'" if verb else "",
            officers=rule.officers,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of the policies about one message, with its reason and its inputs.

    `action` is allow, throttle, quarantine, escalate or deny. If no rule matched, `rule` and
    `severity` are empty and `code` is `policy.none`. `waived` is the key of the rule that was not
    counted.
    """

    policy_set: PolicySet = field(repr=False)
    _outcome: PolicyOutcome
    _values: tuple[object, ...] = field(repr=False)
    _payload: object = field(repr=False)
    waived: str = ""

    @property
    def action(self) -> str:
        """The action of the rule that decided, such as `allow` or `deny`."""
        return self._outcome.action

    @property
    def policy(self) -> str:
        """The name of the policy whose rule decided."""
        return self._outcome.policy

    @property
    def rule(self) -> str:
        """The rule that decided; of several, the first by priority."""
        return self._outcome.rule

    @property
    def rule_key(self) -> str:
        """The key of the rule that decided, for `waived` after officers released the message."""
        return f"{self.policy}/{self.rule}" if self.rule else ""

    @property
    def severity(self) -> str:
        """The weight of a denial in the sender's score."""
        return self._outcome.severity

    @property
    def code(self) -> str:
        """The error code for the sender."""
        return self._outcome.code

    @property
    def detail(self) -> str:
        """The reason in words for the sender."""
        return self._outcome.detail

    @property
    def officers(self) -> int:
        """How many officers must release a held message; 0 if it is not held."""
        return self._outcome.officers

    @property
    def counted_by(self) -> tuple[ParsedRule, ...]:
        """The throttle rules that count this message, by priority.

        If one of them is over its limit, that one and those after it do not count the message.
        """
        limits = self._outcome.limits
        if self.action != "throttle":
            return limits
        over = [rule.key for rule in limits].index(self.rule_key)
        return limits[:over]

    @property
    def matched(self) -> tuple[Match, ...]:
        """All enforced rules that matched, by priority, `log` and `notify` included."""
        return self._outcome.matched

    @property
    def monitored(self) -> tuple[Match, ...]:
        """The rules that matched in policies in monitor mode."""
        return self._outcome.monitored

    @property
    def consulted(self) -> dict[str, Any]:
        """Every field that the policies use, with its value, or `None` without one.

        Payload values appear as salted hashes. `evaluate` with this as the context (and with the
        payload, if rules read it) gives the same decision again.
        """
        keys = self.policy_set.columns.keys
        return {
            key.text: recordable(key, value, self._payload)
            for key, value in zip(keys, self._values, strict=True)
        }

    @property
    def record_key(self) -> Hashable | None:
        """A key that is equal for two decisions of one set if their records are equal.

        It is `None` if the record has payload values, because each message salts them differently.
        """
        if self.policy_set.columns.reads_payload:
            return None
        return id(self._outcome), self.waived, self._values

    def to_record(self) -> dict[str, Any]:
        """Return the decision as JSON values, for the trail."""
        return {
            "action": self.action,
            "policy": self.policy,
            "rule": self.rule,
            "severity": self.severity,
            "code": self.code,
            "matched": [_match_record(match) for match in self.matched],
            "monitored": [_match_record(match) for match in self.monitored],
            "waived": self.waived,
            "consulted": self.consulted,
            "policySet": self.policy_set.hash,
            "evaluator": EVALUATOR_VERSION,
            "re2": RE2_VERSION,
            "timeZoneData": TIME_ZONE_DATA_VERSION,
        }


@dataclass(frozen=True, slots=True, eq=False)
class PolicySet:
    """Compiled policies. Threads may share one. `rules` are in order of priority.

    `hash` is the digest of the documents, `uses` the names of the fields that they read, `limits`
    the enforced throttle rules.
    """

    hash: str
    uses: frozenset[str]
    rules: tuple[ParsedRule, ...]
    limits: tuple[ParsedRule, ...]
    columns: Columns = field(repr=False)
    _actions: Mapping[str, int] = field(repr=False)
    _enforced: int = field(repr=False)
    _outcomes: dict[int, PolicyOutcome] = field(repr=False, default_factory=dict)

    def outcome(self, matching: int) -> PolicyOutcome:
        """Return the outcome if the rules of these bits match."""
        known = self._outcomes.get(matching)
        if known is None:
            if len(self._outcomes) >= OUTCOMES_MAX:
                self._outcomes.clear()
            known = self._outcomes[matching] = self._decide(matching)
        return known

    def waive(self, matching: int, key: str) -> int:
        """Return `matching` without the rule `key`, if that rule holds messages for officers."""
        for bit, rule in enumerate(self.rules):
            if rule.key == key and rule.officers:
                return matching & ~(1 << bit)
        return matching

    def _decide(self, matching: int) -> PolicyOutcome:
        enforced = matching & self._enforced
        matched = self._matches(enforced)
        monitored = self._matches(matching & ~self._enforced)
        for action in ("deny", "quarantine", "escalate", "allow"):
            hits = enforced & self._actions[action]
            if hits:
                rule = self._rules_of(hits)[0]
                limits = enforced & self._actions["throttle"] if action == "allow" else 0
                outcome = PolicyOutcome(action, matched, monitored, limits=self._rules_of(limits))
                return outcome.decided_by(rule, action)
        detail = "no rule of the policies in force allows this"
        return PolicyOutcome("deny", matched, monitored, code="policy.none", detail=detail)

    def _rules_of(self, bits: int) -> tuple[ParsedRule, ...]:
        return tuple(rule for bit, rule in enumerate(self.rules) if bits >> bit & 1)

    def _matches(self, bits: int) -> tuple[Match, ...]:
        return tuple(
            Match(rule.policy, rule.name, rule.action, rule.severity)
            for rule in self._rules_of(bits)
        )


def _match_record(match: Match) -> dict[str, str]:
    return {
        "policy": match.policy,
        "rule": match.rule,
        "action": match.action,
        "severity": match.severity,
    }
