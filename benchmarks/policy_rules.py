"""Measure how many messages a second one core judges by 100 rules.

Run it with `python -m benchmarks.policy_rules`. The rules are the baseline and others over 16
fields, among them a time zone, a pattern and two payload values. Contexts are made in advance, with
varying senders, sizes, scores, rates and amounts. `first` is a new policy set with empty caches,
`then` the same messages again. `recorded` also records the fields that were read, with hashes of
payload values. The unit is CPU time, so that other programs matter little.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from atp.judging.policy import BASELINE, Decision, PolicySet, compile_policies, evaluate

MESSAGES = 20_000
RULES = 100
BATCH = 256  # messages between two readings of the clock

_SHAPES: tuple[tuple[str, Callable[[int], list[tuple[str, str, Any]]]], ...] = (
    ("deny", lambda n: [("sender.organisation", "equals", f"org-{n}"),
                        ("message.type", "equals", "request"),
                        ("sender.score", "less_than", 40 + n % 40)]),
    ("escalate", lambda n: [("sender.id", "in", [f"agent-{n}", f"agent-{n + 1}"]),
                            ("data.sensitivity", "at_least", "internal")]),
    ("quarantine", lambda n: [("recipient.tags", "contains", f"tag-{n}"),
                              ("sender.level", "less_than", "verified")]),
    ("deny", lambda n: [("time.hour:Europe/Berlin", "between", [18, 6]),
                        ("sender.organisation", "equals", f"org-{n}")]),
    ("log", lambda n: [("message.size", "greater_than", 100_000 + n),
                       ("recipient.organisation", "equals", f"org-{n}")]),
    ("deny", lambda n: [("context.messages_per_minute", "greater_than", 500 + n),
                        ("sender.level", "equals", "unverified")]),
    ("deny", lambda n: [("sender.id", "matches", f"bad-{n}-.*"),
                        ("message.type", "in", ["request", "notification"])]),
    ("notify", lambda n: [("payload:/data/amount", "greater_than", 10_000 + n),
                          ("payload:/data/currency", "equals", "EUR")]),
)  # fmt: skip


def policy_set(rules: int) -> PolicySet:
    """Return the baseline policy with further rules, `rules` in all."""
    made: list[Mapping[str, Any]] = [rule for policy in BASELINE for rule in policy["rules"]]
    for number in range(len(made), rules):
        action, shape = _SHAPES[number % len(_SHAPES)]
        conditions = [{"field": f, "operator": o, "value": v} for f, o, v in shape(number)]
        made.append({"name": f"Rule {number}", "action": action, "conditions": conditions})
    return compile_policies([{"name": "Benchmark", "rules": made[:rules]}])


def message(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the context and payload of message `number`; policies allow most of them."""
    context = {
        "sender.id": f"agent-{1_000 + number % 1_000}",
        "sender.level": "certified",
        "sender.score": 85 + number % 12,
        "sender.organisation": f"org-x{number % 20}",
        "recipient.id": f"agent-{2_000 + number % 1_000}",
        "recipient.level": "verified",
        "recipient.organisation": f"org-y{number % 20}",
        "recipient.tags": ("host",),
        "message.type": "request",
        "message.size": 700 + number * 7 % 2_000,
        "data.sensitivity": ("public", "internal", "confidential")[number % 3],
        "time.now": 1_800_000_000.5 + number // BATCH,
        "chain.lowest_level": "certified",
        "context.messages_per_minute": number % 100,
    }
    payload = {"salt": "s" * 22, "data": {"amount": number % 500, "currency": "EUR"}}
    return context, payload


def rate(policies: PolicySet, *, recorded: bool = False) -> float:
    """Return messages for each second of CPU time."""
    messages = [message(number) for number in range(MESSAGES)]
    started = time.process_time()
    for context, payload in messages:
        decision: Decision = evaluate(policies, context, payload=payload, throttled=_never)
        if recorded:
            _ = decision.consulted
    return MESSAGES / (time.process_time() - started)


def _never(key: str, limit: int, seconds: int) -> bool:
    return False


def main() -> None:
    """Print the rates."""
    policies = policy_set(int(sys.argv[1]) if len(sys.argv) > 1 else RULES)
    print(f"{len(policies.rules)} rules over {len(policies.uses)} fields")
    for name, recorded in (("first", False), ("then", False), ("recorded", True)):
        per_second = rate(policies, recorded=recorded)
        print(f"{name:>9}: {per_second:>9,.0f} a second, {1e6 / per_second:.1f} us each")


if __name__ == "__main__":
    main()
