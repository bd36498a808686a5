"""All rules that match take part: the strictest action decides, the first by priority is told."""

from __future__ import annotations

import itertools

import pytest

from atp.judging.policy import compile_policies, evaluate, explain_rules

STRICTEST_FIRST = ("deny", "quarantine", "escalate", "throttle", "allow")
ALICE = {"sender.id": "alice", "sender.score": 80}


def rule(name, action, *conditions, **members):
    if action == "throttle":
        members.setdefault("throttle", {"limit": 10, "per_seconds": 60})
    made = [{"field": f, "operator": o, "value": v} for f, o, v in conditions]
    return {"name": name, "action": action, "conditions": made, "always": not made, **members}


def policies(*rules, **members):
    return compile_policies([{"name": "p", "rules": list(rules), **members}])


def over(key, limit, seconds):
    return True


def under(key, limit, seconds):
    return False


def decide(policy_set, context=ALICE, *, payload=None, throttled=under, waived=""):
    return evaluate(policy_set, context, payload=payload, throttled=throttled, waived=waived)


@pytest.mark.parametrize(
    "documents", [[], [{"name": "p", "rules": []}], [{"name": "p", "mode": "monitor", "rules": []}]]
)
def test_it_denies_when_there_is_nothing(documents):
    decision = decide(compile_policies(documents))
    assert (decision.action, decision.code) == ("deny", "policy.none")
    assert (decision.policy, decision.rule, decision.severity) == ("", "", "")


def test_it_denies_when_nothing_allows():
    decision = decide(policies(rule("l", "log"), rule("n", "notify"), rule("t", "throttle")))
    assert (decision.action, decision.code) == ("deny", "policy.none")
    assert [match.rule for match in decision.matched] == ["l", "n", "t"]


@pytest.mark.parametrize(("strict", "lax"), list(itertools.combinations(STRICTEST_FIRST, 2)))
@pytest.mark.parametrize("strict_priority", [1, 1_000])
def test_it_lets_the_stricter_action_decide_whatever_the_priority(strict, lax, strict_priority):
    rules = [rule("lax", lax), rule("strict", strict, priority=strict_priority)]
    decision = decide(policies(*rules, rule("pass", "allow")), throttled=over)
    assert (decision.action, decision.rule) == (strict, "strict")


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("deny", "policy.denied"),
        ("quarantine", "policy.held"),
        ("escalate", "policy.held"),
        ("throttle", "policy.throttled"),
        ("allow", ""),
    ],
)
def test_it_gives_each_action_its_code(action, code):
    decision = decide(policies(rule("r", action), rule("pass", "allow")), throttled=over)
    assert (decision.action, decision.code) == (action, code)
    assert ("'r'" in decision.detail) is (action != "allow")


def test_it_reports_the_first_by_priority_among_those_that_decided():
    policy_set = compile_policies(
        [
            {"name": "late", "priority": 9, "rules": [rule("a", "deny", severity="high")]},
            {
                "name": "early",
                "priority": 5,
                "rules": [
                    rule("b", "deny", priority=7),
                    rule("c", "deny", priority=3, severity="medium"),
                    rule("d", "log", priority=1),
                ],
            },
        ]
    )
    decision = decide(policy_set)
    assert (decision.policy, decision.rule, decision.severity) == ("early", "c", "medium")
    assert [match.rule for match in decision.matched] == ["d", "c", "b", "a"]


@pytest.mark.parametrize("action", ["deny", "quarantine", "escalate", "throttle", "log", "notify"])
@pytest.mark.parametrize("seen", [{}, {"sender.level": "superb"}, {"sender.level": 3}])
def test_it_takes_unknown_for_a_match_where_that_is_safe(action, seen):
    doubtful = rule("r", action, ("sender.level", "equals", "certified"))
    decision = decide(policies(doubtful, rule("pass", "allow")), seen, throttled=over)
    assert "r" in [match.rule for match in decision.matched]
    assert decision.action == (action if action in STRICTEST_FIRST else "allow")


@pytest.mark.parametrize("seen", [{}, {"sender.level": "superb"}, {"sender.level": 3}])
def test_it_takes_unknown_for_no_match_in_allow(seen):
    doubtful = rule("r", "allow", ("sender.level", "not_equals", "sandboxed"))
    decision = decide(policies(doubtful), seen)
    assert decision.code == "policy.none"


def test_it_needs_all_conditions_so_one_that_is_false_outweighs_an_unknown_one():
    denies = rule(
        "r", "deny", ("sender.level", "equals", "verified"), ("sender.score", "less_than", 50)
    )
    decision = decide(policies(denies, rule("pass", "allow")), {"sender.score": 80})
    assert decision.action == "allow"


def test_it_judges_several_conditions_on_one_field_together():
    window = rule("r", "allow", ("sender.score", "at_least", 40), ("sender.score", "at_most", 60))
    outcomes = [decide(policies(window), {"sender.score": n}).action for n in (39, 40, 60, 61)]
    assert outcomes == ["deny", "allow", "allow", "deny"]


def test_it_throttles_only_what_would_pass():
    asked = []

    def ask(key, limit, seconds):
        asked.append((key, limit, seconds))
        return True

    slow = rule("slow", "throttle", throttle={"limit": 5, "per_seconds": 60})
    assert decide(policies(slow), throttled=ask).code == "policy.none"
    assert decide(policies(slow, rule("no", "deny")), throttled=ask).rule == "no"
    assert asked == []
    assert decide(policies(slow, rule("yes", "allow")), throttled=ask).rule == "slow"
    assert asked == [("p/slow", 5, 60)]
    assert decide(policies(slow, rule("yes", "allow"))).rule == "yes"


def test_it_asks_about_limits_that_apply_and_by_priority():
    asked = []

    def ask(key, limit, seconds):
        asked.append(key)
        return key == "p/second"

    policy_set = policies(
        rule("third", "throttle", priority=3),
        rule("second", "throttle", priority=2),
        rule("first", "throttle", priority=1),
        rule("others", "throttle", ("sender.id", "equals", "bob")),
        rule("yes", "allow"),
    )
    assert decide(policy_set, throttled=ask).rule == "second"
    assert asked == ["p/first", "p/second"]


def test_it_does_not_let_a_mandatory_denial_be_overruled():
    policy_set = compile_policies(
        [
            {"name": "local", "priority": 0, "rules": [rule("yes", "allow", priority=0)]},
            {
                "name": "operator",
                "mandatory": True,
                "priority": 999,
                "rules": [rule("no", "deny"), rule("wait", "quarantine")],
            },
            {"name": "also", "priority": 0, "rules": [rule("no too", "deny", priority=0)]},
        ]
    )
    decision = decide(policy_set)
    assert (decision.action, decision.policy, decision.rule) == ("deny", "operator", "no")
    assert decide(policy_set, waived="operator/no").rule == "no"


def test_it_watches_monitored_policies_without_letting_them_decide():
    watched = [
        rule("no", "deny"),
        rule("yes", "allow"),
        rule("bob", "deny", ("sender.id", "equals", "bob")),
    ]
    documents = [{"name": "watched", "mode": "monitor", "rules": watched}]
    decision = decide(compile_policies(documents), throttled=over)
    assert decision.code == "policy.none"
    assert [match.rule for match in decision.monitored] == ["no", "yes"]
    documents.append({"name": "enforced", "rules": [rule("pass", "allow")]})
    decision = decide(compile_policies(documents))
    assert (decision.action, [m.rule for m in decision.matched]) == ("allow", ["pass"])


@pytest.mark.parametrize("action", ["quarantine", "escalate"])
def test_it_waives_only_the_rule_that_officers_released(action):
    policy_set = policies(
        rule("held", action), rule("other", "quarantine", ("sender.id", "equals", "bob")),
        rule("no", "deny", ("sender.id", "equals", "mallory")), rule("yes", "allow"),
    )  # fmt: skip
    held = decide(policy_set)
    assert (held.code, held.rule_key) == ("policy.held", "p/held")
    assert held.officers == (1 if action == "quarantine" else 2)
    released = decide(policy_set, waived=held.rule_key)
    assert (released.action, released.waived) == ("allow", "p/held")
    assert decide(policy_set, {"sender.id": "bob"}, waived="p/held").rule == "other"
    assert decide(policy_set, {"sender.id": "mallory"}, waived="p/no").rule == "no"
    assert decide(policy_set, waived="p/unknown").rule == "held"


def test_it_counts_the_officers_that_a_rule_asks_for():
    decision = decide(policies(rule("held", "escalate", officers=3)))
    assert decision.officers == 3
    assert decide(policies(rule("no", "deny"))).officers == 0


def test_it_explains_rule_by_rule_and_condition_by_condition():
    policy_set = policies(
        rule("no", "deny", ("sender.score", "less_than", 70), ("sender.level", "exists", True)),
        rule("yes", "allow", ("recipient.level", "at_least", "verified"),
             ("payload:/data/amount", "between", [1, 5])),
        rule("every", "log"),
    )  # fmt: skip
    no, yes, every = explain_rules(policy_set, ALICE, {"data": {"amount": 3}})
    assert (no.matches, yes.matches, every.matches) == (False, False, True)
    assert [condition.result for condition in no.conditions] == [False, False]
    assert [condition.result for condition in yes.conditions] == [None, True]
    assert no.conditions[0].text == "sender.score is below 70"
    assert no.conditions[0].seen == 80
    assert yes.conditions[1].text == "payload:/data/amount is between 1 and 5"
    assert yes.conditions[1].seen is None
