"""Policy documents are read strictly, and an error says where and what to do."""

from __future__ import annotations

import pytest

from atp.errors import MalformedDocument
from atp.judging.policy import (
    ACTIONS,
    FIELDS,
    OPERATORS,
    Action,
    Field,
    FieldKind,
    Operator,
    compile_policies,
    operators_for,
)

ALWAYS = {"name": "r", "action": "allow", "always": True}


def policy(*rules, **members):
    return {"name": "p", "rules": list(rules), **members}


def test_it_offers_a_form_all_it_needs():
    entries: list[Field | Operator | Action] = [*FIELDS.values(), *OPERATORS.values()]
    for entry in entries + list(ACTIONS.values()):
        assert entry.label
        assert entry.help_text.endswith(".")
    for field in FIELDS.values():
        assert operators_for(field)
        assert isinstance(field.kind, FieldKind)
    assert set(FIELDS) >= {
        "sender.level", "recipient.id", "message.type", "data.sensitivity", "time.hour",
        "context.messages_per_minute", "chain.lowest_level", "payload",
    }  # fmt: skip


def test_it_names_the_policy_set_by_its_content():
    first, second = policy(ALWAYS), {**policy(ALWAYS), "name": "q"}
    assert compile_policies([first, second]).hash == compile_policies([second, first]).hash
    changed = policy({**ALWAYS, "severity": "high"})
    assert compile_policies([changed, second]).hash != compile_policies([first, second]).hash


def test_it_says_which_fields_it_uses():
    condition = {"field": "payload:/a/b", "operator": "exists"}
    other = {"field": "sender.level", "operator": "equals", "value": "verified"}
    rule = {"name": "r", "action": "deny", "conditions": [condition, other]}
    assert compile_policies([policy(rule)]).uses == {"payload:/a/b", "sender.level"}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("text", "must be an object"),
        ({"rules": []}, "name is missing"),
        ({"name": "p"}, "rules is missing"),
        ({"name": " ", "rules": []}, "name must be a text"),
        (policy(hours=1), "unknown member 'hours'; known are"),
        (policy(mode="off"), "use one of: enforce, monitor"),
        (policy(mandatory=1), "mandatory must be true or false"),
        (policy(mandatory=True, mode="monitor"), "mode must be enforce"),
        (policy(priority=-1), "priority must be a whole number"),
        (policy(priority=True), "priority must be a whole number"),
        ({"name": "p", "rules": {}}, "rules must be a list"),
        (policy("rule"), "must be an object"),
        (policy({"name": "r"}), "action is missing"),
        (policy({"name": "r", "action": "permit", "always": True}), "use one of: deny"),
        (policy({**ALWAYS, "severity": "grave"}), "use one of: low"),
        (policy({"name": "r", "action": "allow"}), "no conditions; add one, or say always"),
        (policy({**ALWAYS, "always": "yes"}), "always must be true or false"),
        (
            policy({**ALWAYS, "conditions": [{"field": "sender.id", "operator": "exists"}]}),
            "remove one or the other",
        ),
        (policy({**ALWAYS, "conditions": "none"}), "conditions must be a list"),
        (
            policy({"name": "r", "action": "deny", "conditions": [1]}),
            "condition 1 must be an object",
        ),
        (policy({"name": "r", "action": "deny", "conditions": [{}]}), "field is missing"),
        (policy({**ALWAYS, "action": "throttle"}), "throttle must be an object"),
        (
            policy({**ALWAYS, "action": "throttle", "throttle": {"limit": 5}}),
            "per_seconds is missing",
        ),
        (
            policy({**ALWAYS, "action": "throttle", "throttle": {"limit": 0, "per_seconds": 1}}),
            "limit must be a whole number from 1",
        ),
        (policy({**ALWAYS, "throttle": {"limit": 1, "per_seconds": 1}}), "only a rule with action"),
        (policy({**ALWAYS, "officers": 2}), "only quarantine and escalate"),
        (
            policy({**ALWAYS, "action": "escalate", "officers": 1}),
            "officers must be a whole number",
        ),
        (policy(ALWAYS, ALWAYS), "two rules are called"),
    ],
)
def test_rejects_a_document_that_breaks_the_schema(document, says):
    with pytest.raises(MalformedDocument) as caught:
        compile_policies([document])
    assert says in caught.value.detail


def denying(**condition):
    """A policy whose second rule has two conditions, the second being the given one."""
    conditions = [{"field": "sender.id", "operator": "exists"}, condition]
    return policy(ALWAYS, {"name": "q", "action": "deny", "conditions": conditions})


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"name": "p"}, "rules"),
        ({"name": " ", "rules": []}, "name"),
        (policy(mandatory=True, mode="monitor"), "mode"),
        (policy(priority=-1), "priority"),
        (policy(ALWAYS, {"name": "q", "action": "permit", "always": True}), "rules.1.action"),
        (policy({"name": "r", "action": "allow"}), "rules.0.conditions"),
        (policy({**ALWAYS, "throttle": {"limit": 1, "per_seconds": 1}}), "rules.0.throttle"),
        (
            policy({**ALWAYS, "action": "throttle", "throttle": {"limit": 0, "per_seconds": 1}}),
            "rules.0.throttle.limit",
        ),
        (denying(field="sender.shoe", operator="exists"), "rules.1.conditions.1.field"),
        (denying(field="time.hour:Mars/One", operator="exists"), "rules.1.conditions.1.field"),
        (denying(field="sender.id", operator="above", value=1), "rules.1.conditions.1.operator"),
        (denying(field="sender.id", operator="matches", value="("), "rules.1.conditions.1.value"),
        (denying(operator="exists"), "rules.1.conditions.1.field"),
        (policy("rule"), "rules.0"),
        (policy(ALWAYS, ALWAYS), "rules.1.name"),
    ],
)
def test_it_names_the_member_at_fault_apart_from_its_words(document, field):
    with pytest.raises(MalformedDocument) as caught:
        compile_policies([policy({**ALWAYS, "name": "s"}, name="sound"), document])
    assert caught.value.field == field


def test_rejects_two_policies_or_rules_that_counters_would_confuse():
    with pytest.raises(MalformedDocument, match="two policies are called"):
        compile_policies([policy(), policy()])
    first = {"name": "a", "rules": [{**ALWAYS, "name": "b/c"}]}
    second = {"name": "a/b", "rules": [{**ALWAYS, "name": "c"}]}
    with pytest.raises(MalformedDocument, match="two rules are called"):
        compile_policies([first, second])


def test_rejects_numbers_that_have_no_canonical_form():
    condition = {"field": "sender.score", "operator": "equals", "value": 2**60}
    rule = {"name": "r", "action": "deny", "conditions": [condition]}
    with pytest.raises(MalformedDocument):
        compile_policies([policy(rule)])


def test_it_keeps_hostile_names_out_of_messages():
    name = "p\x1b[31m\n" + "x" * 100
    with pytest.raises(MalformedDocument) as caught:
        compile_policies([{"name": name, "rules": [{"name": "r", "action": "deny"}]}])
    assert caught.value.detail.isprintable()
